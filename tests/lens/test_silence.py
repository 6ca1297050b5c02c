"""What is not recorded is said, whatever a class is called or a function is got hold of by."""

import threading
import types
import warnings

import pytest
import torch
from torch import nn

import pellucid

BATCH, HEADS, TOKENS, DIM = 2, 3, 7, 11
SCALE = DIM**-0.5
NEAR = {"atol": 2e-6, "rtol": 1e-4}
sdpa = nn.functional.scaled_dot_product_attention
HELD = {"matmul": torch.matmul, "bmm": torch.bmm, "softmax": torch.softmax, "einsum": torch.einsum}

helper = types.ModuleType("helper")  # a file that defines no module of the model
helper.sdpa, helper.matmul = sdpa, torch.matmul
exec("def attend(q, k, v): return sdpa(q, k, v)", helper.__dict__)


def draw(*shape, seed=3):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = draw(BATCH, HEADS, TOKENS, DIM)


def project(x):
    """Query, key and value, without a layer."""
    return x, x.flip(-1), x.flip(-2)


def truth(x=X):
    q, k, _ = (part.double() for part in project(x))
    return (q @ k.mT * SCALE).softmax(-1)


def watched(model, *args):
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(*args or (X,))
    return seen


def assert_seen_or_said(seen, expected=None):
    """All of it is recorded and right, or else a reason is given."""
    assert seen.names or seen.unseen, "silence"
    expected = truth() if expected is None else expected
    for record in seen.records:
        actual = record.weights.dense().double().reshape(expected.shape)
        torch.testing.assert_close(actual, expected, **NEAR)
    for reason in seen.unseen.values():
        assert len(reason) > len("unknown")
    assert not set(seen.names) & set(seen.unseen)


# The function of torch, held where no name is looked up.


class OnSelf(nn.Module):
    def __init__(self):
        super().__init__()
        self.call = sdpa

    def forward(self, x):
        return self.call(*project(x))


class Default(nn.Module):
    def forward(self, x, call=sdpa):
        return call(*project(x))


class OnTheClass(nn.Module):
    call = staticmethod(sdpa)

    def forward(self, x):
        return self.call(*project(x))


class InADict(nn.Module):
    calls = {"sdpa": sdpa}  # noqa: RUF012

    def forward(self, x):
        return self.calls["sdpa"](*project(x))


class InAHelper(nn.Module):
    def forward(self, x):
        return helper.attend(*project(x))


class Closed(nn.Module):
    def __init__(self):
        super().__init__()
        call = sdpa
        self.attend = lambda x: call(*project(x))

    def forward(self, x):
        return self.attend(x)


class Operator(nn.Module):
    def forward(self, x):
        return torch.ops.aten.scaled_dot_product_attention(*project(x))


class Native(nn.Module):
    def forward(self, x):
        return torch._C._nn.scaled_dot_product_attention(*project(x))


class Partial(nn.Module):
    def __init__(self):
        super().__init__()
        from functools import partial

        self.call = partial(sdpa, is_causal=False)

    def forward(self, x):
        return self.call(*project(x))


HOLDERS = (OnSelf, Default, OnTheClass, InADict, InAHelper, Closed, Operator, Native, Partial)


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_fused_function_is_heard_wherever_it_is_held(holder):
    seen = watched(holder())
    assert (seen.names, seen.unseen) == ([""], {})
    torch.testing.assert_close(seen[""].dense().double(), truth(), **NEAR)


@pytest.mark.parametrize("holder", HOLDERS)
def test_it_is_named_by_the_module_that_calls_it(holder):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(holder() for _ in range(2))

        def forward(self, x):
            for block in self.blocks:
                x = x + block(x)
            return x

    assert watched(Outer()).names == ["blocks.0", "blocks.1"]


# Code that is no Python any more.


class Plain(nn.Module):
    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(x, x.flip(-1), x.flip(-2))


class ByHand(nn.Module):
    def forward(self, x):
        weights = torch.softmax(torch.matmul(x, x.flip(-1).mT) * 11**-0.5, dim=-1)
        return torch.matmul(weights, x.flip(-2))


def scripted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)


def traced(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, X)


MADE = {
    "scripted": scripted,
    "traced": traced,
    "fx": torch.fx.symbolic_trace,
    "exported": lambda model: torch.export.export(model, (X,)).module(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("inner", [Plain, ByHand])
@pytest.mark.parametrize("way", MADE)
def test_code_that_was_made_of_a_model(way, inner):
    model = MADE[way](inner().eval())
    assert_seen_or_said(watched(model))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("inner", [Plain, ByHand])
@pytest.mark.parametrize("way", MADE)
def test_a_part_that_was_made_of_a_module(way, inner):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.part = Plain(), MADE[way](inner().eval())

        def forward(self, x):
            return self.part(self.first(x))

    model = Outer()
    seen = watched(model)
    assert "first" in seen
    said = [name for name in (*seen.names, *seen.unseen) if not name.startswith("first")]
    assert said, "silence"
    if len(seen.names) == 2:
        with torch.no_grad():
            expected = truth(Plain()(X))
        torch.testing.assert_close(seen[said[0]].dense().double(), expected, **NEAR)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_scripted_layer_of_torch_raises_nothing(loaded):
    if loaded:
        import torch._dynamo  # noqa: F401  as transformers loads it
    layer = nn.TransformerEncoderLayer(18, 2, 23, batch_first=True).eval()
    model = nn.Sequential(scripted(layer))
    seen = watched(model, draw(BATCH, TOKENS, 18))
    assert seen.names or seen.unseen


# By hand, in classes that are not called attention.


@pytest.mark.parametrize("name", ["MHSA", "Mixer", "Block", "MgpstrA3Module", "XCA"])
def test_classes_without_attention_in_their_names(name):
    kind = type(name, (ByHand,), {})
    seen = watched(nn.Sequential(kind()))
    assert (seen.names, seen.unseen) == (["0"], {})
    torch.testing.assert_close(seen["0"].dense().double(), truth(), **NEAR)


def test_a_softmax_straight_in_the_model():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

        def forward(self, x):
            weights = (self.q(x) @ self.k(x).mT).softmax(-1)
            return weights @ x

    model = Net()
    with torch.no_grad():
        expected = (model.q(X) @ model.k(X).mT).softmax(-1).double()
    assert_seen_or_said(watched(model), expected)


@pytest.mark.parametrize("what", ["both products", "first", "second", "softmax"])
def test_products_that_are_held_where_no_name_is_looked_up(what):
    """They are said at least: a softmax of which no product was seen."""

    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            held, found = HELD["matmul"], lambda a, b: a @ b
            self.first = held if what in ("both products", "first") else found
            self.second = held if what in ("both products", "second") else found
            self.soft = HELD["softmax"] if what == "softmax" else nn.functional.softmax

        def forward(self, x):
            q, k, v = project(x)
            weights = self.soft(self.first(q, k.mT) * SCALE, dim=-1)
            return self.second(weights, v)

    assert_seen_or_said(watched(Holding()))


@pytest.mark.parametrize("width", [DIM, TOKENS])
def test_products_that_are_held_beside_parameters_of_any_width(width):
    """As many keys as some layer has outputs: no reason to be silent."""

    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.product, self.layer = HELD["matmul"], nn.Linear(DIM, width)

        def forward(self, x):
            q, k, v = project(x)
            return self.layer(self.product((self.product(q, k.mT) * SCALE).softmax(-1), v))

    assert_seen_or_said(watched(Holding()))


PRODUCTS = {
    "mul and sum": (
        lambda q, k: (q[..., :, None, :] * k[..., None, :, :]).sum(-1),
        lambda w, v: (w.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2),
    ),
    "tensordot": (
        lambda q, k: torch.tensordot(q, k, dims=([1], [1])),
        lambda w, v: torch.tensordot(w, v, dims=([1], [0])),
    ),
    "matmul by keyword": (
        lambda q, k: torch.matmul(input=q, other=k.T),
        lambda w, v: torch.matmul(input=w, other=v),
    ),
    "mm": (lambda q, k: torch.mm(q, k.T), lambda w, v: torch.mm(w, v)),
    "Tensor.mm": (lambda q, k: q.mm(k.T), lambda w, v: w.mm(v)),
    "addmm": (
        lambda q, k: torch.addmm(torch.zeros(1), q, k.T),
        lambda w, v: torch.addmm(torch.zeros(1), w, v),
    ),
    "inner": (lambda q, k: torch.inner(q, k), lambda w, v: torch.inner(w, v.T)),
    "linear": (
        lambda q, k: nn.functional.linear(q, k),
        lambda w, v: nn.functional.linear(w, v.T),
    ),
    "operator": (
        lambda q, k: torch.ops.aten.mm(q, k.T),
        lambda w, v: torch.ops.aten.mm(w, v),
    ),
    "the other way": (lambda q, k: k.T.__rmatmul__(q), lambda w, v: v.__rmatmul__(w)),
    "chain": (lambda q, k: torch.chain_matmul(q, k.T), lambda w, v: torch.linalg.matmul(w, v)),
    "multi_dot": (
        lambda q, k: torch.linalg.multi_dot([q, k.T]),
        lambda w, v: torch.linalg.multi_dot([w, v]),
    ),
}


@pytest.mark.filterwarnings("ignore:torch.chain_matmul")
@pytest.mark.parametrize("named", ["Attention", "Mixer"])
@pytest.mark.parametrize("way", PRODUCTS)
def test_products_by_other_functions(way, named):
    """One head and no batch, as first programs do it."""
    scores, combine = PRODUCTS[way]

    def forward(self, x):
        q, k, v = project(x)
        return combine((scores(q, k) * SCALE).softmax(-1), v)

    model = type(named, (nn.Module,), {"forward": forward})()
    assert_seen_or_said(watched(model, X[0, 0]), truth(X[0, 0]))


@pytest.mark.parametrize("way", ["mul and sum"])
def test_products_by_broadcasting_with_heads(way):
    scores, combine = PRODUCTS[way]

    class Mixer(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            return combine((scores(q, k) * SCALE).softmax(-1), v)

    assert_seen_or_said(watched(Mixer()))


SUMS = {
    "exp over sum": lambda s: s.exp() / s.exp().sum(-1, keepdim=True),
    "log_softmax": lambda s: s.log_softmax(-1).exp(),
    "logsumexp": lambda s: (s - s.logsumexp(-1, keepdim=True)).exp(),
    "normalize": lambda s: nn.functional.normalize(s.exp(), p=1, dim=-1),
    "sigmoid": lambda s: s.sigmoid(),
    "softmin": lambda s: nn.functional.softmin(-s, dim=-1),
    "gumbel": lambda s: nn.functional.gumbel_softmax(s, dim=-1),
    "masked": lambda s: torch.sparse.softmax(s.to_sparse(), -1).to_dense(),
}


@pytest.mark.parametrize("way", SUMS)
def test_softmaxes_that_are_none_in_a_class_that_is_called_attention(way):
    class SelfAttention(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            return SUMS[way](q @ k.mT * SCALE) @ v

    seen = watched(nn.Sequential(SelfAttention()))
    assert "0" in seen or "0" in seen.unseen
    if way not in ("sigmoid", "gumbel"):
        for record in seen.records:
            torch.testing.assert_close(record.weights.dense().double(), truth(), **NEAR)


OUT = {
    "a buffer": lambda s: torch.softmax(s, -1, out=torch.empty_like(s)),
    "its own input": lambda s: torch.softmax(s, -1, out=s),
    "an operator": lambda s: torch.ops.aten._softmax.out(s, -1, False, out=torch.empty_like(s)),
}


@pytest.mark.parametrize("way", OUT)
def test_a_softmax_that_is_written_into_memory_that_is_there(way):
    class Mixer(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            return OUT[way](q @ k.mT * SCALE) @ v

    assert_seen_or_said(watched(Mixer()))


def test_products_that_are_written_into_memory_that_is_there():
    """As inference engines do."""

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = torch.empty(BATCH * HEADS, TOKENS, TOKENS)
            self.context = torch.empty(BATCH * HEADS, TOKENS, DIM)

        def forward(self, x):
            q, k, v = (part.flatten(0, 1) for part in project(x))
            torch.bmm(q * SCALE, k.mT, out=self.scores)
            return torch.bmm(self.scores.softmax(-1), v, out=self.context)

    assert_seen_or_said(watched(Mixer()))


# Kernels, and what has no weights at all.


def test_a_kernel_that_is_called_directly():
    class Kernel(nn.Module):
        def forward(self, x):
            kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            return kernel(*project(x))[0]

    seen = watched(nn.Sequential(Kernel()))
    assert list(seen.unseen) == ["0"]
    assert "kernel" in seen.unseen["0"]
    assert "flash_attention" in seen.unseen["0"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_said():
    class Nested(nn.Module):
        def forward(self, x):
            rows = [x[0].transpose(0, 1), x[1, :, :5].transpose(0, 1)]
            q = torch.nested.nested_tensor(rows, layout=torch.jagged).transpose(1, 2)
            return sdpa(q, q, q)

    seen = watched(Nested())
    assert seen.names == []
    assert "nested" in seen.unseen[""]


def test_flex_attention_that_is_called_directly():
    from torch.nn.attention.flex_attention import flex_attention

    class Flex(nn.Module):
        def forward(self, x):
            return flex_attention(*project(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = watched(Flex())
    assert_seen_or_said(seen)


def test_linear_attention_is_said_by_its_name():
    """No n x n weights exist."""

    class LinearAttention(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            q, k = nn.functional.elu(q) + 1, nn.functional.elu(k) + 1
            return (q @ (k.mT @ v)) / (q @ k.sum(-2).unsqueeze(-1))

    seen = watched(nn.Sequential(LinearAttention()))
    assert (seen.names, list(seen.unseen)) == ([], ["0"])


def test_efficient_attention_over_features_and_tokens():
    """Two softmaxes and no n x n weights (Shen et al.): recorded as nothing that it is not."""

    class Efficient(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            return q.softmax(-1) @ (k.softmax(-2).mT @ v)

    seen = watched(Efficient())
    assert seen.names or seen.unseen
    for record in seen.records:  # keys' softmax is weights of tokens; the other has DIM columns
        assert record.shape[-2:] in ((DIM, TOKENS), (TOKENS, DIM))


def test_attention_over_channels():
    """XCA: d x d weights between features, as the model made them."""

    class XCA(nn.Module):
        def __init__(self):
            super().__init__()
            self.truth = None

        def forward(self, x):
            q, k, v = (part.mT for part in project(x))
            q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
            self.truth = (q @ k.mT * 3).softmax(-1)
            return (self.truth @ v).mT

    model = XCA()
    seen = watched(model)
    assert (seen.names, seen.unseen) == ([""], {})
    torch.testing.assert_close(seen[""].dense(), model.truth, **NEAR)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jvp, watched or not
@pytest.mark.parametrize("transform", ["vmap", "grad", "grad of parameters", "jvp"])
def test_a_transform_of_torch_func_is_said(transform):
    """No tensor of the model is at hand inside; that it attends can be told all the same."""
    model = nn.Sequential(nn.Linear(X.shape[-1], X.shape[-1]), ByHand())
    with pellucid.watch(model) as seen:
        if transform == "vmap":
            torch.func.vmap(model)(X)
        elif transform == "grad":
            torch.func.grad(lambda x: model(x).sum())(X)
        elif transform == "grad of parameters":
            parameters = dict(model.named_parameters())
            call = torch.func.functional_call
            torch.func.grad(lambda own: call(model, own, (X,)).sum())(parameters)
        else:
            torch.func.jvp(model, (X,), (X,))
    assert_seen_or_said(seen)


def test_a_subclass_of_tensor_is_seen_or_said():
    class Marked(torch.Tensor):
        pass

    assert_seen_or_said(watched(ByHand(), X.as_subclass(Marked)))


def test_what_was_left_out_by_layers_is_not_called_unseen():
    model = nn.Sequential(Plain(), ByHand())
    with torch.no_grad(), pellucid.watch(model, layers=[1]) as seen:
        model(X)
    assert (seen.names, seen.unseen) == (["1"], {})


def test_a_reason_is_lifted_when_a_later_call_is_seen():
    """A softmax that met no values in one pass, and did in the next."""

    class Maybe(nn.Module):
        def forward(self, x, use):
            q, k, v = project(x)
            weights = (q @ k.mT * SCALE).softmax(-1)
            return weights @ v if use else weights

    model = Maybe()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(X, False)
        model(X, True)
    assert len(seen.records) == 1
    assert list(seen.unseen) in ([], [""])  # one of two calls is unseen, and may be said
    torch.testing.assert_close(seen[""].dense().double(), truth(), **NEAR)


# Softmaxes that are put together of exponentials.

EXPONENTIALS = {
    "exp_": lambda s, v: (s.exp_(), s / s.sum(-1, keepdim=True))[1] @ v,
    "exp2": lambda s, v: ((e := (s / LN2).exp2()) / e.sum(-1, keepdim=True)) @ v,
    "exp2_": lambda s, v: ((e := (s / LN2).exp2_()) / e.sum(-1, keepdim=True)) @ v,
    "expm1": lambda s, v: ((e := s.expm1() + 1) / e.sum(-1, keepdim=True)) @ v,
    "a power": lambda s, v: ((e := 2 ** (s / LN2)) / e.sum(-1, keepdim=True)) @ v,
    "out": lambda s, v: ((e := torch.exp(s, out=torch.empty(0))) / e.sum(-1, keepdim=True)) @ v,
    "einsum": lambda s, v: torch.einsum(
        "bhqk,bhkd->bhqd", (e := s.exp()) / e.sum(-1, keepdim=True), v
    ),
}
LN2 = torch.tensor(2.0).log()


@pytest.mark.parametrize("way", EXPONENTIALS)
def test_a_softmax_of_exponentials_is_recorded(way):
    class Exponential(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            return EXPONENTIALS[way](q @ k.mT * SCALE, v)

    seen = watched(Exponential())
    assert (seen.names, seen.unseen) == ([""], {})
    torch.testing.assert_close(seen[""].dense().double(), truth(), **NEAR)


def one_more(scores, v):
    """As if there were another key, whose score is 0 and whose value is 0."""
    e = scores.exp()
    return (e / (1 + e.sum(-1, keepdim=True))) @ v


def divided_later(scores, v):
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return (e @ v) / e.sum(-1, keepdim=True)


def peaked(scores, v):
    """The first row alone happens to sum to one."""
    scores = scores.clone()
    scores[..., 0, 1:] = -torch.inf
    return divided_later(scores, v)


@pytest.mark.parametrize("way", [one_more, divided_later, peaked])
def test_exponentials_that_sum_to_something_else_are_said(way):
    class Exponential(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            return way(q @ k.mT * SCALE, v)

    seen = watched(Exponential())
    assert (seen.names, list(seen.unseen)) == ([], [""])
    assert "exponentials" in seen.unseen[""]


def test_a_softmax_block_by_block_is_said():
    """Flash attention, in Python."""

    class Blocks(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            top = torch.full_like(q[..., :1], -torch.inf)
            total, context = torch.zeros_like(top), torch.zeros_like(v)
            for key, value in zip(k.split(3, 2), v.split(3, 2), strict=True):
                scores = q @ key.mT * SCALE
                new = torch.maximum(top, scores.amax(-1, keepdim=True))
                rows, before = (scores - new).exp(), (top - new).exp()
                total = total * before + rows.sum(-1, keepdim=True)
                context, top = context * before + rows @ value, new
            return context / total

    model = Blocks()
    seen = watched(model)
    torch.testing.assert_close(model(X).double(), truth() @ project(X)[2].double(), **NEAR)
    assert (seen.names, list(seen.unseen)) == ([], [""])


def test_a_softmax_that_waits_on_a_thread_that_is_over_is_said():
    class Late(nn.Module):
        def forward(self, x):
            q, k, v = project(x)
            weights = torch.softmax(q @ k.mT * SCALE, -1)
            return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)

    with torch.no_grad(), pellucid.watch(model := Late()) as seen:
        thread = threading.Thread(target=model, args=(X,))
        thread.start()
        thread.join()
    assert (seen.names, list(seen.unseen)) == ([], [""])


# Weights that a projection gives, without query and key.


class Tutorial(nn.Module):
    """The decoder of PyTorch's tutorial on translation: one weight for each place of the input."""

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(2 * DIM, TOKENS)

    def forward(self, embedded, hidden, outputs):
        weights = self.score(torch.cat([embedded[0], hidden[0]], 1)).softmax(1)
        return torch.bmm(weights.unsqueeze(0), outputs.unsqueeze(0))


class Synthesizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(DIM, TOKENS)

    def forward(self, x):
        return self.score(x).softmax(-1) @ x.flip(-1)


def test_weights_that_a_projection_gives_are_said():
    for model, shapes in (
        (Tutorial(), [(1, 1, DIM), (1, 1, DIM), (TOKENS, DIM)]),
        (Synthesizer(), [(BATCH, HEADS, TOKENS, DIM)]),
    ):
        seen = watched(model, *(draw(*shape) for shape in shapes))
        assert (seen.names, list(seen.unseen)) == ([], [""])
        assert "a projection gives" in seen.unseen[""]


def test_weights_that_are_parameters_are_recorded_for_each_head():
    """The random synthesizer: the same weights for every item."""

    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = nn.Parameter(draw(HEADS, TOKENS, TOKENS))

        def forward(self, x):
            return self.scores.softmax(-1) @ x

    seen = watched(model := Random())
    assert (seen.names, seen.unseen) == ([""], {})
    torch.testing.assert_close(seen[""].dense()[0], model.scores.softmax(-1).detach(), **NEAR)


class Dequantised(nn.Module):
    """A router whose weight is kept in eight bits and worked out for each call."""

    def __init__(self, way):
        super().__init__()
        self.way, self.outputs = way, nn.Parameter(draw(5, DIM, 13))
        self.register_buffer("whole", torch.arange(5 * DIM).view(5, DIM).remainder(17) - 8)
        self.register_buffer("step", torch.linspace(0.1, 0.2, 5)[:, None])

    def forward(self, x):
        x = x.flatten(0, -2) if self.way.startswith("flat") else x
        gates = nn.functional.linear(x, self.whole * self.step).softmax(-1)
        outputs = torch.einsum("...d,edf->...ef", x, self.outputs)
        if self.way == "flat, sum":
            return (gates.unsqueeze(-1) * outputs).sum(-2)
        return gates.unsqueeze(-2) @ outputs


@pytest.mark.parametrize("way", ["flat, sum", "flat, product", "product"])
def test_a_router_whose_weight_is_dequantised_is_no_attention(way):
    seen = watched(Dequantised(way), draw(BATCH, TOKENS, DIM))
    assert (seen.names, seen.unseen) == ([], {})


def test_odds_of_classes_times_what_is_known_of_each_are_no_attention():
    class Centres(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Conv1d(DIM, 17, 1)
            self.register_buffer("centres", draw(17, 13))

        def forward(self, x):
            return self.score(x.mT).mT.softmax(-1) @ self.centres

    seen = watched(Centres(), draw(BATCH, TOKENS, DIM))
    assert (seen.names, seen.unseen) == ([], {})

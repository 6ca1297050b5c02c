"""Models written in ways that nobody foresaw: seen as they compute, or said, and never harmed."""

import contextvars
import functools
import gc
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import pellucid

BATCH, HEADS, N, DIM, LONG = 2, 3, 7, 11, 61
WIDTH = HEADS * DIM
SCALE = DIM**-0.5
NEAR = {"atol": 2e-6, "rtol": 1e-4}


def draw(*shapes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(shape, generator=generator) for shape in shapes]


def parts(n=N, batch=BATCH):
    """Query, key and value."""
    return draw(*[(batch, HEADS, n, DIM)] * 3)


class Model(nn.Module):
    """Whatever a function computes; what it gives second is the truth."""

    def __init__(self, compute, **attributes):
        super().__init__()
        self.compute, self.truth = compute, None
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args):
        output, self.truth = self.compute(*args)
        return output


def watched(model, *args, **options):
    with torch.no_grad(), pellucid.watch(model, **options) as seen:
        model(*args)
    return seen


def assert_seen(seen, truth, name=""):
    """All that was recorded of a module is the truth, and nothing is called unseen."""
    assert seen.unseen == {}
    (record,) = (record for record in seen.records if record.name == name)
    assert tuple(record.shape) == tuple(truth.shape)
    torch.testing.assert_close(record.weights.dense(), truth, **NEAR)


# Random numbers are the model's.


@pytest.mark.parametrize("audit", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_dropout_drops_what_it_drops_without_a_watch(audit, grad):
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return F.dropout(weights, 0.3, True) @ v, weights

    def run():
        return model(*given), torch.rand(5)

    model, given = Model(attend), parts()
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(grad):
        torch.manual_seed(17)
        plain = run()
        torch.manual_seed(17)
        with pellucid.watch(model, audit=audit):
            again = run()
    assert all(map(torch.equal, plain, again))


# Edits of one weight or score among thousands.

HEAD, ROW, COLUMN, OTHER = 1, 53, 2, 13


def knock_out(weights):
    weights[:, HEAD, ROW, COLUMN] = 0
    return weights


def push_apart(scores):
    """Two scores of a row move, and their sum stays."""
    scores[:, HEAD, ROW, COLUMN] += 0.7
    scores[:, HEAD, ROW, OTHER] -= 0.7
    return scores


EDITS = {
    "weights in place": lambda scores: knock_out(scores.softmax(-1)),
    "a copy of weights": lambda scores: knock_out(scores.softmax(-1).clone()),
    "two scores": lambda scores: push_apart(scores).softmax(-1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", EDITS)
def test_an_edit_in_place_of_a_single_row_is_recorded(what, seed):
    def attend(q, k, v):
        weights = EDITS[what](q @ k.mT * SCALE)
        return weights @ v, weights

    given = draw(*[(1, HEADS, LONG, DIM)] * 3, seed=seed)
    assert_seen(watched(model := Model(attend), *given), model.truth)


def test_weights_that_an_edit_makes_negative_are_refused():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        weights.sub_(0.2)
        return weights @ v, weights

    seen = watched(Model(attend), *parts())
    assert seen.names == []
    assert "negative" in seen.unseen[""]


TOKENS = torch.randint(0, 43, (1, LONG), generator=torch.Generator().manual_seed(5))


def llama(attention="eager"):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=39,
        intermediate_size=41,
        num_hidden_layers=2,
        vocab_size=43,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=14,  # even, for its rotation
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return transformers.LlamaModel._from_config(config, attn_implementation=attention).eval()


LAYER = "layers.1.self_attn"


@pytest.mark.parametrize("what", EDITS)
def test_a_forward_of_a_shipped_layer_that_the_user_replaces(what):
    truths = {}

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, **_):
        q, k, v = (
            project(hidden_states).unflatten(-1, (-1, 14)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = EDITS[what](q @ k.mT * self.scaling + attention_mask)
        truths[self.layer_idx] = weights
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2)), None

    model = llama()
    for layer in model.layers:
        layer.self_attn.forward = types.MethodType(forward, layer.self_attn)
    assert_seen(watched(model, TOKENS), truths[1], LAYER)


@pytest.mark.parametrize("what", EDITS)
def test_an_attention_function_that_takes_the_name_of_a_shipped_one(what, monkeypatch):
    pytest.importorskip("transformers")
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface
    from transformers.models.llama.modeling_llama import eager_attention_forward

    truths = {}

    @functools.wraps(eager_attention_forward)
    def mine(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
        weights = EDITS[what](query @ key.mT * scaling + attention_mask)
        truths[module.layer_idx] = weights.clone()
        return (weights @ value).transpose(1, 2).contiguous(), weights

    monkeypatch.setitem(AttentionInterface._global_mapping, "in disguise", mine)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "in disguise", eager_mask)
    assert_seen(watched(llama("in disguise"), TOKENS), truths[1], LAYER)


@pytest.mark.parametrize("family", ["GPT-Neo", "BLOOM"])
def test_a_hook_on_a_shipped_dropout_that_changes_weights(family):
    transformers, truths = pytest.importorskip("transformers"), []
    sizes = {"hidden_size": WIDTH, "vocab_size": 43, "bos_token_id": 1, "eos_token_id": 2}
    if family == "BLOOM":
        config = transformers.BloomConfig(n_layer=2, n_head=HEADS, **sizes)
        model = transformers.BloomModel(config).eval()
        name, dropout = "h.1.self_attention", model.h[1].self_attention.attention_dropout
    else:
        config = transformers.GPTNeoConfig(
            num_layers=2, num_heads=HEADS, attention_types=[[["global"], 2]], **sizes
        )
        model = transformers.GPTNeoModel._from_config(config, attn_implementation="eager").eval()
        name, dropout = "h.1.attn.attention", model.h[1].attn.attention.attn_dropout

    def hook(_module, _args, weights):
        truths.append(knock_out(weights.clone()))
        return truths[-1]

    dropout.register_forward_hook(hook)
    assert_seen(watched(model, TOKENS), truths[0], name)


@pytest.mark.parametrize("way", ["in place, in inference mode", "through .data"])
def test_keys_of_a_cache_that_are_edited_late_where_nothing_counts(way):
    model = llama("sdpa")
    cache = pytest.importorskip("transformers").DynamicCache()
    mode = torch.no_grad if way == "through .data" else torch.inference_mode
    with mode(), pellucid.watch(model) as seen:
        model(TOKENS[:, :5], past_key_values=cache)
        for step in range(23):
            if step == 19:
                keys = cache.layers[1].keys
                (keys.data if way == "through .data" else keys)[:, :, 2] = 0
            model(TOKENS[:, 5 + step : 6 + step], past_key_values=cache)
    assert "written over" in seen.unseen[LAYER]
    assert "layers.0.self_attn" not in seen.unseen


# Numbers that hide.

PROOFS = {"some rows": {}, "every row": {"proof": "every row"}}


@pytest.mark.parametrize("proof", ["some rows", "every row"])
@pytest.mark.parametrize("number", [-1e9, -1e30])
def test_rows_of_which_every_key_is_hidden_by_a_finite_number(number, proof):
    """Padded on the left, and causal: the first rows are uniform."""
    shown = torch.ones(N, N).tril().bool()
    shown[:, :3] = False
    mask = torch.zeros(N, N).masked_fill(~shown, number)

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), None

    q, k, v = parts()
    seen = watched(Model(attend), q, k, v, **PROOFS[proof])
    assert_seen(seen, (q @ k.mT * SCALE + mask).softmax(-1))
    torch.testing.assert_close(seen[""].dense().sum(-1), torch.ones(BATCH, HEADS, N), **NEAR)


# Products of the same size.


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("what", ["adjacency", "sigmoid", "scores"])
def test_another_matrix_of_the_same_size_that_multiplies_the_values(what, first):
    adjacency = draw((BATCH, HEADS, N, N), seed=19)[0].softmax(-2)

    def attend(q, k, v):
        scores = q @ k.mT * SCALE
        weights = scores.softmax(-1)
        other = {"adjacency": adjacency, "sigmoid": scores.sigmoid(), "scores": scores}[what]
        pair = [other, weights] if first else [weights, other]
        return sum(matrix @ v for matrix in pair), weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


def assert_both_seen(seen, *truths):
    assert seen.unseen == {}
    assert len(seen.records) == len(truths)
    left = list(truths)
    for record in seen.records:
        dense = record.weights.dense()
        (at,) = (i for i, truth in enumerate(left) if torch.allclose(dense, truth, **NEAR))
        left.pop(at)


def test_two_softmaxes_and_then_their_two_products():
    def attend(q, k, v):
        one, two = (q @ k.mT * SCALE).softmax(-1), (k @ q.mT * 0.1).softmax(-1)
        return one @ v + two @ v, (one, two)

    assert_both_seen(watched(model := Model(attend), *parts()), *model.truth)


def test_one_score_that_is_softmaxed_over_both_axes():
    def attend(q, k, v):
        scores = q @ k.mT * SCALE
        rows, columns = scores.softmax(-1), scores.softmax(-2)
        there = torch.einsum("bhij,bhjd->bhid", rows, v)
        back = torch.einsum("bhji,bhjd->bhid", columns, q)
        return there + back, (rows, columns.mT)

    assert_both_seen(watched(model := Model(attend), *parts()), *model.truth)


JOINED = {
    "cat": lambda x: torch.cat(x, 0),
    "cat, by name": lambda x: torch.cat(tensors=x, dim=-3),
    "concat": lambda x: torch.concat(x),
    "vstack": lambda x: torch.vstack(x),
    "stack": lambda x: torch.stack(x).flatten(0, 1),
}


@pytest.mark.parametrize("way", JOINED)
@pytest.mark.parametrize("fused", [True, False])
def test_heads_that_are_folded_before_the_batch(fused, way):
    """As `torch.cat(x.split(dim, 2), 0)` does: heads outside, items inside."""

    def attend(*given):
        q, k, v = (JOINED[way](x.split(DIM, 2)) for x in given)
        weights = (q @ k.mT * SCALE).softmax(-1)
        context = F.scaled_dot_product_attention(q, k, v) if fused else weights @ v
        return context, weights.unflatten(0, (HEADS, BATCH)).transpose(0, 1)

    model = Model(attend, num_heads=HEADS)
    seen = watched(model, *draw(*[(BATCH, N, WIDTH)] * 3))
    assert len(seen.records) == 1
    assert seen[""].shape == (BATCH, HEADS, N, N)
    torch.testing.assert_close(seen[""].dense(), model.truth, **NEAR)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("batch", [BATCH, HEADS])
def test_heads_that_are_stacked(batch, axis):
    def attend(x):
        q = torch.stack(x.split(DIM, 2), axis)
        weights = (q @ q.mT * SCALE).softmax(-1)
        return weights @ q, weights if axis else weights.transpose(0, 1)

    assert_seen(watched(model := Model(attend), *draw((batch, N, WIDTH))), model.truth)


@pytest.mark.parametrize("batch", [1, BATCH, HEADS])
@pytest.mark.parametrize("axes", [(2, 0, 1, 3), (0, 2, 1, 3)])
def test_heads_that_a_caller_folds_for_a_helper(axes, batch):
    """The one that attends does not know how many there are."""

    def attend(q):
        weights = (q @ q.mT * SCALE).softmax(-1)
        return weights @ q, weights

    def split(x):
        model.helper((2 * x).unflatten(2, (HEADS, DIM)).permute(axes).reshape(-1, N, DIM))
        sizes = (HEADS, batch) if axes[0] else (batch, HEADS)
        truth = model.helper.truth.unflatten(0, sizes)
        return x, truth.transpose(0, 1) if axes[0] else truth

    model = Model(split, n_head=HEADS, helper=Model(attend))
    assert_seen(watched(model, *draw((batch, N, WIDTH))), model.truth, "helper")


def test_queries_of_heads_that_share_a_key_are_no_items():
    """(batch, n * heads, dim), in a batch of as many items as heads."""

    def attend(x):
        q, k = x.view(HEADS, -1, DIM), x[..., :DIM]
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ k, weights.unsqueeze(1)

    model = Model(attend, num_heads=HEADS)
    assert_seen(watched(model, *draw((HEADS, N, WIDTH))), model.truth)


class Split(nn.Module):
    """Several heads, in whatever order with the items of the batch."""

    def __init__(self, order, heads, fused=False):
        super().__init__()
        self.num_heads, self.order, self.fused = heads, order, fused
        self.project, self.truth = nn.Linear(WIDTH, 3 * heads * DIM), None

    def forward(self, x):
        batch, n, _ = x.shape
        parts = [y.view(batch, n, self.num_heads, DIM) for y in self.project(x).chunk(3, -1)]
        if self.order == "one after another":
            q, k, v = (y.permute(2, 0, 1, 3) for y in parts)
            self.truth, contexts = zip(*map(self.attend, q, k, v), strict=True)
            self.truth = [one.unsqueeze(1) for one in self.truth]
            return torch.cat(contexts, -1)
        axes = (2, 0, 1, 3) if self.order.startswith("heads first") else (0, 2, 1, 3)
        q, k, v = (y.permute(axes) for y in parts)
        if self.order.endswith("folded"):
            q, k, v = (y.reshape(-1, n, DIM) for y in (q, k, v))
        weights, context = self.attend(q, k, v)
        weights = weights.view(*(parts[0].shape[axis] for axis in axes[:2]), n, n)
        self.truth = [weights.transpose(0, 1) if axes[0] else weights]
        return context

    def attend(self, q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        fused = self.fused and F.scaled_dot_product_attention(q, k, v)
        return weights, fused if self.fused else weights @ v


ORDERS = ["one after another", "heads first", "heads first, folded", "items first, folded"]


@pytest.mark.parametrize("batch", [3, 5])
@pytest.mark.parametrize("order", [*ORDERS, "items first"])
def test_items_and_heads_in_any_order(order, batch):
    """Also where there are as many items as heads, and no size tells them apart."""
    seen = watched(model := Split(order, 3), *draw((batch, N, WIDTH)))
    assert len(seen.records) == len(model.truth)
    for record, truth in zip(seen.records, model.truth, strict=True):
        torch.testing.assert_close(record.weights.dense(), truth, **NEAR)


@pytest.mark.parametrize("batch", [3, 5])
@pytest.mark.parametrize("order", ORDERS)
def test_items_and_heads_in_any_order_in_a_fused_kernel(order, batch):
    seen = watched(model := Split(order, 3, fused=True), *draw((batch, N, WIDTH)))
    assert len(seen.records) == len(model.truth)
    for record, truth in zip(seen.records, model.truth, strict=True):
        torch.testing.assert_close(record.weights.dense(), truth, **NEAR)


def test_a_batch_of_twice_as_many_items_as_heads_that_come_one_after_another():
    seen = watched(model := Split("one after another", 3), *draw((6, N, WIDTH)))
    assert [record.shape for record in seen.records] == [(6, 1, N, N)] * 3
    for record, truth in zip(seen.records, model.truth, strict=True):
        torch.testing.assert_close(record.weights.dense(), truth, **NEAR)


# What tokens are called.


class Embedded(nn.Module):
    def __init__(self, **tables):
        super().__init__()
        for name, table in tables.items():
            setattr(self, name, table)

    def forward(self, ids):
        places = torch.arange(ids.shape[1]).expand_as(ids)
        x = 0
        for name, table in self.named_children():
            given = {"pos_emb": places, "token_type_emb": torch.zeros_like(ids)}
            x = x + table(given.get(name, ids))
        return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])


@pytest.mark.parametrize("other", ["pos_emb", "token_type_emb"])
@pytest.mark.parametrize("first", [True, False])
def test_labels_are_tokens_and_no_positions_or_types(other, first):
    tables = {other: nn.Embedding(17, DIM), "emb": nn.Embedding(43, DIM)}
    model = Embedded(**(tables if first else dict(reversed(tables.items()))))
    ids = torch.tensor([[40, 37, 42, 31, 29]])
    (record,) = watched(model, ids).records
    assert torch.equal(record.query_ids, ids)


# Nothing is raised into a model.

BY_KEYWORD = {
    "dropout": lambda x: F.dropout(input=x, p=0.5, training=False),
    "topk": lambda x: torch.topk(input=x, k=2)[0],
    "softmax": lambda x: torch.softmax(input=x, dim=-1),
    "functional softmax": lambda x: F.softmax(input=x, dim=-1),
    "matmul": lambda x: torch.matmul(input=x, other=x.mT),
    "bmm": lambda x: torch.bmm(input=x, mat2=x.mT),
    "baddbmm": lambda x: torch.baddbmm(input=x[:, :1, :1], batch1=x, batch2=x.mT),
    "linear": lambda x: F.linear(input=x, weight=x[0]),
    "embedding": lambda x: F.embedding(input=torch.arange(3), weight=x[0]),
    "fused": lambda x: F.scaled_dot_product_attention(query=x, key=x, value=x),
}


@pytest.mark.parametrize("what", BY_KEYWORD)
def test_every_function_takes_its_arguments_by_name(what):
    model, (x,) = Model(lambda x: (BY_KEYWORD[what](x), None)), draw((BATCH, N, DIM))
    plain = model(x)
    with pellucid.watch(model):
        assert torch.equal(model(x), plain)


def test_probabilities_times_a_vector_that_is_no_parameter():
    """An expectation over bins, as detectors compute it."""
    bins = torch.arange(float(DIM))
    model = Model(lambda x: (F.linear(x.softmax(-1), bins), None))
    (x,) = draw((13, DIM))
    plain = model(x)
    with pellucid.watch(model) as seen:
        assert torch.equal(model(x), plain)
    assert seen.names == []


@pytest.mark.parametrize("way", ["module", "functional"])
def test_a_text_of_no_tokens(way):
    table = nn.Embedding(5, DIM)
    embed = table if way == "module" else (lambda ids: F.embedding(ids, table.weight))
    model = Model(lambda ids: (embed(ids), None), table=table)
    with pellucid.watch(model):
        assert model(torch.zeros(1, 0, dtype=torch.long)).shape == (1, 0, DIM)


@pytest.mark.parametrize("reset", [True, False])
def test_a_query_that_is_written_over_in_a_generation(reset):
    """Neither the cache nor the end of the watch raises, and the model is let go."""
    cache = pytest.importorskip("transformers").DynamicCache()

    def attend(q, k, v):
        k, v = cache.update(k, v, 0)
        context = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        q.zero_()
        return context, None

    model = Model(attend)
    with torch.no_grad(), pellucid.watch(model) as seen:
        for n in (5, 1, 1):
            model(*parts(n, batch=1))
        if reset:
            cache.reset()
    assert seen._model is None


class Scripted(nn.Module):
    def forward(self, x):
        return x


class ScriptedLinear(Scripted):
    def forward(self, x):
        return F.linear((x @ x.mT).softmax(-1), x.mT)


class ScriptedMatmul(Scripted):
    def forward(self, x):
        return torch.matmul((x @ x.mT).softmax(-1), x)


class ScriptedBmm(Scripted):
    def forward(self, x):
        return F.softmax(torch.bmm(x[None], x.mT[None]), -1)


class ScriptedDropout(Scripted):
    def forward(self, x):
        return F.dropout(x, 0.1, False)


class ScriptedFused(Scripted):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "module", [ScriptedLinear, ScriptedMatmul, ScriptedBmm, ScriptedDropout, ScriptedFused]
)
def test_a_module_that_is_scripted_inside_a_watch(module):
    (x,) = draw((N, DIM))
    plain = module()(x)
    with pellucid.watch(Scripted()):
        scripted = torch.jit.script(module())
    torch.testing.assert_close(scripted(x), plain)


# Routers are no attention.


@pytest.mark.parametrize("outer", [(), (BATCH,)])
def test_a_router_whose_weight_is_no_parameter(outer):
    def choose(x):
        outputs = torch.stack([expert(x) for expert in model.experts], -2)
        return (model.router(x).softmax(-1).unsqueeze(-2) @ outputs).squeeze(-2), None

    experts = nn.ModuleList(nn.Linear(DIM, 13) for _ in range(5))
    model = Model(choose, router=weight_norm(nn.Linear(DIM, 5)), experts=experts)
    seen = watched(model, *draw((*outer, N, DIM)))
    assert (seen.names, seen.unseen) == ([], {})


# Threads.


def test_a_new_thread_has_context_variables_of_its_own():
    variable = contextvars.ContextVar("variable", default="of the thread")
    variable.set("of its parent")

    def ask():
        thread = threading.Thread(target=lambda: heard.append(variable.get()))
        thread.start()
        thread.join()

    heard = []
    ask()
    with pellucid.watch(nn.Linear(2, 3)):
        ask()
    assert heard[0] == heard[1]


def test_a_thread_that_outlives_the_watch_holds_nothing_of_it():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v, None

    model = Model(attend)
    with ThreadPoolExecutor(1) as pool:
        with pellucid.watch(model) as seen:
            pool.submit(model, *parts()).result()
        assert len(seen.records) == 1
        left = weakref.ref(seen)
        del seen
        gc.collect()
        assert left() is None

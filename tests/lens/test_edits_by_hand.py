"""Interventions on softmaxes that models write by hand."""

import pytest
import torch
import transformers
from tests.lens.edited_eager import assert_close
from torch import einsum, nn

import pellucid
from pellucid import errors

BATCH, HEADS, QUERIES, KEYS, DIM, VALUE_DIM = 2, 3, 5, 7, 11, 13
SCALE = DIM**-0.5


class Model(nn.Module):
    """Whatever attends."""

    def __init__(self, attend, **attributes):
        super().__init__()
        self.attend = attend
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args):
        return self.attend(*args)


def parts():
    generator = torch.Generator().manual_seed(3)
    shapes = ((QUERIES, DIM), (KEYS, DIM), (KEYS, VALUE_DIM))
    return [2 * torch.randn(BATCH, HEADS, *shape, generator=generator) for shape in shapes]


def matmul(q, k, v):
    return (q @ k.mT * SCALE).softmax(-1) @ v


def folded(q, k, v):
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    weights = nn.functional.softmax(torch.bmm(q * SCALE, k.mT), dim=-1)
    return torch.bmm(weights, v).unflatten(0, (BATCH, HEADS))


def equation(q, k, v):
    weights = torch.softmax(einsum("bhqd,bhkd->bhqk", q, k) * SCALE, -1)
    return einsum("bhqk,bhkd->bqhd", weights, v).transpose(1, 2)


def keys_first(q, k, v):
    return (k @ q.mT * SCALE).softmax(-2).mT @ v


def heads_first(q, k, v):
    q, k, v = (x.transpose(0, 1).flatten(0, 1) for x in (q, k, v))
    joined = [torch.cat(list(x.chunk(HEADS)), 0) for x in (q, k, v)]
    weights = (joined[0] @ joined[1].mT * SCALE).softmax(-1)
    return (weights @ joined[2]).unflatten(0, (HEADS, BATCH)).transpose(0, 1)


def half(q, k, v):
    scores = (q @ k.mT * SCALE).bfloat16()
    return scores.softmax(-1, dtype=torch.float32) @ v


def dropped(q, k, v):
    weights = nn.functional.dropout((q @ k.mT * SCALE).softmax(-1), 0.1, training=False)
    return torch.matmul(weights, v)


STYLES = {
    "matmul": (matmul, {}),
    "folded": (folded, {"num_heads": HEADS}),
    "equation": (equation, {}),
    "keys first": (keys_first, {}),
    "heads first": (heads_first, {"num_heads": HEADS}),
    "dropout in eval mode": (dropped, {}),
}


def edit_all(edit):
    edit.knock_out(head=1, keys=[2, -1], items=0)
    edit.knock_out(head=0, queries=3)
    edit.steer(head=2, keys=slice(3, 5), factor=5)
    edit.scale(head=2, factor=-2, queries=[0, 1])
    edit.knock_out(head=1, keys=0, items=1, renormalize=False)


def by_hand(q, k, v):
    q, k, v = (x.double() for x in (q, k, v))
    scores = (q @ k.mT * SCALE).clone()
    scores[0, 1, :, [2, -1]] = -torch.inf
    scores[:, 2, :, 3:5] += torch.tensor(5.0).log()
    weights = scores.softmax(-1).clone()
    weights[1, 1, :, 0] = 0
    weights[:, 0, 3] = 0
    context = (weights @ v).clone()
    context[:, 2, :2] *= -2
    return context, weights


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_edits_of_a_softmax_by_hand(style, grad):
    attend, attributes = STYLES[style]
    model, given = Model(attend, **attributes), parts()
    truth, weights = by_hand(*given)
    given = [x.requires_grad_(grad) for x in given]
    plain = model(*given)
    with pellucid.watch(model, values=True) as seen, pellucid.intervene(model) as edit:
        edit_all(edit)
        ours = model(*given)
    assert_close(ours, truth)
    assert seen.unseen == {}
    assert_close(seen[""].dense(), weights)
    assert torch.equal(model(*given), plain)
    if grad:
        own = torch.autograd.grad(ours.square().sum(), given)
        exact = [x.detach().double().requires_grad_() for x in given]
        theirs = torch.autograd.grad(by_hand(*exact)[0].square().sum(), exact)
        for one, other in zip(own, theirs, strict=True):
            assert_close(one, other)


def with_two_values(q, k, v):
    weights = (q @ k.mT * SCALE).softmax(-1)
    return torch.cat([weights @ v, weights @ (3 * v + 1)], -1)


def test_weights_that_meet_two_values():
    """Heads that are scaled give both of their products scaled."""
    model, given = Model(with_two_values), parts()
    with torch.no_grad(), pellucid.intervene(model) as edit:
        edit.knock_out(head=0, queries=3)
        edit.knock_out(head=1, by="mean")
        edit.scale(head=2, factor=-2)
        ours = model(*given)
    truth = with_two_values(*(x.double() for x in given))
    truth[:, 0, 3] = 0
    truth[:, 1] = truth[:, 1].mean(1, keepdim=True)
    truth[:, 2] *= -2
    assert_close(ours, truth)


def test_one_of_two_values_cannot_be_replaced():
    model, given = Model(with_two_values), parts()
    with pellucid.watch(model, values=True) as there:
        model(*given)
    edit = pellucid.intervene(model)
    edit.patch(there, head=1)
    with pytest.raises(errors.ArgumentError, match="its weights with several values"), edit:
        model(*given)


def with_a_table(q, k, v, table):
    weights = (q @ k.mT * SCALE).softmax(-1)
    return weights @ v + weights @ table


def with_a_table_first(q, k, v, table):
    weights = (q @ k.mT * SCALE).softmax(-1)
    return weights @ table + weights @ v


def with_a_table_of_positions(q, k, v, table):
    weights = (q @ k.mT * SCALE).softmax(-1)
    positions = table + torch.arange(QUERIES)[:, None, None]
    return weights @ v + einsum("bhqk,qkd->bhqd", weights, positions)


@pytest.mark.parametrize("attend", [with_a_table, with_a_table_first, with_a_table_of_positions])
def test_heads_that_give_more_than_their_values_are_not_scaled_in_part(attend):
    table = nn.Parameter(torch.randn(KEYS, VALUE_DIM))
    model, given = Model(lambda *given: attend(*given, table), table=table), parts()
    edit = pellucid.intervene(model)
    edit.scale(head=1, factor=3)
    told = "multiplies its weights with more than its values"
    with torch.no_grad(), pytest.raises(errors.ArgumentError, match=told), edit:
        model(*given)
    with torch.no_grad(), pellucid.intervene(model) as edit:
        edit.knock_out(head=1)
        assert not model(*given)[:, 1].any()


def test_knocked_out_links_stay_a_rule_of_the_record():
    model, given = Model(matmul), parts()
    with torch.no_grad(), pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
        edit.knock_out(head=1, keys=2)
        model(*given)
    record = seen.record("")
    assert record.kept == "query and key"
    assert record.proof.rows
    assert not record.weights[:, 1, :, 2].any()


@pytest.mark.parametrize("number", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
def test_a_row_that_loses_all_that_it_sees(number):
    """What a large number hides stays hidden, and rows that see nothing stay as they are."""
    later = torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(1)
    hidden = later | (torch.arange(QUERIES)[:, None] == 2)

    def causal(q, k, v):
        return (q @ k.mT * SCALE).masked_fill(hidden, number).softmax(-1) @ v

    def edits(edit):
        edit.knock_out(keys=0, queries=slice(0, 2))

    model, given = Model(causal), parts()
    plain = model(*given)
    with torch.no_grad(), pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
        edits(edit)
        ours = model(*given)
    assert not ours[:, :, 0].any()
    torch.testing.assert_close(ours[:, :, 1], given[2][:, :, 1])
    torch.testing.assert_close(ours[:, :, 2:], plain[:, :, 2:].nan_to_num(0))
    if number > -torch.inf:
        assert seen.unseen == {}
        assert not seen[""][:, :, 0].any()


def test_scores_of_sixteen_bits():
    with torch.no_grad():
        given = parts()
        model = Model(half)
        with pellucid.intervene(model) as edit:
            edit_all(edit)
            ours = model(*given)
        size = by_hand(*given)[0].abs().max()
        assert (ours - by_hand(*given)[0]).abs().max() < 3e-2 * size


def test_a_mixture_of_experts_is_not_attention():
    """A softmax over the outputs of a projection is left alone, and the edit is not silent."""

    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(DIM, KEYS)

        def forward(self, x, experts):
            return self.gate(x).softmax(-1) @ experts

    torch.manual_seed(3)
    router, x, experts = Router(), torch.randn(QUERIES, DIM), torch.randn(KEYS, VALUE_DIM)
    plain = router(x, experts)
    edit = pellucid.intervene(router)
    edit.knock_out(keys=1)
    with pytest.raises(errors.ArgumentError, match="was not applied"), edit:
        assert torch.equal(router(x, experts), plain)


def test_a_query_alone_is_not_known():
    model, given = Model(matmul), parts()
    with pellucid.watch(model, values=True) as seen:
        model(*given)
    edit = pellucid.intervene(model)
    edit.patch(seen, part="query")
    with pytest.raises(errors.ArgumentError, match="softmax by hand"), edit:
        model(*given)


SIZES = {"vocab_size": 61, "hidden_size": 33, "num_layers": 2, "num_heads": 3}
BY_HAND = {
    "gpt-neo": lambda: transformers.GPTNeoModel(
        transformers.GPTNeoConfig(
            **SIZES, attention_types=[[["global", "local"], 1]], window_size=5, intermediate_size=37
        )
    ),
    "bloom": lambda: transformers.BloomModel(
        transformers.BloomConfig(vocab_size=61, hidden_size=33, n_layer=2, n_head=3)
    ),
    "gpt-j": lambda: transformers.GPTJModel(
        transformers.GPTJConfig(
            vocab_size=61, n_positions=53, n_embd=66, n_layer=2, n_head=3, rotary_dim=4, n_inner=37
        )
    ),
    "mpnet": lambda: transformers.MPNetModel(
        transformers.MPNetConfig(
            vocab_size=61, hidden_size=33, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=37, max_position_embeddings=53
        )
    ),
    "xlnet": lambda: transformers.XLNetModel(
        transformers.XLNetConfig(vocab_size=61, d_model=66, n_layer=2, n_head=3, d_inner=37)
    ),
}  # fmt: skip


class Softmaxes(torch.overrides.TorchFunctionMode):
    """An oracle: adds to the scores of every softmax of a number of heads over a text, in the model
    alone."""

    def __init__(self, added):
        super().__init__()
        self.added = added

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") == "softmax" and args[0].ndim == 4:
            args = (args[0] + self.added(args[0]), *args[1:])
        return function(*args, **kwargs)


@pytest.mark.parametrize("name", BY_HAND)
def test_models_of_transformers_that_write_it_by_hand(name):
    torch.manual_seed(5)
    model = BY_HAND[name]().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.3 * parameter.shape[1] ** -0.5)
    ids = torch.randint(3, 61, (2, 11), generator=torch.Generator().manual_seed(3))

    def added(scores):
        more = torch.zeros_like(scores)
        more[1, 2, :, 4] = -1e9
        more[:, 0, :, 6] = torch.tensor(3.0).log()
        return more

    with torch.no_grad():
        plain = model(ids)[0]
        with Softmaxes(added):
            truth = model(ids)[0]
        with pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
            edit.knock_out(head=2, keys=4, items=1)
            edit.steer(head=0, keys=6, factor=3)
            ours = model(ids)[0]
    assert_close(ours, truth)
    assert (plain - truth).abs().max() > 1e-2
    assert seen.unseen == {}

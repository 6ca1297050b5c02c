"""Softmaxes that models write by hand, in every style, against the weights that they multiplied."""

import threading

import pytest
import torch
from torch import baddbmm, bmm, einsum, matmul, nn, softmax
from torch.nn.functional import dropout as drop

import pellucid

BATCH, HEADS, QUERIES, KEYS, DIM, VALUE_DIM = 2, 3, 5, 7, 11, 13
SCALE = DIM**-0.5
NEAR = {"atol": 2e-6, "rtol": 1e-4}


class Model(nn.Module):
    """Whatever attends: `attend` returns the context and, as the truth, its weights."""

    def __init__(self, attend, **attributes):
        super().__init__()
        self.attend, self.truth = attend, None
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args):
        context, self.truth = self.attend(*args)
        return context


def draw(*shapes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(shape, generator=generator) for shape in shapes]


def parts(*outer):
    """Query, key and value."""
    outer = outer or (BATCH, HEADS)
    return draw((*outer, QUERIES, DIM), (*outer, KEYS, DIM), (*outer, KEYS, VALUE_DIM))


def watched(model, *args, **options):
    with torch.no_grad(), pellucid.watch(model, **options) as seen:
        model(*args)
    return seen


def assert_seen(seen, truth, kept="query and key", **near):
    """One record, of the root, with the weights that it multiplied."""
    assert (seen.names, seen.unseen) == ([""], {})
    (record,) = seen.records
    assert record.kept == kept
    truth = truth.reshape(record.shape).float()
    torch.testing.assert_close(record.weights.dense().float(), truth, **(NEAR | near))
    assert record.proof.rows
    assert record.proof.error <= record.proof.allowed


PRODUCTS = {
    "@": (lambda q, k: q @ k.mT * SCALE, lambda w, v: w @ v),
    "transpose": (lambda q, k: q @ k.transpose(-1, -2) * SCALE, lambda w, v: w @ v),
    "torch.matmul": (
        lambda q, k: torch.matmul(q, k.mT) * SCALE,
        lambda w, v: torch.matmul(w, v),
    ),
    "matmul by name": (lambda q, k: matmul(q, k.mT) * SCALE, lambda w, v: matmul(w, v)),
    "Tensor.matmul": (lambda q, k: q.matmul(k.mT) * SCALE, lambda w, v: w.matmul(v)),
    "torch.einsum": (
        lambda q, k: torch.einsum("bhqd,bhkd->bhqk", q, k) * SCALE,
        lambda w, v: torch.einsum("bhqk,bhkd->bhqd", w, v),
    ),
    "einsum by name": (
        lambda q, k: einsum("bhqd,bhkd->bhqk", q, k) * SCALE,
        lambda w, v: einsum("bhqk,bhkd->bqhd", w, v),
    ),
    "einsum, values first": (
        lambda q, k: einsum("bhkd, bhqd -> bhqk", k, q) * SCALE,
        lambda w, v: einsum("bhkd, bhqk -> bqhd", v, w),
    ),
    "einsum with dots": (
        lambda q, k: einsum("...qd,...kd->...qk", q, k) * SCALE,
        lambda w, v: einsum("...qk,...kd->...qd", w, v),
    ),
    "einsum of a list": (
        lambda q, k: einsum("bhqd,bhkd->bhqk", [q, k]) * SCALE,
        lambda w, v: einsum("bhqk,bhkd->bhqd", [w, v]),
    ),
    "scale before": (lambda q, k: (q * SCALE) @ k.mT, lambda w, v: w @ v),
    "scale halved": (lambda q, k: (q * SCALE**0.5) @ (k * SCALE**0.5).mT, lambda w, v: w @ v),
    "scale divides": (lambda q, k: (q @ k.mT).div(DIM**0.5), lambda w, v: w @ v),
    "scale in place": (lambda q, k: (q @ k.mT).mul_(SCALE), lambda w, v: w @ v),
    "no scale": (lambda q, k: q @ k.mT, lambda w, v: w @ v),
    "a scale of its own": (lambda q, k: q @ k.mT * 0.17, lambda w, v: w @ v),
    "a key for all": (lambda q, k: q.matmul(k.permute(0, 1, 3, 2)) * SCALE, lambda w, v: w @ v),
    "values turned": (lambda q, k: q @ k.mT * SCALE, lambda w, v: (v.mT @ w.mT).mT),
}


@pytest.mark.parametrize("style", PRODUCTS)
def test_products_in_every_style(style):
    scores, combine = PRODUCTS[style]

    def attend(q, k, v):
        weights = scores(q, k).softmax(-1)
        return combine(weights, v), weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


SOFTMAXES = {
    "Tensor.softmax": lambda scores: scores.softmax(-1),
    "last axis by number": lambda scores: scores.softmax(scores.ndim - 1),
    "by keyword": lambda scores: scores.softmax(dim=-1),
    "torch.softmax": lambda scores: torch.softmax(scores, -1),
    "by name": lambda scores: softmax(scores, dim=-1),
    "functional": lambda scores: nn.functional.softmax(scores, dim=-1),
    "functional with dtype": lambda scores: nn.functional.softmax(
        scores, dim=-1, dtype=torch.float32
    ),
    "special": lambda scores: torch.special.softmax(scores, -1),
    "a module": nn.Softmax(dim=-1),
    "an operator": lambda scores: torch.ops.aten.softmax.int(scores, -1),
    "an inner operator": lambda scores: torch.ops.aten._softmax.default(scores, -1, False),
    "a largest score taken off": lambda scores: (scores - scores.amax(-1, True)).softmax(-1),
    "a copy": lambda scores: scores.softmax(-1).clone(),
    "contiguous": lambda scores: scores.softmax(-1).contiguous(),
}


@pytest.mark.parametrize("style", SOFTMAXES)
def test_softmaxes_by_every_name(style):
    def attend(q, k, v):
        weights = SOFTMAXES[style](q @ k.mT * SCALE)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    kept = seen.record("").kept if style == "a largest score taken off" else "query and key"
    assert_seen(seen, model.truth, kept)


def test_an_equation_without_an_arrow():
    def attend(q, k, v):
        weights = (einsum("id,jd", q, k) * SCALE).softmax(-1)
        return einsum("ij,jz", weights, v), weights

    shapes = [(n, dim) for n, dim in ((QUERIES, DIM), (KEYS, DIM), (KEYS, VALUE_DIM))]
    assert_seen(watched(model := Model(attend), *draw(*shapes)), model.truth)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("keys", [7, 11, 22, 33])
def test_sizes_that_are_alike_or_multiples_of_each_other(batch, heads, keys):
    """No length decides what is a product of what: n = dim, n = batch * dim, ..."""
    given = draw(*[(batch, heads, keys, DIM)] * 3)

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *given), model.truth)


@pytest.mark.parametrize("what", ["product", "matmul of the same size", "another softmax"])
def test_what_a_model_does_between_softmax_and_values(what):
    """None of it is taken for the product with the values."""
    other = draw((BATCH, HEADS, QUERIES, KEYS), (KEYS, DIM), seed=17)

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        if what == "product":
            k @ other[1].mT
        elif what == "matmul of the same size":
            other[0] @ other[1]
        else:
            nn.functional.gelu(k).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert seen.names or seen.unseen
    for record in seen.records:
        torch.testing.assert_close(record.weights.dense(), model.truth, **NEAR)


@pytest.mark.parametrize("is_added", ["a term", "a term in place"])
def test_a_term_for_relative_positions_is_not_taken_for_the_product(is_added):
    """BROS adds query . embedding(place of query and key): a product whose rows are heads."""
    (relative,) = draw((BATCH, QUERIES, KEYS, DIM), seed=19)

    def attend(q, k, v):
        scores = q @ k.mT * SCALE
        term = einsum("bnid,bijd->bnij", (q, relative))
        scores = scores.add_(term) if is_added == "a term in place" else scores + term
        weights = scores.softmax(-1)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth, "weights")


OUTER = {
    "no batch": (),
    "one head": (BATCH,),
    "heads": (BATCH, HEADS),
    "five dimensions": (BATCH, 2, HEADS),
    "six dimensions": (2, 2, 2, HEADS),
}


@pytest.mark.parametrize("outer", OUTER)
def test_two_to_six_dimensions(outer):
    outer = OUTER[outer]
    shapes = [(*outer, n, dim) for n, dim in ((QUERIES, DIM), (KEYS, DIM), (KEYS, VALUE_DIM))]

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *draw(*shapes)), model.truth)


FOLDED = {
    "torch.bmm": (lambda q, k: torch.bmm(q, k.mT) * SCALE, lambda w, v: torch.bmm(w, v)),
    "by name": (lambda q, k: bmm(q, k.mT) * SCALE, lambda w, v: bmm(w, v)),
    "Tensor.bmm": (lambda q, k: q.bmm(k.mT) * SCALE, lambda w, v: w.bmm(v)),
    "baddbmm": (
        lambda q, k: torch.baddbmm(torch.empty(1, 1, 1), q, k.mT, beta=0, alpha=SCALE),
        lambda w, v: w.bmm(v),
    ),
    "baddbmm by name": (
        lambda q, k: baddbmm(torch.zeros(1, 1, 1), q, k.mT, beta=1, alpha=SCALE),
        lambda w, v: w.bmm(v),
    ),
    "Tensor.baddbmm": (
        lambda q, k: torch.zeros(1, 1, 1).baddbmm(batch1=q, batch2=k.mT, alpha=SCALE),
        lambda w, v: w.bmm(v),
    ),
    "einsum": (
        lambda q, k: einsum("nqd,nkd->nqk", q, k) * SCALE,
        lambda w, v: einsum("nqk,nkd->nqd", w, v),
    ),
}


@pytest.mark.parametrize("style", FOLDED)
def test_heads_that_are_folded_into_the_batch(style):
    """A module that says how many heads it has gets them back."""
    scores, combine = FOLDED[style]

    def attend(q, k, v):
        weights = scores(q, k).softmax(-1)
        return combine(weights, v), weights

    model = Model(attend, num_heads=HEADS)
    seen = watched(model, *parts(BATCH * HEADS))
    assert seen[""].shape == (BATCH, HEADS, QUERIES, KEYS)
    assert_seen(seen, model.truth)


def test_heads_that_are_unfolded_between_product_and_softmax():
    """As BLOOM does."""

    def attend(q, k, v):
        scores = torch.baddbmm(torch.zeros(1, 1, KEYS), q, k.mT, alpha=SCALE)
        weights = scores.view(BATCH, HEADS, QUERIES, KEYS).softmax(-1)
        return torch.bmm(weights.view(-1, QUERIES, KEYS), v), weights

    seen = watched(model := Model(attend, num_heads=HEADS), *parts(BATCH * HEADS))
    assert seen[""].shape == (BATCH, HEADS, QUERIES, KEYS)
    assert_seen(seen, model.truth)


def test_heads_after_the_positions():
    """(batch, n, heads, dim), as a projection gives them."""

    def attend(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q * SCALE, k).softmax(-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v), weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


KEYS_FIRST = {
    "matmul": (lambda q, k: k @ q.mT, lambda w, v: w.mT @ v),
    "values first": (lambda q, k: k @ q.mT, lambda w, v: (v.mT @ w).mT),
    "einsum": (
        lambda q, k: einsum("bhqd,bhkd->bhkq", q, k),
        lambda w, v: einsum("bhkq,bhkd->bhqd", w, v),
    ),
}


@pytest.mark.parametrize("style", KEYS_FIRST)
def test_keys_before_queries(style):
    scores, combine = KEYS_FIRST[style]

    def attend(q, k, v):
        weights = (scores(q, k) * SCALE).softmax(-2)
        return combine(weights, v), weights.mT

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


SHOWN = torch.rand(BATCH, 1, QUERIES, KEYS, generator=torch.Generator().manual_seed(5)) > 0.4
SHOWN[..., 0] = True
LARGE = torch.finfo(torch.float32).min
HIDES = {
    "-inf": lambda s: s.masked_fill(~SHOWN, -torch.inf),
    "-1e9": lambda s: s.masked_fill(~SHOWN, -1e9),
    "-1e4": lambda s: s.masked_fill(~SHOWN, -1e4),
    "the least number": lambda s: s.masked_fill(~SHOWN, LARGE),
    "in place": lambda s: s.masked_fill_(~SHOWN, -torch.inf),
    "where": lambda s: torch.where(SHOWN, s, -torch.inf),
    "-1e10 by a where": lambda s: torch.where(SHOWN, s, torch.tensor(-1e10)),
    "added -inf": lambda s: s + torch.zeros(SHOWN.shape).masked_fill(~SHOWN, -torch.inf),
    "added": lambda s: s + (1 - SHOWN.float()) * LARGE,
    "added -10000": lambda s: s + (1 - SHOWN.float()) * -10000.0,
    "multiplied": lambda s: s * SHOWN - 1e9 * (1 - SHOWN.float()),
    "causal": lambda s: s.masked_fill(torch.ones(QUERIES, KEYS).triu(1).bool(), -torch.inf),
    "causal by index": lambda s: s + torch.full((QUERIES, KEYS), -torch.inf).triu(1),
}


@pytest.mark.parametrize("style", HIDES)
def test_masks_in_every_style(style):
    def attend(q, k, v):
        weights = HIDES[style](q @ k.mT * SCALE).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth)
    assert torch.equal(seen[""].dense() == 0, model.truth == 0)
    if style.startswith("causal"):
        assert str(seen.record("").mask) == "causal()"


def test_a_mask_before_the_scale():
    def attend(q, k, v):
        weights = ((q @ k.mT).masked_fill(~SHOWN, -1e9) * SCALE).softmax(-1)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


@pytest.mark.parametrize("number", [-1e4, -1e9, -torch.inf])
def test_a_row_that_sees_nothing(number):
    """Whatever the model makes of it: uniform over all keys, or NaN."""

    def attend(q, k, v):
        shown = SHOWN.clone()
        shown[1, :, 2] = False
        weights = (q @ k.mT * SCALE).masked_fill(~shown, number).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert seen.unseen == {}
    dense, truth = seen[""].dense(), model.truth.clone()
    if number == -torch.inf:
        dense[1, :, 2], truth[1, :, 2] = 0, 0
    torch.testing.assert_close(dense, truth, **NEAR)


# What is done to weights or scores besides.


def test_a_bias():
    bias = draw((1, HEADS, QUERIES, KEYS), seed=7)[0]

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE + bias).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, kept=seen.record("").kept)


def test_a_position_bias_of_an_embedding():
    """A table looked up by distance, as T5's."""
    table = nn.Embedding(QUERIES + KEYS, HEADS)

    def attend(q, k, v):
        distance = torch.arange(KEYS) - torch.arange(QUERIES)[:, None] + QUERIES - 1
        scores = q @ k.mT + table(distance).permute(2, 0, 1)
        weights = scores.softmax(-1)
        return weights @ v, weights.detach()

    seen = watched(model := Model(attend, table=table), *parts())
    assert_seen(seen, model.truth, kept=seen.record("").kept)


def test_scores_of_several_products():
    """Content and position apart, as in Transformer-XL and DeBERTa."""
    place = draw((KEYS, DIM), seed=11)[0]

    def attend(q, k, v):
        scores = (q @ k.mT + torch.einsum("bhqd,kd->bhqk", q, place)) * SCALE
        weights = scores.softmax(-1)
        return torch.einsum("bhqk,bhkd->bhqd", weights, v), weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, kept=seen.record("").kept)


@pytest.mark.parametrize("number", [1e4, -1e4, 3e5])
@pytest.mark.parametrize("where", ["added", "in the product"])
def test_a_number_in_all_scores_that_costs_digits(where, number):
    """A softmax does not mind it but for its rounding, which another order of sums has not."""

    def attend(q, k, v):
        if where == "in the product":
            q = torch.cat([q, torch.full_like(q[..., :1], number)], -1)
            k = torch.cat([k, torch.ones_like(k[..., :1])], -1)
        scores = q @ k.mT
        weights = (scores + number if where == "added" else scores).softmax(-1)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth, kept="weights")


def test_alibi():
    def attend(q, k, v):
        slopes = 2.0 ** -torch.arange(1, HEADS + 1)[:, None, None]
        weights = (q @ k.mT * SCALE + slopes * torch.arange(KEYS)).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, kept=seen.record("").kept)


def test_a_cap_on_scores():
    def attend(q, k, v):
        weights = (5 * torch.tanh(q @ k.mT * SCALE / 5)).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, kept=seen.record("").kept)


def test_cosine_scores_with_a_learned_scale():
    """As Swin v2."""

    def attend(q, k, v):
        q, k = (nn.functional.normalize(x, dim=-1) for x in (q, k))
        scale = torch.tensor([3.0, 7.0, 11.0])[:, None, None]
        weights = (q @ k.mT * scale).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, kept=seen.record("").kept)


def test_a_head_mask():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.0, 0, 0.5])[:, None, None]
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, kept="weights")


@pytest.mark.parametrize("training", [True, False])
def test_heads_that_are_knocked_out_and_others_made_stronger(training):
    """Zero, or the same number above 1, and no dropout: what multiplied the values is kept."""

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.5, 0, 1.5])[:, None, None]
        return weights @ v, weights

    model = Model(attend).train(training)
    assert_seen(watched(model, *parts()), model.truth, kept="weights")


LAYOUTS = {
    "heads last but one": ("bqhk,bhkd->bqhd", lambda w: w.transpose(1, 2)),
    "heads last": ("bqkh,bhkd->bqhd", lambda w: w.permute(0, 2, 3, 1)),
    "heads first": ("hbqk,bhkd->bqhd", lambda w: w.transpose(0, 1)),
    "heads first, in memory too": ("hbqk,bhkd->bqhd", lambda w: w.transpose(0, 1).contiguous()),
    "heads last but one, in memory too": (
        "bqhk,bhkd->bqhd",
        lambda w: w.transpose(1, 2).contiguous(),
    ),
    "keys before queries": ("bhkq,bhkd->bqhd", lambda w: w.mT),
}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_are_turned_before_they_meet_values(layout, masked):
    equation, turn = LAYOUTS[layout]

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        if masked:
            weights = weights * torch.tensor([1.0, 0, 0.5])[:, None, None]
        return torch.einsum(equation, turn(weights), v), weights

    seen = watched(model := Model(attend), *parts())
    assert seen.names or seen.unseen
    if seen.names:
        assert_seen(seen, model.truth, kept=seen.record("").kept)


TURNED = {
    "einsum": lambda w, v: torch.einsum("bqhk,bhkd->bqhd", w.transpose(1, 2).contiguous(), v),
    "heads first": lambda w, v: w.transpose(0, 1) @ v.transpose(0, 1),
    "heads first, copied": lambda w, v: w.transpose(0, 1).contiguous() @ v.transpose(0, 1),
    "heads first, folded": lambda w, v: (
        w.transpose(0, 1).flatten(0, 1) @ v.transpose(0, 1).flatten(0, 1)
    ),
    "items first, folded": lambda w, v: w.flatten(0, 1) @ v.flatten(0, 1),
    "values by heads": lambda w, v: (v.mT @ w.mT.contiguous()).mT,
}


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("queries", [3, 5, 7])
@pytest.mark.parametrize("way", TURNED)
def test_items_heads_and_queries_change_places_after_the_softmax(way, queries, batch):
    """Also where there are as many of one as of another, so that no size tells them apart."""

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return TURNED[way](weights, v), weights

    shapes = [(batch, HEADS, n, dim) for n, dim in ((queries, DIM), (KEYS, DIM), (KEYS, VALUE_DIM))]
    seen = watched(model := Model(attend), *draw(*shapes))
    assert seen[""].shape == model.truth.shape
    assert_seen(seen, model.truth)


@pytest.mark.parametrize("way", ["einsum", "matmul"])
def test_values_of_relative_positions_before_the_values(way):
    """Shaw et al. 2018: what is added for each query and key is no value of a key."""
    (relative,) = draw((QUERIES, KEYS, VALUE_DIM), seed=5)

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        if way == "einsum":
            added = torch.einsum("bhqk,qkd->bhqd", weights, relative)
        else:
            rows = weights.permute(2, 0, 1, 3).reshape(QUERIES, -1, KEYS) @ relative
            added = rows.unflatten(1, (BATCH, HEADS)).permute(1, 2, 0, 3)
        return added + weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


@pytest.mark.parametrize("order", ["kg", "gk"])
def test_an_equation_with_heads_that_share_keys_in_either_order(order):
    sizes = {"k": 2, "g": 3}
    q, k, v = draw(
        (BATCH, *(sizes[x] for x in order), QUERIES, DIM),
        (BATCH, 2, KEYS, DIM),
        (BATCH, 2, KEYS, VALUE_DIM),
    )

    def attend(q, k, v):
        scores = torch.einsum(f"b{order}nd,bkmd->b{order}nm", q, k)
        weights = (scores * SCALE).softmax(-1)
        context = torch.einsum(f"b{order}nm,bkmd->b{order}nd", weights, v)
        return context, weights.flatten(1, 2)

    seen = watched(model := Model(attend, num_heads=6), q, k, v)
    assert seen[""].shape == model.truth.shape
    assert_seen(seen, model.truth)


PARTS = {
    "head by head": lambda w, v, f: torch.stack([f(w[:, h], h) @ v[:, h] for h in range(HEADS)], 1),
    "keys": lambda w, v, f: w[..., :3] @ v[:, :, :3] + f(w[..., 3:], 1) @ v[:, :, 3:],
    "queries": lambda w, v, f: torch.cat([w[:, :, :2] @ v, f(w[:, :, 2:], 1) @ v], 2),
}


@pytest.mark.parametrize("way", PARTS)
@pytest.mark.parametrize("changed", [True, False])
def test_weights_that_meet_values_in_parts(way, changed):
    """Recorded when all of them have; where a part was changed meanwhile, that is said."""

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        change = (lambda part, at: part * 0.5 if at == 1 else part) if changed else None
        return PARTS[way](weights, v, change or (lambda part, at: part)), weights

    seen = watched(model := Model(attend), *parts())
    if changed:
        assert seen.names == []
        assert "of which" in seen.unseen[""] or "a product was seen" in seen.unseen[""]
    else:
        assert (seen.names, seen.unseen) == ([""], {})
        torch.testing.assert_close(seen[""].dense(), model.truth, **NEAR)


def test_a_head_that_is_knocked_out_in_place():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        weights[:, 1] = 0
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth, kept="weights")


def test_one_link_that_is_knocked_out_after_the_softmax():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        weights[0, 2, 3, 4] = 0
        return weights @ v, weights

    for _ in range(5):
        seen = watched(model := Model(attend), *parts(), proof="every row")
        assert_seen(seen, model.truth, kept="weights")


def test_weights_that_are_made_to_sum_to_one_again():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * SHOWN
        weights = weights / weights.sum(-1, keepdim=True)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth, kept="weights")


@pytest.mark.parametrize("way", ["einsum", "linear", "convolution"])
def test_talking_heads(way):
    """Mixed over heads after the softmax: what multiplies the values is what is recorded."""
    mix = draw((HEADS, HEADS), seed=13)[0].abs()

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        if way == "einsum":
            weights = torch.einsum("bhqk,gh->bgqk", weights, mix)
        elif way == "linear":
            weights = nn.functional.linear(weights.permute(0, 2, 3, 1), mix).permute(0, 3, 1, 2)
        else:
            weights = nn.functional.conv2d(weights, mix[:, :, None, None])
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth, kept="weights")


def test_a_sink_column():
    """A column of a learned score, softmaxed with the others and dropped (gpt-oss)."""

    def attend(q, k, v):
        scores = torch.cat([q @ k.mT * SCALE, torch.ones(BATCH, HEADS, QUERIES, 1)], -1)
        weights = scores.softmax(-1)[..., :-1]
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts())
    assert seen.names or seen.unseen
    if seen.names:  # a column that multiplies no value is no key
        assert seen[""].shape == model.truth.shape
        assert_seen(seen, model.truth, kept=seen.record("").kept)


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("way", ["@", "einsum"])
def test_a_null_key_whose_value_is_added_outside_the_product(place, way, tmp_path):
    """What it took of each row is told: the weights alone would only sum to less than one."""

    def attend(q, k, v):
        null_key, null_value = draw((DIM,), (VALUE_DIM,), seed=5)
        null, scores = (q @ null_key * SCALE).unsqueeze(-1), q @ k.mT * SCALE
        both = [null, scores] if place == "first" else [scores, null]
        rows = torch.cat(both, -1).softmax(-1)
        sizes = [1, KEYS] if place == "first" else [KEYS, 1]
        null, weights = sorted(rows.split(sizes, -1), key=lambda x: x.shape[-1])
        context = torch.einsum("bhqk,bhkd->bhqd", weights, v) if way == "einsum" else weights @ v
        return context + null * null_value, (weights, null[..., 0])

    seen = watched(model := Model(attend), *parts())
    weights, null = model.truth
    assert_seen(seen, weights, kept="weights")
    torch.testing.assert_close(seen.record("").sink_weight, null, **NEAR)
    assert "without a sink" in repr(seen)
    seen.save(tmp_path / "null")
    again = pellucid.Recording.load(tmp_path / "null").record("")
    torch.testing.assert_close(again.sink_weight, null, **NEAR)


@pytest.mark.parametrize("way", ["functional", "module"])
@pytest.mark.parametrize("training", [True, False])
def test_dropout(way, training):
    """What is recorded are the weights before some were dropped."""
    layer = nn.Dropout(0.3)

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        dropped = layer(weights) if way == "module" else drop(weights, 0.3, model.training)
        return dropped @ v, weights

    model = Model(attend, layer=layer).train(training)
    assert_seen(watched(model, *parts()), model.truth)


def test_dropout_of_weights_that_are_kept():
    layer = nn.Dropout(0.3)

    def attend(q, k, v):
        weights = (5 * torch.tanh(q @ k.mT)).softmax(-1)
        return layer(weights) @ v, weights

    model = Model(attend, layer=layer)
    seen = watched(model, *parts())
    record = seen.record("")
    torch.testing.assert_close(record.weights.dense(), model.truth, **NEAR)
    assert record.proof.rows == 0  # what dropout leaves of them proves nothing
    assert "not seen" in record.proof.reason


GROUPS = 2


@pytest.mark.parametrize("way", ["repeated", "expanded", "broadcast", "one for all"])
def test_heads_that_share_keys(way):
    heads = GROUPS * HEADS
    shared = 1 if way == "one for all" else HEADS
    given = draw(
        (BATCH, heads, QUERIES, DIM), (BATCH, shared, KEYS, DIM), (BATCH, shared, KEYS, VALUE_DIM)
    )

    def attend(q, k, v):
        if way == "repeated":
            k, v = (x.repeat_interleave(GROUPS, 1) for x in (k, v))
        elif way == "expanded":
            k, v = (
                x[:, :, None].expand(-1, -1, GROUPS, -1, -1).reshape(BATCH, heads, KEYS, -1)
                for x in (k, v)
            )
        elif way == "broadcast":
            q, k, v = q.unflatten(1, (HEADS, GROUPS)), k.unsqueeze(2), v.unsqueeze(2)
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *given)
    assert_seen(seen, model.truth, kept=seen.record("").kept)


def test_queries_of_all_heads_in_one_product():
    """Multi-query attention as GPT-BigCode writes it: heads and queries are rows of one matrix."""

    def attend(q, k, v):
        rows = q.transpose(1, 2).reshape(BATCH, QUERIES * HEADS, DIM)
        scores = (rows @ k.mT * SCALE).view(BATCH, QUERIES, HEADS, KEYS)
        weights = scores.softmax(-1)
        context = weights.view(BATCH, -1, KEYS) @ v
        return context, weights.transpose(1, 2)

    given = draw((BATCH, HEADS, QUERIES, DIM), (BATCH, KEYS, DIM), (BATCH, KEYS, VALUE_DIM))
    seen = watched(model := Model(attend), *given)
    if seen.names:  # which axis is that of the heads, nobody has told
        dense = seen[""].dense()
        assert torch.equal(dense.flatten().sort()[0], model.truth.flatten().sort()[0])
    else:
        assert "" in seen.unseen


def test_blocks():
    """Each block of queries sees its own block of keys."""

    def attend(q, k, v):
        q, k, v = (x.unflatten(2, (3, 5)) for x in (q, k, v))
        weights = (q @ k.mT * SCALE).softmax(-1)
        return (weights @ v).flatten(2, 3), weights

    given = draw(*[(BATCH, HEADS, 15, DIM)] * 3)
    seen = watched(model := Model(attend), *given)
    assert_seen(seen, model.truth, kept=seen.record("").kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("where", ["in float32", "as it is"])
def test_short_floats(dtype, where):
    def attend(q, k, v):
        scores = q @ k.mT * SCALE
        if where == "in float32":
            weights = nn.functional.softmax(scores, -1, dtype=torch.float32).to(dtype)
        else:
            weights = scores.softmax(-1)
        return weights @ v, weights

    given = [x.to(dtype) for x in parts()]
    seen = watched(model := Model(attend), *given)
    assert seen.record("").kept == "query and key"
    assert_seen(seen, model.truth, atol=5e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_in_float32_of_short_floats(dtype):
    def attend(q, k, v):
        weights = (q.float() @ k.float().mT * SCALE).softmax(-1)
        return weights.to(dtype) @ v, weights

    seen = watched(model := Model(attend), *[x.to(dtype) for x in parts()])
    assert_seen(seen, model.truth, atol=5e-3, rtol=0)


def test_float64():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *[x.double() for x in parts()])
    assert seen[""].dtype == torch.float64
    torch.testing.assert_close(seen[""].dense(), model.truth, atol=1e-14, rtol=1e-12)


def test_autocast():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v, weights

    with torch.autocast("cpu", torch.bfloat16):
        seen = watched(model := Model(attend), *parts())
    assert_seen(seen, model.truth, atol=5e-2, rtol=0)


# Whose values, whose softmax.


@pytest.mark.parametrize("same", ["value", "key", "all"])
def test_a_value_that_is_the_query_or_the_key(same):
    q, k = draw(*[(BATCH, HEADS, KEYS, DIM)] * 2)

    def attend(q, k):
        k = q if same == "all" else k
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ (k if same == "key" else q), weights

    assert_seen(watched(model := Model(attend), q, k), model.truth)


def test_as_many_keys_as_dimensions_as_heads():
    """Shapes tell nothing where all sizes are alike."""
    given = draw(*[(5, 5, 5, 5)] * 3)

    def attend(q, k, v):
        weights = (q @ k.mT * 5**-0.5).softmax(-1)
        return weights @ v, weights

    assert_seen(watched(model := Model(attend), *given), model.truth)


class Student(nn.Module):
    """A first implementation: one class a head, and a list of them."""

    def __init__(self, width=DIM, source=None):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, DIM, bias=False) for _ in range(3))
        self.truth = None

    def forward(self, x, other=None):
        other = x if other is None else other
        scores = self.query(x) @ self.key(other).transpose(-2, -1) * 5
        if x is other:
            past = torch.tril(torch.ones(x.shape[1], x.shape[1]))
            scores = scores.masked_fill(past == 0, float("-inf"))
        self.truth = torch.softmax(scores, dim=-1)
        return self.truth @ self.value(other)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(Student() for _ in range(HEADS))
        self.proj = nn.Linear(HEADS * DIM, DIM)

    def forward(self, *args):
        return self.proj(torch.cat([head(*args) for head in self.heads], -1))


def test_a_module_for_each_head():
    model, (x,) = Heads(), draw((BATCH, KEYS, DIM))
    seen = watched(model, x)
    assert seen.names == [f"heads.{number}" for number in range(HEADS)]
    for name, head in zip(seen.names, model.heads, strict=True):
        torch.testing.assert_close(seen[name].dense()[:, 0], head.truth, **NEAR)
        assert (seen.record(name).kept, str(seen.record(name).mask)) == (
            "query and key",
            "causal()",
        )


def test_cross_attention():
    model, given = Heads(), draw((BATCH, QUERIES, DIM), (BATCH, KEYS, DIM))
    seen = watched(model, *given)
    assert seen["heads.1"].shape == (BATCH, 1, QUERIES, KEYS)
    torch.testing.assert_close(seen["heads.1"].dense()[:, 0], model.heads[1].truth, **NEAR)


def shared(q, k, v):
    weights = (q @ k.mT * SCALE).softmax(-1)
    return weights @ v, weights


class Twice(nn.Module):
    """Two modules that share what attends."""

    def __init__(self, attend, **parts):
        super().__init__()
        self.left, self.right = Model(attend, **parts), Model(attend, **parts)

    def forward(self, q, k, v):
        return self.left(q, k, v) + self.right(q + 1, k, v)


ROWS = nn.Softmax(-1)


def by_module(q, k, v):
    weights = ROWS(q @ k.mT * SCALE)
    return weights @ v, weights


@pytest.mark.parametrize(
    "model", [Twice(shared), Twice(by_module, rows=ROWS)], ids=["a function", "a softmax module"]
)
def test_two_modules_that_share_what_attends(model):
    """Each is told by its own name."""
    seen = watched(model, *parts())
    assert (seen.names, seen.unseen) == (["left", "right"], {})
    for name in seen.names:
        truth = model.get_submodule(name).truth
        torch.testing.assert_close(seen[name].dense(), truth, **NEAR)


def test_one_softmax_for_two_values():
    """One record, not two."""

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        return weights @ v + weights @ (v + 1), weights

    assert_seen(watched(model := Model(attend), *parts()), model.truth)


def test_two_softmaxes_of_one_module():
    """Differential attention: two calls, and both are recorded."""
    truths = []

    def attend(q, k, v):
        one, two = ((x @ k.mT * SCALE).softmax(-1) for x in (q, q.flip(-1)))
        truths[:] = one, two
        return one @ v - 0.3 * (two @ v), one

    seen = watched(Model(attend), *parts())
    if seen.unseen:
        assert list(seen.unseen) == [""]
        return
    assert len(seen.records) == 2
    for record, truth in zip(seen.records, truths, strict=True):
        torch.testing.assert_close(record.weights.dense(), truth, **NEAR)


def test_a_difference_of_two_softmaxes_is_recorded_or_said():
    """Negative weights are none that can be kept."""

    def attend(q, k, v):
        one, two = ((x @ k.mT * SCALE).softmax(-1) for x in (q, q.flip(-1)))
        return (one - 0.8 * two) @ v, one

    seen = watched(Model(attend), *parts())
    assert list(seen.unseen) == [""]


def test_a_softmax_in_a_helper_of_another_thread_is_no_other_calls():
    """Two threads that are begun inside work on the same model at once."""
    model, found = Model(lambda q, k, v: shared(q, k, v)), []
    given = [draw(*(x.shape for x in parts()), seed=seed) for seed in range(4)]
    with torch.no_grad():
        truths = [shared(*one)[1] for one in given]
        with pellucid.watch(model) as seen:
            threads = [threading.Thread(target=model, args=one) for one in given]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert len(seen.records) == 4
    for truth in truths:
        found += [
            torch.allclose(record.weights.dense(), truth, atol=1e-5) for record in seen.records
        ]
    assert sum(found) == 4


# How it is called.


def test_functional_call():
    model, (x,) = Heads(), draw((BATCH, KEYS, DIM))
    others = {name: 1.5 * value for name, value in model.state_dict().items()}
    with torch.no_grad(), pellucid.watch(model) as seen:
        torch.func.functional_call(model, others, (x,))
    for name, head in zip(seen.names, model.heads, strict=True):
        torch.testing.assert_close(seen[name].dense()[:, 0], head.truth, **NEAR)
    assert len(seen.records) == HEADS


def gradients(model, weights, **options):
    """Of how much the first token is seen, with respect to all parameters of the model."""
    wanted = [head.query.weight for head in model.heads] + [head.key.weight for head in model.heads]
    return torch.autograd.grad((weights[..., 0] ** 2).sum(), wanted, allow_unused=True, **options)


def test_weights_have_the_gradient_of_the_models_own():
    model, (x,) = Heads().double(), draw((BATCH, KEYS, DIM))
    with pellucid.watch(model) as seen:
        model(x.double())
    assert len(seen.names) == len(model.heads)
    for name, head in zip(seen.names, model.heads, strict=True):
        theirs = gradients(model, head.truth, retain_graph=True)
        ours = gradients(model, seen[name].dense(), retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            if one is None or other is None:
                assert one is other
            else:
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_weights_that_are_kept_have_a_gradient_too():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.0, 0, 0.5])[:, None, None]
        return weights @ v, weights

    q, k, v = parts()
    q.requires_grad_()
    model = Model(attend)
    with pellucid.watch(model) as seen:
        model(q, k, v)
    assert seen.record("").kept == "weights"
    (ours,) = torch.autograd.grad(seen[""].dense()[..., 0].sum(), q, retain_graph=True)
    (theirs,) = torch.autograd.grad(model.truth[..., 0].sum(), q)
    torch.testing.assert_close(ours, theirs, **NEAR)


def test_inference_mode():
    model, (x,) = Heads(), draw((BATCH, KEYS, DIM))
    with torch.inference_mode(), pellucid.watch(model) as seen:
        model(x)
    assert seen.unseen == {}
    torch.testing.assert_close(seen["heads.2"].dense()[:, 0], model.heads[2].truth, **NEAR)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_part_is_recorded_once(reentrant):
    model, (x,) = Heads(), draw((BATCH, KEYS, DIM))
    x.requires_grad_()
    with pellucid.watch(model) as seen:
        run = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
        truth = model.heads[1].truth.detach()
        run.sum().backward()
    assert (len(seen.records), seen.unseen) == (HEADS, {})
    torch.testing.assert_close(seen["heads.1"].dense()[:, 0], truth, **NEAR)


def test_a_forward_that_raises_between_softmax_and_product():
    """The next pass is recorded as if nothing had been."""

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        if model.fails:
            raise RuntimeError("on the way")
        return weights @ v, weights

    model = Model(attend, fails=True)
    q, k, v = parts()
    with torch.no_grad(), pellucid.watch(model) as seen:
        with pytest.raises(RuntimeError, match="on the way"):
            model(q, k, v)
        model.fails = False
        model(q + 1, k, v)
    assert len(seen.records) == 1
    torch.testing.assert_close(seen[""].dense(), model.truth, **NEAR)


def test_a_failed_pass_is_told_by_name():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        raise RuntimeError(f"{len(weights)} on the way")

    model = Model(attend)
    with pytest.raises(RuntimeError, match="on the way"), pellucid.watch(model) as seen:
        model(*parts())
    assert (seen.names, list(seen.unseen)) == ([], [""])


@pytest.mark.parametrize("buffered", [True, False])
def test_a_cache_by_hand(buffered):
    """Keys of the steps before, joined or written into a buffer; each step is a call."""
    (x,) = draw((BATCH, KEYS, DIM))

    class Steps(Student):
        def __init__(self):
            super().__init__()
            self.held, self.truths = torch.zeros(BATCH, KEYS, DIM), []

        def forward(self, x, at):
            if buffered:
                self.held[:, at : at + 1] = x
            else:
                self.held = x if at == 0 else torch.cat([self.held, x], 1)
            held = self.held[:, : at + 1]
            weights = (self.query(x) @ self.key(held).mT * 5).softmax(-1)
            self.truths.append(weights)
            return weights @ self.value(held)

    model = Steps()
    with torch.no_grad(), pellucid.watch(model) as seen:
        for at in range(KEYS):
            model(x[:, at : at + 1], at)
    assert seen.unseen == {}
    records = [record for record in seen.records if record.shape[-1] > 1]
    for record, truth in zip(records, model.truths[-len(records) :], strict=True):
        torch.testing.assert_close(record.weights.dense()[:, 0], truth, **NEAR)
    assert len(records) == KEYS - 1


def test_keys_and_values_that_are_written_over_later():
    """Refused, or right: never another text's weights."""
    q, k, v = parts()

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1)
        context = weights @ v
        k.zero_()
        return context, weights

    seen = watched(model := Model(attend), q, k, v, device="cpu")
    torch.testing.assert_close(seen[""].dense(), model.truth, **NEAR)


PARAMETER = ("parameter", True)  # by hand, it is a projection


@pytest.mark.parametrize(
    ("held", "fused"),
    [("buffer", True), ("buffer", False), ("attribute", True), ("attribute", False), PARAMETER],
)
def test_memory_of_the_model_that_is_written_to_where_nothing_counts(held, fused):
    def attend(q):
        weights = (q @ model.key.mT * SCALE).softmax(-1)
        if fused:
            return nn.functional.scaled_dot_product_attention(q, model.key, model.values), weights
        return weights @ model.values, weights

    query, key, value = parts()
    model, before = Model(attend, values=value), value.clone()
    if held == "buffer":
        model.register_buffer("key", key)
    else:
        model.key = key if held == "attribute" else nn.Parameter(key)
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(query)
        model.key.data.mul_(2)
        model.values.data.add_(1)
    torch.testing.assert_close(seen[""].dense(), model.truth, **NEAR)
    assert torch.equal(seen.record("").value, before)


def test_scores_that_are_written_over_by_the_weights():
    """Memory that is used again: softmax into its own input."""

    def attend(q, k, v):
        scores = q @ k.mT * SCALE
        torch.softmax(scores, -1, out=scores)
        return scores @ v, scores.clone()

    seen = watched(model := Model(attend), *parts())
    if seen.names:
        assert_seen(seen, model.truth, kept=seen.record("").kept)
    else:
        assert "" in seen.unseen


# What is no attention, and not called so.


class Experts(nn.Module):
    """A router that softmaxes over experts, and takes the best of each token."""

    def __init__(self, way):
        super().__init__()
        self.router, self.way = nn.Linear(DIM, HEADS), way
        self.experts = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(HEADS))

    def forward(self, x):
        gates = self.router(x).softmax(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], -2)
        if self.way == "top":
            top, chosen = gates.topk(2, -1)
            picked = outputs.gather(-2, chosen.unsqueeze(-1).expand(*chosen.shape, DIM))
            return (top.unsqueeze(-1) * picked).sum(-2)
        if self.way == "einsum":
            return torch.einsum("bne,bned->bnd", gates, outputs)
        return (gates.unsqueeze(-2) @ outputs).squeeze(-2)


class Classes(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.head, self.way = nn.Linear(DIM, 17), way
        self.table = nn.Embedding(17, DIM)

    def forward(self, x):
        odds = self.head(x).softmax(-1)
        if self.way == "an embedding mixed":
            return odds @ self.table.weight
        if self.way == "expectation":
            return odds @ torch.arange(17.0)[:, None]
        return odds.argmax(-1)


class Frames(nn.Module):
    """A CTC head: classes of each frame."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(DIM, 19)

    def forward(self, x):
        return self.head(x).softmax(-1), self.head(x).log_softmax(-1)


class Streams(nn.Module):
    """Hyper-connections: a softmax over copies of the stream."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(DIM, 4)

    def forward(self, x):
        copies = torch.stack([x, x + 1, x * 2, x - 1], -2)
        return (self.mix(x).softmax(-1).unsqueeze(-1) * copies).sum(-2)


class Channels(nn.Module):
    """A softmax over the features of each token, which multiplies nothing."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(DIM, DIM)

    def forward(self, x):
        return self.gate(x).softmax(-1) * x


class Batch(nn.Module):
    """Over the items of the batch, as contrastive losses do."""

    def forward(self, x):
        return x.softmax(0) + x


ROUTING = {
    "experts, best": lambda: Experts("top"),
    "experts, einsum": lambda: Experts("einsum"),
    "experts, matmul": lambda: Experts("matmul"),
    "classes": lambda: Classes("argmax"),
    "classes, an embedding mixed": lambda: Classes("an embedding mixed"),
    "classes, expectation": lambda: Classes("expectation"),
    "ctc": Frames,
    "hyper-connections": Streams,
    "channels": Channels,
    "batch": Batch,
}


@pytest.mark.parametrize("what", ROUTING)
def test_softmaxes_that_are_no_attention(what):
    model = ROUTING[what]()
    seen = watched(model, *draw((BATCH, KEYS, DIM)))
    assert (seen.names, seen.unseen) == ([], {})


@pytest.mark.parametrize("what", ["experts, matmul", "classes", "ctc"])
def test_attention_is_seen_beside_what_is_none(what):
    """A softmax in between is no other attention's."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.other = Student(), ROUTING[what]()

        def forward(self, x):
            self.other(x)
            x = self.student(x)
            self.other(x)
            return x

    seen = watched(model := Both(), *draw((BATCH, KEYS, DIM)))
    assert (seen.names, seen.unseen) == (["student"], {})
    torch.testing.assert_close(seen["student"].dense()[:, 0], model.student.truth, **NEAR)


def test_a_router_in_the_module_that_attends():
    """Two softmaxes, one of them over experts."""

    class Both(Student):
        def __init__(self):
            super().__init__()
            self.experts = Experts("matmul")

        def forward(self, x):
            return self.experts(super().forward(x)) + super().forward(x)

    seen = watched(model := Both(), *draw((BATCH, KEYS, DIM)))
    assert (set(seen.names), seen.unseen) == ({""}, {})
    torch.testing.assert_close(seen[""].dense()[:, 0], model.truth, **NEAR)


class Pooled(nn.Module):
    """Additive attention: a score a token, from a vector, and no query."""

    def __init__(self):
        super().__init__()
        self.hidden, self.score, self.truth = (
            nn.Linear(DIM, VALUE_DIM),
            nn.Linear(VALUE_DIM, 1),
            None,
        )

    def forward(self, x):
        self.truth = self.score(torch.tanh(self.hidden(x))).mT.softmax(-1)  # (batch, 1, keys)
        return self.truth @ x


@pytest.mark.parametrize("keys", [KEYS, DIM, VALUE_DIM])
def test_a_pool_over_tokens(keys):
    """Also where there are as many tokens as some parameter has rows."""
    seen = watched(model := Pooled(), *draw((BATCH, keys, DIM)))
    assert (seen.names, seen.unseen) == ([""], {})
    torch.testing.assert_close(seen[""].dense()[:, 0], model.truth, **NEAR)


def test_additive_scores():
    """Bahdanau's: a softmax that comes of no product, and multiplies values."""

    class Additive(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.v = (nn.Linear(DIM, n) for n in (VALUE_DIM, VALUE_DIM, 1))
            self.v, self.truth = nn.Linear(VALUE_DIM, 1), None

        def forward(self, x, memory):
            hidden = torch.tanh(self.query(x)[:, :, None] + self.key(memory)[:, None])
            self.truth = self.v(hidden).squeeze(-1).softmax(-1)
            return torch.bmm(self.truth, memory)

    seen = watched(model := Additive(), *draw((BATCH, QUERIES, DIM), (BATCH, KEYS, DIM)))
    assert_seen(seen, model.truth, kept="weights")


# How much is kept.


def test_a_limit_of_weights():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.0, 0, 0.5])[:, None, None]
        return weights @ v, weights

    size = BATCH * HEADS * QUERIES * KEYS * 4
    assert_seen(
        watched(model := Model(attend), *parts(), weights_limit=size), model.truth, "weights"
    )
    seen = watched(Model(attend), *parts(), weights_limit=size - 1)
    assert seen.names == []
    assert f"{size} bytes" in seen.unseen[""] or f"{size}" in seen.unseen[""]
    assert "weights_limit" in seen.unseen[""]
    assert watched(Model(attend), *parts(), weights_limit=None).names == [""]


def test_a_limit_counts_all_calls_together():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.0, 0, 0.5])[:, None, None]
        return weights @ v, weights

    size, model = BATCH * HEADS * QUERIES * KEYS * 4, Model(attend)
    with torch.no_grad(), pellucid.watch(model, weights_limit=2 * size) as seen:
        for _ in range(3):
            model(*parts())
    assert len(seen.records) == 2
    assert list(seen.unseen) == [""]


def test_lazy_records_hold_no_weights():
    """What grows with n squared is not kept where query and key give it again."""
    n = 101
    given = draw(*[(1, HEADS, n, DIM)] * 3)
    seen = watched(Model(shared), *given)
    assert seen.record("").kept == "query and key"
    assert seen.bytes_held() == 2 * HEADS * n * DIM * 4


@pytest.mark.parametrize("option", [{"device": "cpu"}, {"dtype": torch.float64}])
def test_weights_are_kept_where_and_how_is_asked(option):
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.0, 0, 0.5])[:, None, None]
        context, truth = weights @ v, weights.clone()
        weights.zero_()  # a copy is not changed
        return context, truth

    seen = watched(model := Model(attend), *parts(), **option)
    assert seen[""].dtype == option.get("dtype", torch.float32)
    torch.testing.assert_close(seen[""].dense().float(), model.truth, **NEAR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_kept_in_a_shorter_dtype(dtype):
    """Their proof allows for that."""
    (bias,) = draw((QUERIES, KEYS), seed=5)

    def attend(q, k, v):
        weights = (q @ k.mT * SCALE + bias).softmax(-1)
        return weights @ v, weights

    seen = watched(model := Model(attend), *parts(), dtype=dtype)
    assert_seen(seen, model.truth, kept="weights", atol=torch.finfo(dtype).eps, rtol=0)


def test_kept_weights_say_so():
    def attend(q, k, v):
        weights = (q @ k.mT * SCALE).softmax(-1) * torch.tensor([1.0, 0, 0.5])[:, None, None]
        return weights @ v, weights

    seen = watched(Model(attend), *parts())
    assert "in the weights" in repr(seen)
    with pytest.raises(pellucid.PellucidError, match="keeps the weights"):
        seen.record("").query  # noqa: B018


# Nothing is left behind.

PATCHED = (
    (torch, ("matmul", "bmm", "baddbmm", "einsum", "softmax")),
    (torch.Tensor, ("matmul", "__matmul__", "bmm", "baddbmm", "softmax")),
    (nn.functional, ("softmax", "scaled_dot_product_attention", "embedding")),
    (threading.Thread, ("start",)),
)


def test_torch_is_as_before():
    before = dict(vars(torch.Tensor))
    functions = {(owner, name): getattr(owner, name) for owner, names in PATCHED for name in names}
    own = {(owner, name): name in vars(owner) for owner, names in PATCHED for name in names}
    watched(Model(shared), *parts())
    with pytest.raises(ZeroDivisionError), pellucid.watch(Model(shared)):
        raise ZeroDivisionError
    assert dict(vars(torch.Tensor)) == before
    for (owner, name), function in functions.items():
        assert getattr(owner, name) == function
        assert (name in vars(owner)) == own[owner, name]


def test_this_file_is_as_before():
    """Names that a model's own file has imported are wrapped there, and put back."""
    names = ("matmul", "bmm", "baddbmm", "einsum", "softmax")
    before = [globals()[name] for name in names]
    model = Model(shared)
    with pellucid.watch(model):
        model(*parts())
    assert [globals()[name] for name in names] == before


def test_the_model_computes_the_same_bits():
    model, (x,) = Heads(), draw((BATCH, KEYS, DIM))
    plain = model(x)
    with pellucid.watch(model):
        watched = model(x)
    assert torch.equal(plain, watched)
    gradient = torch.autograd.grad(watched.sum(), model.proj.weight)[0]
    assert torch.equal(gradient, torch.autograd.grad(plain.sum(), model.proj.weight)[0])

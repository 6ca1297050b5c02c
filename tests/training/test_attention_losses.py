"""Losses on lazy weights are those on the matrix, and so are their gradients, in memory like n."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pellucid
from pellucid import masks
from pellucid.attention import attention_weights
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.training import loop
from pellucid.training.attention_losses import (
    diagonal_loss,
    end_to_end,
    entropy_loss,
    guided_loss,
)
from tests.attention import cases
from tests.training.tiny import objective

WIDTH = 0.23
DOUBLE = (torch.float64,)
SMALL = ((1, 5), (1, 7))


def drawn(case):
    """The weights of a case, its float64 query and key, and its dense weights from those."""
    query, key = (x.detach().clone().requires_grad_() for x in (case.query, case.key))
    options = dict(case.options)
    lazy = attention_weights(query, key, case.mask, **options)
    return lazy, query, key, dense(case, query, key)


def dense(case, query, key):
    """softmax, written out; rows that see nothing are zero."""
    options = case.options
    key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.mT * options.get("scale", query.shape[-1] ** -0.5)
    if "softcap" in options:
        scores = options["softcap"] * torch.tanh(scores / options["softcap"])
    scores = scores + options.get("bias", 0)
    if case.visible is not None:
        scores = scores.masked_fill(~case.visible, -math.inf)
    if "sinks" in options:
        sinks = options["sinks"][:, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
    blind = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)


def same(ours, theirs, *inputs):
    """The same number, and the same gradients."""
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    grads = [
        torch.autograd.grad(x, inputs, retain_graph=True, materialize_grads=True)
        if x.requires_grad
        else [torch.zeros_like(one) for one in inputs]
        for x in (ours, theirs)
    ]
    assert all(bool(one.isfinite().all()) for one in grads[0])
    torch.testing.assert_close(*map(list, grads), rtol=1e-7, atol=1e-9)


def some_heads(data, count):
    return data.draw(st.none() | st.lists(st.integers(-count, count - 1), min_size=1, max_size=2))


@settings(deadline=None, max_examples=60)
@given(cases.cases(DOUBLE, queries_and_keys=SMALL), st.data())
def test_entropy_is_that_of_the_matrix(case, data):
    lazy, query, key, matrix = drawn(case)
    heads = some_heads(data, query.shape[-3])
    target = data.draw(st.none() | st.just(0.7))
    reduction = data.draw(st.sampled_from(["mean", "sum"]))
    some = data.draw(st.none() | st.just(torch.arange(query.shape[-2]) % 2 == 0))
    each = -(matrix * matrix.where(matrix > 0, 1).log()).sum(-1)
    counts = matrix.sum(-1) > 0
    if "sinks" in case.options:  # which every query sees
        counts = torch.ones_like(counts)
    if target is not None:
        each = (each - target) ** 2
    if some is not None:
        counts = counts & some
    if heads is not None:
        each, counts = each[..., heads, :], counts[..., heads, :]
    total = each[counts].sum()
    by = max(1, int(counts.sum())) if reduction == "mean" else each.shape[-2]
    ours = entropy_loss(lazy, heads=heads, target=target, queries=some, reduction=reduction)
    same(ours, total / by, query, key)


@settings(deadline=None, max_examples=60)
@given(cases.cases(DOUBLE, queries_and_keys=SMALL), st.data())
def test_guided_is_the_cross_entropy_of_the_matrix(case, data):
    lazy, query, key, matrix = drawn(case)
    heads = some_heads(data, query.shape[-3])
    reduction = data.draw(st.sampled_from(["mean", "sum"]))
    seen = (matrix > 0).all(-3)  # in all heads
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    links = (seen & (torch.rand(seen.shape, generator=generator) < 0.5)).nonzero()
    links = links[torch.randperm(len(links), generator=generator)]
    G = torch.zeros_like(matrix.select(-3, 0))
    G[tuple(links.unbind(1))] = 1
    aligned = G.sum(-1) > 0
    G = G / G.sum(-1, keepdim=True).clamp_min(1)
    logs = matrix.where(matrix > 0, 1).log()
    logs = logs if heads is None else logs[..., heads, :, :]
    total = -(G.unsqueeze(-3) * logs).sum() / logs.shape[-3]
    by = max(1, int(aligned.sum())) if reduction == "mean" else 1
    same(guided_loss(lazy, links, heads=heads, reduction=reduction), total / by, query, key)


@settings(deadline=None, max_examples=40)
@given(cases.cases(DOUBLE, queries_and_keys=SMALL), st.data())
def test_the_diagonal_is_that_of_the_matrix(case, data):
    lazy, query, key, matrix = drawn(case)
    heads = some_heads(data, query.shape[-3])
    *outer, _, queries, keys = matrix.shape
    given_places = data.draw(st.sampled_from(["none", "one", "each"]))
    outer = outer if given_places == "each" else []
    places = {
        "queries_at": torch.rand(*outer, queries, dtype=torch.float64),
        "keys_at": torch.rand(*outer, keys, dtype=torch.float64),
    }
    if given_places == "none":
        places = {}
    q = places.get("queries_at", torch.arange(queries).double() / queries)
    k = places.get("keys_at", torch.arange(keys).double() / keys)
    far = 1 - torch.exp(-((q[..., :, None] - k[..., None, :]) ** 2) / (2 * WIDTH**2))
    each = (matrix * far.unsqueeze(-3)).sum(-1)
    counts = matrix.sum(-1) > 0
    if heads is not None:
        each, counts = each[..., heads, :], counts[..., heads, :]
    ours = diagonal_loss(lazy, heads=heads, width=WIDTH, **places)
    same(ours, each.sum() / max(1, int(counts.sum())), query, key)


@pytest.mark.parametrize("width", [0.02, 0.2, 1.0, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bell_is_exact_to_rounding_whatever_its_width(width, dtype):
    """Key n of 41 alone is seen by all queries: the loss is the bell itself."""
    places = torch.linspace(0, 1, 41, dtype=dtype)
    for n in (0, 17, 40):
        only = masks.dense((torch.arange(41) == n).expand(41, 41))
        weights = attention_weights(*torch.zeros(2, 1, 41, 3, dtype=dtype), only)
        found = diagonal_loss(
            weights, width=width, queries_at=places, keys_at=places, reduction="sum"
        )
        exact = (1 - torch.exp(-((places - places[n]).double() ** 2) / (2 * width**2))).sum()
        assert float(found) == pytest.approx(float(exact), abs=41 * 16 * torch.finfo(dtype).eps)


GRADED = {
    "none": None,
    "causal": masks.causal(3),
    "padding": masks.padding(torch.tensor([7, 4])),
    "documents": masks.documents(
        torch.tensor([0, 0, 1, 1, 3]).expand(2, -1),
        torch.tensor([0, 0, 1, 1, 1, 2, 2]).expand(2, -1),
    ),
}


@pytest.mark.parametrize("mask", GRADED)
@pytest.mark.parametrize("loss", ["entropy", "target", "guided", "diagonal"])
def test_gradients_are_those_of_small_steps(loss, mask):
    """Of grouped heads, and of a query that sees nothing (the fifth, under documents)."""
    torch.manual_seed(5)
    query = torch.randn(2, 6, 5, 11, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, 3, 7, 11, dtype=torch.float64, requires_grad=True)
    links = torch.tensor([[0, 0, 1], [0, 3, 2], [0, 3, 3], [1, 1, 0], [1, 2, 3]])

    def made(query, key):
        weights = attention_weights(query, key, GRADED[mask])
        if loss == "guided":
            return guided_loss(weights, links, heads=[1, 4])
        if loss == "diagonal":
            return diagonal_loss(weights, heads=[1, 4])
        return entropy_loss(weights, heads=[1, 4], target=0.5 if loss == "target" else None)

    assert torch.autograd.gradcheck(made, (query, key), fast_mode=True)


def test_numbers_worked_out_by_hand():
    """Equal scores: each of n keys gets 1 / n."""
    zeros = torch.zeros(2, 1, 4, 3)
    weights = attention_weights(*zeros, masks.causal())
    rows = [math.log(n) for n in (1, 2, 3, 4)]
    assert float(entropy_loss(weights)) == pytest.approx(sum(rows) / 4)
    assert float(entropy_loss(weights, target=1.0, reduction="sum")) == pytest.approx(
        sum((one - 1) ** 2 for one in rows)
    )
    links = torch.tensor([[3, 0], [1, 1], [3, 2]])
    assert float(guided_loss(weights, links)) == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert float(guided_loss(weights, links, reduction="sum")) == pytest.approx(math.log(8))


def test_a_weight_too_small_for_its_dtype_has_a_log_and_a_gradient():
    query = torch.tensor([[[1000.0]]], requires_grad=True)
    key = torch.tensor([[[1.0], [0.0]]])
    weights = attention_weights(query, key, scale=1.0)
    assert float(weights[0, 0, 1].detach()) == 0
    loss = guided_loss(weights, torch.tensor([[0, 1]]))
    assert float(loss.detach()) == 1000
    assert float(torch.autograd.grad(loss, query)[0]) == 1


def test_none_aligned_is_no_loss_and_no_gradient():
    query = torch.randn(3, 5, 11, requires_grad=True)
    loss = guided_loss(attention_weights(query, torch.randn(3, 7, 11)), torch.empty(0, 2).long())
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, query)[0].any()


class Largest(TorchDispatchMode):
    """The most numbers in one tensor that an operation makes, views not counted."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and not one._is_view():
                storage = one.untyped_storage().nbytes() // one.itemsize
                self.numbers = max(self.numbers, storage)
        return made


@pytest.mark.parametrize("loss", ["entropy", "guided", "diagonal"])
def test_memory_grows_with_n(loss):
    """The matrix would be 2 x 4,001 x 4,001 numbers; no tensor has a tenth of them."""
    n = 4001
    query, key = torch.randn(2, 2, n, 5).requires_grad_()
    weights = attention_weights(query, key, masks.causal())
    links = torch.arange(n)[:, None].expand(-1, 2)
    with Largest() as largest:
        if loss == "entropy":
            made = entropy_loss(weights, target=1.0)
        elif loss == "guided":
            made = guided_loss(weights, links)
        else:
            made = diagonal_loss(weights)
        made.backward()
    assert n < largest.numbers < 2 * n * n / 10


def test_texts_end_to_end_are_each_by_itself():
    torch.manual_seed(0)
    lengths = [(3, 2), (5, 7), (1, 1)]
    links = [torch.tensor([[0, 1], [2, 0]]), torch.empty(0, 2).long(), torch.tensor([[0, 0]])]
    query, key = torch.randn(2, 9, 11), torch.randn(2, 10, 11)
    ids = [torch.arange(3).repeat_interleave(torch.tensor(n)) for n in zip(*lengths, strict=True)]
    packed = attention_weights(query, key, masks.documents(*ids))
    placed = end_to_end(links, *zip(*lengths, strict=True))
    assert placed.tolist() == [[0, 1], [2, 0], [8, 9]]
    together = guided_loss(packed, placed, reduction="sum")
    sides = zip((query, key), zip(*lengths, strict=True), strict=True)
    parts = [x.split(list(n), -2) for x, n in sides]
    alone = sum(
        guided_loss(attention_weights(q, k), one, reduction="sum")
        for q, k, one in zip(*parts, links, strict=True)
    )
    torch.testing.assert_close(together, alone)


def wrong():
    weights = attention_weights(torch.zeros(2, 3, 5, 11), torch.zeros(2, 3, 7, 11), masks.causal())
    one = attention_weights(torch.zeros(3, 5, 11), torch.zeros(3, 7, 11))
    link = torch.tensor([[0, 1, 0]])
    return [
        (lambda: guided_loss(one, torch.tensor([[0, 7]])), OutOfRangeError, "key 7.*there are 7"),
        (lambda: guided_loss(one, torch.tensor([[-1, 0]])), OutOfRangeError, "query -1"),
        (lambda: guided_loss(weights, torch.tensor([[2, 0, 0]])), OutOfRangeError, "item 2"),
        (lambda: guided_loss(weights, torch.tensor([[0, 0]])), ShapeError, "item, query, key"),
        (lambda: guided_loss(one, torch.tensor([0, 0])), ShapeError, r"\(links, 2\)"),
        (lambda: guided_loss(one, torch.tensor([[0.0, 0.0]])), TypeMismatchError, "alignments"),
        (lambda: guided_loss(weights, torch.tensor([[1, 0, 1]])), ArgumentError, "the mask hides"),
        (lambda: guided_loss(weights, link, heads=3), OutOfRangeError, "no head 3"),
        (lambda: guided_loss(weights, link, heads=[]), ArgumentError, "at least one"),
        (lambda: guided_loss(weights, link, heads=0.5), TypeMismatchError, "heads"),
        (lambda: guided_loss(weights, link, reduction="none"), ArgumentError, "reduction"),
        (lambda: guided_loss(torch.zeros(3, 5, 7), link), TypeMismatchError, "AttentionWeights"),
        (lambda: entropy_loss(one, target="low"), TypeMismatchError, "target"),
        (lambda: entropy_loss(one, queries=torch.ones(5)), TypeMismatchError, "bool"),
        (lambda: entropy_loss(one, queries=torch.ones(4).bool()), ShapeError, r"\(3, 5\)"),
        (lambda: diagonal_loss(one, width=0), ArgumentError, "width"),
        (lambda: diagonal_loss(one, keys_at=torch.zeros(5)), ShapeError, r"keys_at must be \(7,\)"),
        (lambda: diagonal_loss(one, keys_at=torch.arange(7.0)), ArgumentError, "0 to 1"),
        (lambda: diagonal_loss(one, keys_at=[0.0] * 7), TypeMismatchError, "float tensor"),
        (lambda: end_to_end([torch.tensor([[0, 3]])], [2], [3]), OutOfRangeError, "key 3"),
        (lambda: end_to_end([], [2], [3]), ShapeError, "has 0 texts"),
    ]


@pytest.mark.parametrize("number", range(len(wrong())))
def test_what_does_not_fit_is_refused_in_words(number):
    call, error, words = wrong()[number]
    with pytest.raises(error, match=words):
        call()


def guided(made, part, name="decoder.blocks.0.cross"):
    """The loss of a translator and of its attention, on the diagonal of each pair."""
    with pellucid.watch(made.model, layers=[name]) as seen:
        loss = made(part)
    lengths = [texts.lengths[part] for texts in (made.pairs[1], made.pairs[0])]
    links = [torch.arange(min(both))[:, None].expand(-1, 2) for both in zip(*lengths, strict=True)]
    links = end_to_end(links, *lengths)
    return loss + guided_loss(seen[name], links, heads=1, reduction="sum")


def test_packed_pairs_teach_attention_what_they_teach_alone(tmp_path):
    made = objective("translator", tmp_path).double()
    part = made.batch(0)
    assert len(part) > 2
    together, alone = guided(made, part), sum(guided(made, [text]) for text in part)
    torch.testing.assert_close(together, alone)
    grads = [torch.autograd.grad(one, list(made.parameters())) for one in (together, alone)]
    torch.testing.assert_close(*grads)


def test_blocks_that_run_again_teach_attention_the_same(tmp_path):
    made = objective("translator", tmp_path).double()
    part = made.batch(0)
    plain = torch.autograd.grad(guided(made, part), list(made.parameters()))
    loop._recompute(made)
    again = torch.autograd.grad(guided(made, part), list(made.parameters()))
    torch.testing.assert_close(again, plain)


def test_attention_learns_where_to_look(tmp_path):
    made = objective("translator", tmp_path)
    part = made.batch(0)
    plain = made(part)
    start = float((guided(made, part) - plain).detach())
    fast = torch.optim.Adam(made.parameters(), 0.01, fused=True)
    for _ in range(15):
        for _ in range(10):
            fast.zero_grad()
            guided(made, part).backward()
            fast.step()
        with torch.no_grad():
            left = float(guided(made, part) - made(part))
        if left < start / 20:
            return
    pytest.fail(f"{left / start:.0%} of what attention had to learn is left after 150 steps")

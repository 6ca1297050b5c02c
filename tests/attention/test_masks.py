"""Masks by their definition: who is seen, what is skipped, how they combine and print."""

import functools
import operator
import re
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pellucid
from pellucid import PellucidError, masks
from pellucid.attention.backends.sdpa import plan
from pellucid.attention.backends.varlen import DocumentBatch
from pellucid.attention.functional import attention_weights
from pellucid.attention.masks import Extent, Heads, Mask, Rows, Spans, as_mask
from pellucid.attention.reference import stages
from pellucid.errors import ShapeError, TypeMismatchError
from tests.attention.cases import by_rule, mask_rules, random


@given(data=st.data(), batch=st.integers(1, 3), queries=st.integers(1, 11), keys=st.integers(1, 13))
def test_spans_bound_what_is_seen(data: Any, batch: int, queries: int, keys: int) -> None:
    mask, rule = data.draw(mask_rules((batch,), queries, keys))
    visible = by_rule(rule, batch, queries, keys)[:, 0]
    extent = Extent(torch.Size((batch,)), 1, queries, keys, torch.device("cpu"))
    bound = mask.bind(extent)
    start = data.draw(st.integers(0, queries - 1))
    stop = data.draw(st.integers(start + 1, queries))
    for item in range(batch):
        one = bound if bound.batch is None else bound.at(item)
        tile = one.tile(slice(0, 1), slice(0, queries), slice(0, keys), torch.device("cpu"))
        assert torch.equal(tile[0], visible[item])
        some, every = one.spans(start, stop, keys)
        rows = visible[item, start:stop]
        inside = torch.zeros(keys, dtype=torch.bool)
        for a, b in some:
            inside[a:b] = True
        assert not rows[:, ~inside].any()
        for a, b in every:
            assert rows[:, a:b].all()
        for a, b in some:
            part = one.restrict(slice(start, stop), slice(a, b), keys)
            if part is None:
                assert rows[:, a:b].all()
            else:
                size = (slice(0, stop - start), slice(0, b - a))
                assert torch.equal(
                    part.tile(slice(0, 1), *size, torch.device("cpu"))[0], rows[:, a:b]
                )


class Counted(Mask):
    """Another mask, which counts the questions it is asked."""

    def __init__(self, rule: Mask) -> None:
        self.rule = rule
        self.asked = Counter[str]()

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        self.asked["spans"] += 1
        return self.rule.spans(start, stop, keys)

    def crop(self, rows: slice, cols: slice) -> Mask:
        self.asked["crop"] += 1
        return self.rule.crop(rows, cols)


@pytest.mark.parametrize("depth", [2, 61])
@pytest.mark.parametrize("join", [operator.and_, operator.or_, lambda a, b: ~a & b])
def test_a_deep_mask_asks_each_part_once(depth: int, join: Any) -> None:
    limits = [masks.window(left=5 + i % 3, right=i % 2) for i in range(depth)]
    parts = [Counted(rule) for rule in limits]
    mask = functools.reduce(join, parts).restrict(slice(3, 13), slice(2, 11), 17)
    assert all(part.asked["spans"] == 1 for part in parts)
    assert all(part.asked["crop"] <= 1 for part in parts)
    assert sum(part.asked["crop"] for part in parts) > 1
    tile = mask.tile(slice(0, 1), slice(0, 10), slice(0, 9), torch.device("cpu"))
    whole = functools.reduce(join, limits).dense(13, 17)
    assert torch.equal(tile[0], whole[3:, 2:11])


def test_a_part_that_decides_nothing_is_left_out() -> None:
    inside = (slice(0, 3), slice(0, 5), 7)
    window = masks.window(left=1, right=0)
    hidden = ~(masks.prefix(5) & masks.prefix(6))  # hides all of the rectangle
    assert (window & masks.prefix(5)).restrict(*inside) == window
    assert (window | hidden).restrict(*inside) == window
    assert (window & ~hidden).restrict(*inside) == window
    assert (~hidden).restrict(*inside) is None


def work(mask: Any, queries: int, keys: int, batch: int = 1) -> tuple[float, int]:
    """The share of the matrix that the kernels are asked for, and in how many calls."""
    q, k = torch.zeros(batch, 1, queries, 4), torch.zeros(batch, 1, keys, 4)
    calls = plan(attention_weights(q, k, mask).operands)
    areas = (
        c.queries.positions.numel() * c.keys.positions.shape[1]
        if isinstance(c, DocumentBatch)
        else (c.items.stop - c.items.start) * (c.rows.stop - c.rows.start) * c.width
        for c in calls
    )
    area = sum(size * (0.5 if c.causal else 1) for size, c in zip(areas, calls, strict=True))
    return area / (batch * queries * keys), len(calls)


def test_hidden_blocks_cost_nothing() -> None:
    assert work(masks.causal(), 4096, 4096) == (0.5, 1)
    share, _ = work(masks.window(left=511, right=0), 4096, 4096)
    assert share < 640 / 4096 + 0.01
    assert work(masks.padding(1024), 4096, 4096) == (0.25, 1)
    assert work(masks.padding(torch.tensor([1024, 2048])), 4096, 4096, batch=2) == (0.375, 2)
    ids = torch.arange(4096) // 512
    assert work(masks.documents(ids), 4096, 4096) == (1 / 8, 1)
    assert work(masks.documents(ids) & masks.causal(), 4096, 4096) == (1 / 16, 1)
    assert work(masks.causal() & masks.padding(4096), 4096, 4096) == (0.5, 1)
    share, calls = work(masks.causal(offset=1000), 1000, 2000)
    assert (share, calls) == (0.75, 2)
    assert work(masks.window(left=5000, right=0), 4096, 4096) == (0.5, 1)
    left_padded = masks.dense(torch.arange(4096)[None, None, None] >= 3072)
    assert work(left_padded, 4096, 4096) == (0.25, 1)


def test_a_window_of_one_sees_itself_only() -> None:
    q, k, v = (random(1, 2, 7, 5, seed=i) for i in range(3))
    context, weights = pellucid.attention(q, k, v, masks.window(left=0, right=0))
    torch.testing.assert_close(context, v)
    torch.testing.assert_close(weights.dense()[0, 0], torch.eye(7))


def test_many_holes_are_gathered_into_one_call() -> None:
    visible = torch.arange(101) % 2 == 0
    k, v = random(1, 2, 101, 5, seed=1), random(1, 2, 101, 3, seed=2)
    k[:, :, ~visible] = torch.nan
    v[:, :, ~visible] = torch.nan
    q = random(1, 2, 7, 5, seed=0)
    assert len(plan(attention_weights(q, k, visible).operands)) == 1
    context, weights = pellucid.attention(q, k, v, visible)
    expected, _ = pellucid.attention(q, k[:, :, visible], v[:, :, visible])
    torch.testing.assert_close(context, expected)
    assert weights.received().isfinite().all()


def test_documents_of_one_length_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = torch.tensor([31, 31, 31, 29, 17, 17])
    for names in ([0, 1, 2, 3, 4, 5], [9, 3, 5, 0, 7, 2]):
        ids = torch.tensor(names).repeat_interleave(lengths)
        share, calls = work(masks.documents(ids), 156, 156)
        assert (share, calls) == (6 * 31**2 / 156**2, 1)  # so short that to fill up is quicker
        with monkeypatch.context() as patch:
            patch.setattr("pellucid.attention.backends.varlen.CALL", 0)
            share, calls = work(masks.documents(ids), 156, 156)
            assert (share, calls) == (int((lengths**2).sum()) / 156**2, 3)
    # One that goes on after another is no block.
    ids = torch.tensor([0, 1, 0]).repeat_interleave(torch.tensor([53, 59, 44]))
    q, k, v = (random(1, 3, 156, 5, seed=i) for i in range(3))
    context, _ = pellucid.attention(q, k, v, masks.documents(ids))
    expected, _ = pellucid.attention(q, k, v, ids[:, None] == ids, backend="reference")
    torch.testing.assert_close(context, expected)


def test_documents_that_nobody_shares_are_no_call() -> None:
    q, k, v = random(1, 2, 3, 5, seed=0), random(1, 2, 7, 5, seed=1), random(1, 2, 7, 3, seed=2)
    mask = masks.documents(torch.tensor([2, 2, 4]), torch.arange(7) // 3 + 7)
    context, weights = pellucid.attention(q, k, v, mask)
    assert not plan(weights.operands)
    assert torch.equal(context, torch.zeros(1, 2, 3, 3))
    assert (weights.logsumexp == -torch.inf).all()


@given(
    lengths=st.lists(st.integers(1, 23), min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
)
def test_documents_in_one_row_are_as_alone(lengths: list[int], order: Any) -> None:
    names = list(range(len(lengths)))
    order.shuffle(names)
    ids = torch.tensor(names).repeat_interleave(torch.tensor(lengths))
    q, k, v = (random(1, 2, len(ids), 5, seed=i) for i in range(3))
    context, weights = pellucid.attention(q, k, v, masks.documents(ids))
    found = context.split(lengths, 2)
    parts = zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True)
    for one, part in zip(found, parts, strict=True):
        torch.testing.assert_close(one, pellucid.attention(*part)[0])
    torch.testing.assert_close(weights @ v, context)


@pytest.mark.parametrize("dear", [0, 2**7, 2**16])
@given(
    data=st.data(),
    batch=st.integers(1, 3),
    kind=st.sampled_from(["documents", "causal", "across"]),
)
def test_documents_of_any_lengths_in_any_row(
    dear: int, data: st.DataObject, batch: int, kind: str
) -> None:
    def ids(total: int) -> torch.Tensor:
        rows = st.lists(st.integers(0, 5), min_size=total, max_size=total)
        found = torch.tensor([data.draw(rows) for _ in range(batch)])
        return found.sort(-1).values if data.draw(st.booleans()) else found

    ours = ids(13)
    theirs = ids(17) if kind == "across" else ours
    mask, visible = masks.documents(ours, theirs), ours[:, None, :, None] == theirs[:, None, None]
    if kind == "causal":
        mask, visible = masks.causal() & mask, visible & torch.ones(13, 13, dtype=torch.bool).tril()
    seen = visible.any(-1)
    q, k, v = (random(batch, 3, n, 5, seed=n).double() for n in (13, *[theirs.shape[1]] * 2))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.attention.backends.varlen.CALL", dear)
        context, weights = pellucid.attention(q, k, v, mask)
        loss = context.square().sum() + weights.logsumexp.masked_fill(~seen, 0).sum()
        found = torch.autograd.grad(loss, leaves)
    wanted = stages(q, k, v, visible)
    torch.testing.assert_close(context, wanted.context)
    scores = (q @ k.mT / 5**0.5).masked_fill(~visible & seen[..., None], -torch.inf)
    sums = scores.logsumexp(-1).masked_fill(~seen, 0).sum()
    expected = torch.autograd.grad(wanted.context.square().sum() + sums, leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_bands_that_repeat_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    _, calls = work(masks.window(left=511, right=0), 8192, 8192)
    assert calls <= 8  # the first rows see fewer keys; the others are alike
    monkeypatch.setattr("pellucid.attention.backends.tiling.BAND_ROWS", 3)
    monkeypatch.setattr("pellucid.attention.backends.tiling.LEAST_ROWS", 2)
    q, k, v = (random(2, 3, 17, 5, seed=i).double().requires_grad_() for i in range(3))
    mask = masks.window(4, 1)
    assert max(p.bands for p in plan(attention_weights(q, k, mask).operands)) > 2
    distance = torch.arange(17) - torch.arange(17)[:, None]
    found = pellucid.attention(q, k, v, mask)
    wanted = stages(q, k, v, (distance >= -4) & (distance <= 1))
    torch.testing.assert_close(found[0], wanted.context)
    losses = [
        context.square().sum() + weights[:, :, ::5].square().sum()
        for context, weights in (found, (wanted.context, wanted.weights))
    ]
    grads = [torch.autograd.grad(loss, (q, k, v)) for loss in losses]
    torch.testing.assert_close(*grads)


def test_masks_print_themselves() -> None:
    assert repr(masks.causal()) == "causal()"
    assert repr(masks.causal(3)) == "causal(offset=3)"
    assert repr(masks.window(511, 0)) == "window(left=511, right=0)"
    assert repr(~masks.padding(torch.tensor([3, 5]))) == "~padding([3, 5])"
    assert repr(masks.causal() & masks.prefix(2) | masks.window(1, 1)) == (
        "((causal() & prefix(2)) | window(left=1, right=1))"
    )
    assert repr(masks.dense(torch.ones(5, 7, dtype=torch.bool))) == "dense(5 x 7)"
    assert repr(masks.documents(torch.tensor([0, 0, 1]))) == "documents(2 ids over 3 queries)"


def test_padding_by_flags_is_read_as_it_is() -> None:
    keys = torch.arange(11)
    right = keys < torch.tensor([3, 11])[:, None]
    assert repr(masks.padding(right)) == repr(masks.padding(torch.tensor([3, 11])))
    assert repr(masks.padding(right[0])) == "padding(3)"
    left = keys >= torch.tensor([0, 4])[:, None]
    assert repr(masks.padding(left)) == "padding(left [0, 4] of 11)"
    assert repr(masks.padding(left[1])) == "padding(left 4 of 11)"
    assert repr(masks.padding(keys % 3 > 0)) == "padding(7 of 11 keys)"
    assert repr(masks.padding(torch.stack([right[0], left[1]]))) == "padding(10 of 22 keys)"
    assert repr(masks.padding(torch.ones(2, dtype=torch.int64))) == "padding([1, 1])"  # lengths
    assert repr(Rows(keys < 4)) == "rows(4 of 11 queries)"


def test_padding_by_flags_costs_what_is_real() -> None:
    left = torch.arange(4096) >= torch.tensor([3072, 2048])[:, None]
    assert work(masks.padding(left), 4096, 4096, batch=2) == (0.375, 2)
    assert work(masks.padding(left[0]), 4096, 4096) == (0.25, 1)
    share, _ = work(masks.causal() & masks.padding(left[0]), 4096, 4096)
    assert share == 1 / 32
    assert work(Rows(left[0]), 4096, 4096) == (0.25, 1)


def test_tensors_combine_with_masks() -> None:
    visible = torch.ones(5, 7, dtype=torch.bool)
    assert repr(masks.causal() & visible) == "(causal() & dense(5 x 7))"
    assert repr(visible | masks.causal()) == "(causal() | dense(5 x 7))"


BAD = [
    (lambda: masks.window(left=-1), "window needs left to be None or an int >= 0, got -1"),
    (lambda: masks.window(right=1.5), "window needs right to be None or an int >= 0, got 1.5"),
    (lambda: masks.padding(-3), "padding must not be negative, got -3"),
    (lambda: masks.padding(torch.tensor([2, -1])), "padding must not be negative, got [2, -1]"),
    (lambda: masks.padding(torch.tensor(True)), "padding needs flags of shape (..., keys)"),
    (lambda: masks.padding(torch.tensor([2.0])), "padding must be an int or an int tensor"),
    (lambda: masks.causal(True), "offset must be an int or an int tensor, got True"),
    (lambda: masks.dense(torch.ones(5, 7)), "mask must be a pellucid mask or a bool tensor"),
    (lambda: masks.documents(torch.ones(5)), "documents needs ids to be an int tensor"),
    (lambda: masks.documents(torch.tensor(5)), "documents needs ids of shape (..., positions)"),
]
UNFIT = [
    (masks.padding(9), "padding has a length of 9 but there are 7 keys"),
    (
        masks.padding(torch.tensor([1, 2, 3])),
        "padding has 3 values, one per batch item, but the batch shape is (2,)",
    ),
    (masks.causal(torch.tensor([1, 2, 3])), "offset has 3 values"),
    (
        masks.padding(torch.ones(2, 5, dtype=torch.bool)),
        "padding has 5 key flags but there are 7",
    ),
    (masks.padding(torch.arange(5) > 1), "padding has 5 key flags but there are 7"),
    (
        masks.padding(torch.arange(7).expand(3, 7) > 1),
        "padding has flags of shape (3, 7), one row per batch item, but the batch shape is (2,)",
    ),
    (Rows(torch.arange(7) > 1), "rows has 7 query flags but there are 5"),
    (
        torch.ones(4, 7, dtype=torch.bool),
        "mask of shape (4, 7) does not broadcast to (..., heads, queries, keys) = (2, 3, 5, 7)",
    ),
    (
        masks.documents(torch.zeros(5).long()),
        "documents has ids for 5 key positions but there are 7",
    ),
    (
        masks.documents(torch.zeros(3, 5).long(), torch.zeros(7).long()),
        "documents has query ids of shape (3, 5) but the batch shape is (2,)",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_masks(make: Any, message: str) -> None:
    with pytest.raises(PellucidError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(("mask", "message"), UNFIT)
def test_masks_that_do_not_fit(mask: Any, message: str) -> None:
    q, k = random(2, 3, 5, 11, seed=0), random(2, 3, 7, 11, seed=1)
    with pytest.raises(PellucidError, match=re.escape(message)):
        pellucid.attention(q, k, k, mask)


@given(data=st.data())
def test_dense_is_the_definition(data: Any) -> None:
    batch_shape = data.draw(st.sampled_from([(), (2,)]))
    mask, rule = data.draw(mask_rules(batch_shape, 5, 7))
    batch = batch_shape[0] if batch_shape else 1
    found = as_mask(mask).dense(5, 7)
    assert found.shape[-2:] == (5, 7)
    assert torch.equal(found.expand(batch, 1, 5, 7), by_rule(rule, batch, 5, 7))


@given(data=st.data())
def test_masks_made_alike_are_equal(data: Any) -> None:
    seed = data.draw(st.integers(0, 2**16))
    offset = torch.tensor([seed % 5, 2])

    def made(last: int) -> masks.Mask:
        ids = torch.tensor([0, 0, 1, 1, last])
        return (masks.causal(offset.clone()) & masks.documents(ids)) | ~masks.padding([3, seed])

    one, other = made(2), made(2)
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1
    assert one != made(1)
    assert one != masks.causal()
    assert one != "a mask"


def test_order_does_not_matter_to_equality() -> None:
    left, right = masks.causal(), masks.padding([3, 5])
    for joined, turned in ((left & right, right & left), (left | right, right | left)):
        assert joined == turned
        assert hash(joined) == hash(turned)
    assert (left & right) != (left | right)
    assert masks.window(right=0) == masks.causal()
    assert masks.prefix(3) != masks.padding(3)
    assert masks.padding(torch.tensor([3])) != masks.padding(3)


def test_lists_are_numbers_one_an_item() -> None:
    for make in (masks.padding, masks.prefix, masks.causal):
        assert make([3, 5]) == make(torch.tensor([3, 5]))
        assert make((3, 5)).dense(5, 7).shape == (2, 1, 5, 7)
    for wrong in ([], [1.5], [True]):
        with pytest.raises(TypeMismatchError, match="must be ints"):
            masks.padding(wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="2 values, one per batch item"):
        attention_weights(*(random(3, 1, 5, 3, seed=i) for i in range(2)), masks.padding([1, 2]))


HEAD_FLAGS = [
    torch.tensor([True, False, True, False]),
    torch.tensor([[True, False, True, True], [False, False, True, False]]),
]


@pytest.mark.parametrize("flags", HEAD_FLAGS)
@pytest.mark.parametrize("backend", ["auto", "sdpa", "blockwise", "reference"])
def test_a_rule_of_some_heads(flags: torch.Tensor, backend: str) -> None:
    """Links of flagged heads are hidden, and those of others are not."""
    query, key, value = (random(2, 4, n, 11, seed=at) for at, n in enumerate((5, 7, 7)))
    rule = ~(Heads(flags) & Rows(torch.arange(5) > 1) & masks.padding(torch.arange(7) % 3 == 1))
    visible = ~(
        flags.expand(2, 4)[:, :, None, None]
        & (torch.arange(5) > 1)[:, None]
        & (torch.arange(7) % 3 == 1)
    )
    truth = stages(query.double(), key.double(), value.double(), visible)
    context, weights = pellucid.attention(query, key, value, rule, backend=backend)
    torch.testing.assert_close(context.double(), truth.context, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.dense().double(), truth.weights, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        weights.received().double(), truth.weights.sum(-2), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(rule.dense(5, 7).expand(2, 4, 5, 7), visible)
    one = weights.head(1, 2)
    torch.testing.assert_close(one.dense()[0], weights.dense()[1, 2])
    assert repr(Heads(flags)) == f"heads({int(flags.sum())} of {flags.numel()})"
    with pytest.raises(ShapeError, match="heads has 4 head flags but there are 3"):
        attention_weights(query[:, :3], key[:, :3], rule)

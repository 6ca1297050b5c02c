"""What others build on: what weights are made of, NumPy, reductions, flags, devices, old names."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid import AttentionWeights, energies, masks
from pellucid.attention import attention_weights, given_weights
from pellucid.errors import (
    ArgumentError,
    OutOfRangeError,
    ShapeError,
    TooLargeError,
    TypeMismatchError,
)
from tests.attention.cases import Case, assert_within_budget, cases, indices, random

EPS = 2**-23
FEW = settings(max_examples=30)


def weights_of(case: Case) -> AttentionWeights:
    return attention_weights(case.query, case.key, case.mask, **case.options)


def small(**options: Any) -> AttentionWeights:
    query, key = random(2, 6, 5, 11, seed=0), random(2, 3, 7, 11, seed=1)
    return attention_weights(query, key, masks.causal(2), **options)


@FEW
@given(case=cases(), data=st.data())
def test_sums_and_means_are_those_of_the_dense_tensor(case: Case, data: Any) -> None:
    weights = weights_of(case)
    exact, plain = case.reference().weights, case.reference(torch.float32).weights
    axes = st.integers(-weights.ndim, weights.ndim - 1)
    several = st.lists(axes, min_size=1, max_size=3, unique_by=lambda x: x % weights.ndim)
    dim = data.draw(st.none() | axes | several)
    keepdim = data.draw(st.booleans())
    keepdim = keepdim and dim is not None
    scores = case.reference().masked
    for how in ("sum", "mean"):
        wanted = [getattr(x, how)(dim, keepdim=keepdim) for x in (plain, exact)]
        assert_within_budget(getattr(weights, how)(dim, keepdim), *wanted, EPS, scores)


@FEW
@given(case=cases(), data=st.data())
def test_maxima_are_those_of_the_dense_tensor(case: Case, data: Any) -> None:
    weights = weights_of(case)
    exact, plain = case.reference().weights, case.reference(torch.float32).weights
    scores = case.reference().masked
    assert_within_budget(weights.max(), plain.max(), exact.max(), EPS, scores)
    dim, keepdim = data.draw(st.integers(-weights.ndim, weights.ndim - 1)), data.draw(st.booleans())
    values, indices = weights.max(dim, keepdim)
    wanted = [x.max(dim, keepdim).values for x in (plain, exact)]
    assert_within_budget(values, *wanted, EPS, scores)
    there = weights.dense().gather(dim, indices if keepdim else indices.unsqueeze(dim))
    torch.testing.assert_close(there if keepdim else there.squeeze(dim), values)


@pytest.mark.parametrize(
    "reduce",
    [
        lambda w: w.sum(0).square().sum(),
        lambda w: w.sum((-2, 0)).square().sum(),
        lambda w: w.sum(-1).square().sum(),
        lambda w: w.mean(1).square().sum(),
        lambda w: w.max(-1)[0].square().sum(),
        lambda w: w.max(-2)[0].square().sum(),
        lambda w: w.max(1)[0].square().sum(),
        lambda w: w.max(),
    ],
)
def test_reductions_have_the_gradients_of_the_dense_tensor(reduce: Any) -> None:
    query, key = (random(2, 3, n, 5, seed=n).double().requires_grad_() for n in (5, 7))
    sinks = random(3, seed=2).double().requires_grad_()
    inputs = query, key, sinks
    lazy = attention_weights(query, key, masks.causal(2), sinks=sinks)
    visible = torch.ones(5, 7, dtype=torch.bool).tril(2)
    dense = Case(query, key, key, visible=visible)
    logits = torch.cat(
        [
            ((query @ key.mT) * 5**-0.5).masked_fill(~visible, -torch.inf),
            sinks[:, None, None].expand(2, 3, 5, 1),
        ],
        -1,
    )
    assert dense.visible is not None
    plain = logits.softmax(-1)[..., :-1]
    found = torch.autograd.grad(reduce(lazy), inputs)
    expected = torch.autograd.grad(reduce(plain), inputs)
    torch.testing.assert_close(found, expected)


def test_reductions_say_what_is_wrong() -> None:
    weights = small()
    with pytest.raises(OutOfRangeError, match="dim must be from -4 to 3, got 4"):
        weights.sum(4)
    with pytest.raises(ArgumentError, match="different axes"):
        weights.mean((1, -3))
    with pytest.raises(TypeMismatchError, match="dim must be an int"):
        weights.max("keys")  # type: ignore[call-overload]
    with pytest.raises(TooLargeError, match=r"the answer of shape \(2, 1, 5, 7\) needs 280 B"):
        weights.sum(1, limit=279)
    assert weights.sum(1, limit=280).shape == (2, 5, 7)


def test_sums_over_keys_and_queries_form_no_matrix() -> None:
    """At 100,003 tokens a head alone would be 40 GB."""
    query = torch.zeros(1, 1, 100_003, 1)
    weights = attention_weights(query[:, :, :7], query)
    assert torch.allclose(weights.sum(-1), torch.ones(1, 1, 7))
    assert weights.sum(-2).shape == (1, 1, 100_003)
    assert weights.max(-2).values.shape == (1, 1, 100_003)


@FEW
@given(case=cases(), data=st.data())
def test_flags_pick_what_they_pick_of_the_dense_tensor(case: Case, data: Any) -> None:
    weights = weights_of(case)
    dense = weights.dense()
    first = data.draw(st.integers(0, weights.ndim - 1))
    last = data.draw(st.integers(first + 1, min(weights.ndim, first + 3)))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    flags = torch.rand(weights.shape[first:last], generator=seed) < 0.4
    given: Any = flags
    if flags.ndim == 1:
        given = data.draw(st.sampled_from([flags, flags.tolist(), flags.numpy()]))
    before = [data.draw(st.sampled_from([slice(None), 0, None])) for _ in range(first)]
    before += [slice(None)] * (first - sum(part is not None for part in before))
    index = (*before, given)
    expected = dense[(*before, flags)]
    torch.testing.assert_close(weights[index], expected)
    torch.testing.assert_close(given_weights(dense)[index], expected)


def test_flags_that_do_not_fit_are_refused() -> None:
    for wrong in (torch.ones(6, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)):
        with pytest.raises(OutOfRangeError, match="flags do not fit axis"):
            small()[..., 0, wrong] if wrong.ndim == 1 else small()[wrong]


@FEW
@given(case=cases(), data=st.data())
def test_any_index_of_the_transpose_is_that_part_of_it(case: Case, data: Any) -> None:
    weights = weights_of(case)
    turned = weights.dense().mT
    index = tuple(data.draw(indices(turned.shape)))
    torch.testing.assert_close(weights.T[index], turned[index])
    torch.testing.assert_close(given_weights(turned.mT).T[index], turned[index])


def test_the_transpose_is_as_lazy_as_the_weights() -> None:
    weights = small()
    turned = weights.T
    assert len(turned) == 2
    assert torch.equal(next(iter(turned)), weights.dense()[0].mT)
    assert torch.equal(turned.dense(), weights.dense().mT)
    assert np.array_equal(np.asarray(turned), weights.dense().mT.numpy())
    with pytest.raises(TooLargeError, match=r"dense\(\) of shape \(2, 6, 7, 5\)"):
        turned.numpy(limit=3)
    assert turned.to(torch.float64).dtype == torch.float64


def test_numpy_has_the_limit_of_dense() -> None:
    weights = small()
    assert np.array_equal(weights.numpy(), weights.dense().numpy())
    assert np.asarray(weights.masked, dtype=np.float64).dtype == np.float64
    with pytest.raises(TooLargeError):
        weights.numpy(limit=7)
    with pytest.raises(ValueError, match="must copy"):
        np.asarray(weights, copy=False)
    large = attention_weights(torch.zeros(1, 8, 16384, 1), torch.zeros(1, 8, 16384, 1))
    for ask in (np.asarray, np.array):
        with pytest.raises(TooLargeError, match=r"needs 8\.0 GiB, above the limit of 1\.0 GiB"):
            ask(large)


def test_numpy_needs_no_detaching() -> None:
    query = random(1, 5, 3, seed=0).requires_grad_()
    weights = attention_weights(query, query)
    assert weights.requires_grad
    assert weights.numpy().shape == (1, 5, 5)


@FEW
@given(case=cases())
def test_in_float64_they_are_the_oracle_s(case: Case) -> None:
    weights = weights_of(case).to(torch.float64)
    assert weights.dtype == torch.float64
    torch.testing.assert_close(weights.dense(), case.reference().weights, rtol=1e-9, atol=1e-12)
    assert weights.to(torch.float64) is weights.cpu() is weights.to("cpu", torch.float64)


@FEW
@given(case=cases())
def test_on_another_device_everything_is_there(case: Case) -> None:
    weights = weights_of(case)
    weights.logsumexp  # noqa: B018
    moved = weights.to("meta")
    assert moved.device.type == "meta"
    assert moved.shape == weights.shape
    assert moved.logsumexp.is_meta
    mapped: list[Tensor] = []
    moved.operands.map(lambda x: mapped.append(x) or x)  # type: ignore[func-returns-value]
    assert all(x.is_meta for x in mapped)
    assert moved.bytes_held() == weights.bytes_held()


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeMismatchError, match=r"float32 or float64, not torch\.bfloat16"):
        small().to(torch.bfloat16)


@pytest.mark.parametrize("energy", ["scaled_dot_product", "additive", "function"])
def test_detached_weights_are_constants(energy: str) -> None:
    query, key = (random(2, 3, n, 11, seed=n).requires_grad_() for n in (5, 7))
    matrix = random(11, 13, seed=3).requires_grad_()
    how: Any = {
        "scaled_dot_product": energy,
        "additive": energies.Additive(matrix, matrix, random(13, seed=4).requires_grad_()),
        "function": lambda q, k: (q @ matrix) @ (k @ matrix).mT,
    }[energy]
    weights = attention_weights(query, key, score=how, bias=random(7, seed=2).requires_grad_())
    detached = weights.detach()
    assert weights.requires_grad
    assert not detached.requires_grad
    assert not detached.dense().requires_grad
    assert not detached.entropy().requires_grad
    torch.testing.assert_close(detached.dense(), weights.dense().detach())


def test_what_they_are_made_of_is_there() -> None:
    bias, sinks = random(7, seed=2), random(6, seed=3)
    weights = small(bias=bias, sinks=sinks, scale=0.25, softcap=2.0)
    assert torch.equal(weights.query, random(2, 6, 5, 11, seed=0))
    assert torch.equal(weights.key, random(2, 3, 7, 11, seed=1))
    assert torch.equal(weights.bias, bias.expand(2, 6, 5, 7))
    assert weights.sinks is sinks
    assert (weights.scale, weights.softcap, weights.kv_heads) == (0.25, 2.0, 3)
    assert repr(weights.mask) == "causal(offset=2)"
    assert isinstance(weights.energy, energies.ScaledDotProduct)
    assert not weights.is_known
    weights.logsumexp  # noqa: B018
    assert weights.is_known
    again = attention_weights(
        weights.query,
        weights.key,
        weights.mask,
        bias=weights.bias,
        sinks=weights.sinks,
        scale=weights.scale,
        softcap=weights.softcap,
    )
    assert torch.equal(again.dense(), weights.dense())
    bare = given_weights(weights.dense())
    with pytest.raises(ArgumentError, match="without a query and a key"):
        bare.query  # noqa: B018
    with pytest.raises(ArgumentError, match="without a query and a key"):
        bare.key  # noqa: B018


@FEW
@given(case=cases(), data=st.data())
def test_an_item_is_that_item_of_all(case: Case, data: Any) -> None:
    weights = weights_of(case)
    place = tuple(data.draw(st.integers(-n, n - 1)) for n in weights.shape[:-3])
    torch.testing.assert_close(weights.batch_item(*place).dense(), weights.dense()[place])
    with pytest.raises(OutOfRangeError, match=r"batch_item\(\) takes"):
        weights.batch_item(*place, 0)


@FEW
@given(case=cases())
def test_visible_keys_are_counted(case: Case) -> None:
    weights = weights_of(case)
    every = torch.ones((), dtype=torch.bool)
    seen = (every if case.visible is None else case.visible).expand(weights.shape)
    assert torch.equal(weights.visible(), seen.sum(-1))
    if weights.shape[:-3].numel() == 1:
        assert weights.work() >= int(seen.flatten(0, -3)[0].sum())


def test_given_weights_tell_visible_keys_by_any_head() -> None:
    dense = torch.tensor([[[0.5, 0.5, 0.0]], [[0.0, 1.0, 0.0]]])
    assert given_weights(dense).visible().tolist() == [[2], [2]]
    known = given_weights(dense).placed(2).statistics(top=1).mean_distance
    assert known.tolist() == [[1.5], [1.0]]  # from key 2


@FEW
@given(case=cases(), data=st.data())
def test_cells_are_sums_and_maxima(case: Case, data: Any) -> None:
    weights = weights_of(case)
    exact, plain = case.reference().weights, case.reference(torch.float32).weights
    queries, keys = weights.shape[-2:]
    down, across = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    first = data.draw(st.integers(0, keys - 1))
    rows: Any = slice(data.draw(st.integers(0, queries - 1)), None)
    if data.draw(st.booleans()):
        flags = data.draw(st.lists(st.booleans(), min_size=queries, max_size=queries))
        rows = [place for place, flag in enumerate(flags) if flag] or [0]
    known = weights.logsumexp[..., rows] if data.draw(st.booleans()) else None
    found = weights.cells((down, across), (rows, slice(first, None)), known)
    scores = case.reference().masked
    for join, ours in (("sum", found.sums), ("amax", found.largest)):
        wanted = [
            torch.stack(
                [
                    torch.stack(
                        [getattr(cell, join)((-2, -1)) for cell in strip.split(across, -1)], -1
                    )
                    for strip in dense[..., rows, first:].split(down, -2)
                ],
                -2,
            )
            for dense in (plain, exact)
        ]
        assert_within_budget(ours, *wanted, EPS, scores)
    torch.testing.assert_close(found.logsumexp, weights.logsumexp[..., rows])


def test_cells_say_what_is_wrong() -> None:
    weights = small()
    with pytest.raises(ArgumentError, match="at least 1 each way"):
        weights.cells((0, 1))
    with pytest.raises(ArgumentError, match="ascending positions"):
        weights.cells((1, 1), ([2, 1], slice(None)))
    with pytest.raises(OutOfRangeError, match="queries must be from 0 to 4"):
        weights.cells((1, 1), ([5], slice(None)))


def test_the_strongest_after_factors() -> None:
    weights = small()
    factors = random(2, 6, 7, seed=5).abs()
    values, indices = weights.top(3, factors=factors)
    expected = (weights.dense() * factors.unsqueeze(-2)).topk(3)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(indices, expected.indices)
    with pytest.raises(ShapeError, match=r"factors must be \(..., heads, keys\)"):
        weights.top(3, factors=factors[..., :-1])


def test_repr_counts_all_that_is_held() -> None:
    query, key = random(1, 2, 53, 3, seed=0), random(1, 2, 61, 3, seed=1)
    bare = attention_weights(query, key)
    assert bare.bytes_held() == 4 * 2 * 3 * (53 + 61)
    assert "holds 2.7 KiB" in repr(bare)
    row = attention_weights(query, key, bias=random(61, seed=2))
    assert row.bytes_held() == bare.bytes_held() + 4 * 61  # expanded, and held once
    whole = attention_weights(query, key, bias=random(2, 53, 61, seed=2))
    assert whole.bytes_held() == bare.bytes_held() + 4 * 2 * 53 * 61
    assert "holds 27.9 KiB" in repr(whole)
    flags = torch.arange(61)[None].expand(1, -1) % 7 > 0
    masked = attention_weights(query, key, masks.padding(flags) & masks.causal())
    assert masked.bytes_held() == bare.bytes_held() + 61
    masked.logsumexp  # noqa: B018
    assert masked.bytes_held() == bare.bytes_held() + 61 + 4 * 2 * 53


def test_old_names_say_the_new_ones() -> None:
    weights = small()
    with pytest.warns(DeprecationWarning, match=r"use AttentionWeights\.head") as warned:
        old = weights.one(1, 2)
    assert warned[0].filename == __file__
    assert torch.equal(old.dense(), weights.head(1, 2).dense())
    with pytest.warns(DeprecationWarning, match=r"use AttentionWeights\.set_logsumexp") as warned:
        weights.know(weights.logsumexp + 1)
    assert warned[0].filename == __file__
    torch.testing.assert_close(weights.logsumexp, small().logsumexp + 1)


def test_operands_give_the_masked_scores_of_blocks() -> None:
    weights = small()
    operands = weights.operands
    whole = torch.full(operands.shape, -torch.inf)
    for block in operands.blocks():
        scores, at = operands.of_block(block), 0
        for start, stop in block.cols:
            whole[block.items, block.heads, block.rows, start:stop] = scores[
                ..., at : at + stop - start
            ]
            at += stop - start
    torch.testing.assert_close(whole, weights.masked.dense())
    assert operands.at(1).shape == (1, 6, 5, 7)
    assert replace(operands, mask=None).mask is None

"""Attention by tiles of our own is that of the float64 reference."""

from typing import Any

import pytest
import torch
from hypothesis import given

import pellucid
from pellucid import masks
from pellucid.attention import fused_attention
from tests.attention.cases import Case, assert_within_budget, by_rule, cases, random

pytest.importorskip("numba")

EPS = 2**-23


@pytest.fixture(autouse=True)
def _however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORTHWHILE", "SHARED_WORTHWHILE", "LEAST_ROWS", "LEAST_KEYS"):
        monkeypatch.setattr(fused_attention, name, 1)


def assert_exact(case: Case) -> str:
    """The kernel that ran."""
    context, weights = pellucid.attention(
        case.query, case.key, case.value, case.mask, **case.options
    )
    exact, plain = case.reference(), case.reference(torch.float32)
    assert_within_budget(context, plain.context, exact.context, EPS, exact.masked)
    assert_within_budget(weights.dense(), plain.weights, exact.weights, EPS, exact.masked)
    assert weights.kernel is not None
    return weights.kernel


@given(case=cases(fused=True))
def test_any_call_is_the_formula(case: Case) -> None:
    assert_exact(case)


@pytest.mark.parametrize("queries", [1, 47, 101])
@pytest.mark.parametrize("keys", [1, 67, 1031])
@pytest.mark.parametrize("dims", [(11, 13), (64, 64), (37, 128)])
@pytest.mark.parametrize("causal", [False, True])
def test_all_sizes(queries: int, keys: int, dims: tuple[int, int], causal: bool) -> None:
    q = random(2, 6, queries, dims[0], seed=1, layout="heads_last")
    k = random(2, 3, keys, dims[0], seed=2)
    v = random(2, 3, keys, dims[1], seed=3, layout="heads_last")
    case = Case(q, k, v)
    if causal:
        case.mask = masks.causal()
        case.visible = by_rule(lambda b, i, j: j <= i, 2, queries, keys)
    assert assert_exact(case) == "compiled"


def test_large_logits_neither_overflow_nor_vanish() -> None:
    q, k, v = (random(1, 2, n, 7, seed=n) for n in (53, 601, 601))
    assert_exact(Case(100 * q, k, v, options={"scale": 1.0}))


def test_gradients_are_those_of_the_formula() -> None:
    given = [random(1, 4, 131, 32, seed=seed).requires_grad_() for seed in range(3)]
    truth = [x.detach().double().requires_grad_() for x in given]
    found = pellucid.attention(*given, masks.causal())
    exact = pellucid.attention(*truth, masks.causal(), backend="reference")
    assert found[1].kernel == "compiled"
    for context, weights in (found, exact):
        (context.square().sum() + weights.logsumexp.sum()).backward()
    for one, other in zip(given, truth, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", [None, masks.causal()])
def test_several_threads_say_what_one_says(mask: Any) -> None:
    q, k, v = (random(2, 3, 307, 11, seed=seed) for seed in range(3))
    alone, weights = pellucid.attention(q, k, v, mask)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together, same = pellucid.attention(q, k, v, mask)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)
    assert torch.equal(weights.logsumexp, same.logsumexp)


def test_not_a_number_stays_where_it_is() -> None:
    q, k, v = (random(1, 1, 71, 11, seed=seed) for seed in range(3))
    q[0, 0, 3] = torch.nan
    context, weights = pellucid.attention(q, k, v, masks.causal())
    assert context.isnan().any(-1)[0, 0].nonzero().flatten().tolist() == [3]
    assert weights.logsumexp.isnan()[0, 0].nonzero().flatten().tolist() == [3]


def test_small_calls_and_other_types_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        q, k, v = (random(1, 2, 67, 32, seed=seed, dtype=dtype) for seed in range(3))
        assert pellucid.attention(q, k, v)[1].kernel == "cpu flash"
    monkeypatch.undo()
    q, k, v = (random(1, 2, 67, 32, seed=seed) for seed in range(3))
    assert pellucid.attention(q, k, v)[1].kernel == "cpu flash"

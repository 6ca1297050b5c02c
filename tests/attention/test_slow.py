"""Many more and larger calls than fit into every run: `make slow`."""

import pytest
import torch
from hypothesis import given, settings

import pellucid
from tests.attention.cases import Case, assert_within_budget, cases

LARGE = ((131, 307), (149, 311))


@pytest.mark.slow
@settings(max_examples=1000)
@given(case=cases(dtypes=(torch.float64,), fused=True, queries_and_keys=LARGE))
def test_large_calls_through_the_pieces_of_the_fused_kernels(case: Case) -> None:
    context, weights = pellucid.attention(
        case.query, case.key, case.value, case.mask, **case.options, backend="sdpa"
    )
    exact = case.reference()
    eps = torch.finfo(torch.float64).eps
    assert_within_budget(context, exact.context, exact.context, eps, exact.masked)
    assert_within_budget(weights.dense(), exact.weights, exact.weights, eps, exact.masked)
    received = exact.weights.sum(-2)
    assert_within_budget(weights.received(), received, received, 8 * eps, exact.masked)

"""Where attention once went wrong, and random small calls seldom look."""

import math
from typing import Any

import pytest
import torch

import pellucid
from pellucid import PellucidError, masks
from pellucid.attention import attention_weights
from pellucid.attention.reference import stages
from tests.attention.cases import Rule, by_rule, random


def qkv(n: int, keys: int | None = None) -> list[torch.Tensor]:
    sizes = (n, keys or n, keys or n)
    return [random(1, 2, size, 5, seed=i).double() for i, size in enumerate(sizes)]


HOLE = (torch.arange(307) < 5) | (torch.arange(307) >= 30)
SHARING: list[tuple[masks.Mask, Rule]] = [
    (masks.causal() & HOLE, lambda b, i, j: (j <= i) & ((j < 5) | (j >= 30))),
    (
        masks.causal() & (masks.prefix(5) | ~masks.prefix(30)),
        lambda b, i, j: (j <= i) & ((j < 5) | (j >= 30)),
    ),
    (masks.causal() | masks.prefix(100), lambda b, i, j: (j <= i) | (j < 100)),
    (
        masks.causal(offset=-7) | (masks.prefix(5) & masks.window(20, 0)),
        lambda b, i, j: (j <= i - 7) | ((j < 5) & (i - 20 <= j) & (j <= i)),
    ),
    (~(masks.causal() & masks.prefix(100)), lambda b, i, j: (j > i) | (j >= 100)),
    (
        masks.documents(torch.arange(307) % 2) & masks.causal(),
        lambda b, i, j: (i % 2 == j % 2) & (j <= i),
    ),
    (masks.documents(torch.arange(307)), lambda b, i, j: i == j),
]
"""Masks, and which keys each means to show."""


@pytest.mark.parametrize(("mask", "rule"), SHARING, ids=[str(mask) for mask, _ in SHARING])
def test_pieces_that_share_rows_are_merged(mask: masks.Mask, rule: Rule) -> None:
    q, k, v = qkv(307)
    context, weights = pellucid.attention(q, k, v, mask)
    exact = stages(q, k, v, by_rule(rule, 1, 307, 307))
    torch.testing.assert_close(context, exact.context)
    torch.testing.assert_close(weights.dense(), exact.weights)


def test_bands_do_not_swallow_the_second_span_of_a_row() -> None:
    n = 128
    query_ids = torch.cat([torch.zeros(n), torch.ones(n)]).long()
    key_ids = torch.cat([torch.full((n,), x) for x in (0, 5, 0, 1, 5, 1)])
    q, k, v = qkv(2 * n, 6 * n)
    context, _ = pellucid.attention(q, k, v, masks.documents(query_ids, key_ids))
    exact = stages(q, k, v, query_ids[:, None] == key_ids)
    torch.testing.assert_close(context, exact.context)


@pytest.mark.parametrize("scale", [-1.5, 0.0])
def test_a_scale_that_is_not_positive(scale: float) -> None:
    q, k, v = qkv(13)
    context, _ = pellucid.attention(q, k, v, masks.causal(), scale=scale)
    exact = stages(q, k, v, torch.ones(13, 13).tril().bool(), scale=scale)
    torch.testing.assert_close(context, exact.context)
    with pytest.raises(PellucidError, match="a scale of"):
        pellucid.attention(q, k, v, masks.causal(), scale=scale, backend="sdpa")


def test_weights_made_without_a_graph_still_have_gradients() -> None:
    q, k, v = qkv(7)
    q.requires_grad_()
    with torch.no_grad():
        _, weights = pellucid.attention(q, k, v)
    (grad,) = torch.autograd.grad(weights[0, 0, 0].sum(), q)
    torch.testing.assert_close(grad, torch.zeros_like(grad))  # the row sums to 1 whatever q is
    weights = attention_weights(q, k)
    weights._repr_mimebundle_()
    (grad,) = torch.autograd.grad(weights[0, 0, 0, 0], q)
    (wanted,) = torch.autograd.grad(stages(q, k, v).weights[0, 0, 0, 0], q)
    torch.testing.assert_close(grad, wanted)


def test_a_second_derivative_is_refused_by_the_fused_kernels_and_right_elsewhere() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(5))
    context, _ = pellucid.attention(q, k, v)
    with pytest.raises(PellucidError, match="no second derivative"):
        torch.autograd.grad(context.sum(), q, create_graph=True)
    small = [random(1, 2, 5, 3, seed=i).double().requires_grad_() for i in range(3)]
    torch.autograd.gradgradcheck(
        lambda *x: pellucid.attention(*x, masks.causal(), backend="blockwise")[0], small
    )


@pytest.mark.parametrize("backend", ["blockwise", "reference", "sdpa"])
def test_a_row_hidden_by_its_bias_has_gradients(backend: str) -> None:
    q, k, v = (x.requires_grad_() for x in qkv(5))
    bias = torch.zeros(5, 5, dtype=torch.float64)
    bias[1] = -math.inf
    sinks = torch.tensor([-math.inf, 0.5], dtype=torch.float64, requires_grad=True)
    context, weights = pellucid.attention(q, k, v, bias=bias, sinks=sinks, backend=backend)
    loss = context.sum() + weights.received().square().sum() + weights.entropy().sum()
    for grad in torch.autograd.grad(loss, (q, k, v, sinks)):
        assert grad.isfinite().all()
    assert (context[:, :, 1] == 0).all()


@pytest.mark.parametrize("backend", ["blockwise", "reference", "auto"])
@pytest.mark.parametrize("score", ["cosine", "scaled_dot_product"])
def test_nan_in_padding_reaches_no_gradient(backend: str, score: str) -> None:
    q, k, v = qkv(7)
    k[..., 4:, :] = math.nan
    v[..., 4:, :] = math.nan
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    context, weights = pellucid.attention(q, k, v, masks.padding(4), score=score, backend=backend)
    loss = context.sum() + weights.entropy().sum()
    for grad in torch.autograd.grad(loss, (q, k, v)):
        assert grad.isfinite().all()


def test_an_energy_may_itself_ask_for_attention() -> None:
    q, k, v = qkv(40)

    def score(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        attention_weights(a, b, softcap=1.0).received()
        return a @ b.mT

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            context, _ = pellucid.attention(q, k, v, score=score)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(context, stages(q, k, v, scale=1.0).context)


def test_a_wider_bias_does_not_widen_the_weights() -> None:
    q, k, v = (x.float() for x in qkv(7))
    bias = random(7, 7, seed=3).double()
    for backend in ("auto", "blockwise", "reference"):
        context, weights = pellucid.attention(q, k, v, bias=bias, backend=backend)
        assert context.dtype == weights.dense().dtype == weights.dtype == torch.float32
        assert weights.statistics(top=2).entropy.dtype == torch.float32


def test_received_of_scattered_queries() -> None:
    q, k, _ = qkv(101)
    weights = attention_weights(q, k, masks.causal())
    dense = weights.dense()
    chosen: list[Any] = [slice(None, None, 2), torch.arange(0, 101, 3), [5, -1, 5], range(3), []]
    for queries in chosen:
        counted = torch.zeros(101, dtype=torch.bool)
        counted[list(queries) if isinstance(queries, range) else queries] = True
        torch.testing.assert_close(weights.received(queries), dense[:, :, counted].sum(-2))


def test_masks_are_combined_with_operators_not_words() -> None:
    with pytest.raises(PellucidError, match="combine masks with &"):
        masks.causal() and masks.prefix(2)

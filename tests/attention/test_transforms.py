"""torch.func goes through attention, by the backend that can, or is refused by name."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

import pellucid
from pellucid import masks
from pellucid.attention.reference import stages
from pellucid.errors import BackendError
from tests.attention.cases import random

QUERIES, KEYS = 5, 7
VISIBLE = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(2) & (torch.arange(KEYS) < 5)
MASK = masks.causal(2) & masks.padding(5)


def inputs(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    sizes = ((4, QUERIES, 11), (2, KEYS, 11), (2, KEYS, 13))
    query, key, value = (random(batch, *size, seed=i).double() for i, size in enumerate(sizes))
    return query, key, value


def loss(context: Tensor) -> Tensor:
    return context.square().sum()


def ours(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    return loss(pellucid.attention(query, key, value, MASK, **options)[0])


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return loss(stages(query, key, value, VISIBLE).context)


def test_grad_is_that_of_the_formula() -> None:
    found = grad(ours, argnums=(0, 1, 2))(*inputs())
    expected = grad(plain, argnums=(0, 1, 2))(*inputs())
    torch.testing.assert_close(found, expected)


def test_vmap_is_that_of_each_alone() -> None:
    query, key, value = inputs()
    found = vmap(lambda q: pellucid.attention(q, key[0], value[0], MASK)[0])(query)
    expected = [stages(q, key[0], value[0], VISIBLE).context for q in query]
    torch.testing.assert_close(found, torch.stack(expected))


def test_gradients_of_each_sample() -> None:
    found = vmap(grad(ours, argnums=(0, 1, 2)))(*inputs())
    for place, alone in enumerate(zip(*inputs(), strict=True)):
        expected = grad(plain, argnums=(0, 1, 2))(*alone)
        torch.testing.assert_close([x[place] for x in found], list(expected))


@pytest.mark.parametrize(
    "ask", [lambda w: w[..., 2, :], lambda w: w.entropy(), lambda w: w.received()]
)
def test_grad_of_what_weights_say(ask: Any) -> None:
    query, key, value = inputs()

    def of_weights(query: Tensor) -> Tensor:
        return ask(pellucid.attention(query, key, value, MASK)[1]).square().sum()

    def of_dense(query: Tensor) -> Tensor:
        dense = stages(query, key, value, VISIBLE).weights
        by_name = {
            "entropy": -(dense * dense.clamp_min(1e-300).log()).sum(-1),
            "received": dense.sum(-2),
        }
        return ask(_Dense(dense, by_name)).square().sum()

    torch.testing.assert_close(grad(of_weights)(query), grad(of_dense)(query))


class _Dense:
    """A dense tensor that answers as weights do."""

    def __init__(self, dense: Tensor, by_name: dict[str, Tensor]) -> None:
        self.dense, self.by_name = dense, by_name

    def __getitem__(self, index: Any) -> Tensor:
        return self.dense[index]

    def entropy(self) -> Tensor:
        return self.by_name["entropy"]

    def received(self) -> Tensor:
        return self.by_name["received"]


@pytest.mark.parametrize("backend", ["sdpa", "blockwise"])
@pytest.mark.parametrize("transform", [grad, vmap])
def test_backends_that_cannot_name_the_one_that_can(backend: str, transform: Any) -> None:
    with pytest.raises(BackendError, match=r"torch\.func .*; reference can"):
        transform(lambda q, k, v: ours(q, k, v, backend=backend))(*inputs())
    assert ours(*inputs(), backend=backend).isfinite()  # outside of it they can

"""Weights that exist already, as in a model that writes softmax(q k^T) by hand.

They behave like lazy ones: their scores are ln(weight), and every logsumexp is 0.
"""

from typing import Any

import torch
from torch import Tensor

from pellucid.attention import indexing
from pellucid.attention.energies import Energy
from pellucid.attention.functional import check_tensor
from pellucid.attention.scores import Scores
from pellucid.attention.weights import AttentionWeights
from pellucid.errors import ArgumentError

__all__ = ["GivenWeights", "given_weights"]


class LogOfGiven(Energy):
    """score = ln(weight): a query is a row of weights, and a key is the index of its column."""

    is_dot_product = False
    requires_grad = False

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query, key

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        columns = key[..., 0].long()
        outer = columns.shape[:-1]
        is_shared = all(
            size == 1 or stride == 0 for size, stride in zip(outer, key.stride(), strict=False)
        )
        if is_shared:
            return query.index_select(-1, columns[(0,) * len(outer)]).log()
        columns = columns.unsqueeze(-2).expand(*query.shape[:-1], -1)
        return query.gather(-1, columns).log()


class GivenWeights(AttentionWeights):
    """Weights that exist already, (..., heads, queries, keys). Rows need not sum to one."""

    @property
    def query(self) -> Tensor:
        raise ArgumentError("these weights were given as they are, without a query and a key")

    key = query

    @property
    def is_known(self) -> bool:
        return True

    @property
    def _flat_logsumexp(self) -> Tensor:
        return self._of.query.new_zeros(self._of.shape[:3], dtype=self.dtype)

    def visible(self) -> Tensor:
        """How many keys each query sees: those with a weight in any head."""
        count = (self._of.query > 0).any(1, keepdim=True).sum(-1)
        return self._outer(count.expand(self._of.shape[:3]))

    def __getitem__(self, index: Any) -> Tensor:
        return self._index(self._outer(self._of.query), index)

    def _select_transposed(self, index: Any) -> Tensor:
        return self._index(self._outer(self._of.query).mT, index)

    def _index(self, weights: Tensor, index: Any) -> Tensor:
        indexing.parse(index, weights.shape, self.device)  # refuses what lazy weights refuse
        if not isinstance(index, tuple):
            index = (index,)
        return weights.to(self.dtype)[tuple(map(_as_torch_index, index))]

    def __matmul__(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            return NotImplemented
        operand = self._operand("weights @ x", x, self._of.shape[3])
        if operand.shape[1] != self._of.shape[1]:
            operand = operand.repeat_interleave(self._of.shape[1] // operand.shape[1], 1)
        product = self._outer(self._of.query.to(self.dtype) @ operand)
        return product.squeeze(-1) if x.ndim == 1 else product


def _as_torch_index(part: Any) -> Any:
    is_index = part is None or part is Ellipsis or isinstance(part, int | slice | Tensor)
    return part if is_index else torch.as_tensor(part)


def given_weights(weights: Tensor) -> AttentionWeights:
    """Weights computed elsewhere, with the methods of lazy ones.

    Args:
        weights: (..., heads, queries, keys), float, not negative. Rows need not sum to one.

    Raises:
        ShapeError: fewer than three dimensions, or one of size 0.
        TypeMismatchError: not a float tensor.
    """
    check_tensor("weights", weights)
    *outer, heads, _, keys = weights.shape
    flat = weights.reshape(-1, *weights.shape[-3:])
    columns = torch.arange(keys, dtype=torch.float32, device=weights.device).unsqueeze(-1)
    scores = Scores(
        query=flat,
        key=columns.expand(len(flat), heads, -1, -1),
        energy=LogOfGiven(),
        scale=1.0,
        softcap=None,
        bias=None,
        mask=None,
        sinks=None,
        batch_shape=torch.Size(outer),
    )
    return GivenWeights(scores)

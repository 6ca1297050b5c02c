"""Weights that exist already, as a model that writes softmax(q k^T) by hand has made them.

They answer like the lazy ones: their scores are ln(weight), with a logsumexp of 0 in every row.
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
    """score = ln(weight): a query is a row of weights, and a key is the number of its column."""

    is_dot_product = False
    requires_grad = False

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query, key

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        columns = key[..., 0].long()
        outer = columns.shape[:-1]
        alike = all(
            size == 1 or stride == 0 for size, stride in zip(outer, key.stride(), strict=False)
        )
        if alike:
            return query.index_select(-1, columns[(0,) * len(outer)]).log()
        columns = columns.unsqueeze(-2).expand(*query.shape[:-1], -1)
        return query.gather(-1, columns).log()


class GivenWeights(AttentionWeights):
    """Weights that are there, (..., heads, queries, keys). Rows need not sum to one."""

    @property
    def query(self) -> Tensor:
        raise ArgumentError("these weights were given as they are: they have no query and key")

    key = query

    @property
    def is_known(self) -> bool:
        return True

    @property
    def _flat_logsumexp(self) -> Tensor:
        return self._of.query.new_zeros(self._of.shape[:3], dtype=self.dtype)

    def visible(self) -> Tensor:
        """How many keys each query sees: those that any head of it looks at."""
        seen = (self._of.query > 0).any(1, keepdim=True).sum(-1)
        return self._outer(seen.expand(self._of.shape[:3]))

    def __getitem__(self, index: Any) -> Tensor:
        return self._of_tensor(self._outer(self._of.query), index)

    def _select_transposed(self, index: Any) -> Tensor:
        return self._of_tensor(self._outer(self._of.query).mT, index)

    def _of_tensor(self, given: Tensor, index: Any) -> Tensor:
        indexing.parse(index, given.shape, self.device)  # refuses what the lazy ones refuse
        if not isinstance(index, tuple):
            index = (index,)
        return given.to(self.dtype)[tuple(_as_torch_takes_it(part) for part in index)]

    def __matmul__(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            return NotImplemented
        operand = self._operand("weights @ x", x, self._of.shape[3])
        if operand.shape[1] != self._of.shape[1]:
            operand = operand.repeat_interleave(self._of.shape[1] // operand.shape[1], 1)
        product = self._outer(self._of.query.to(self.dtype) @ operand)
        return product.squeeze(-1) if x.ndim == 1 else product


def _as_torch_takes_it(part: Any) -> Any:
    whole = part is None or part is Ellipsis or isinstance(part, int | slice | Tensor)
    return part if whole else torch.as_tensor(part)


def given_weights(weights: Tensor) -> AttentionWeights:
    """Weights that were made elsewhere, to be asked like lazy ones.

    Args:
        weights: (..., heads, queries, keys), float, none negative. Rows need not sum to one.

    Raises:
        ShapeError: fewer than three dimensions, or one without size.
        TypeMismatchError: no float tensor.
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

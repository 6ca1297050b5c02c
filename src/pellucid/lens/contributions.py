"""Weights times another number for each query and key: what attribution methods share."""

from typing import Any

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights, attention_weights
from pellucid.attention.limits import DENSE_LIMIT
from pellucid.errors import ArgumentError, ShapeError
from pellucid.lens.query_positions import Queries, query_positions
from pellucid.lens.record import Record


class Contributions:
    """weights[..., i, j] * (left[..., i, :] . right[..., j, :]), computed only where asked.

    (..., heads, queries, keys), in the dtype of the weights.
    """

    def __init__(self, record: Record, left: Tensor, right: Tensor) -> None:
        """left: (..., heads, queries, dim); right: (..., heads or kv_heads, keys, dim)."""
        self.name = record.name
        """The name of the module."""
        self.weights: AttentionWeights = record.weights
        self._left, self._right = left, right
        self._factors = attention_weights(left, right, score="dot_product").scores
        self.shape, self.ndim = self.weights.shape, self.weights.ndim
        self.dtype, self.device = self.weights.dtype, self.weights.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly this part, as a tensor; indices and cost are those of the weights."""
        return self.weights[index] * self._factors[index]

    def dense(self, limit: int | None = DENSE_LIMIT) -> Tensor:
        """The whole tensor, n x n numbers per head.

        Raises:
            TooLargeError: it would take more than `limit` bytes; the message says how much.
        """
        return self.weights.dense(limit) * self._factors.dense(limit)

    def received(self, queries: Queries = None) -> Tensor:
        """The sums of the columns, (..., heads, keys): what each key contributes to the queries.

        One streamed pass: the sum of column j is right_j . (weights.T @ left)_j.

        Args:
            queries: the positions of the queries to count, each once; all if None.

        Raises:
            OutOfRangeError: a position past the end.
            TypeMismatchError: queries are of another type.
        """
        weights, left = self.weights, self._left
        if isinstance(queries, slice) and queries.step in (None, 1):
            weights, left = weights.rows(queries), left[..., queries, :]
        elif queries is not None:
            size = self.shape[-2]
            counted = torch.zeros(size, 1, dtype=left.dtype, device=left.device)
            counted[query_positions(queries, size).to(left.device)] = 1
            left = left * counted
        return self._with_right(weights.T @ left)

    def total(self) -> Tensor:
        """The sums of the rows, (..., heads, queries): what each query gets from all keys."""
        return ((self.weights @ self._right) * self._left).sum(-1)

    def _with_right(self, gathered: Tensor) -> Tensor:
        """Dot products with `right`, (..., heads, keys); its heads may be shared."""
        *outer, heads, keys, dim = gathered.shape
        shared = self._right.shape[-3]
        grouped = gathered.reshape(*outer, shared, heads // shared, keys, dim)
        products = (grouped * self._right.to(gathered.dtype).unsqueeze(-3)).sum(-1)
        return products.reshape(*outer, heads, keys)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {tuple(self.shape)})"


def heads_of_output(output_weight: Tensor, heads: int, value_dim: int) -> Tensor:
    """(heads, model_dim, value_dim): the part of an output projection that each head goes through.

    Raises:
        ShapeError: output_weight is not (model_dim, heads * value_dim).
    """
    if output_weight.ndim != 2 or output_weight.shape[1] != heads * value_dim:
        raise ShapeError(
            f"output_weight must be (model_dim, heads * value_dim) = (model_dim, {heads} * "
            f"{value_dim}), got {tuple(output_weight.shape)}"
        )
    return output_weight.detach().reshape(-1, heads, value_dim).transpose(0, 1)


def value_of(record: Record) -> Tensor:
    """The values of a record.

    Raises:
        ArgumentError: it has none.
    """
    if record.value is None:
        raise ArgumentError(
            f"'{record.name}' was recorded without values: pellucid.watch(model, values=True)"
        )
    return record.value

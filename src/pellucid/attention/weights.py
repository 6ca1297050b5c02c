"""`AttentionWeights`: lazy, exact, a linear operator. The parts it is made of are its bases."""

import math
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from pellucid.attention import backends, reductions
from pellucid.attention.block_pooling import Cells
from pellucid.attention.block_statistics import Top
from pellucid.attention.display import Displayed
from pellucid.attention.lazy_matrix import LazyMatrix
from pellucid.attention.limits import DENSE_LIMIT
from pellucid.attention.weight_statistics import Statistics, WeightStatistics
from pellucid.errors import ShapeError, TypeMismatchError

__all__ = ["AttentionWeights", "Cells", "Statistics", "Top"]


class AttentionWeights(WeightStatistics, Displayed):
    """All attention weights of a call, exact, in the memory of its query and key.

    A linear operator from keys to queries, (..., heads, queries, keys). It holds references to
    query and key, the mask, and one logsumexp per row; anything else is computed when asked for, in
    float32 or better, and is differentiable if query and key are (results of one call share its
    graph: add losses up before `backward`, or pass retain_graph=True). Changing the inputs in place
    changes later results. A weight's relative error is that of its score: scores in the thousands
    have no better than 1e-3 in float32, here as in any softmax.
    """

    @property
    def T(self) -> "Transposed":  # noqa: N802
        """The transpose, (..., heads, keys, queries), as lazy as this."""
        return Transposed(self)

    mT = T  # noqa: N815

    def __matmul__(self, x: Tensor) -> Tensor:
        """weights @ x, one fused pass.

        Args:
            x: (keys,), or (..., heads or kv_heads or 1, keys, m), as for torch.matmul.

        Returns:
            (..., heads, queries, m), in the dtype of the weights.
        """
        if not isinstance(x, Tensor):
            return NotImplemented
        operand = self._operand("weights @ x", x, self._of.shape[3])
        exact = self._exact
        name = "auto" if self._backend == "sdpa" else self._backend
        backend = backends.choose(name, exact, operand, 0.0)
        product, logsumexp, _ = backend.forward(exact, operand, 0.0)
        if self._of.sinks is not None:
            product = self.share_with_sinks(product, logsumexp)
        return self._outer(product).squeeze(-1) if x.ndim == 1 else self._outer(product)

    def __rmatmul__(self, x: Tensor) -> Tensor:
        """x @ weights, a block at a time.

        Args:
            x: (queries,), or (..., heads or 1, m, queries).

        Returns:
            (..., heads, m, keys), in the dtype of the weights.
        """
        return _times(x, self.T)

    def sum(
        self,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        limit: int | None = DENSE_LIMIT,
    ) -> Tensor:
        """The sum over some axes; as that of a tensor, in the dtype of the weights.

        Over keys or queries it is one pass in O(n) memory: a row's sum is one, less what sinks
        take, and a column's is `received()`. Over heads or batch items alone the result is itself
        n x n, and no more than it is held.

        Args:
            dim: one axis or several; all unless given.
            keepdim: whether reduced axes stay, with size 1.
            limit: bytes that the result may take; None = no limit.

        Raises:
            OutOfRangeError, ArgumentError, TypeMismatchError: an axis that does not exist, is
                repeated or is not an int.
            TooLargeError: the result needs more than the limit; the message says how much.
        """
        axes = reductions.axes_of(dim, self.ndim)
        if self.ndim - 1 in axes:
            ones = torch.ones(self.shape[-1], dtype=self.dtype, device=self.device)
            total = (self @ ones).unsqueeze(-1)
        elif self.ndim - 2 in axes:
            total = self.received().unsqueeze(-2)
        else:
            total = reductions.outer_sum(self, axes, limit)
        total = total.sum(axes, keepdim=True)  # what is reduced already has size 1
        return total if keepdim else total.squeeze(axes)

    def mean(
        self,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        limit: int | None = DENSE_LIMIT,
    ) -> Tensor:
        """The mean over some axes; arguments, cost and errors as for `sum`."""
        count = math.prod(self.shape[axis] for axis in reductions.axes_of(dim, self.ndim))
        return self.sum(dim, keepdim, limit) / count

    @overload
    def max(
        self, dim: None = None, keepdim: bool = False, limit: int | None = DENSE_LIMIT
    ) -> Tensor: ...

    @overload
    def max(
        self, dim: int, keepdim: bool = False, limit: int | None = DENSE_LIMIT
    ) -> reductions.Largest: ...

    def max(
        self, dim: int | None = None, keepdim: bool = False, limit: int | None = DENSE_LIMIT
    ) -> Tensor | reductions.Largest:
        """The largest weight, or along one axis the largest and their indices.

        Cost as for `sum`. Among equal weights, the index is that of any of them.

        Args:
            dim: the axis; without one, the largest of all, a single number.
            keepdim, limit: as for `sum`.

        Returns:
            A tensor; with dim (values, indices int64), as for a tensor.

        Raises:
            OutOfRangeError, TypeMismatchError, TooLargeError: as for `sum`.
        """
        if dim is None:
            return self.top(1).values.amax()
        (axis,) = reductions.axes_of(dim, self.ndim)
        if axis == self.ndim - 1:
            values, indices = (x.squeeze(-1) for x in self.top(1))
            indices = indices.clamp_min(0)  # of a row without any weight
        elif axis == self.ndim - 2:
            values, indices = reductions.column_largest(self)
        else:
            pair = reductions.outer_largest(self, axis, limit)
            values, indices = (x.squeeze(axis) for x in pair)
        if keepdim:
            values, indices = values.unsqueeze(axis), indices.unsqueeze(axis)
        return reductions.Largest(values, indices)

    def _operand(self, name: str, x: Tensor, length: int) -> Tensor:
        """The other side of a product, as (batch, heads or kv_heads, length, m)."""
        if x.ndim == 0:
            raise ShapeError(f"{name} needs x with {length} rows, got a single number")
        if not x.is_floating_point() or x.device != self.device:
            raise TypeMismatchError(
                f"{name} needs a float x on {self.device}, got {x.dtype} on {x.device}"
            )
        columns = x.unsqueeze(-1) if x.ndim == 1 else x
        heads, kv_heads = self._of.query.shape[1], self._of.key.shape[1]
        if columns.shape[-2] != length:
            raise ShapeError(f"{name} needs x with {length} rows, got x of shape {tuple(x.shape)}")
        grouped = columns.ndim > 2 and columns.shape[-3] == kv_heads
        wanted = (*self._of.batch_shape, kv_heads if grouped else heads, *columns.shape[-2:])
        try:
            return columns.to(self.dtype).expand(wanted).reshape(-1, *wanted[-3:])
        except RuntimeError:
            raise ShapeError(
                f"{name} needs x that broadcasts to {wanted}, got x of shape {tuple(x.shape)}"
            ) from None


class Transposed(LazyMatrix):
    """`weights.T`: from queries to keys, (..., heads, keys, queries)."""

    def __init__(self, weights: AttentionWeights) -> None:
        super().__init__(weights.operands, "weights.T")
        self.T = self.mT = weights

    @property
    def shape(self) -> torch.Size:
        *outer, queries, keys = self.T.shape
        return torch.Size((*outer, keys, queries))

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; index, cost and errors as for the weights."""
        return self.T._select_transposed(index)

    def bytes_held(self) -> int:
        return self.T.bytes_held()

    def to(self, *to: Any, device: Any = None, dtype: torch.dtype | None = None) -> "Transposed":
        return self.T.to(*to, device=device, dtype=dtype).T

    def detach(self) -> "Transposed":
        return self.T.detach().T

    def __matmul__(self, x: Tensor) -> Tensor:
        """weights.T @ x, a block at a time: x (queries,) or (..., heads or 1, queries, m)."""
        if not isinstance(x, Tensor):
            return NotImplemented
        weights = self.T
        operand = weights._operand("weights.T @ x", x, self.shape[-1])
        if operand.shape[1] != self._of.query.shape[1]:
            operand = operand.repeat_interleave(self._of.group, 1)
        product = weights._transposed_product(operand)
        return product.squeeze(-1) if x.ndim == 1 else product

    def __rmatmul__(self, x: Tensor) -> Tensor:
        """x @ weights.T, as (weights @ x.T).T."""
        return _times(x, self.T)

    def __repr__(self) -> str:
        return f"{self.T!r}.T"


def _times(x: Tensor, transpose: AttentionWeights | Transposed) -> Tensor:
    """x @ matrix, by way of its transpose."""
    if not isinstance(x, Tensor):
        return NotImplemented
    product = transpose @ (x if x.ndim == 1 else x.mT)
    return product if x.ndim == 1 else product.mT

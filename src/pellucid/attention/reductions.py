"""Sums and maxima of lazy weights over any axes, in O(n) memory where the result allows it."""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pellucid.attention import block_statistics
from pellucid.attention.lazy_weights import LazyWeights
from pellucid.attention.limits import check_size
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError


class Largest(NamedTuple):
    """The largest along an axis."""

    values: Tensor
    indices: Tensor
    """int64 positions along it."""


def axes_of(dim: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Axes counted from the first, ascending; all unless given.

    Raises:
        OutOfRangeError, ArgumentError, TypeMismatchError: an axis that does not exist, is repeated
            or is not an int.
    """
    if dim is None:
        return list(range(ndim))
    axes = []
    for axis in dim if isinstance(dim, Sequence) else [dim]:
        if type(axis) is not int:
            raise TypeMismatchError(f"dim must be an int or a sequence of ints, got {axis!r}")
        if not -ndim <= axis < ndim:
            raise OutOfRangeError(f"dim must be from {-ndim} to {ndim - 1}, got {axis}")
        axes.append(axis % ndim)
    if len(set(axes)) < len(axes) or not axes:
        raise ArgumentError(f"dim must be different axes, at least one; got {dim}")
    return sorted(axes)


def outer_sum(weights: LazyWeights, axes: list[int], limit: int | None) -> Tensor:
    """The sum over batch dimensions and heads, part by part; those axes stay with size 1."""
    return reduce(torch.add, _parts(weights, axes, limit))


def outer_largest(weights: LazyWeights, axis: int, limit: int | None) -> tuple[Tensor, Tensor]:
    """The largest over a batch dimension or the heads, and its index; the axis has size 1."""
    parts = _parts(weights, [axis], limit)
    values = next(parts)
    indices = torch.zeros_like(values, dtype=torch.int64)
    for index, part in enumerate(parts, start=1):
        larger = part > values
        values = torch.where(larger, part, values)
        indices = indices.masked_fill(larger, index)
    return values, indices


def column_largest(weights: LazyWeights) -> tuple[Tensor, Tensor]:
    """The largest weight that each key gets, and from which query: (..., heads, keys)."""
    operands = weights.operands
    with torch.no_grad():
        logsumexp = weights.logsumexp.reshape(operands.shape[:3])
        values, rows = block_statistics.column_peaks(operands, logsumexp)
    indices = rows.reshape(*weights.shape[:-2], -1)
    if not (torch.is_grad_enabled() and weights.requires_grad):
        return values.reshape(indices.shape), indices
    outer = [torch.arange(size, device=weights.device) for size in weights.shape[:-2]]
    keys = torch.arange(weights.shape[-1], device=weights.device)
    *items, key = torch.meshgrid(*outer, keys, indexing="ij")
    return weights[(*items, indices, key)], indices


def _parts(weights: LazyWeights, axes: list[int], limit: int | None) -> Iterator[Tensor]:
    """The weights at each index of some axes in turn, each part itself n x n."""
    shape = torch.Size(1 if axis in axes else size for axis, size in enumerate(weights.shape))
    check_size("the answer", shape, weights.dtype, limit)
    weights.logsumexp  # noqa: B018  computed once, and not for each part
    keeps_graph = torch.is_grad_enabled() and weights.requires_grad
    for place in product(*(range(weights.shape[axis]) for axis in axes)):
        index = [slice(None)] * len(shape)
        for axis, at in zip(axes, place, strict=True):
            index[axis] = slice(at, at + 1)
        if keeps_graph:  # each part is computed again in the backward pass
            yield checkpoint(weights.__getitem__, tuple(index), use_reentrant=False)
        else:
            yield weights[tuple(index)]

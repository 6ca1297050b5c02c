"""Sums and maxima of lazy weights over any axes, without the weights."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pellucid.attention import block_statistics
from pellucid.attention.limits import check_size
from pellucid.attention.scores import Scores
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError


class Weights(Protocol):
    """What is asked of the weights."""

    @property
    def shape(self) -> torch.Size: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def requires_grad(self) -> bool: ...
    @property
    def operands(self) -> Scores: ...
    @property
    def logsumexp(self) -> Tensor: ...
    def received(self) -> Tensor: ...
    def top(self, k: int) -> block_statistics.Top: ...
    def __getitem__(self, index: Any) -> Tensor: ...
    def __matmul__(self, x: Tensor) -> Tensor: ...


class Largest(NamedTuple):
    """The largest along an axis."""

    values: Tensor
    indices: Tensor
    """int64 positions along it."""


def axes_of(dim: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Axes counted from the first, ascending; all where none is given.

    Raises:
        OutOfRangeError, ArgumentError, TypeMismatchError: there is no such axis, it comes twice or
            is no int.
    """
    if dim is None:
        return list(range(ndim))
    axes = []
    for axis in dim if isinstance(dim, Sequence) else [dim]:
        if type(axis) is not int:
            raise TypeMismatchError(f"dim must be an int or several, got {axis!r}")
        if not -ndim <= axis < ndim:
            raise OutOfRangeError(f"dim must be from {-ndim} to {ndim - 1}, got {axis}")
        axes.append(axis % ndim)
    if len(set(axes)) < len(axes) or not axes:
        raise ArgumentError(f"dim must be axes that are not alike, got {dim}")
    return sorted(axes)


def total(
    weights: Weights,
    dim: int | Sequence[int] | None,
    keepdim: bool,
    limit: int | None,
) -> Tensor:
    """`weights.sum`."""
    axes = axes_of(dim, weights.ndim)
    rows, cols = weights.ndim - 2, weights.ndim - 1
    if cols in axes:
        ones = torch.ones(weights.shape[cols], dtype=weights.dtype, device=weights.device)
        found = (weights @ ones).unsqueeze(-1)
    elif rows in axes:
        found = weights.received().unsqueeze(-2)
    else:
        found = _added(weights, axes, limit)
    found = found.sum(axes, keepdim=True)  # what is reduced already has size 1
    return found if keepdim else found.squeeze(axes)


def largest(weights: Weights, dim: int, keepdim: bool, limit: int | None) -> Largest:
    """`weights.max` along an axis."""
    (axis,) = axes_of(dim, weights.ndim)
    rows, cols = weights.ndim - 2, weights.ndim - 1
    if axis == cols:
        values, indices = (x.squeeze(-1) for x in weights.top(1))
        indices = indices.clamp_min(0)  # of a row without any weight
    elif axis == rows:
        values, indices = _of_columns(weights)
    else:
        values, indices = (x.squeeze(axis) for x in _of_parts(weights, axis, limit))
    if keepdim:
        values, indices = values.unsqueeze(axis), indices.unsqueeze(axis)
    return Largest(values, indices)


def _of_columns(weights: Weights) -> tuple[Tensor, Tensor]:
    """The largest weight that each key gets, and from which query: (..., heads, keys)."""
    operands = weights.operands
    with torch.no_grad():
        logsumexp = weights.logsumexp.reshape(operands.shape[:3])
        flat, places = block_statistics.column_peaks(operands, logsumexp)
    indices = places.reshape(*weights.shape[:-2], -1)
    if not (torch.is_grad_enabled() and weights.requires_grad):
        return flat.reshape(indices.shape), indices
    outer = [torch.arange(size, device=weights.device) for size in weights.shape[:-2]]
    keys = torch.arange(weights.shape[-1], device=weights.device)
    *items, key = torch.meshgrid(*outer, keys, indexing="ij")
    return weights[(*items, indices, key)], indices


def _added(weights: Weights, axes: list[int], limit: int | None) -> Tensor:
    """The sum over heads or items, one after another; those axes stay with size 1."""
    found: Tensor | None = None
    for part in _parts(weights, axes, limit):
        found = part if found is None else found + part
    assert found is not None
    return found


def _of_parts(weights: Weights, axis: int, limit: int | None) -> tuple[Tensor, Tensor]:
    """The largest over heads or items, one after another, and which; the axis stays, size 1."""
    values: Tensor | None = None
    for place, part in enumerate(_parts(weights, [axis], limit)):
        if values is None:
            values, indices = part, torch.zeros_like(part, dtype=torch.int64)
        else:
            larger = part > values
            values = torch.where(larger, part, values)
            indices = indices.masked_fill(larger, place)
    assert values is not None
    return values, indices


def _parts(weights: Weights, axes: list[int], limit: int | None) -> Iterator[Tensor]:
    """The weights one place of some axes at a time, each itself n x n."""
    shape = torch.Size(1 if axis in axes else size for axis, size in enumerate(weights.shape))
    check_size("the answer", shape, weights.dtype, limit)
    weights.logsumexp  # noqa: B018  found once, and not for each part
    keeps_graph = torch.is_grad_enabled() and weights.requires_grad
    for place in product(*(range(weights.shape[axis]) for axis in axes)):
        at = dict(zip(axes, place, strict=True))
        index = tuple(
            slice(at[x], at[x] + 1) if x in at else slice(None) for x in range(len(shape))
        )
        if keeps_graph:  # each part is computed again on the way back
            yield checkpoint(weights.__getitem__, tuple(index), use_reentrant=False)
        else:
            yield weights[tuple(index)]

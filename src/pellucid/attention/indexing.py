"""`weights[index]` without the weights: the part of a matrix of scores that an index selects.

Ints, slices, `...`, None, integer and bool tensors mean what they mean to torch. An index is first
applied to queries and keys; then the scores of that part alone are computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.attention.backends.blockwise import finite
from pellucid.attention.scores import Scores
from pellucid.errors import OutOfRangeError, TypeMismatchError

PAIR_NUMBERS = 2**22
"""Numbers of keys gathered at once where tensors select queries and keys in step."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """An index, axis by axis."""

    axes: list[slice | Tensor]
    """One for each axis of the matrix; an int has become a slice of one."""
    result: list[int | None]
    """The axes of the result in order: an axis of the matrix, or None for a new one."""


def parse(index: Any, shape: Sequence[int], device: torch.device) -> Parsed:
    """Read an index for a matrix of this shape.

    Raises:
        OutOfRangeError: too many indices, or one past the end.
        TypeMismatchError: neither a basic index nor a tensor of integers or bools.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [positions for part in parts for positions in _without_flags(part)]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > len(shape):
        raise OutOfRangeError(f"too many indices: {used} for shape {tuple(shape)}")
    dots = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise TypeMismatchError("an index can have only one ellipsis (...)")
    at = dots[0] if dots else len(parts)
    parts[at : at + 1] = [slice(None)] * (len(shape) - used)

    axes: list[slice | Tensor] = []
    result: list[int | None] = []
    for part in parts:
        if part is None:
            result.append(None)
            continue
        axis = len(axes)
        size = shape[axis]
        if isinstance(part, _Flagged):
            if part.size != size:
                raise OutOfRangeError(f"{part.size} flags do not fit axis {axis} with size {size}")
            part = part.positions
        if isinstance(part, slice):
            if part.step is not None and part.step <= 0:
                raise TypeMismatchError(f"a slice needs a step above 0, got {part.step}")
            axes.append(slice(*part.indices(size)))
            result.append(axis)
        elif hasattr(part, "__len__") and not (isinstance(part, Tensor) and part.ndim == 0):
            axes.append(_positions(part, axis, size, device))
            result.append(axis)
        else:
            is_int = type(part) is int and -size <= part < size
            position = part % size if is_int else int(_positions(part, axis, size, device))
            axes.append(slice(position, position + 1, 1))
    return Parsed(axes, result)


class _Flagged(NamedTuple):
    """Where flags are True along one axis."""

    positions: Tensor
    size: int
    """Flags along the axis."""


def _without_flags(part: Any) -> list[Any]:
    """A bool tensor as the positions of True, one tensor for each of its axes, as in torch."""
    if isinstance(part, list | np.ndarray) and len(part):
        is_flags = isinstance(part, np.ndarray) and part.dtype == bool
        if is_flags or all(isinstance(x, bool) for x in part):
            part = torch.as_tensor(part)
    if not isinstance(part, Tensor) or part.dtype != torch.bool or not part.ndim:
        return [part]
    return list(map(_Flagged, part.nonzero(as_tuple=True), part.shape))


def _positions(part: Any, axis: int, size: int, device: torch.device) -> Tensor:
    positions = as_positions(f"the index of axis {axis}", part).to(device)
    outside = (positions < -size) | (positions >= size)
    if bool(outside.any()):
        first = int(positions[outside].flatten()[0])
        raise OutOfRangeError(f"index {first} is out of range for axis {axis} with size {size}")
    return torch.where(positions < 0, positions + size, positions)


def as_positions(name: str, value: Any) -> Tensor:
    """An int or several as int64.

    Raises:
        TypeMismatchError: something else.
    """
    try:
        empty = not isinstance(value, Tensor) and hasattr(value, "__len__") and len(value) == 0
        positions = torch.as_tensor(list(value) if isinstance(value, range) else value)
    except (TypeError, ValueError, RuntimeError):
        positions, empty = torch.empty(()), False
    if empty:
        return positions.to(torch.int64)
    if positions.is_floating_point() or positions.is_complex() or positions.dtype == torch.bool:
        raise TypeMismatchError(f"{name} must be an int, a slice or integers, got {value!r}")
    return positions.to(torch.int64)


def transposed(index: Parsed) -> Parsed:
    """An index into the transpose as one into the matrix, with the same result."""
    *outer, rows, cols = index.axes
    last = len(index.axes) - 1
    swapped: dict[int | None, int] = {last: last - 1, last - 1: last}
    return Parsed([*outer, cols, rows], [swapped.get(axis, axis) for axis in index.result])


def hull(rows: slice | Tensor) -> slice:
    """The range from the first to the last position that a parsed index selects on one axis."""
    if isinstance(rows, Tensor):
        ends = (int(rows.min()), int(rows.max())) if rows.numel() else (0, -1)
    else:
        positions = range(rows.start, rows.stop, rows.step)
        ends = (positions[0], positions[-1]) if positions else (0, -1)
    return slice(ends[0], ends[1] + 1)


def counted_from(first: int, index: Parsed) -> Parsed:
    """The same index into the matrix that begins with a later row."""
    *outer, rows, cols = index.axes
    if isinstance(rows, Tensor):
        rows = rows - first
    elif first:  # all selected rows are at or after it
        rows = slice(rows.start - first, rows.stop - first, rows.step)
    return Parsed([*outer, rows, cols], index.result)


def select(scores: Scores, logsumexp: Tensor | None, stage: str, index: Any) -> Tensor:
    """The indexed part of one stage, or of the weights where logsumexp is given.

    index is the user's, or parsed.
    """
    shape = (*scores.batch_shape, *scores.shape[1:])
    parsed = index if isinstance(index, Parsed) else parse(index, shape, scores.query.device)
    tensors = [axis for axis, part in enumerate(parsed.axes) if isinstance(part, Tensor)]
    if len(tensors) < 2:
        block = _separate(scores, logsumexp, stage, parsed.axes)
        picked = parsed.axes[tensors[0]] if tensors else None
        if isinstance(picked, Tensor):
            block = block.movedim(tensors[0], 0)
    else:
        block, picked = _together(scores, logsumexp, stage, parsed.axes, tensors)
    # The axis that the tensors select, if any, is now first, and the others follow in order.
    others = [axis for axis in range(len(shape)) if axis not in tensors]
    sizes = dict(zip(others, block.shape[1 if tensors else 0 :], strict=True))
    picked_shape = list(picked.shape) if isinstance(picked, Tensor) else []
    kept = [axis for axis in parsed.result if axis not in tensors]
    order = [axis for axis in kept if axis is not None]  # another order for the transpose
    order += [axis for axis in others if axis not in order]
    first = [0] if tensors else []
    block = block.permute(first + [len(first) + others.index(axis) for axis in order])
    block = block.reshape(picked_shape + [1 if axis is None else sizes[axis] for axis in kept])
    targets = [at for at, axis in enumerate(parsed.result) if axis in tensors]
    adjacent = bool(targets) and targets[-1] - targets[0] == len(targets) - 1
    if adjacent and targets[0] and picked_shape:
        source = list(range(len(picked_shape)))
        block = block.movedim(source, [at + targets[0] for at in source])
    return block


def _separate(
    scores: Scores, logsumexp: Tensor | None, stage: Any, axes: list[slice | Tensor]
) -> Tensor:
    """Each axis by itself: (*batch, heads, rows, cols)."""
    *outer, head, row, col = axes
    batch_shape, heads = scores.batch_shape, scores.shape[1]
    device = scores.query.device
    query, key = (x.reshape(*batch_shape, *x.shape[1:]) for x in (scores.query, scores.key))
    query = _take(query, [*outer, head, row])
    key_head: slice | Tensor = head
    if scores.group > 1:  # a selection of heads reads a copy of each one's key head
        if isinstance(head, slice) and head == slice(0, heads, 1):
            key_head = slice(0, key.shape[-3], 1)
        else:
            key_head = _as_positions(head, device) // scores.group
    key = _take(key, [*outer, key_head, col])
    if scores.bias is None and scores.mask is None and logsumexp is None:
        return scores.compute(query, key, None, None, stage)  # positions do not matter

    *items, heads_at, rows_at, cols_at = [_as_positions(part, device) for part in axes]
    item = torch.zeros((), dtype=torch.int64, device=device)
    for size, positions in zip(batch_shape, items, strict=True):
        item = item.unsqueeze(-1) * size + positions
    at = (item[..., None, None, None], heads_at[:, None, None], rows_at[:, None], cols_at)
    return _finish(scores, logsumexp, stage, query, key, at)


def _together(
    scores: Scores,
    logsumexp: Tensor | None,
    stage: str,
    axes: list[slice | Tensor],
    tensors: list[int],
) -> tuple[Tensor, Tensor]:
    """Tensors on several axes pick in step: (picked, *other axes), and one of the picked shape."""
    device = scores.query.device
    parts = [part for part in axes if isinstance(part, Tensor)]
    try:
        picked = torch.broadcast_tensors(*parts)
    except RuntimeError:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise OutOfRangeError(f"the index tensors do not broadcast together: {shapes}") from None
    count = picked[0].numel()
    # Coordinates that broadcast to (picked, *batch, heads, rows, cols); picked axes have size 1.
    coordinates = []
    for axis, part in enumerate(axes):
        shape = [1] * (len(axes) + 1)
        if axis in tensors:
            shape[0] = count
            positions = picked[tensors.index(axis)].flatten()
        else:
            positions = _as_positions(part, device)
            shape[axis + 1] = len(positions)
        coordinates.append(positions.reshape(shape))
    *outer, head, row, col = coordinates
    item = torch.zeros([1] * (len(axes) + 1), dtype=torch.int64, device=device)
    for size, positions in zip(scores.batch_shape, outer, strict=True):
        item = item * size + positions

    def of(start: int, stop: int) -> Tensor:
        i, h, r, c = (x[start:stop] if len(x) > 1 else x for x in (item, head, row, col))
        query = scores.query[i[..., 0], h[..., 0], r[..., 0]]
        key = scores.key[i[..., 0, :], h[..., 0, :] // scores.group, c[..., 0, :]]
        return _finish(scores, logsumexp, stage, query, key, (i, h, r, c))

    each = prod(x.shape[-1] for x in (head, col)) * scores.key.shape[-1]
    step = max(1, PAIR_NUMBERS // max(1, each * prod(coordinates[-1].shape[1:])))
    blocks = [of(start, min(start + step, count)) for start in range(0, count, step)]
    block = torch.cat(blocks) if blocks else of(0, 0)
    kept = [0, *(axis + 1 for axis in range(len(axes)) if axis not in tensors)]
    return block.reshape([block.shape[axis] for axis in kept]), picked[0]


def _finish(
    scores: Scores,
    logsumexp: Tensor | None,
    stage: str,
    query: Tensor,
    key: Tensor,
    at: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """Scores of selected queries and keys, with the bias, mask and logsumexp at their positions."""
    item, head, row, col = at
    bias = visible = None
    last: Any = "masked" if stage == "weights" else stage
    if last == "masked":
        bias = None if scores.bias is None else scores.bias[item, head, row, col]
        if scores.mask is not None:
            visible = torch.atleast_2d(scores.mask.sees(item, head, row, col))
    block = scores.compute(query, key, bias, visible, last)
    if logsumexp is not None:
        shift = finite(logsumexp)[item[..., 0], head[..., 0], row[..., 0]]
        block = torch.exp(block - shift.unsqueeze(-1))
    return block


def _take(tensor: Tensor, parts: Sequence[slice | Tensor]) -> Tensor:
    """Each part of its own axis; views for slices."""
    for axis, part in enumerate(parts):
        if isinstance(part, Tensor):
            tensor = tensor.index_select(axis, part.flatten())
        else:
            tensor = tensor[(slice(None),) * axis + (part,)]
    return tensor


def _as_positions(part: slice | Tensor, device: torch.device) -> Tensor:
    if isinstance(part, Tensor):
        return part.flatten()
    return torch.arange(part.start, part.stop, part.step, device=device)

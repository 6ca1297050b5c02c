"""`weights[index]` without the weights: the part of a matrix of scores that an index stands for.

Ints, slices, `...`, None, integer and bool tensors mean what they mean to torch. What is selected
is first found on the query and key side; only then are the scores of just that part computed.
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
"""Key numbers gathered at once where queries and keys are picked together."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """An index, axis by axis."""

    axes: list[slice | Tensor]
    """One for each axis of the matrix; an int has become a slice of one."""
    result: list[int | None]
    """The axes of the answer in order: an axis of the matrix, or None for a new one."""


def parse(index: Any, shape: Sequence[int], device: torch.device) -> Parsed:
    """Read an index for a matrix of this shape.

    Raises:
        OutOfRangeError: too many indices, or one past the end.
        TypeMismatchError: something that is no basic or integer-tensor index.
    """
    given = list(index) if isinstance(index, tuple) else [index]
    given = [places for part in given for places in _without_flags(part)]
    used = sum(part is not None and part is not Ellipsis for part in given)
    if used > len(shape):
        raise OutOfRangeError(f"too many indices: {used} for shape {tuple(shape)}")
    dots = [at for at, part in enumerate(given) if part is Ellipsis]
    if len(dots) > 1:
        raise TypeMismatchError("an index can have only one ellipsis (...)")
    at = dots[0] if dots else len(given)
    given[at : at + 1] = [slice(None)] * (len(shape) - used)

    axes: list[slice | Tensor] = []
    result: list[int | None] = []
    for part in given:
        if part is None:
            result.append(None)
            continue
        axis = len(axes)
        size = shape[axis]
        if isinstance(part, _Places):
            if part.size != size:
                raise OutOfRangeError(f"{part.size} flags do not fit axis {axis} with size {size}")
            part = part.places
        if isinstance(part, slice):
            if part.step is not None and part.step <= 0:
                raise TypeMismatchError(f"a slice needs a step above 0, got {part.step}")
            axes.append(slice(*part.indices(size)))
            result.append(axis)
        elif hasattr(part, "__len__") and not (isinstance(part, Tensor) and part.ndim == 0):
            axes.append(_positions(part, axis, size, device))
            result.append(axis)
        else:
            plain = type(part) is int and -size <= part < size
            place = part % size if plain else int(_positions(part, axis, size, device))
            axes.append(slice(place, place + 1, 1))
    return Parsed(axes, result)


class _Places(NamedTuple):
    """Where flags are True along one axis."""

    places: Tensor
    size: int
    """How many flags there are along it."""


def _without_flags(part: Any) -> list[Any]:
    """A bool tensor as the places of what is True, one tensor for each of its axes, as in torch."""
    if isinstance(part, list | np.ndarray) and len(part):
        found = torch.as_tensor(part) if isinstance(part, np.ndarray) else None
        if found is None and isinstance(part[0], bool):
            found = torch.tensor(part) if all(isinstance(x, bool) for x in part) else None
        part = found if found is not None and found.dtype == torch.bool else part
    if not isinstance(part, Tensor) or part.dtype != torch.bool or not part.ndim:
        return [part]
    places = part.nonzero(as_tuple=True)
    return [_Places(*one) for one in zip(places, part.shape, strict=True)]


def _positions(part: Any, axis: int, size: int, device: torch.device) -> Tensor:
    places = as_positions(f"the index of axis {axis}", part).to(device)
    wrong = (places < -size) | (places >= size)
    if bool(wrong.any()):
        worst = int(places[wrong].flatten()[0])
        raise OutOfRangeError(f"index {worst} is out of range for axis {axis} with size {size}")
    return torch.where(places < 0, places + size, places)


def as_positions(name: str, given: Any) -> Tensor:
    """An int or several as int64.

    Raises:
        TypeMismatchError: something else.
    """
    try:
        empty = not isinstance(given, Tensor) and hasattr(given, "__len__") and len(given) == 0
        places = torch.as_tensor(list(given) if isinstance(given, range) else given)
    except (TypeError, ValueError, RuntimeError):
        places, empty = torch.empty(()), False
    if empty:
        return places.to(torch.int64)
    if places.is_floating_point() or places.is_complex() or places.dtype == torch.bool:
        raise TypeMismatchError(f"{name} must be an int, a slice or integers, got {given!r}")
    return places.to(torch.int64)


def transposed(index: Parsed) -> Parsed:
    """An index into the transpose as one into the matrix: its answer is the same."""
    *outer, rows, cols = index.axes
    last = len(index.axes) - 1
    swapped: dict[int | None, int] = {last: last - 1, last - 1: last}
    return Parsed([*outer, cols, rows], [swapped.get(axis, axis) for axis in index.result])


def hull(rows: slice | Tensor) -> slice:
    """The range from the first to the last position that one axis of a parsed index selects."""
    if isinstance(rows, Tensor):
        ends = (int(rows.min()), int(rows.max())) if rows.numel() else (0, -1)
    else:
        chosen = range(rows.start, rows.stop, rows.step)
        ends = (chosen[0], chosen[-1]) if chosen else (0, -1)
    return slice(ends[0], ends[1] + 1)


def counted_from(first: int, index: Parsed) -> Parsed:
    """The same index into the matrix that begins with a later row."""
    *outer, rows, cols = index.axes
    if isinstance(rows, Tensor):
        rows = rows - first
    elif first:  # then it selects rows, all of them from `first` on
        rows = slice(rows.start - first, rows.stop - first, rows.step)
    return Parsed([*outer, rows, cols], index.result)


def select(scores: Scores, logsumexp: Tensor | None, stage: str, index: Any) -> Tensor:
    """The indexed part of one stage, or of the weights, for which logsumexp is needed.

    index is as the user gave it, or parsed.
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
    # Now the axis of what the tensors picked, if any, comes first, and the others in order.
    others = [axis for axis in range(len(shape)) if axis not in tensors]
    sizes = dict(zip(others, block.shape[1 if tensors else 0 :], strict=True))
    picked_shape = list(picked.shape) if isinstance(picked, Tensor) else []
    kept = [axis for axis in parsed.result if axis not in tensors]
    order = [axis for axis in kept if axis is not None]  # another than that of the matrix in its T
    order += [axis for axis in others if axis not in order]
    first = [0] if tensors else []
    block = block.permute(first + [len(first) + others.index(axis) for axis in order])
    block = block.reshape(picked_shape + [1 if axis is None else sizes[axis] for axis in kept])
    places = [at for at, axis in enumerate(parsed.result) if axis in tensors]
    together = places == list(range(places[0], places[0] + len(places))) if places else False
    if together and places[0] and picked_shape:
        source = list(range(len(picked_shape)))
        block = block.movedim(source, [at + places[0] for at in source])
    return block


def _separate(
    scores: Scores, logsumexp: Tensor | None, stage: Any, axes: list[slice | Tensor]
) -> Tensor:
    """Every axis on its own: (*batch, heads, rows, cols) of what each selects."""
    *outer, head, row, col = axes
    batch_shape, heads = scores.batch_shape, scores.shape[1]
    device = scores.query.device
    query, key = (x.reshape(*batch_shape, *x.shape[1:]) for x in (scores.query, scores.key))
    query = _take(query, [*outer, head, row])
    key_head: slice | Tensor = head
    if scores.group > 1:  # all heads read all key heads; some heads, each a copy of its own
        if isinstance(head, slice) and head == slice(0, heads, 1):
            key_head = slice(0, key.shape[-3], 1)
        else:
            key_head = _as_positions(head, device) // scores.group
    key = _take(key, [*outer, key_head, col])
    if scores.bias is None and scores.mask is None and logsumexp is None:
        return scores.compute(query, key, None, None, stage)  # wherever they stand

    *items, heads_at, rows_at, cols_at = [_as_positions(part, device) for part in axes]
    item = torch.zeros((), dtype=torch.int64, device=device)
    for size, places in zip(batch_shape, items, strict=True):
        item = item.unsqueeze(-1) * size + places
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
    # Coordinates that broadcast to (picked, *batch, heads, rows, cols), picked axes having size 1.
    coordinates = []
    for axis, part in enumerate(axes):
        shape = [1] * (len(axes) + 1)
        if axis in tensors:
            shape[0] = count
            places = picked[tensors.index(axis)].flatten()
        else:
            places = _as_positions(part, device)
            shape[axis + 1] = len(places)
        coordinates.append(places.reshape(shape))
    *outer, head, row, col = coordinates
    item = torch.zeros([1] * (len(axes) + 1), dtype=torch.int64, device=device)
    for size, places in zip(scores.batch_shape, outer, strict=True):
        item = item * size + places

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
    """Scores of selected queries and keys, with the bias, mask and logsumexp of their places."""
    item, head, row, col = at
    bias = visible = None
    wanted: Any = "masked" if stage == "weights" else stage
    if wanted == "masked":
        bias = None if scores.bias is None else scores.bias[item, head, row, col]
        if scores.mask is not None:
            visible = torch.atleast_2d(scores.mask.sees(item, head, row, col))
    block = scores.compute(query, key, bias, visible, wanted)
    if logsumexp is not None:
        shift = finite(logsumexp)[item[..., 0], head[..., 0], row[..., 0]]
        block = torch.exp(block - shift.unsqueeze(-1))
    return block


def _take(tensor: Tensor, parts: Sequence[slice | Tensor]) -> Tensor:
    """Each part from its own axis; views for slices."""
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

"""Rules that a mask tensor may follow, proposed from the outline of what its rows see."""

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.attention.masks import And, Band, Below, Documents, Mask, PerItem
from pellucid.lens.mask_tensor import MaskTensor

FAR = 2**40
"""Beyond any key."""


class Outline(NamedTuple):
    """The outline of the first head; a rule is proven for all heads."""

    first: Tensor
    """(items, rows) int64: the first key that a row sees, FAR if it sees none."""
    last: Tensor
    """(items, rows) int64: the last key, -1 if it sees none."""
    present: Tensor
    """(items, keys) bool: the keys that some row sees."""

    @property
    def empty(self) -> Tensor:
        return self.last < 0


def outline_of(tensor: MaskTensor) -> Outline:
    items, _, rows, keys = tensor.whole.shape
    first, last = tensor.whole.new_empty(2, items, rows, dtype=torch.int64).unbind()
    present = torch.zeros(items, keys, dtype=torch.uint8, device=tensor.whole.device)
    for part in tensor.chunks(items):
        seen = tensor.seen(tensor.whole[:, 0, part]).view(torch.uint8)
        first[:, part] = seen.argmax(-1)
        last[:, part] = keys - 1 - seen.flip(-1).argmax(-1)
        present |= seen.amax(1)
        none = seen.amax(-1) == 0
        first[:, part].masked_fill_(none, FAR)
        last[:, part].masked_fill_(none, -1)
    return Outline(first, last, present.bool())


class _Keys:
    """The nearest keys that are present, for any position."""

    def __init__(self, present: Tensor) -> None:
        items, self.size = present.shape
        position = torch.arange(self.size, device=present.device).expand(items, -1)
        after = position.masked_fill(~present, FAR).flip(-1).cummin(-1).values.flip(-1)
        before = position.masked_fill(~present, -FAR).cummax(-1).values
        self._after = torch.nn.functional.pad(after, (0, 1), value=FAR)
        self._before = torch.nn.functional.pad(before, (1, 0), value=-FAR)

    def at_or_after(self, position: Tensor) -> Tensor:
        """(items, n): the first one at or after each position, FAR if there is none."""
        return self._after.gather(-1, position.clamp(0, self.size))

    def at_or_before(self, position: Tensor) -> Tensor:
        """(items, n): the last one at or before each position, -FAR if there is none."""
        return self._before.gather(-1, position.clamp(-1, self.size - 1) + 1)


class _Reach(NamedTuple):
    """Ranges for the bounds of key - query in a band, each (items,) int64.

    The lower bound may be from `least` to `low`, the upper bound from `high` to `most`.
    """

    least: Tensor
    low: Tensor
    high: Tensor
    most: Tensor


def joined(*parts: Mask | None) -> Mask | None:
    rules = [part for part in parts if part is not None]
    return reduce(And, rules) if rules else None


def proposals(outline: Outline) -> Iterator[tuple[Mask | None, Tensor]]:
    """Masks, each with the keys that are not padding, (items, keys) bool; simple ones first."""
    present = outline.present
    items, rows = outline.first.shape
    keys = present.shape[-1]
    near = _Keys(present)
    row = torch.arange(rows, device=present.device).expand(items, -1)
    start, stop = torch.zeros_like(row), torch.full_like(row, keys)

    band = _band(_reach(outline, near, row, start, stop), rows, keys)
    if band is not None:
        low, high = _bounds(band, present)
        first = near.at_or_after(row + low)
        first = first.masked_fill(first > row + high, FAR)
        last = near.at_or_before(row + high)
        last = last.masked_fill(last < row + low, -1).clamp_min(-1)
        if torch.equal(first, outline.first) and torch.equal(last, outline.last):
            yield _unless_open(band), _without_far_keys(present, low, high, rows)

    query_ids, key_ids = _documents(outline)
    if bool((key_ids != 0).any() | outline.empty.any()):
        _, start, stop = _ranges(query_ids, key_ids)
        counted = outline.empty
        start, stop = start.masked_fill(counted, FAR), stop.masked_fill(counted, 0)
        band = _band(_reach(outline, near, row, start, stop), rows, keys)
        if band is not None:
            low, high = _bounds(band, present)
            query_ids = _of_empty_rows(query_ids, key_ids, outline.empty, near, row, low, high)
            if rows == keys:  # a key that no row sees may have any id
                key_ids = torch.where(present, key_ids, query_ids)
            if bool((query_ids == query_ids[:1]).all() & (key_ids == key_ids[:1]).all()):
                query_ids, key_ids = query_ids[0], key_ids[0]
            rule = joined(_unless_open(band), Documents(query_ids, key_ids))
            yield rule, _without_far_keys(present, low, high, rows)

    length = (outline.last[:, :1] + 1).clamp_min(0)  # row 0 sees the prefix, or by the causal rule
    beyond = outline.last >= length
    high = (outline.last - row).masked_fill(~beyond, -FAR).amax(-1)
    position = torch.maximum(row + high.unsqueeze(-1) + 1, length)
    most = (near.at_or_after(position) - row - 1).amin(-1)
    offset = _common_or_each(high, most, keys - rows)
    if offset is not None and bool((most < keys).any()):
        each = torch.as_tensor(offset, device=present.device).expand(items)
        length = length.squeeze(-1)
        length = length.masked_fill(length <= each + 1, 0)
        prefix: PerItem = int(length[0]) if bool((length == length[0]).all()) else length
        column = torch.arange(keys, device=present.device)
        far = (column - each.unsqueeze(-1) > rows - 1) & (column >= length.unsqueeze(-1))
        yield Band(None, 0, offset) | Below(prefix, "prefix"), present | far


def _reach(outline: Outline, near: _Keys, row: Tensor, start: Tensor, stop: Tensor) -> _Reach:
    """The bounds of a band over the present keys, from start to stop for each row."""
    high = (outline.last - row).masked_fill(outline.empty, -FAR).amax(-1)
    low = (outline.first - row).masked_fill(outline.empty, FAR).amin(-1)
    after = near.at_or_after(torch.maximum(row + high.unsqueeze(-1) + 1, start))
    before = near.at_or_before(torch.minimum(row + low.unsqueeze(-1) - 1, stop - 1))
    most = (after - row - 1).masked_fill(after >= stop, FAR).amin(-1)
    least = (before - row + 1).masked_fill(before < start, -FAR).amax(-1)
    return _Reach(least, low, high, most)


def _band(reach: _Reach, rows: int, keys: int) -> Band | None:
    """A band within these bounds, with the usual numbers if possible; None if there is none."""
    least, low, high, most = reach
    left_open, right_open = bool((least == -FAR).all()), bool((most == FAR).all())
    square = keys - rows  # the position of query 0 if the last query is at the last key
    if left_open and right_open:
        return Band(None, None, 0)
    if left_open:
        offset = _common_or_each(high, most, square)
        return None if offset is None else Band(None, 0, offset)
    if right_open:
        left = _common_or_each(-low, -least, 0)
        if isinstance(left, int):
            offset = max(0, -left)
            return Band(offset + left, None, offset)
        return None if left is None else Band(0, None, -left)
    right, left = _common(high, most, square), _common(-low, -least, None)
    if right is not None and left is not None:
        offset = _middle(-left, right, square)
        return Band(offset + left, right - offset, offset)
    width = int((high - low).amax().clamp_min(0))
    if width > int((most - least).amin()):
        return None
    lowest, highest = torch.maximum(high, least + width), torch.minimum(most, low + width)
    return Band(width, 0, torch.full_like(low, square).clamp(lowest, highest))


def _middle(low: int, high: int, square: int) -> int:
    """The position of query 0, given the bounds of key - query in a window."""
    usual = (square, 0)
    if high in usual:  # it looks back only
        return high
    if (low + high) % 2 == 0 and (low + high) // 2 in usual:  # as far back as ahead
        return (low + high) // 2
    return 0 if square == 0 and low <= 0 <= high else high


def _common(lowest: Tensor, highest: Tensor, preferred: int | None) -> int | None:
    """One number within the bounds of all items: the preferred one, 0, or the lowest."""
    low, high = int(lowest.amax()), int(highest.amin())
    if low > high:
        return None
    if preferred is None:
        return low
    return next((number for number in (preferred, 0) if low <= number <= high), low)


def _common_or_each(lowest: Tensor, highest: Tensor, preferred: int) -> PerItem | None:
    common = _common(lowest, highest, preferred)
    if common is not None:
        return common
    if bool((lowest > highest).any()):
        return None
    return torch.full_like(lowest, preferred).clamp(lowest, highest)


def _unless_open(band: Band) -> Band | None:
    return None if band.left is None and band.right is None else band


def _bounds(band: Band, like: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds of key - query in a band, each (items, 1)."""
    offset = torch.as_tensor(band.offset, device=like.device).expand(len(like)).unsqueeze(-1)
    low = torch.full_like(offset, -FAR) if band.left is None else offset - band.left
    high = torch.full_like(offset, FAR) if band.right is None else offset + band.right
    return low, high


def _without_far_keys(present: Tensor, low: Tensor, high: Tensor, rows: int) -> Tensor:
    """Count keys as present that the band alone hides from every row."""
    key = torch.arange(present.shape[-1], device=present.device)
    return present | (key - high > rows - 1) | (key - low < 0)


def _documents(outline: Outline) -> tuple[Tensor, Tensor]:
    """The ids of the shortest documents that the outline allows: (items, rows), (items, keys).

    A row that sees no key has the id -1.
    """
    first, last, present = outline
    seeing = ~outline.empty
    edges = torch.zeros_like(present, dtype=torch.int64)
    step = seeing.to(torch.int64)
    edges.scatter_add_(-1, first.masked_fill(~seeing, 0), step)
    edges.scatter_add_(-1, last.clamp_min(0), -step)
    linked = edges.cumsum(-1) > 0  # a row sees keys on both sides
    begins = present.clone()
    begins[:, 1:] &= ~linked[:, :-1]
    key_ids = (begins.cumsum(-1) - 1).clamp_min(0)
    query_ids = key_ids.gather(-1, first.masked_fill(~seeing, 0)).masked_fill(~seeing, -1)
    return query_ids, key_ids


def _ranges(query_ids: Tensor, key_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ids, clamped to 0, and where the keys with the id of each row start and stop."""
    ids = query_ids.clamp_min(0).contiguous()
    start = torch.searchsorted(key_ids.contiguous(), ids)
    return ids, start, torch.searchsorted(key_ids.contiguous(), ids, right=True)


def _of_empty_rows(
    query_ids: Tensor,
    key_ids: Tensor,
    empty: Tensor,
    near: _Keys,
    row: Tensor,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Add rows that see no key to the next or previous document, if they see no key there."""
    last = query_ids.shape[-1] - 1
    after = row.masked_fill(empty, last).flip(-1).cummin(-1).values.flip(-1)
    before = row.masked_fill(empty, 0).cummax(-1).values
    for neighbour in (after, before):
        ids, start, stop = _ranges(query_ids.gather(-1, neighbour), key_ids)
        key = near.at_or_after(torch.maximum(row + low, start))
        nothing = (key >= stop) | (key > row + high)
        query_ids = torch.where((query_ids < 0) & nothing, ids, query_ids)
    return query_ids

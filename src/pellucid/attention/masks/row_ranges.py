"""Masks under which each query sees one range of keys, as the two ends of that range.

Nearly all masks are of this kind, alone and joined: causal, windows, padding at one side, a prefix,
documents. A kernel that reads two numbers per row needs no n x n booleans for them.
"""

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.attention.masks.mask import And, Mask, Or, PerItem
from pellucid.attention.masks.rules import Band, Below, Documents, Present, Rows


class RowRanges(NamedTuple):
    """Query i sees the keys from begins[i] up to ends[i], none where these are equal."""

    begins: Tensor
    """(batch, queries) int64; batch is 1 where one rule serves all items."""
    ends: Tensor
    """The same shape."""


class Extents(NamedTuple):
    queries: int
    keys: int
    device: torch.device


def row_ranges(
    mask: Mask | None, queries: int, keys: int, device: torch.device
) -> RowRanges | None:
    """The range of each query, of a mask bound to these sizes; None where one sees several."""
    extents = Extents(queries, keys, device)
    if mask is None:
        return _cut(extents, _column(0, extents), _column(keys, extents))
    return _ranges(mask, extents)


@singledispatch
def _ranges(mask: Mask, extents: Extents) -> RowRanges | None:
    return None  # any pattern


@_ranges.register
def _(mask: Band, extents: Extents) -> RowRanges:
    middle = torch.arange(extents.queries, device=extents.device) + _column(mask.offset, extents)
    begins = torch.zeros_like(middle) if mask.left is None else middle - mask.left
    ends = torch.full_like(middle, extents.keys) if mask.right is None else middle + mask.right + 1
    return _cut(extents, begins, ends)


@_ranges.register
def _(mask: Below, extents: Extents) -> RowRanges:
    return _cut(extents, _column(0, extents), _column(mask.limit, extents))


@_ranges.register
def _(mask: Rows, extents: Extents) -> RowRanges:
    flags = mask.flags.reshape(-1, extents.queries).to(extents.device)
    return _cut(extents, _column(0, extents), flags * extents.keys)


@_ranges.register
def _(mask: Present, extents: Extents) -> RowRanges | None:
    flags = mask.flags.reshape(-1, extents.keys).to(extents.device, torch.int8)
    count = flags.sum(-1, keepdim=True)
    begins = flags.argmax(-1, keepdim=True) * (count > 0)
    ends = (extents.keys - flags.flip(-1).argmax(-1, keepdim=True)) * (count > 0)
    has_holes = (ends - begins != count).any()
    return None if has_holes else _cut(extents, begins, ends)


@_ranges.register
def _(mask: Documents, extents: Extents) -> RowRanges | None:
    both = (mask.query_ids, mask.key_ids)
    queries, keys = (ids.to(extents.device).reshape(-1, ids.shape[-1]) for ids in both)
    queries, keys = (ids.expand(max(len(queries), len(keys)), -1) for ids in (queries, keys))
    ordered, order = keys.sort(dim=-1, stable=True)
    queries = queries.contiguous()
    first, after = (torch.searchsorted(ordered, queries, right=right) for right in (False, True))
    count = after - first
    begins = order.gather(-1, first.clamp_max(extents.keys - 1)) * (count > 0)
    ends = (order.gather(-1, (after - 1).clamp_min(0)) + 1) * (count > 0)
    is_scattered = (ends - begins != count).any()
    return None if is_scattered else _cut(extents, begins, ends)


@_ranges.register
def _(mask: And, extents: Extents) -> RowRanges | None:
    left, right = _ranges(mask.left, extents), _ranges(mask.right, extents)
    if left is None or right is None:
        return None
    (begins, ends), (other_begins, other_ends) = left, right
    return _cut(extents, begins.maximum(other_begins), ends.minimum(other_ends))


@_ranges.register
def _(mask: Or, extents: Extents) -> RowRanges | None:
    left, right = _ranges(mask.left, extents), _ranges(mask.right, extents)
    if left is None or right is None:
        return None
    (begins, ends), (other_begins, other_ends) = left, right
    is_empty, other_is_empty = begins == ends, other_begins == other_ends
    apart = begins.maximum(other_begins) > ends.minimum(other_ends)
    if (apart & ~is_empty & ~other_is_empty).any():
        return None
    begins, other_begins = (
        begins.masked_fill(is_empty, extents.keys),
        other_begins.masked_fill(other_is_empty, extents.keys),
    )
    return _cut(extents, begins.minimum(other_begins), ends.maximum(other_ends))


def _column(value: PerItem, extents: Extents) -> Tensor:
    """(batch or 1, 1) of one number, or of one per item."""
    return torch.as_tensor(value, dtype=torch.int64, device=extents.device).reshape(-1, 1)


def _cut(extents: Extents, begins: Tensor, ends: Tensor) -> RowRanges:
    """Within the keys, for each query; a range of nothing is from 0 to 0."""
    begins, ends = (x.clamp(0, extents.keys) for x in (begins, ends))
    is_seen = begins < ends
    size = (*is_seen.shape[:-1], extents.queries)
    return RowRanges((begins * is_seen).expand(size), (ends * is_seen).expand(size))

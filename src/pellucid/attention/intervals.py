"""Sets of positions as sorted, disjoint, half-open ranges: `((0, 3), (5, 9))`."""

from collections.abc import Iterable

import torch
from torch import Tensor

Intervals = tuple[tuple[int, int], ...]


def clip(start: int, stop: int, size: int) -> Intervals:
    """[start, stop) within [0, size), empty where nothing is left."""
    start, stop = max(start, 0), min(stop, size)
    return ((start, stop),) if start < stop else ()


def union(left: Iterable[tuple[int, int]], right: Intervals = ()) -> Intervals:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted([*left, *right]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def complement(intervals: Intervals, size: int) -> Intervals:
    edges = [0, *(edge for interval in intervals for edge in interval), size]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def intersection(left: Intervals, right: Intervals) -> Intervals:
    overlaps = ((max(a, c), min(b, d)) for a, b in left for c, d in right)
    return tuple((a, b) for a, b in overlaps if a < b)


def covers(intervals: Intervals, start: int, stop: int) -> bool:
    return any(a <= start and stop <= b for a, b in intervals)


def runs(flags: Tensor) -> Intervals:
    """The ranges in which a 1-D bool tensor is True."""
    edges = torch.diff(flags.to(torch.int8), prepend=flags.new_zeros(1), append=flags.new_zeros(1))
    starts, stops = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
    return tuple(zip(starts.tolist(), stops.tolist(), strict=True))


def length(intervals: Iterable[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in intervals)


def positions(intervals: Intervals, device: torch.device) -> Tensor:
    """All positions in order, int64."""
    return torch.cat([torch.arange(start, stop, device=device) for start, stop in intervals])

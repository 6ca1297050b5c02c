"""The loops behind `fused_statistics`, compiled by Numba on first use and then cached on disk.

A few rows of scores are computed by tiles, all their columns, and read again while they are in the
second cache.
"""

from typing import Any

import numpy as np
from numba import njit

from pellucid.attention.numba_cache import kept
from pellucid.attention.score_tiles import (
    LANES,
    PANEL,
    TILE_COLS,
    TILE_ROWS,
    at_least,
    largest_of,
    lowest_bit,
    multiply,
    number,
    transpose,
    weigh,
)

f32 = np.float32
ROWS = 4 * TILE_ROWS
"""Rows that are computed together: they share a panel of keys that is in the first cache."""
LOG2_E = float(np.log2(np.e))


def kernel(function: Any) -> Any:
    """Compile a function whose sums stay in their order, as the exponential requires."""
    return kept(njit(nogil=True)(function))


@kernel
def pack(key: Any, apart: Any, keys: Any, panels: Any) -> None:
    """Write keys as panels (count, dim, PANEL), with 0 beyond the last key.

    Args:
        key: address of (keys, dim) float32; the numbers of a key are one right after the other.
        apart: bytes from one key to the next.
        keys: how many.
        panels: written.
    """
    dim = panels.shape[1]
    for at in range(panels.shape[0]):
        for first in range(0, PANEL, LANES):
            row = at * PANEL + first
            whole = dim // LANES * LANES if row + LANES <= keys else 0
            for i in range(0, whole, LANES):
                place = panels.ctypes.data + ((at * dim + i) * PANEL + first) * 4
                transpose(key + row * apart + i * 4, apart, place, PANEL * 4)
            for i in range(whole, dim):
                for j in range(LANES):
                    is_key = row + j < keys
                    panels[at, i, first + j] = (
                        number(key + (row + j) * apart, i) if is_key else f32(0.0)
                    )


@kernel
def fill(numbers: Any, first: Any, stop: Any, value: Any) -> None:
    for j in range(first, stop):
        numbers[j] = value


@kernel
def _select(numbers: Any, places: Any, count: Any, values: Any, chosen: Any) -> None:
    """The largest of the first few numbers, in descending order; both last places stay behind."""
    k = values.shape[0] - 1
    for i in range(k):
        values[i], chosen[i] = f32(-np.inf), -1
    for i in range(count):
        rank = 0
        for j in range(count):
            rank += numbers[j] > numbers[i]
        for j in range(i):
            rank += numbers[j] == numbers[i]
        values[min(rank, k)], chosen[min(rank, k)] = numbers[i], places[i]


@kernel
def _top(
    logits: Any,
    panels: Any,
    largest: Any,
    highest: Any,
    numbers: Any,
    places: Any,
    values: Any,
    chosen: Any,
) -> None:
    """The largest of a row and their places: k, and one more that means nothing.

    Args:
        logits: address of panels * PANEL.
        panels: how many.
        largest: address of that of each panel.
        highest: (LANES,) the largest of as many parts of the row.
        numbers, places: buffers of 2 * k + PANEL.
        values, chosen: (k + 1,), written.
    """
    k = values.shape[0] - 1
    bound = f32(-np.inf)
    if k <= LANES:  # so many numbers are no smaller than the k-th of the highest
        _select(highest, places, LANES, values, chosen)
        bound = values[k - 1]
    count = 0
    for start in range(0, panels, PANEL):
        some = at_least(largest + start * 4, bound)
        while some:
            panel = start + lowest_bit(some)
            some &= some - np.uint64(1)
            if panel >= panels:
                break
            bits = at_least(logits + panel * PANEL * 4, bound)
            while bits:
                place = lowest_bit(bits)
                bits &= bits - np.uint64(1)
                numbers[count] = number(logits, panel * PANEL + place)
                places[count] = panel * PANEL + place
                count += 1
            if count > 2 * k:
                _select(numbers, places, count, values, chosen)
                for i in range(k):
                    numbers[i], places[i] = values[i], chosen[i]
                count, bound = k, values[k - 1]
    _select(numbers, places, count, values, chosen)


@kernel
def _sweep_head(
    query: Any,
    factor: Any,
    panels: Any,
    begins: Any,
    ends: Any,
    logsumexp: Any,
    first: Any,
    received: Any,
    entropy: Any,
    distance: Any,
    peak: Any,
    values: Any,
    indices: Any,
) -> None:
    """As `sweep`, for one head: without the first axis of heads."""
    rows, dim = query.shape
    k = values.shape[1]
    count = panels.shape[0]
    scaled = np.zeros((ROWS, dim), f32)
    # Rows that are a power of 2 apart would share the few places of a cache that they fit.
    logits = np.empty((ROWS, count * PANEL + LANES), f32)
    added = np.zeros(count * PANEL, f32)
    largest = np.empty((count + PANEL - 1) // PANEL * PANEL, f32)
    highest, sums = np.empty(LANES, f32), np.empty(2, f32)
    numbers, places = np.empty(2 * k + PANEL, f32), np.empty(2 * k + PANEL, np.int64)
    best, chosen = np.empty(k + 1, f32), np.empty(k + 1, np.int64)
    to_base_2 = f32(factor * LOG2_E)
    for start in range(0, rows, ROWS):
        stop = min(rows, start + ROWS)
        low, high = count * PANEL, 0
        for row in range(start, stop):
            if begins[row] < ends[row]:
                low, high = min(low, begins[row]), max(high, ends[row])
            for i in range(dim):
                scaled[row - start, i] = query[row, i] * to_base_2
        for panel in range(low // PANEL, (high + PANEL - 1) // PANEL):
            for row in range(0, stop - start, TILE_ROWS):
                for part in range(0, PANEL, TILE_COLS):
                    multiply(
                        scaled.ctypes.data + row * dim * 4,
                        dim * 4,
                        panels.ctypes.data + (panel * dim * PANEL + part) * 4,
                        PANEL * 4,
                        dim,
                        logits.ctypes.data + (row * logits.shape[1] + panel * PANEL + part) * 4,
                        logits.shape[1] * 4,
                        0,
                    )
        for row in range(start, stop):
            begin, end = begins[row], ends[row]
            if begin >= end:
                if peak.shape[0]:
                    peak[row] = f32(-np.inf)
                if k:
                    indices[row] = -1
                continue
            left, right = begin // PANEL, (end + PANEL - 1) // PANEL
            own = logits.ctypes.data + ((row - start) * logits.shape[1] + left * PANEL) * 4
            fill(logits[row - start], left * PANEL, begin, f32(-np.inf))
            fill(logits[row - start], end, right * PANEL, f32(-np.inf))
            shift = f32(logsumexp[row] * LOG2_E)
            weigh(
                own,
                right - left,
                shift,
                f32(first + row - left * PANEL),
                added.ctypes.data + left * PANEL * 4,
                largest.ctypes.data,
                highest.ctypes.data,
                sums.ctypes.data,
            )
            if entropy.shape[0]:
                entropy[row] = abs(sums[0]) / LOG2_E  # never -0
            if distance.shape[0]:
                distance[row] = sums[1]
            if peak.shape[0]:
                peak[row] = largest_of(own, right - left) / LOG2_E
            if k:
                _top(
                    own,
                    right - left,
                    largest.ctypes.data,
                    highest,
                    numbers,
                    places,
                    best,
                    chosen,
                )
                for t in range(k):
                    values[row, t] = np.exp2(best[t] - shift)
                    is_seen = values[row, t] > f32(0.0)
                    indices[row, t] = chosen[t] + left * PANEL if is_seen else -1
        for j in range(low, high):
            received[j] += added[j]
            added[j] = f32(0.0)


@kernel
def sweep(
    query: Any,
    factor: Any,
    panels: Any,
    group: Any,
    first_head: Any,
    begins: Any,
    ends: Any,
    logsumexp: Any,
    first: Any,
    received: Any,
    entropy: Any,
    distance: Any,
    peak: Any,
    values: Any,
    indices: Any,
) -> None:
    """Statistics of some rows of some heads; results of no rows are skipped, others are 0 before.

    Args:
        query: (heads, rows, dim) float32.
        factor: of the scores.
        panels: (kv_heads, count, dim, PANEL), as `pack` writes them.
        group: heads that share one of them.
        first_head: which the first of the heads is.
        begins, ends: (rows,) int64, the range of keys that each row sees.
        logsumexp: (heads, rows) float32.
        first: the key position of the first row.
        received: (heads, count * PANEL) float64.
        entropy, distance, peak: (heads, rows) float32.
        values, indices: (heads, rows, k) float32 and int64.
    """
    for head in range(query.shape[0]):
        _sweep_head(
            query[head],
            factor,
            panels[(first_head + head) // group],
            begins,
            ends,
            logsumexp[head],
            first,
            received[head],
            entropy[head],
            distance[head],
            peak[head],
            values[head],
            indices[head],
        )


@kernel
def pack_heads(key: Any, head_apart: Any, apart: Any, keys: Any, panels: Any) -> None:
    """`pack` for all heads; panels (heads, count, dim, PANEL), head_apart as apart for heads."""
    for head in range(panels.shape[0]):
        pack(key + head * head_apart, apart, keys, panels[head])

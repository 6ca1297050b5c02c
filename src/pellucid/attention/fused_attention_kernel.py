"""The loops behind `fused_attention`, compiled by Numba on first use and then cached on disk.

A few rows meet a stretch of keys at a time, all in the second cache, and keep a running maximum and
sum (Milakov & Gimelshein 2018, "Online normalizer calculation for softmax").
"""

from typing import Any

import numpy as np

from pellucid.attention.fused_statistics_kernel import LOG2_E, fill, kernel, pack
from pellucid.attention.score_tiles import (
    LANES,
    PANEL,
    TILE_COLS,
    TILE_ROWS,
    copy,
    exponentials,
    largest_of,
    multiply,
    number,
    store_number,
)

f32 = np.float32
STRETCH = 8 * PANEL
"""Keys that some rows meet at a time."""


@kernel
def _add(
    scaled: Any,
    panels: Any,
    values: Any,
    left: Any,
    seen: Any,
    logits: Any,
    most: Any,
    total: Any,
    part: Any,
    mixed: Any,
) -> None:
    """Add a stretch of keys to some rows.

    Args:
        scaled: (rows, dim) queries, of which the first len(seen) count.
        panels: (count, dim, PANEL).
        values: (keys, wide).
        left: where the stretch begins, a multiple of PANEL.
        seen: how many keys each row sees, from the first of all; no row more than one after it.
        logits, part: buffers (rows, STRETCH + LANES) and (rows, wide).
        most, total, mixed: (rows,), (rows,) and (rows, wide): the largest logit so far, the sum of
            all 2^(logit - most), and of their products with the values. The first stretch reads
            no mixed.
    """
    rows, dim, wide = seen.shape[0], scaled.shape[1], mixed.shape[1]
    apart = logits.shape[1] * 4
    right = min(left + STRETCH, seen[rows - 1])
    target = part if left else mixed
    for first in range(left, right, PANEL):
        for row in range(0, rows, TILE_ROWS):
            if first >= seen[min(rows, row + TILE_ROWS) - 1]:
                continue
            for col in range(0, PANEL, TILE_COLS):
                multiply(
                    scaled.ctypes.data + row * dim * 4,
                    dim * 4,
                    panels.ctypes.data + (first * dim + col) * 4,
                    PANEL * 4,
                    dim,
                    logits.ctypes.data + row * apart + (first - left + col) * 4,
                    apart,
                    0,
                )
    for row in range(rows):
        last = seen[min(rows, row // TILE_ROWS * TILE_ROWS + TILE_ROWS) - 1]
        count = (min(right, last) - left + PANEL - 1) // PANEL
        if count <= 0:
            continue
        own = logits.ctypes.data + row * apart
        fill(logits[row], max(0, min(right, seen[row]) - left), count * PANEL, f32(-np.inf))
        before = most[row]
        most[row] = max(before, largest_of(own, count))
        shift = most[row] if most[row] > f32(-np.inf) else f32(0.0)
        added = exponentials(own, count, shift)
        if left:
            ratio = f32(np.exp2(before - shift))
            added += total[row] * ratio
            for i in range(wide):
                mixed[row, i] *= ratio
        total[row] = added
    for first in range(left, right, PANEL):
        for row in range(0, rows, TILE_ROWS):
            last = min(right, seen[min(rows, row + TILE_ROWS) - 1])
            for col in range(0, wide if first < last else 0, TILE_COLS):
                multiply(
                    logits.ctypes.data + row * apart + (first - left) * 4,
                    apart,
                    values.ctypes.data + (first * wide + col) * 4,
                    wide * 4,
                    min(PANEL, last - first),
                    target.ctypes.data + (row * wide + col) * 4,
                    wide * 4,
                    min(1, first - left),
                )
    for row in range(rows if left else 0):
        if left < seen[min(rows, row // TILE_ROWS * TILE_ROWS + TILE_ROWS) - 1]:
            for i in range(wide):
                mixed[row, i] += part[row, i]


@kernel
def _copy(source: Any, factor: Any, target: Any) -> None:
    """target (wide,) = numbers from an address * factor."""
    whole = target.shape[0] // LANES
    copy(source, whole, factor, target.ctypes.data)
    for i in range(whole * LANES, target.shape[0]):
        target[i] = number(source, i) * factor


@kernel
def _scale_to(source: Any, factor: Any, target: Any) -> None:
    """The same, to an address."""
    whole = source.shape[0] // LANES
    copy(source.ctypes.data, whole, factor, target)
    for i in range(whole * LANES, source.shape[0]):
        store_number(target, i, source[i] * factor)


@kernel
def attend(
    addresses: Any,
    strides: Any,
    sizes: Any,
    is_causal: Any,
    scale: Any,
    logsumexp: Any,
    height: Any,
    begin: Any,
    end: Any,
) -> None:
    """Attention without a mask, or where query i sees the keys up to i: some blocks of rows.

    Args:
        addresses: (4,) int64, of query, key, value and context (batch, heads, n, dim), float32, the
            last dimension contiguous.
        strides: (4, 3) int64, bytes between items, heads and rows.
        sizes: (7,) int64: batch, heads, rows, kv_heads, keys, dim and value_dim.
        is_causal: whether query i sees the keys up to i alone.
        scale: of the scores.
        logsumexp: (batch, heads, rows), written.
        height: rows of a block, a multiple of TILE_ROWS.
        begin, end: which blocks, of all heads of all items.
    """
    heads, rows, kv_heads, keys, dim, value_dim = sizes[1:]
    wide = (value_dim + TILE_COLS - 1) // TILE_COLS * TILE_COLS
    factor = f32(scale * LOG2_E)
    panels = np.empty(((keys + PANEL - 1) // PANEL, dim, PANEL), f32)
    values = np.zeros((keys, wide), f32)
    scaled = np.zeros((height, dim), f32)
    # Rows that are a power of 2 apart would share the few places of a cache that they fit.
    logits = np.empty((height, STRETCH + LANES), f32)
    most, total = np.empty(height, f32), np.empty(height, f32)
    seen = np.empty(height, np.int64)
    part, mixed = np.empty((height, wide), f32), np.empty((height, wide), f32)
    blocks, source = (rows + height - 1) // height, -1
    for at in range(begin, end):
        item, head = at // blocks // heads, at // blocks % heads
        needed = item * kv_heads + head * kv_heads // heads
        if needed != source:
            source = needed
            place = source // kv_heads, source % kv_heads
            key = addresses[1] + place[0] * strides[1, 0] + place[1] * strides[1, 1]
            pack(key, strides[1, 2], keys, panels)
            value = addresses[2] + place[0] * strides[2, 0] + place[1] * strides[2, 1]
            for row in range(keys):
                _copy(value + row * strides[2, 2], f32(1.0), values[row, :value_dim])
        start = at % blocks * height
        count = min(height, rows - start)
        query = addresses[0] + item * strides[0, 0] + head * strides[0, 1]
        for row in range(count):
            _copy(query + (start + row) * strides[0, 2], factor, scaled[row])
            most[row], total[row] = f32(-np.inf), f32(0.0)
            seen[row] = min(keys, start + row + 1) if is_causal else keys
        for left in range(0, seen[count - 1], STRETCH):
            _add(scaled, panels, values, left, seen[:count], logits, most, total, part, mixed)
        context = addresses[3] + item * strides[3, 0] + head * strides[3, 1]
        for row in range(count):
            inverse = f32(1.0) / total[row] if total[row] != f32(0.0) else f32(0.0)
            _scale_to(mixed[row, :value_dim], inverse, context + (start + row) * strides[3, 2])
            logsumexp[item, head, start + row] = (most[row] + np.log2(total[row])) / LOG2_E

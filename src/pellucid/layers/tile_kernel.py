"""Products of weights and several rows of inputs by tiles, compiled by Numba.

Inputs of int8 weights are rounded, a row to as many bits as its sums leave room for in 32: 15 for
rows of up to 516 numbers, 13 for 2,048. That adds a hundredth to what the rounding of the weights
to 8 bits costs.
"""

from typing import Any

import numpy as np
from numba import prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers.tiles import (
    COLUMNS,
    FLOAT_ROWS,
    LANES,
    STEP,
    WHOLE_ROWS,
    float_tile,
    float_tile_of_two,
    whole_tile,
)

f32 = np.float32
STRIP = 2 * COLUMNS
"""Rows of weights that are used at once, from a core's first cache."""
BLOCK = 2**17
"""Bytes of inputs that all of a core's weights meet before the next: half of its second cache."""
LEAST = f32(1e-30)
"""Inputs that are all smaller count as 0: what they are divided by would not be a number."""
LINE = 64
"""Bytes of a line of the cache."""


@kernel
def _lines(rows: Any, length: Any) -> Any:
    """(rows, length) int16 of 0, from the start of a line of the cache."""
    room = np.zeros(rows * length + LINE // 2, np.int16)
    skipped = -room.ctypes.data % LINE // 2
    return room[skipped : skipped + rows * length].reshape(rows, length)


@kernel
def buffers(x: Any) -> Any:
    """What `round_rows` writes for x (rows, cols): whole numbers and scales."""
    return _lines(x.shape[0], (x.shape[1] + STEP - 1) // STEP * STEP), np.empty(x.shape[0], f32)


@kernel
def round_rows(x: Any, whole: Any, scale: Any, first: Any, stop: Any) -> None:
    """Round some rows of inputs, so that sums of products with int8 stay below 2^31.

    Args:
        x: (rows, cols) float32.
        whole: (rows, length) int16, written; its length is the next multiple of `STEP`.
        scale: (rows,) float32, written; NaN if the row has a number that is not finite.
        first, stop: which rows.
    """
    cols = x.shape[1]
    most = f32(min(2**15 - 1, (2**31 - 1) // (127 * cols)))
    for row in range(first, stop):
        own, numbers = x[row], whole[row]
        largest, nothing = f32(0.0), f32(0.0)
        for j in range(cols):
            largest = max(largest, abs(own[j]))
            nothing += own[j] * f32(0.0)
        inverse = f32(0.0)
        if largest > LEAST and nothing == f32(0.0):
            inverse = most / largest
        for j in range(cols):
            numbers[j] = np.int16(np.rint(own[j] * inverse))
        scale[row] = largest / most + nothing


@kernel
def rounded(x: Any) -> Any:
    """Whole numbers and scales of x (rows, cols); empty where a single row needs none."""
    workspace = buffers(x if x.shape[0] > 1 else x[:0])
    round_rows(x, workspace[0], workspace[1], 0, len(workspace[1]))
    return workspace


@kernel
def bounds(size: Any, part: Any, parts: Any) -> Any:
    """The first column, and the one after the last, of one of `parts` parts of a product.

    They are tiles, and at least two of them: if the size is no multiple, the last tile lies over
    the one before, which is of the same part.
    """
    tiles = (size + COLUMNS - 1) // COLUMNS
    if tiles < 2 * parts:
        return (0, size) if part == 0 else (size, size)
    return tiles * part // parts * COLUMNS, min(size, tiles * (part + 1) // parts * COLUMNS)


@kernel
def or_zeros(bias: Any, size: Any) -> Any:
    return bias if bias.shape[0] else np.zeros(size, f32)


@kernel
def share_whole(
    weight: Any, scale: Any, bias: Any, rounded: Any, part: Any, parts: Any, out: Any
) -> None:
    """One of `parts` equal parts of the columns of out; arguments as of `project_whole`.

    The last tile of either axis lies over the one before it where the size is no multiple.
    """
    whole, x_scale = rounded
    size, cols = weight.shape
    rows, length = whole.shape
    low, high = bounds(size, part, parts)
    strip, added = _lines(STRIP, length), or_zeros(bias, size)
    together = max(WHOLE_ROWS, BLOCK // (2 * length) // WHOLE_ROWS * WHOLE_ROWS)
    for start in range(0, rows, together):
        stop = min(rows, start + together)
        for begin in range(low, high, STRIP):
            end = min(high, begin + STRIP)
            first_column = max(0, min(begin, end - COLUMNS))
            for column in range(first_column, end):
                numbers, wide = weight[column], strip[column - first_column]
                for j in range(cols):
                    wide[j] = numbers[j]
            for first in range(start, stop, WHOLE_ROWS):
                row = min(first, rows - WHOLE_ROWS)
                for place in range(begin, end, COLUMNS):
                    column = min(place, size - COLUMNS)
                    whole_tile(
                        whole.ctypes.data + row * length * 2,
                        strip.ctypes.data + (column - first_column) * length * 2,
                        length,
                        x_scale.ctypes.data + row * 4,
                        scale.ctypes.data + column * 4,
                        added.ctypes.data + column * 4,
                        out.ctypes.data + (row * size + column) * 4,
                        size * 4,
                    )


@kernel
def share_float(weight: Any, bias: Any, x: Any, part: Any, parts: Any, out: Any) -> None:
    """As `share_whole`, of float32 weights."""
    size, length = weight.shape
    rows = x.shape[0]
    low, high = bounds(size, part, parts)
    added = or_zeros(bias, size)
    each = min(rows, FLOAT_ROWS)
    together = max(each, 2 * BLOCK // (4 * length) // each * each)
    for start in range(0, rows, together):
        stop = min(rows, start + together)
        for begin in range(low, high, STRIP):
            end = min(high, begin + STRIP)
            for first in range(start, stop, each):
                row = min(first, rows - each)
                for at in range(begin, end, COLUMNS):
                    column = min(at, size - COLUMNS)
                    left = x.ctypes.data + row * length * 4
                    right = weight.ctypes.data + column * length * 4
                    plus = added.ctypes.data + column * 4
                    place = out.ctypes.data + (row * size + column) * 4
                    if each == FLOAT_ROWS:
                        float_tile(left, right, length, plus, place, size * 4)
                    else:
                        float_tile_of_two(left, right, length, plus, place, size * 4)


@kernel
def fits(rows: Any, size: Any, length: Any) -> Any:
    """Whether a product has as many rows, columns and numbers in a row as a tile."""
    return rows >= 2 and size >= COLUMNS and length >= LANES


@kernel
def project_alone(weight: Any, scale: Any, bias: Any, x: Any, out: Any) -> None:
    """As `project_whole`, on one core, and whatever other threads do."""
    rounded = buffers(x)
    round_rows(x, rounded[0], rounded[1], 0, len(x))
    share_whole(weight, scale, bias, rounded, 0, 1, out)


@parallel_kernel
def project_whole(weight: Any, scale: Any, bias: Any, x: Any, out: Any, parts: Any) -> None:
    """out (rows, size) = x @ weight.T * scale + bias, for at least two rows of x (rows, cols).

    Args:
        weight: (size, cols) int8, at least 4 rows.
        scale: (size,) float32.
        bias: (size,) float32, or empty.
        x, out: float32.
        parts: how many cores to use.
    """
    rows = len(x)
    rounded = buffers(x)
    for part in prange(parts):
        first, stop = rows * part // parts, rows * (part + 1) // parts
        round_rows(x, rounded[0], rounded[1], first, stop)
    for part in prange(parts):
        share_whole(weight, scale, bias, rounded, part, parts, out)


@parallel_kernel
def project_float(weight: Any, bias: Any, x: Any, out: Any, parts: Any) -> None:
    """out = x @ weight.T + bias, of sizes that `fits` accepts, all float32."""
    for part in prange(parts):
        share_float(weight, bias, x, part, parts, out)

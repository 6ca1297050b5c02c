"""Products of int8 weights and many rows of inputs, compiled by Numba.

An input row is rounded to as many bits as its sums leave room for in 32: 15 for rows of up to 516
numbers, 13 for 2,048. That adds a hundredth to what the rounding of the weights to 8 bits costs.
"""

from typing import Any

import numpy as np
from numba import prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers.int8_products import COLUMNS, ROWS, STEP, tile

f32 = np.float32
STRIP = 2 * COLUMNS
"""Rows of weights that are widened at once, into a core's first cache."""
BLOCK = 2**17
"""Bytes of inputs that all of a core's weights meet before the next: half of its second cache."""
LEAST = f32(1e-30)
"""Inputs that are all smaller count as 0: what they are divided by would not be a number."""


@kernel
def _round_rows(x: Any, whole: Any, scale: Any, most: Any, first: Any, stop: Any) -> None:
    """Round some rows of inputs.

    Args:
        x: (rows, cols) float32.
        whole: (rows, length) int16, written; 0 after the columns of x.
        scale: (rows,) float32, written; NaN if the row has a number that is not finite.
        most: the largest whole number.
        first, stop: which rows.
    """
    cols = x.shape[1]
    for row in range(first, stop):
        own, numbers = x[row], whole[row]
        largest, nothing = f32(0.0), f32(0.0)
        for j in range(cols):
            largest = max(largest, abs(own[j]))
            nothing += own[j] * f32(0.0)
        inverse = f32(0.0)
        if largest > LEAST and nothing == f32(0.0):
            inverse = f32(most) / largest
        for j in range(cols):
            numbers[j] = np.int16(np.rint(own[j] * inverse))
        numbers[cols:] = 0
        scale[row] = largest / f32(most) + nothing


@kernel
def _share(
    weight: Any, scale: Any, bias: Any, whole: Any, x_scale: Any, out: Any, part: Any, parts: Any
) -> None:
    """One of `parts` equal parts of the columns of out; arguments as of `project`.

    The last tile of either axis lies over the one before it where the size is no multiple.
    """
    size, cols = weight.shape
    rows, length = whole.shape
    tiles = (size + COLUMNS - 1) // COLUMNS
    low, high = tiles * part // parts, tiles * (part + 1) // parts
    room = np.zeros(STRIP * length + STEP, np.int16)
    skipped = -room.ctypes.data % (2 * STEP) // 2  # to the start of a line of the cache
    strip = room[skipped : skipped + STRIP * length].reshape(STRIP, length)
    together = max(ROWS, BLOCK // (2 * length) // ROWS * ROWS)
    for start in range(0, rows, together):
        stop = min(rows, start + together)
        for begin in range(low, high, STRIP // COLUMNS):
            end = min(high, begin + STRIP // COLUMNS)
            for number in range(begin, end):
                column = min(number * COLUMNS, size - COLUMNS)
                for i in range(COLUMNS):
                    numbers, wide = weight[column + i], strip[(number - begin) * COLUMNS + i]
                    for j in range(cols):
                        wide[j] = numbers[j]
            for first in range(start, stop, ROWS):
                row = min(first, rows - ROWS)
                for number in range(begin, end):
                    column = min(number * COLUMNS, size - COLUMNS)
                    tile(
                        whole.ctypes.data + row * length * 2,
                        strip.ctypes.data + (number - begin) * COLUMNS * length * 2,
                        length,
                        x_scale.ctypes.data + row * 4,
                        scale.ctypes.data + column * 4,
                        bias.ctypes.data + column * 4,
                        out.ctypes.data + (row * size + column) * 4,
                        size * 4,
                    )


@kernel
def project_alone(
    weight: Any, scale: Any, bias: Any, x: Any, whole: Any, x_scale: Any, most: Any, out: Any
) -> None:
    """As `project`, on one core, and whatever other threads do."""
    _round_rows(x, whole, x_scale, most, 0, len(x))
    _share(weight, scale, bias, whole, x_scale, out, 0, 1)


@parallel_kernel
def project(
    weight: Any,
    scale: Any,
    bias: Any,
    x: Any,
    whole: Any,
    x_scale: Any,
    most: Any,
    out: Any,
    parts: Any,
) -> None:
    """out (rows, size) = x @ weight.T * scale + bias, for at least two rows of x (rows, cols).

    Args:
        weight: (size, cols) int8, at least 4 rows.
        scale, bias: (size,) float32.
        x, out: float32.
        whole: (rows, length) int16, a buffer for x; its length is the next multiple of `STEP`.
        x_scale: (rows,) float32, a buffer.
        most: the largest number in whole, so that sums of `cols` products are below 2^31.
        parts: how many cores to use.
    """
    rows = len(x)
    for part in prange(parts):
        _round_rows(x, whole, x_scale, most, rows * part // parts, rows * (part + 1) // parts)
    for part in prange(parts):
        _share(weight, scale, bias, whole, x_scale, out, part, parts)

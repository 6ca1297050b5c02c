"""Products of several rows of inputs and of weights by AMX, compiled: see `amx_tiles`.

Inputs are split into their parts once. Of the weights, 32 rows at a time are laid out as tiles in a
core's cache, where all rows of inputs meet them.
"""

from typing import Any

import numpy as np
from numba import prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers.amx_layout import (
    lay_out_bytes,
    lay_out_floats,
    round_floats,
    split_floats,
)
from pellucid.layers.amx_output import write_floats, write_whole
from pellucid.layers.amx_tiles import (
    FLOAT_STEP,
    PARTS,
    ROWS,
    TILE,
    WHOLE_STEP,
    configure,
    float_products,
    is_available,
    release,
    whole_products,
)
from pellucid.layers.elementary import of_bits
from pellucid.layers.tile_kernel import LEAST, LINE, bounds, or_zeros

assert is_available()  # and this process is allowed to use it
f32 = np.float32
LEAST_ROWS = 48
"""Rows of float32 inputs below which laying out the weights takes longer than it saves."""
STRIP = 2 * ROWS
"""Rows of weights that are laid out at once."""
ROOM = 5 * 2**18
"""Bytes of inputs that meet all of a core's weights before the next: half of its second cache."""
FEWEST = 128
"""Rows of inputs of a core from which on each core takes rows, not columns, of the output."""
LENGTH = 16
"""Steps of float32 after which sums go to the output, so that more rows have room."""
MOST = f32(2**15 - 1)
"""The largest number that an input is rounded to."""
INFINITY = np.int32(0x7F800000)
"""Its bits."""


@kernel
def _room(size: Any) -> Any:
    """(size,) uint8, from the start of a line of the cache."""
    room = np.empty(size + LINE, np.uint8)
    skipped = -room.ctypes.data % LINE
    return room[skipped : skipped + size]


@kernel
def _steps(cols: Any, step: Any) -> Any:
    return (cols + step - 1) // step


@kernel
def whole_buffers(x: Any) -> Any:
    """What `round_whole` writes for x (rows, cols): tiles and scales."""
    rows, cols = x.shape
    return _room(_steps(rows, ROWS) * _steps(cols, WHOLE_STEP) * 2 * TILE), np.empty(rows, f32)


@kernel
def round_whole(x: Any, tiles: Any, scale: Any, first: Any, stop: Any) -> None:
    """Round some rows of inputs to 16 bits, whose two bytes go into tiles of their own.

    Args:
        x: (rows, cols) float32.
        tiles: of `whole_buffers`, written.
        scale: (rows,) float32, written; NaN if the row has a number that is not finite.
        first, stop: which rows.
    """
    cols = x.shape[1]
    steps = _steps(cols, WHOLE_STEP)
    bits, whole = x.view(np.int32), cols // WHOLE_STEP
    rest = np.zeros(WHOLE_STEP, f32)
    for row in range(first, stop):
        own, largest = bits[row], np.int32(0)
        for j in range(cols):  # bits are ordered as sizes are; those of NaN are above infinity's
            largest = max(largest, own[j] & np.int32(0x7FFFFFFF))
        most = of_bits(largest)
        factor = f32(0.0)
        if most > LEAST and largest < INFINITY:
            factor = MOST / most
        at = tiles.ctypes.data + row // ROWS * steps * 2 * TILE + row % ROWS * WHOLE_STEP
        place = x.ctypes.data + row * cols * 4
        for step in range(whole):
            round_floats(place + step * WHOLE_STEP * 4, factor, at + step * 2 * TILE)
        if whole < steps:
            for j in range(cols - whole * WHOLE_STEP):
                rest[j] = x[row, whole * WHOLE_STEP + j]
            round_floats(rest.ctypes.data, factor, at + whole * 2 * TILE)
        scale[row] = most / MOST if largest < INFINITY else f32(np.nan)


@kernel
def rounded(x: Any) -> Any:
    """Tiles and scales of x (rows, cols); empty where a single row needs none."""
    buffers = whole_buffers(x if x.shape[0] > 1 else x[:0])
    round_whole(x, buffers[0], buffers[1], 0, len(buffers[1]))
    return buffers


@kernel
def split_buffers(x: Any) -> Any:
    """What `split` writes for x (rows, cols): tiles."""
    rows, cols = x.shape
    return _room(_steps(rows, ROWS) * _steps(cols, FLOAT_STEP) * PARTS * TILE)


@kernel
def split(x: Any, tiles: Any, first: Any, stop: Any) -> None:
    """Split some rows of inputs into their parts.

    Args:
        x: (rows, cols) float32, contiguous.
        tiles: of `split_buffers`, written.
        first, stop: which rows.
    """
    cols = x.shape[1]
    steps, whole = _steps(cols, FLOAT_STEP), cols // FLOAT_STEP
    rest = np.zeros(FLOAT_STEP, f32)
    for row in range(first, stop):
        at = tiles.ctypes.data + row // ROWS * steps * PARTS * TILE + row % ROWS * 64
        for step in range(whole):
            place = x.ctypes.data + (row * cols + step * FLOAT_STEP) * 4
            split_floats(place, at + step * PARTS * TILE)
        if whole < steps:
            for j in range(cols - whole * FLOAT_STEP):
                rest[j] = x[row, whole * FLOAT_STEP + j]
            split_floats(rest.ctypes.data, at + whole * PARTS * TILE)


@kernel
def parts_of(x: Any) -> Any:
    """The tiles of x (rows, cols); empty where so few rows need none."""
    parts = split_buffers(x if x.shape[0] >= LEAST_ROWS else x[:0])
    if parts.shape[0]:
        split(x, parts, 0, len(x))
    return parts


@kernel
def _lay_out(
    weight: Any, first: Any, stop: Any, begin: Any, end: Any, is_float: Any, corner: Any, strip: Any
) -> None:
    """Lay rows of weights out as the two columns of tiles of a strip.

    Args:
        weight: (size, cols), contiguous.
        first, stop: which rows, at most STRIP.
        begin, end: which steps along them.
        is_float: whether they are float32, not int8.
        corner: (ROWS, step) as weight, a buffer.
        strip: the tiles, written.
    """
    cols, step, wide = weight.shape[1], corner.shape[1], weight.itemsize
    each = PARTS * TILE if is_float else TILE
    for half in range(2):
        start = first + half * ROWS
        rows = min(ROWS, stop - start)
        for number in range(begin, end):
            place = strip.ctypes.data + (2 * (number - begin) + half) * each
            source = weight.ctypes.data + (start * cols + number * step) * wide
            stride, ahead = cols * wide, STRIP * cols * wide
            if rows < ROWS or (number + 1) * step > cols:
                corner[:] = 0
                for row in range(rows):
                    for j in range(min(step, cols - number * step)):
                        corner[row, j] = weight[start + row, number * step + j]
                source, stride = corner.ctypes.data, step * wide
            if is_float:
                lay_out_floats(source, stride, ahead, place)
            else:
                lay_out_bytes(source, stride, ahead, place)


@kernel
def _repair(
    weight: Any, bias: Any, x: Any, first: Any, stop: Any, begin: Any, end: Any, out: Any
) -> None:
    """Compute again what is not finite, whose parts have no sum, of some rows and columns."""
    for row in range(first, stop):
        for column in range(begin, end):
            if not np.isfinite(out[row, column]):
                total = bias[column]
                for j in range(x.shape[1]):
                    total += x[row, j] * weight[column, j]
                out[row, column] = total


@kernel
def share_whole(
    weight: Any, scale: Any, bias: Any, rounded: Any, part: Any, parts: Any, out: Any
) -> None:
    """One of `parts` equal parts of the columns of out; arguments as of `project_whole`."""
    tiles, x_scale = rounded
    size, cols = weight.shape
    rows = x_scale.shape[0]
    steps = _steps(cols, WHOLE_STEP)
    low, high = bounds(size, part, parts)
    strip, sums = _room(steps * 2 * TILE), _room(4 * TILE)
    corner = np.zeros((ROWS, WHOLE_STEP), np.int8)
    together = max(1, ROOM // (steps * 2 * TILE)) * ROWS
    added = or_zeros(bias, size)
    configure()
    for start in range(0, rows, together):
        stop = min(rows, start + together)
        for begin in range(low, high, STRIP):
            end = min(high, begin + STRIP)
            _lay_out(weight, begin, end, 0, steps, False, corner, strip)
            for first in range(start, stop, ROWS):
                own = tiles.ctypes.data + first // ROWS * steps * 2 * TILE
                place = out.ctypes.data + (first * size + begin) * 4
                buffer = sums.ctypes.data
                whole_products(own, strip.ctypes.data, steps, buffer, place, size * 4)
                write_whole(
                    buffer,
                    min(stop - first, ROWS),
                    end - begin,
                    x_scale.ctypes.data + first * 4,
                    scale.ctypes.data + begin * 4,
                    added.ctypes.data + begin * 4,
                    place,
                    size * 4,
                )
    release()


@kernel
def share_float(
    weight: Any, bias: Any, x: Any, tiles: Any, part: Any, parts: Any, out: Any
) -> None:
    """As `share_whole`, of float32 weights; tiles are those that `split` writes of x."""
    size, cols = weight.shape
    rows = x.shape[0]
    steps = _steps(cols, FLOAT_STEP)
    low, high = bounds(size, part, parts)
    strip, sums = _room(min(steps, LENGTH) * 2 * PARTS * TILE), _room(4 * TILE)
    corner, added = np.zeros((ROWS, FLOAT_STEP), f32), or_zeros(bias, size)
    block = steps * PARTS * TILE
    together = max(1, ROOM // (2 * min(steps, LENGTH) * PARTS * TILE)) * 2 * ROWS
    configure()
    for start in range(0, rows, together):
        stop = min(rows, start + together)
        for begin in range(0, steps, LENGTH):
            end = min(steps, begin + LENGTH)
            for column in range(low, high, STRIP):
                last = min(high, column + STRIP)
                _lay_out(weight, column, last, begin, end, True, corner, strip)
                for first in range(start, stop, 2 * ROWS):
                    own = tiles.ctypes.data + first // ROWS * block + begin * PARTS * TILE
                    other = own + block if first + ROWS < stop else own
                    place = out.ctypes.data + (first * size + column) * 4
                    float_products(
                        own,
                        other,
                        strip.ctypes.data,
                        end - begin,
                        sums.ctypes.data,
                        place,
                        size * 4,
                    )
                    more, apart = added.ctypes.data + column * 4, 0
                    if begin > 0:
                        more, apart = place, size * 4
                    until = min(stop, first + 2 * ROWS)
                    if (
                        not write_floats(
                            sums.ctypes.data,
                            until - first,
                            last - column,
                            more,
                            apart,
                            place,
                            size * 4,
                        )
                        and end == steps
                    ):
                        _repair(weight, added, x, first, until, column, last, out)
    release()


@kernel
def _together(cols: Any, size: Any) -> Any:
    """Rows of inputs whose parts, of so many bytes for each number, a core's cache has room for."""
    return max(FEWEST, 2 * ROOM // (cols * size) // (2 * ROWS) * 2 * ROWS)


@kernel
def _rows_of_whole(
    weight: Any, scale: Any, bias: Any, x: Any, first: Any, stop: Any, out: Any
) -> None:
    """Some rows of `project_whole`."""
    together = _together(x.shape[1], 2)
    for start in range(first, stop, together):
        own = x[start : min(stop, start + together)]
        tiles = whole_buffers(own)
        round_whole(own, tiles[0], tiles[1], 0, len(own))
        share_whole(weight, scale, bias, tiles, 0, 1, out[start : start + len(own)])


@kernel
def _rows_of_floats(weight: Any, bias: Any, x: Any, first: Any, stop: Any, out: Any) -> None:
    """Some rows of `project_float`."""
    together = _together(x.shape[1], 2 * PARTS)
    for start in range(first, stop, together):
        own = x[start : min(stop, start + together)]
        tiles = split_buffers(own)
        split(own, tiles, 0, len(own))
        share_float(weight, bias, own, tiles, 0, 1, out[start : start + len(own)])


@kernel
def project_alone(weight: Any, scale: Any, bias: Any, x: Any, out: Any) -> None:
    """As `project_whole`, on one core, and whatever other threads do."""
    _rows_of_whole(weight, scale, bias, x, 0, len(x), out)


@parallel_kernel
def project_whole(weight: Any, scale: Any, bias: Any, x: Any, out: Any, parts: Any) -> None:
    """out (rows, size) = x @ weight.T * scale + bias, for x (rows, cols).

    Args:
        weight: (size, cols) int8.
        scale: (size,) float32.
        bias: (size,) float32, or empty.
        x, out: float32.
        parts: how many cores to use.
    """
    rows = len(x)
    by_rows = parts == 1 or rows >= FEWEST * parts
    rounded = whole_buffers(x[:0] if by_rows else x)
    for part in prange(parts):
        first, stop = rows * part // parts, rows * (part + 1) // parts
        if by_rows:
            _rows_of_whole(weight, scale, bias, x, first, stop, out)
        else:
            round_whole(x, rounded[0], rounded[1], first, stop)
    for part in prange(0 if by_rows else parts):
        share_whole(weight, scale, bias, rounded, part, parts, out)


@kernel
def project_float_alone(weight: Any, bias: Any, x: Any, out: Any) -> None:
    """As `project_float`, on one core, and whatever other threads do."""
    _rows_of_floats(weight, bias, x, 0, len(x), out)


@parallel_kernel
def project_float(weight: Any, bias: Any, x: Any, out: Any, parts: Any) -> None:
    """out (rows, size) = x @ weight.T + bias, all float32."""
    rows = len(x)
    by_rows = parts == 1 or rows >= FEWEST * parts
    tiles = split_buffers(x[:0] if by_rows else x)
    for part in prange(parts):
        first, stop = rows * part // parts, rows * (part + 1) // parts
        if by_rows:
            _rows_of_floats(weight, bias, x, first, stop, out)
        else:
            split(x, tiles, first, stop)
    for part in prange(0 if by_rows else parts):
        share_float(weight, bias, x, tiles, part, parts, out)

"""Products of packed weights and rounded inputs, compiled by Numba: see `layers.packed`."""

from typing import Any

import numpy as np
from numba import prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers.packed_products import BLOCK, FEW, row_products, through_half
from pellucid.layers.tile_kernel import bounds

f32 = np.float32
_four_by_4, _one_by_4 = (row_products(4, True, rows) for rows in (FEW, 1))
_four_by_8, _one_by_8 = (row_products(8, True, rows) for rows in (FEW, 1))
_four_of_k_4, _one_of_k_4 = (row_products(4, False, rows) for rows in (FEW, 1))
_four_of_k_8, _one_of_k_8 = (row_products(8, False, rows) for rows in (FEW, 1))
_four_split, _one_split = (row_products(8, False, rows, is_split=True) for rows in (FEW, 1))
BY_4, BY_8, OF_K_4, OF_K_8, SPLIT = range(5)
"""How the numbers of a matrix are stored."""


# What a packed matrix is to the kernel, all int64: three addresses, how its numbers are stored, and
# which sums of inputs its least numbers meet.
WHOLE, SCALE, LEAST, KIND, SUMS = range(5)
FIELDS = 5


@kernel
def round_inputs(x: Any, whole: Any, scale: Any, sums: Any) -> None:
    """Round rows of inputs to 8 bits in blocks of 32.

    Args:
        x: (rows, cols) float32.
        whole: (rows, cols) int8, written.
        scale: (rows, blocks) float32, written; rounded to float16.
        sums: (2, rows, blocks) float32, written: of the inputs as rounded, and the same with its
            scale as it was, rounded to float16.
    """
    for row in range(x.shape[0]):
        for block in range(scale.shape[1]):
            start = block * BLOCK
            most = f32(0.0)
            for j in range(start, start + BLOCK):
                most = max(most, abs(x[row, j]))
            inverse = f32(0.0)
            if most > f32(0.0):
                inverse = f32(127.0) / most
            total = np.int32(0)
            for j in range(start, start + BLOCK):
                number = np.int32(np.rint(x[row, j] * inverse))
                whole[row, j] = number
                total += number
            exact = most / f32(127.0)
            used = through_half(exact)
            scale[row, block] = used
            sums[0, row, block] = used * f32(total)
            sums[1, row, block] = through_half(exact * f32(total))


@kernel
def _four(
    kind: Any, w: Any, s: Any, m: Any, apart: Any, x: Any, d: Any, t: Any, blocks: Any
) -> Any:
    if kind == BY_4:
        return _four_by_4(w, s, m, apart, x, d, t, blocks)
    if kind == BY_8:
        return _four_by_8(w, s, m, apart, x, d, t, blocks)
    if kind == OF_K_4:
        return _four_of_k_4(w, s, m, apart, x, d, t, blocks)
    if kind == OF_K_8:
        return _four_of_k_8(w, s, m, apart, x, d, t, blocks)
    return _four_split(w, s, m, apart, x, d, t, blocks)


@kernel
def _row_product(kind: Any, w: Any, s: Any, m: Any, x: Any, d: Any, t: Any, blocks: Any) -> Any:
    if kind == BY_4:
        return _one_by_4(w, s, m, 1, x, d, t, blocks)[0]
    if kind == BY_8:
        return _one_by_8(w, s, m, 1, x, d, t, blocks)[0]
    if kind == OF_K_4:
        return _one_of_k_4(w, s, m, 1, x, d, t, blocks)[0]
    if kind == OF_K_8:
        return _one_of_k_8(w, s, m, 1, x, d, t, blocks)[0]
    return _one_split(w, s, m, 1, x, d, t, blocks)[0]


@kernel
def share(matrix: Any, bias: Any, part: Any, parts: Any, rounded: Any, out: Any) -> None:
    """One of `parts` equal parts of rounded inputs times packed weights (size, cols).

    Args:
        matrix: (FIELDS,) int64, of the weights.
        bias: (size,), or empty.
        part, parts: which of how many.
        rounded: what `round_inputs` writes: whole, scale and sums.
        out: (rows, size) float32.
    """
    whole, scale, sums = rounded
    rows, blocks = scale.shape
    size, kind, least = out.shape[1], matrix[KIND], matrix[LEAST]
    step = blocks * (16 if kind in (BY_4, OF_K_4) else 32)
    wide = blocks * (2 if kind in (BY_4, BY_8) else 8 if kind == SPLIT else 4)
    low, high = bounds(size, part, parts)
    quarter = (high - low) // FEW
    for row in range(rows):
        x = whole.ctypes.data + row * blocks * BLOCK
        d = scale.ctypes.data + row * blocks * 4
        t = sums.ctypes.data + (matrix[SUMS] * rows + row) * blocks * 4
        for i in range(low, low + quarter):
            w, s = matrix[WHOLE] + i * step, matrix[SCALE] + i * wide
            m = least + i * wide if least else 0
            a, b, c, e = _four(kind, w, s, m, quarter, x, d, t, blocks)
            out[row, i], out[row, i + quarter] = a, b
            out[row, i + 2 * quarter], out[row, i + 3 * quarter] = c, e
        for i in range(low + FEW * quarter, high):
            w, s = matrix[WHOLE] + i * step, matrix[SCALE] + i * wide
            m = least + i * wide if least else 0
            out[row, i] = _row_product(kind, w, s, m, x, d, t, blocks)
        if bias.shape[0]:
            for i in range(low, high):
                out[row, i] += bias[i]


@kernel
def rounded(x: Any) -> Any:
    """What `share` takes of inputs x (rows, cols): see `round_inputs`."""
    rows, blocks = x.shape[0], x.shape[1] // BLOCK
    whole = np.empty(x.shape, np.int8)
    scale, sums = np.empty((rows, blocks), f32), np.empty((2, rows, blocks), f32)
    round_inputs(x, whole, scale, sums)
    return whole, scale, sums


@parallel_kernel
def project(matrix: Any, x: Any, bias: Any, out: Any, parts: Any) -> None:
    """out (rows, size) = x @ weights.T + bias, for x (rows, cols) float32 and packed weights.

    Args:
        matrix: (FIELDS,) int64, of the weights.
        x, out: float32.
        bias: (size,), or empty.
        parts: how many cores to use.
    """
    inputs = rounded(x)
    for part in prange(parts):
        share(matrix, bias, part, parts, inputs, out)

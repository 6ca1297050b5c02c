"""Products of a weight and a few vectors, compiled: float32, int8 and packed weights.

A single token multiplies every weight once, so the time is that of reading them from memory. Each
loop here reads the weights in order and computes meanwhile; torch, an operation at a time, reaches
about half of the memory bandwidth.
"""

from typing import Any

import numpy as np
from numba import carray, prange, types
from numba.extending import intrinsic

from pellucid.attention.numba_cache import implementation, kernel, parallel_kernel
from pellucid.layers import amx_tiles
from pellucid.layers.decoding_table import KEY, QUERY, VALUE
from pellucid.layers.packed_kernel import FIELDS
from pellucid.layers.packed_kernel import rounded as round_packed
from pellucid.layers.packed_kernel import share as share_packed
from pellucid.layers.tile_kernel import bounds, fits, share_float

HAS_AMX = amx_tiles.is_available()
if HAS_AMX:
    from pellucid.layers.amx_kernel import parts_of, share_whole
    from pellucid.layers.amx_kernel import rounded as round_whole
    from pellucid.layers.amx_kernel import share_float as share_split
else:
    from pellucid.layers.tile_kernel import rounded as round_whole
    from pellucid.layers.tile_kernel import share_whole

    parts_of = share_split = None
f32 = np.float32


@intrinsic
def pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers like those of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_data_type(like.dtype)
        return builder.inttoptr(arguments[0], kind.as_pointer())

    return types.CPointer(like.dtype)(types.int64, like), generate


@kernel
def _share(weight: Any, scale: Any, bias: Any, part: Any, parts: Any, x: Any, out: Any) -> None:
    """One of `parts` equal parts of x @ weight.T * scale + bias, for x (rows, in).

    Four distant rows of weights are read at once: memory serves four streams faster than one.
    """
    low, high = bounds(weight.shape[0], part, parts)
    quarter = (high - low) // 4
    for row in range(x.shape[0]):
        y, result = x[row], out[row]
        for i in range(low, low + quarter):
            first, second = weight[i], weight[i + quarter]
            third, fourth = weight[i + 2 * quarter], weight[i + 3 * quarter]
            a, b, c, d = f32(0.0), f32(0.0), f32(0.0), f32(0.0)
            for j in range(y.shape[0]):
                a += f32(first[j]) * y[j]
                b += f32(second[j]) * y[j]
                c += f32(third[j]) * y[j]
                d += f32(fourth[j]) * y[j]
            result[i], result[i + quarter] = a, b
            result[i + 2 * quarter], result[i + 3 * quarter] = c, d
        for i in range(low + 4 * quarter, high):
            a = f32(0.0)
            for j in range(y.shape[0]):
                a += f32(weight[i, j]) * y[j]
            result[i] = a
        if scale.shape[0]:
            for i in range(low, high):
                result[i] *= scale[i]
        if bias.shape[0]:
            for i in range(low, high):
                result[i] += bias[i]


@kernel
def vector_at(address: Any, size: Any) -> Any:
    return carray(pointer(address, np.empty(0, f32)), (size if address else 0,))


@kernel
def _linear(table: Any, field: Any, out: Any, width: Any, like: Any) -> Any:
    """Weight (out, width), scale and bias of a linear part."""
    weight = carray(pointer(table[field], like), (out, width))
    return weight, vector_at(table[field + 1], out), vector_at(table[field + 2], out)


@parallel_kernel
def project(weight: Any, scale: Any, bias: Any, x: Any, out: Any, parts: Any) -> None:
    """out (rows, out) = x @ weight.T * scale + bias, for x (rows, in).

    Args:
        weight: (out, in), float32 or int8.
        scale: (out,) for int8, else empty.
        bias: (out,), or empty.
        x, out: float32.
        parts: how many cores to use.
    """
    for part in prange(parts):
        _share(weight, scale, bias, part, parts, x, out)


def rounded_inputs(x: Any, like: Any) -> Any:
    """What a product with weights like these takes of its inputs, besides these."""


@implementation(rounded_inputs)
def _rounded_as(x: Any, like: Any) -> Any:
    def plain(x: Any, like: Any) -> Any:
        return x

    def split(x: Any, like: Any) -> Any:
        return parts_of(x)

    def whole(x: Any, like: Any) -> Any:
        return round_whole(x)

    def packed(x: Any, like: Any) -> Any:
        return round_packed(x)

    return {types.uint8: packed, types.int8: whole}.get(like.dtype, split if HAS_AMX else plain)


def part_of(
    table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
) -> Any:
    """One of `parts` equal parts of the output of a linear part, for x (rows, in)."""


@implementation(part_of)
def _part_as(
    table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
) -> Any:
    def plain(
        table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
    ) -> None:
        weight, scale, bias = _linear(table, field, out.shape[1], x.shape[1], like)
        if fits(x.shape[0], out.shape[1], x.shape[1]):
            share_float(weight, bias, x, part, parts, out)
        else:
            _share(weight, scale, bias, part, parts, x, out)

    def split(
        table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
    ) -> None:
        weight, scale, bias = _linear(table, field, out.shape[1], x.shape[1], like)
        if rounded.shape[0]:
            share_split(weight, bias, x, rounded, part, parts, out)
        elif fits(x.shape[0], out.shape[1], x.shape[1]):
            share_float(weight, bias, x, part, parts, out)
        else:
            _share(weight, scale, bias, part, parts, x, out)

    def whole(
        table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
    ) -> None:
        weight, scale, bias = _linear(table, field, out.shape[1], x.shape[1], like)
        if fits(x.shape[0], out.shape[1], x.shape[1]):
            share_whole(weight, scale, bias, rounded, part, parts, out)
        else:
            _share(weight, scale, bias, part, parts, x, out)

    def packed(
        table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
    ) -> None:
        matrix = carray(pointer(table[field], table), (FIELDS,))
        bias = vector_at(table[field + 2], out.shape[1])
        share_packed(matrix, bias, part, parts, rounded, out)

    return {types.uint8: packed, types.int8: whole}.get(like.dtype, split if HAS_AMX else plain)


@parallel_kernel
def project_part(table: Any, field: Any, x: Any, out: Any, like: Any, parts: Any) -> None:
    rounded = rounded_inputs(x, like)
    for part in prange(parts):
        part_of(table, field, x, rounded, out, like, part, parts)


@parallel_kernel
def project_heads(
    table: Any, x: Any, query: Any, key: Any, value: Any, like: Any, parts: Any
) -> None:
    rounded = rounded_inputs(x, like)
    for part in prange(parts):
        part_of(table, QUERY, x, rounded, query, like, part, parts)
        part_of(table, KEY, x, rounded, key, like, part, parts)
        part_of(table, VALUE, x, rounded, value, like, part, parts)

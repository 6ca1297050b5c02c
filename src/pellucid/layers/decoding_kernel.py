"""One new token per row through all blocks, compiled by Numba on first use and cached on disk."""

from typing import Any

import numpy as np
from numba import carray, prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers import decoding_table as columns
from pellucid.layers.attention_kernel import attend, clip_to, rotate
from pellucid.layers.decoding_table import GELU, QUICK_GELU, RELU, RELU_SQUARED, SILU
from pellucid.layers.elementary import erf, exp, tanh
from pellucid.layers.matrix_vector_kernel import (
    part_of,
    pointer,
    project_heads,
    project_part,
    rounded_inputs,
    vector_at,
)
from pellucid.layers.norm_kernel import (
    add_residual,
    normalise_heads,
    normalise_output,
    normalised_input,
)
from pellucid.layers.tile_kernel import bounds

f32 = np.float32


@kernel
def _activate(x: Any, kind: Any) -> None:
    """The activation of x (size,) in place: a loop for each kind, which LLVM vectorises."""
    if kind == RELU:
        for i in range(x.shape[0]):
            x[i] = max(x[i], f32(0.0))
    elif kind == RELU_SQUARED:
        for i in range(x.shape[0]):
            x[i] = max(x[i], f32(0.0)) * max(x[i], f32(0.0))
    elif kind == QUICK_GELU:
        for i in range(x.shape[0]):
            x[i] = x[i] / (f32(1.0) + exp(f32(-1.702) * x[i]))
    elif kind == SILU:
        for i in range(x.shape[0]):
            x[i] = x[i] / (f32(1.0) + exp(-x[i]))
    elif kind == GELU:
        for i in range(x.shape[0]):
            x[i] = f32(0.5) * x[i] * (f32(1.0) + erf(x[i] * f32(0.7071067811865476)))
    else:
        for i in range(x.shape[0]):
            cube = x[i] * x[i] * x[i]
            inner = f32(0.7978845608028654) * (x[i] + f32(0.044715) * cube)
            x[i] = f32(0.5) * x[i] * (f32(1.0) + tanh(inner))


@parallel_kernel
def _feed_up(table: Any, kind: Any, x: Any, inner: Any, gate: Any, like: Any, parts: Any) -> None:
    size = inner.shape[1]
    is_gated = table[columns.GATE] != 0
    rounded = rounded_inputs(x, like)
    for part in prange(parts):
        part_of(table, columns.UP, x, rounded, inner, like, part, parts)
        if is_gated:
            part_of(table, columns.GATE, x, rounded, gate, like, part, parts)
        low, high = bounds(size, part, parts)
        for row in range(x.shape[0]):
            own = inner[row, low:high]
            if is_gated:
                other = gate[row, low:high]
                _activate(other, kind)
                for i in range(own.shape[0]):
                    own[i] *= other[i]
            else:
                _activate(own, kind)


@kernel
def blocks(
    table: Any,
    shape: Any,
    like: Any,
    x: Any,
    capacity: Any,
    first: Any,
    stop: Any,
    bias: Any,
    cosine: Any,
    sine: Any,
    sources: Any,
    memory: Any,
    memory_stop: Any,
    parts: Any,
) -> None:
    """All blocks of a stack in place, one new token per row.

    Args:
        table: (blocks, FIELDS) int64, addresses.
        shape: a `Shape`.
        like: an array of the weights' dtype.
        x: (rows, width).
        capacity: of the cache, in keys.
        first: (windows, rows) int64, the first key that each row sees, in blocks with each of the
            windows.
        stop: (rows,) int64, where the keys of each row end; the new one is the last.
        bias: (rows or 1, heads, keys), added to the scores, or empty.
        cosine, sine: (windows, rows, dim) of rotary positions, or empty.
        sources: how many there are; all have the same number of rows.
        memory: keys per source, 0 without cross-attention.
        memory_stop: (rows,) int64, how many of them each row sees.
        parts: how many cores to use.
    """
    rows, width = x.shape
    heads, kv_heads, dim = shape.heads, shape.kv_heads, shape.dim
    query = np.empty((rows, heads * dim), f32)
    key, value = np.empty((rows, kv_heads * dim), f32), np.empty((rows, kv_heads * dim), f32)
    context = np.empty((rows, heads, dim), f32)
    scores = np.empty((rows, heads, max(capacity, memory)), f32)
    part, fed = np.empty((rows, width), f32), np.empty((rows, width), f32)
    inner, gate = np.empty((rows, shape.hidden), f32), np.empty((rows, shape.hidden), f32)
    nothing, start = np.empty((0, 0, 0), f32), np.zeros(rows, np.int64)
    real = np.empty(0, f32)
    split, flat = query.reshape(rows, heads, dim), context.reshape(rows, heads * dim)
    scale, softcap, clip = f32(shape.scale), f32(shape.softcap), f32(shape.clip)
    split_key, split_value = key.reshape(rows, kv_heads, dim), value.reshape(rows, kv_heads, dim)
    for number in range(table.shape[0]):
        own = table[number]
        size = (rows, kv_heads, capacity, dim)
        keys, values = (
            carray(pointer(own[columns.KEYS], real), size),
            carray(pointer(own[columns.VALUES], real), size),
        )
        y = normalised_input(own, columns.OWN_NORM, shape, x)
        project_heads(own, y, query, key, value, like, parts)
        normalise_heads(own, columns.QUERY_NORM, shape, query)
        normalise_heads(own, columns.KEY_NORM, shape, key)
        clip_to(query, clip)
        clip_to(key, clip)
        clip_to(value, clip)
        at, neighbours = own[columns.INPUTS], shape.has_neighbours
        for row in range(rows):
            if cosine.shape[0]:
                rotate(split[row], cosine[at, row], sine[at, row], neighbours)
                rotate(split_key[row], cosine[at, row], sine[at, row], neighbours)
            for head in range(kv_heads):  # a slice would bring the texts of its errors along
                for j in range(dim):
                    keys[row, head, stop[row] - 1, j] = split_key[row, head, j]
                    values[row, head, stop[row] - 1, j] = split_value[row, head, j]
        sinks = vector_at(own[columns.SINKS], heads)
        attend(split, keys, values, first[at], stop, bias, scale, softcap, sinks, scores, context)
        project_part(own, columns.OUTPUT, flat, part, like, parts)
        normalise_output(own, columns.OWN_OUTPUT_NORM, shape, part)
        if not shape.is_parallel:
            add_residual(own, columns.OWN_NORM, shape, x, part)
        if memory:
            size = (sources, kv_heads, memory, dim)
            keys = carray(pointer(own[columns.MEMORY_KEYS], real), size)
            values = carray(pointer(own[columns.MEMORY_VALUES], real), size)
            y = normalised_input(own, columns.CROSS_NORM, shape, x)
            project_part(own, columns.CROSS_QUERY, y, query, like, parts)
            normalise_heads(own, columns.CROSS_QUERY_NORM, shape, query)
            clip_to(query, clip)
            sinks = vector_at(own[columns.CROSS_SINKS], heads)
            attend(
                split,
                keys,
                values,
                start,
                memory_stop,
                nothing,
                scale,
                softcap,
                sinks,
                scores,
                context,
            )
            project_part(own, columns.CROSS_OUTPUT, flat, part, like, parts)
            normalise_output(own, columns.CROSS_OUTPUT_NORM, shape, part)
            add_residual(own, columns.CROSS_NORM, shape, x, part)
        if not shape.has_shared_norm:
            y = normalised_input(own, columns.FEED_NORM, shape, x)
        _feed_up(own, shape.activation, y, inner, gate, like, parts)
        project_part(own, columns.DOWN, inner, fed, like, parts)
        normalise_output(own, columns.FEED_OUTPUT_NORM, shape, fed)
        if shape.is_parallel:
            add_residual(own, columns.OWN_NORM, shape, x, part)
        add_residual(own, columns.FEED_NORM, shape, x, fed)

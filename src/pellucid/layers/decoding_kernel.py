"""One new token through all blocks, compiled by Numba on first use and then cached on disk.

A single token multiplies every weight once, so the time is that of reading them from memory. Each
loop here reads the weights in order and computes meanwhile; torch, an operation at a time, reaches
about half of the memory bandwidth.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit, prange, types
from numba.extending import intrinsic, overload

from pellucid.attention.numba_cache import kept
from pellucid.layers import packed_kernel

f32 = np.float32
RELU, GELU, GELU_TANH, SILU, RELU_SQUARED, QUICK_GELU = range(6)

# A row of the table of addresses: first the linear parts of a block, each with the address of its
# weight (out, in), of its scales (out,) if it is int8, and of its bias (out,); then the norms, each
# with that of its weight and of its bias; then those of the cache and of the sinks. 0 where there
# is none. The last is the number of the block's window and positions. Of packed weights, whose
# bytes are uint8, it is the address of what `packed_kernel` takes of them.
QUERY, KEY, VALUE, OUTPUT, CROSS_QUERY, CROSS_OUTPUT, GATE, UP, DOWN = range(0, 27, 3)
OWN_NORM, QUERY_NORM, KEY_NORM, CROSS_NORM, CROSS_QUERY_NORM, FEED_NORM = range(27, 39, 2)
OWN_OUTPUT_NORM, CROSS_OUTPUT_NORM, FEED_OUTPUT_NORM = range(39, 45, 2)
KEYS, VALUES, MEMORY_KEYS, MEMORY_VALUES, SINKS, CROSS_SINKS, INPUTS = range(45, 52)
FIELDS = 52


class Shape(NamedTuple):
    """What all blocks share."""

    heads: int
    kv_heads: int
    dim: int
    hidden: int
    norm_first: int
    normalises_inputs: int
    normalises_outputs: int
    is_centred: int
    """Whether norms are layer norms, not RMS norms."""
    offset: float
    """Added to the weights of norms."""
    has_joint_norm: int
    """Whether queries and keys are normalised over all heads together."""
    is_parallel: int
    has_shared_norm: int
    activation: int
    eps: float
    scale: float
    residual_scale: float
    softcap: float
    """Of scores; 0 = none."""
    clip: float
    """Of queries, keys and values; 0 = none."""
    has_neighbours: int
    """Whether neighbours are rotated together, not numbers of the two halves."""


@intrinsic
def _at(typing_context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers like those of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_data_type(like.dtype)
        return builder.inttoptr(arguments[0], kind.as_pointer())

    return types.CPointer(like.dtype)(types.int64, like), generate


_freely: Any = njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True)
_together: Any = njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True, parallel=True)


@kept
@_freely
def _dot(left: Any, right: Any) -> Any:
    total = f32(0.0)
    for j in range(right.shape[0]):
        total += left[j] * right[j]
    return total


@kept
@_freely
def _share(weight: Any, scale: Any, bias: Any, part: Any, parts: Any, x: Any, out: Any) -> None:
    """One of `parts` equal parts of x @ weight.T * scale + bias, for x (rows, in).

    Four distant rows of weights are read at once: memory serves four streams faster than one.
    """
    size = weight.shape[0]
    low, high = size * part // parts, size * (part + 1) // parts
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


@kept
@_freely
def _vector(address: Any, size: Any) -> Any:
    return carray(_at(address, np.empty(0, f32)), (size if address else 0,))


@kept
@_freely
def _linear(table: Any, field: Any, out: Any, width: Any, like: Any) -> Any:
    """Weight (out, width), scale and bias of a linear part."""
    weight = carray(_at(table[field], like), (out, width))
    return weight, _vector(table[field + 1], out), _vector(table[field + 2], out)


@kept
@_together
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


def _rounded(x: Any, like: Any) -> Any:
    """What a product with weights like these takes of its inputs, besides these."""


@overload(_rounded)
def _rounded_as(x: Any, like: Any) -> Any:
    def plain(x: Any, like: Any) -> Any:
        return x

    def packed(x: Any, like: Any) -> Any:
        return packed_kernel.rounded(x)

    return packed if like.dtype == types.uint8 else plain


def _part_of(
    table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
) -> Any:
    """One of `parts` equal parts of the output of a linear part, for x (rows, in)."""


@overload(_part_of)
def _part_as(
    table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
) -> Any:
    def plain(
        table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
    ) -> None:
        weight, scale, bias = _linear(table, field, out.shape[1], x.shape[1], like)
        _share(weight, scale, bias, part, parts, x, out)

    def packed(
        table: Any, field: Any, x: Any, rounded: Any, out: Any, like: Any, part: Any, parts: Any
    ) -> None:
        matrix = carray(_at(table[field], table), (packed_kernel.FIELDS,))
        bias = _vector(table[field + 2], out.shape[1])
        packed_kernel.share(matrix, bias, part, parts, rounded, out)

    return packed if like.dtype == types.uint8 else plain


@kept
@_together
def _project(table: Any, field: Any, x: Any, out: Any, like: Any, parts: Any) -> None:
    rounded = _rounded(x, like)
    for part in prange(parts):
        _part_of(table, field, x, rounded, out, like, part, parts)


@kept
@_together
def _project_heads(
    table: Any, x: Any, query: Any, key: Any, value: Any, like: Any, parts: Any
) -> None:
    rounded = _rounded(x, like)
    for part in prange(parts):
        _part_of(table, QUERY, x, rounded, query, like, part, parts)
        _part_of(table, KEY, x, rounded, key, like, part, parts)
        _part_of(table, VALUE, x, rounded, value, like, part, parts)


@kept
@_freely
def _activated(x: Any, kind: Any) -> Any:
    if kind == RELU:
        return max(x, f32(0.0))
    if kind == RELU_SQUARED:
        return max(x, f32(0.0)) ** 2
    if kind == QUICK_GELU:
        return x / (f32(1.0) + math.exp(f32(-1.702) * x))
    if kind == SILU:
        return x / (f32(1.0) + math.exp(-x))
    if kind == GELU:
        return f32(0.5) * x * (f32(1.0) + math.erf(x * f32(0.7071067811865476)))
    inner = f32(0.7978845608028654) * (x + f32(0.044715) * x * x * x)
    return f32(0.5) * x * (f32(1.0) + math.tanh(inner))


@kept
@_together
def _feed_up(table: Any, kind: Any, x: Any, inner: Any, gate: Any, like: Any, parts: Any) -> None:
    size = inner.shape[1]
    is_gated = table[GATE] != 0
    rounded = _rounded(x, like)
    for part in prange(parts):
        _part_of(table, UP, x, rounded, inner, like, part, parts)
        if is_gated:
            _part_of(table, GATE, x, rounded, gate, like, part, parts)
        for row in range(x.shape[0]):
            for i in range(size * part // parts, size * (part + 1) // parts):
                if is_gated:
                    inner[row, i] *= _activated(gate[row, i], kind)
                else:
                    inner[row, i] = _activated(inner[row, i], kind)


@kept
@_freely
def _normalise(table: Any, field: Any, shape: Any, x: Any, out: Any) -> None:
    """out (rows, size): a layer norm or an RMS norm of x, each with or without a weight."""
    size = x.shape[1]
    weight, bias = _vector(table[field], size), _vector(table[field + 1], size)
    for row in range(x.shape[0]):
        mean = f32(0.0)
        if shape.is_centred:
            for j in range(size):
                mean += x[row, j]
            mean /= f32(size)
        square = f32(0.0)
        for j in range(size):
            square += (x[row, j] - mean) * (x[row, j] - mean)
        factor = f32(1.0) / f32(math.sqrt(square / f32(size) + f32(shape.eps)))
        for j in range(size):
            out[row, j] = (x[row, j] - mean) * factor
        if weight.shape[0]:
            for j in range(size):
                out[row, j] *= weight[j] + f32(shape.offset)
        if bias.shape[0]:
            for j in range(size):
                out[row, j] += bias[j]


@kept
@_freely
def _rotate(x: Any, cosine: Any, sine: Any, has_neighbours: Any) -> None:
    """Rotate the first numbers of each head of x (heads, dim) in place, by angles (numbers,)."""
    half = cosine.shape[0] // 2
    for head in range(x.shape[0]):
        for j in range(half):  # both halves of the angles are equal
            one, other = (2 * j, 2 * j + 1) if has_neighbours else (j, j + half)
            first, second = x[head, one], x[head, other]
            x[head, one] = first * cosine[j] - second * sine[j]
            x[head, other] = second * cosine[j] + first * sine[j]


@kept
@_together
def _attend(
    query: Any,
    keys: Any,
    values: Any,
    first: Any,
    stop: Any,
    bias: Any,
    scale: Any,
    softcap: Any,
    sinks: Any,
    scores: Any,
    out: Any,
) -> None:
    """softmax(query @ keys.T * scale + bias) @ values, one query a row and head.

    Args:
        query: (rows, heads, dim).
        keys, values: (sources, kv_heads, capacity, dim); consecutive rows share one.
        first, stop: (rows,) int64, the range of keys that each row sees.
        bias: (rows or 1, heads, capacity), or empty.
        scale: of the scores.
        softcap: bounds them before the bias is added, if above 0.
        sinks: (heads,), a logit of each head that has no value, or empty.
        scores: (rows, heads, capacity), a buffer.
        out: (rows, heads, dim).
    """
    rows, heads, dim = query.shape
    group = heads // keys.shape[1]
    for at in prange(rows * heads):
        row, head = at // heads, at % heads
        own, low, high = scores[row, head], first[row], stop[row]
        source = row * keys.shape[0] // rows
        key, value = keys[source, head // group], values[source, head // group]
        best = f32(-np.inf)
        for j in range(low, high):
            score = _dot(query[row, head], key[j]) * scale
            if softcap > 0:
                score = softcap * f32(math.tanh(score / softcap))
            if bias.shape[0]:
                score += bias[min(row, bias.shape[0] - 1), head, j]
            own[j] = score
            best = max(best, score)
        total = f32(0.0)
        if sinks.shape[0]:
            best = max(best, sinks[head])
            total = f32(math.exp(sinks[head] - best))
        for j in range(low, high):
            own[j] = f32(math.exp(own[j] - best))
            total += own[j]
        mixed = out[row, head]
        mixed[:] = f32(0.0)
        for j in range(low, high):
            weight = own[j] / total
            for i in range(dim):
                mixed[i] += weight * value[j, i]


@kept
@_freely
def _before(table: Any, norm: Any, shape: Any, x: Any) -> Any:
    """The input of a part: x (rows, width), normalised if its norm comes before it."""
    if not (shape.norm_first and shape.normalises_inputs):
        return x
    y = np.empty_like(x)
    _normalise(table, norm, shape, x, y)
    return y


@kept
@_freely
def _output(table: Any, norm: Any, shape: Any, part: Any) -> None:
    """Normalise and scale the output of a part, (rows, width), in place, where the shape says."""
    if shape.normalises_outputs:
        _normalise(table, norm, shape, part, part)
    if shape.residual_scale != 1.0:
        for row in range(part.shape[0]):
            for j in range(part.shape[1]):
                part[row, j] *= f32(shape.residual_scale)


@kept
@_freely
def _after(table: Any, norm: Any, shape: Any, x: Any, part: Any) -> None:
    """Add the output of a part to x, and normalise if the norm comes after."""
    for row in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[row, j] += part[row, j]
    if not shape.norm_first:
        _normalise(table, norm, shape, x, x)


@kept
@_freely
def _normalise_heads(table: Any, norm: Any, shape: Any, x: Any) -> None:
    """Normalise each head of x (rows, heads * dim) in place, if there is such a norm."""
    if table[norm]:
        split = x.reshape(-1, x.shape[1] if shape.has_joint_norm else shape.dim)
        _normalise(table, norm, shape, split, split)


@kept
@_freely
def _bound(x: Any, clip: Any) -> None:
    """Bound x (rows, size) in place, if `clip` is above 0."""
    if clip > 0:
        for row in range(x.shape[0]):
            for j in range(x.shape[1]):
                x[row, j] = min(max(x[row, j], -clip), clip)


@kept
@njit(nogil=True)
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
        keys, values = carray(_at(own[KEYS], real), size), carray(_at(own[VALUES], real), size)
        y = _before(own, OWN_NORM, shape, x)
        _project_heads(own, y, query, key, value, like, parts)
        _normalise_heads(own, QUERY_NORM, shape, query)
        _normalise_heads(own, KEY_NORM, shape, key)
        _bound(query, clip)
        _bound(key, clip)
        _bound(value, clip)
        at, neighbours = own[INPUTS], shape.has_neighbours
        for row in range(rows):
            if cosine.shape[0]:
                _rotate(split[row], cosine[at, row], sine[at, row], neighbours)
                _rotate(split_key[row], cosine[at, row], sine[at, row], neighbours)
            keys[row, :, stop[row] - 1] = split_key[row]
            values[row, :, stop[row] - 1] = split_value[row]
        sinks = _vector(own[SINKS], heads)
        _attend(split, keys, values, first[at], stop, bias, scale, softcap, sinks, scores, context)
        _project(own, OUTPUT, flat, part, like, parts)
        _output(own, OWN_OUTPUT_NORM, shape, part)
        if not shape.is_parallel:
            _after(own, OWN_NORM, shape, x, part)
        if memory:
            size = (sources, kv_heads, memory, dim)
            keys = carray(_at(own[MEMORY_KEYS], real), size)
            values = carray(_at(own[MEMORY_VALUES], real), size)
            y = _before(own, CROSS_NORM, shape, x)
            _project(own, CROSS_QUERY, y, query, like, parts)
            _normalise_heads(own, CROSS_QUERY_NORM, shape, query)
            _bound(query, clip)
            sinks = _vector(own[CROSS_SINKS], heads)
            _attend(
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
            _project(own, CROSS_OUTPUT, flat, part, like, parts)
            _output(own, CROSS_OUTPUT_NORM, shape, part)
            _after(own, CROSS_NORM, shape, x, part)
        if not shape.has_shared_norm:
            y = _before(own, FEED_NORM, shape, x)
        _feed_up(own, shape.activation, y, inner, gate, like, parts)
        _project(own, DOWN, inner, fed, like, parts)
        _output(own, FEED_OUTPUT_NORM, shape, fed)
        if shape.is_parallel:
            _after(own, OWN_NORM, shape, x, part)
        _after(own, FEED_NORM, shape, x, fed)

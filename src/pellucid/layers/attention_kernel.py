"""Attention of one new token per row over a cache, and its rotary positions, compiled."""

from typing import Any

import numpy as np
from numba import prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers.elementary import exp, tanh

f32 = np.float32


@kernel
def _dot(left: Any, right: Any) -> Any:
    total = f32(0.0)
    for j in range(right.shape[0]):
        total += left[j] * right[j]
    return total


@kernel
def rotate(x: Any, cosine: Any, sine: Any, has_neighbours: Any) -> None:
    """Rotate the first numbers of each head of x (heads, dim) in place, by angles (numbers,)."""
    half = cosine.shape[0] // 2
    for head in range(x.shape[0]):
        for j in range(half):  # both halves of the angles are equal
            left, right = (2 * j, 2 * j + 1) if has_neighbours else (j, j + half)
            first, second = x[head, left], x[head, right]
            x[head, left] = first * cosine[j] - second * sine[j]
            x[head, right] = second * cosine[j] + first * sine[j]


@parallel_kernel
def attend(
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
                score = softcap * tanh(score / softcap)
            if bias.shape[0]:
                score += bias[min(row, bias.shape[0] - 1), head, j]
            own[j] = score
            best = max(best, score)
        total = f32(0.0)
        if sinks.shape[0]:
            best = max(best, sinks[head])
            total = exp(sinks[head] - best)
        for j in range(low, high):
            own[j] = exp(own[j] - best)
            total += own[j]
        mixed = out[row, head]
        mixed[:] = f32(0.0)
        for j in range(low, high):
            weight = own[j] / total
            for i in range(dim):
                mixed[i] += weight * value[j, i]


@kernel
def clip_to(x: Any, clip: Any) -> None:
    """Bound x (rows, size) in place, if `clip` is above 0."""
    if clip > 0:
        for row in range(x.shape[0]):
            for j in range(x.shape[1]):
                x[row, j] = min(max(x[row, j], -clip), clip)

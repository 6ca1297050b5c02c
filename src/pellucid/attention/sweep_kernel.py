"""The loop behind `sweep`, compiled by Numba on first use and kept on disk afterwards."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

GROUPS = 256
f32 = np.float32
LOWEST = f32(-87.0)  # exp of less is below the smallest normal float32


@intrinsic
def _as_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


# Reordering sums is what lets the loop run on vectors; NaN and inf keep their meaning.
_options: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "nogil": True}


@njit(inline="always", **_options)
def _exp(x: Any) -> Any:
    """exp(x) for -87 <= x <= 88, to 2 units in the last place (Cephes, expf)."""
    n = np.floor(x * f32(1.44269504088896341) + f32(0.5))
    r = x - n * f32(0.693359375)
    r = r - n * f32(-2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r * r + r + f32(1.0)
    return p * _as_float((np.int32(n) + np.int32(127)) << np.int32(23))


@njit(**_options)
def _reduce(logits: Any, shift: Any, position: Any, columns: Any, received: Any, best: Any) -> Any:
    """One stretch of a row: adds to received, keeps running maxima, returns the two sums."""
    entropy = f32(0.0)
    distance = f32(0.0)
    for j in range(logits.shape[0]):
        log = logits[j] - shift
        held = LOWEST if log < LOWEST else log
        weight = _exp(held)
        weight = f32(0.0) if log < LOWEST else weight
        received[j] += weight
        entropy -= weight * held
        distance += weight * abs(position - columns[j])
        best[j] = logits[j] if logits[j] > best[j] else best[j]
    return entropy, distance


@njit(inline="always", **_options)
def _insert(value: Any, place: Any, values: Any, places: Any) -> None:
    """Put a value into a list sorted downwards, pushing the last one out."""
    at = values.shape[0] - 1
    while at > 0 and values[at - 1] < value:
        values[at], places[at] = values[at - 1], places[at - 1]
        at -= 1
    values[at], places[at] = value, place


@njit(**_options)
def _top(logits: Any, best: Any, values: Any, places: Any, groups: Any, strengths: Any) -> None:
    """The largest of a row, from the groups of largest maximum."""
    count, k = logits.shape[0], values.shape[0]
    strengths[:] = f32(-np.inf)
    groups[:] = -1
    for g in range(min(GROUPS, count)):
        if best[g] > strengths[k - 1]:
            _insert(best[g], g, strengths, groups)
    values[:] = f32(-np.inf)
    places[:] = -1
    for i in range(k):
        if groups[i] >= 0:
            for j in range(groups[i], count, GROUPS):
                if logits[j] > values[k - 1]:
                    _insert(logits[j], j, values, places)


@njit(cache=True, **_options)
def sweep(
    blocks: Any,
    logsumexp: Any,
    columns: Any,
    first: Any,
    start: int,
    stop: int,
    received: Any,
    entropy: Any,
    distance: Any,
    values: Any,
    indices: Any,
) -> None:
    """Reduce the rows from start up to stop, counted over all blocks, (count, rows, cols) each."""
    _, rows, cols = blocks.shape
    k = values.shape[2]
    where = columns.astype(f32)
    best = np.empty(GROUPS, dtype=f32)
    groups = np.empty(k, dtype=np.int64)
    strengths = np.empty(k, dtype=f32)
    for row in range(start, stop):
        b, i = row // rows, row % rows
        logits, shift = blocks[b, i], logsumexp[b, i]
        best[:] = f32(-np.inf)
        total_entropy, total_distance = 0.0, 0.0
        for j in range(0, cols, GROUPS):
            end = min(cols, j + GROUPS)
            e, d = _reduce(
                logits[j:end], shift, first + f32(i), where[j:end], received[b, j:end], best
            )
            total_entropy += e
            total_distance += d
        entropy[b, i], distance[b, i] = total_entropy, total_distance
        if k:
            _top(logits, best, values[b, i], indices[b, i], groups, strengths)
            for t in range(k):
                log = values[b, i, t] - shift
                hidden = indices[b, i, t] < 0 or log < LOWEST
                values[b, i, t] = f32(0.0) if hidden else _exp(log)
                indices[b, i, t] = -1 if hidden else columns[indices[b, i, t]]

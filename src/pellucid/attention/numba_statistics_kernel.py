"""The loop behind `numba_statistics`, compiled by Numba on first use and then cached on disk.

A row is read in stretches short enough for the innermost cache. The weights of a stretch are
computed once; each statistic is a loop of its own over them, which the compiler vectorises.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from pellucid.attention.numba_cache import kept

f32 = np.float32
STRETCH = 256
"""Also the number of running maxima per row: the top k lie in the k groups with the largest."""
LOWEST = f32(-88.0)
"""Here the exponent field in `_weigh` reaches 0: exp of this and of all below is exactly 0."""
MAGIC = f32(3 * 2**22 + 127)
"""Added to a small float, leaves its nearest integer plus 127 in the lowest bits."""


@intrinsic
def _as_int(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _as_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


# The exponential depends on the order of operations; elsewhere, sums may be reordered so that loops
# vectorise. NaN and inf keep their meaning in both.
_exactly: Any = njit(fastmath={"contract"}, nogil=True)
_freely: Any = njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True)


@_exactly
def _weigh(logits: Any, shift: Any, logs: Any, weights: Any) -> None:
    """logs = logits - shift, weights = exp(logs) to 2 units in the last place (Cephes, expf)."""
    for j in range(logits.shape[0]):
        x = logits[j] - shift
        x = LOWEST if x < LOWEST else x
        logs[j] = x
        shifted = x * f32(1.44269504088896341) + MAGIC
        n = shifted - MAGIC
        r = x - n * f32(0.693359375)
        r = r - n * f32(-2.12194440e-4)
        p = f32(1.9875691500e-4)
        p = p * r + f32(1.3981999507e-3)
        p = p * r + f32(8.3334519073e-3)
        p = p * r + f32(4.1665795894e-2)
        p = p * r + f32(1.6666665459e-1)
        p = p * r + f32(5.0000001201e-1)
        p = p * (r * r) + (r + f32(1.0))
        weights[j] = p * _as_float(_as_int(shifted) << np.int32(23))


@_freely
def _add(weights: Any, received: Any) -> None:
    for j in range(weights.shape[0]):
        received[j] += weights[j]


@_freely
def _dot(weights: Any, logs: Any) -> Any:
    total = f32(0.0)
    for j in range(weights.shape[0]):
        total += weights[j] * logs[j]
    return total


@_freely
def _apart(weights: Any, columns: Any, position: Any) -> Any:
    total = f32(0.0)
    for j in range(weights.shape[0]):
        total += weights[j] * abs(position - columns[j])
    return total


@_freely
def _raise(logs: Any, best: Any) -> None:
    for j in range(logs.shape[0]):
        best[j] = logs[j] if logs[j] > best[j] else best[j]


@_freely
def _largest(best: Any) -> Any:
    largest = f32(-np.inf)
    for j in range(best.shape[0]):
        largest = best[j] if best[j] > largest else largest
    return largest


@_freely
def _total(weights: Any) -> Any:
    total = f32(0.0)
    for j in range(weights.shape[0]):
        total += weights[j]
    return total


@njit(nogil=True)
def _logsumexp(logits: Any, best: Any, logs: Any, weights: Any) -> Any:
    """Of a row; inf where all is hidden, so that each weight is 0."""
    best[:] = f32(-np.inf)
    for start in range(0, logits.shape[0], STRETCH):
        _raise(logits[start : start + STRETCH], best)
    largest = _largest(best)
    if largest == f32(-np.inf):
        return f32(np.inf)
    total = 0.0
    for start in range(0, logits.shape[0], STRETCH):
        stretch = logits[start : start + STRETCH]
        _weigh(stretch, largest, logs[: stretch.shape[0]], weights[: stretch.shape[0]])
        total += _total(weights[: stretch.shape[0]])
    return f32(largest + np.log(total))


@njit(inline="always", nogil=True)
def _insert(value: Any, index: Any, values: Any, indices: Any) -> None:
    """Insert a value into a list in descending order, dropping the last one."""
    at = values.shape[0] - 1
    while at > 0 and values[at - 1] < value:
        values[at], indices[at] = values[at - 1], indices[at - 1]
        at -= 1
    values[at], indices[at] = value, index


@njit(nogil=True)
def _top(logits: Any, best: Any, values: Any, indices: Any, groups: Any, strengths: Any) -> None:
    """The largest of a row, from the groups of largest maximum; group g has every STRETCH-th."""
    count, k = logits.shape[0], values.shape[0]
    strengths[:] = f32(-np.inf)
    groups[:] = -1
    for g in range(min(STRETCH, count)):
        if best[g] > strengths[k - 1]:
            _insert(best[g], g, strengths, groups)
    values[:] = f32(-np.inf)
    indices[:] = -1
    for i in range(k):
        if groups[i] >= 0:
            for j in range(groups[i], count, STRETCH):
                if logits[j] > values[k - 1]:
                    _insert(logits[j], j, values, indices)


@kept
@njit(nogil=True)
def sweep(
    blocks: Any,
    begins: Any,
    ends: Any,
    logsumexp: Any,
    columns: Any,
    first: Any,
    received: Any,
    entropy: Any,
    distance: Any,
    peak: Any,
    values: Any,
    indices: Any,
) -> None:
    """Reduce blocks of scores, (count, rows, cols), of which each row sees a range of columns; a
    result of size 0 is skipped. Where logsumexp has size 0, each row's is computed.
    """
    count, rows = blocks.shape[:2]
    k = values.shape[2]
    weighs = received.shape[1] + entropy.shape[1] + distance.shape[1] > 0
    where = columns.astype(f32)
    logs, weights = np.empty(STRETCH, f32), np.empty(STRETCH, f32)
    best = np.empty(STRETCH, f32)
    groups, strengths = np.empty(k, np.int64), np.empty(k, f32)
    for b in range(count):
        for i in range(rows):
            begin = begins[i]
            logits = blocks[b, i, begin : max(begin, ends[i])]
            seen = logits.shape[0]
            shift = f32(0.0)
            if logsumexp.shape[1]:
                shift = logsumexp[b, i]
            elif weighs or k:
                shift = _logsumexp(logits, best, logs, weights)
            best[:] = f32(-np.inf)
            total_entropy, total_distance = 0.0, 0.0
            for start in range(0, seen, STRETCH):
                stop = min(seen, start + STRETCH)
                log, weight = logs[: stop - start], weights[: stop - start]
                if weighs:
                    _weigh(logits[start:stop], shift, log, weight)
                if received.shape[1]:
                    _add(weight, received[b, begin + start : begin + stop])
                if entropy.shape[1]:
                    total_entropy -= _dot(weight, log)
                if distance.shape[1]:
                    apart = where[begin + start : begin + stop]
                    total_distance += _apart(weight, apart, first + f32(i))
                if k or peak.shape[1]:
                    _raise(logits[start:stop], best)
            if entropy.shape[1]:
                entropy[b, i] = total_entropy
            if distance.shape[1]:
                distance[b, i] = total_distance
            if peak.shape[1]:
                peak[b, i] = _largest(best)
            if k:
                _top(logits, best, values[b, i], indices[b, i], groups, strengths)
                _weigh(values[b, i], shift, strengths, values[b, i])
                for t in range(k):
                    is_seen = indices[b, i, t] >= 0 and values[b, i, t] > f32(0.0)
                    indices[b, i, t] = columns[begin + indices[b, i, t]] if is_seen else -1

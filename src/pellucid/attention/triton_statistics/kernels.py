"""The kernels: a tile of scores is one product, a tile of weights one exponential more.

Scores are in units of log 2, so that exp2, which GPUs have, needs no factor. A row sees the keys
from `begin` to `end`. The plan of a program says which tiles it visits: from `low` to `high`, of
which those from `full_low` to `full_high` hide nothing and are not asked for ranges. Offsets are
64 bits wide: 64k tokens of 32 heads have more scores than 32 bits can count.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e4)  # replaces log 0 where it is multiplied by a weight of 0


@triton.jit
def _vectors(base, positions, stride, stride_dim, count, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """(positions, WIDTH) of queries or keys, 0 where there is none."""
    dims = tl.arange(0, WIDTH)
    offsets = base + positions.to(tl.int64)[:, None] * stride + dims[None, :] * stride_dim
    return tl.load(offsets, mask=(positions < count)[:, None] & (dims < DIM)[None, :], other=0.0)


@triton.jit
def _scores(left, right, scale, softcap, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr):
    """left @ right.T in units of log 2: those are in the scale, where there is no cap."""
    products = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scale
    if SOFTCAP:  # tanh x = 1 - 2 / (1 + e^2x)
        grown = tl.exp2(products * (2 * LOG2_E / softcap))
        products = softcap * LOG2_E * (1.0 - 2.0 / (1.0 + grown))
    return products


@triton.jit
def _add_received(
    total, key, cols, low, high,
    query_base, query_stride, query_stride_dim, bias_base, bias_stride, bias_stride_key,
    lse_base, begin_base, end_base, queries, keys, scale, softcap,
    DIM: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    for tile in range(low, high):
        rows = tile * ROWS + tl.arange(0, ROWS)
        query = _vectors(query_base, rows, query_stride, query_stride_dim, queries, DIM, WIDTH)
        scores = _scores(key, query, scale, softcap, SOFTCAP, PRECISION)
        if BIAS:
            offsets = rows.to(tl.int64)[None, :] * bias_stride
            offsets += cols.to(tl.int64)[:, None] * bias_stride_key
            inside = (rows < queries)[None, :] & (cols < keys)[:, None]
            bias = tl.load(bias_base + offsets, mask=inside, other=0.0)
            scores += bias.to(tl.float32) * LOG2_E
        shift = tl.load(lse_base + rows, mask=rows < queries, other=float("inf"))
        weights = tl.exp2(scores - shift[None, :])
        if MASKED:
            begin = tl.load(begin_base + rows, mask=rows < queries, other=0)
            end = tl.load(end_base + rows, mask=rows < queries, other=0)
            seen = (cols[:, None] >= begin[None, :]) & (cols[:, None] < end[None, :])
            weights = tl.where(seen, weights, 0.0)
        total += tl.sum(weights, 1)
    return total


@triton.jit
def received(
    query, key, bias, lse, begins, ends, plan, out,
    query_item, query_head, query_stride, query_stride_dim,
    key_item, key_head, key_stride, key_stride_dim,
    bias_item, bias_head, bias_stride, bias_stride_key,
    range_item, plan_item, heads, group, queries, keys, scale, softcap,
    DIM: tl.constexpr, WIDTH: tl.constexpr, COLS: tl.constexpr, ROWS: tl.constexpr,
    BIAS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Column sums: a program has a tile of keys and reads the queries; no two write one place."""
    tiles = tl.cdiv(keys, COLS)
    tile = tl.program_id(0) % tiles
    item = (tl.program_id(0) // tiles // heads).to(tl.int64)
    head = (tl.program_id(0) // tiles % heads).to(tl.int64)
    cols = tile * COLS + tl.arange(0, COLS)
    key_base = key + item * key_item + head // group * key_head
    resident = _vectors(key_base, cols, key_stride, key_stride_dim, keys, DIM, WIDTH)
    plan += item * plan_item + tile * 4
    low, full_low, full_high, high = (
        tl.load(plan), tl.load(plan + 1), tl.load(plan + 2), tl.load(plan + 3)
    )  # fmt: skip
    query_base = query + item * query_item + head * query_head
    bias_base = bias + item * bias_item + head * bias_head
    lse_base = lse + (item * heads + head) * queries
    begin_base, end_base = begins + item * range_item, ends + item * range_item
    total = tl.zeros((COLS,), tl.float32)
    total = _add_received(
        total, resident, cols, low, full_low,
        query_base, query_stride, query_stride_dim, bias_base, bias_stride, bias_stride_key,
        lse_base, begin_base, end_base, queries, keys, scale, softcap,
        DIM, WIDTH, ROWS, BIAS, SOFTCAP, PRECISION, True,
    )  # fmt: skip
    total = _add_received(
        total, resident, cols, full_low, full_high,
        query_base, query_stride, query_stride_dim, bias_base, bias_stride, bias_stride_key,
        lse_base, begin_base, end_base, queries, keys, scale, softcap,
        DIM, WIDTH, ROWS, BIAS, SOFTCAP, PRECISION, False,
    )  # fmt: skip
    total = _add_received(
        total, resident, cols, full_high, high,
        query_base, query_stride, query_stride_dim, bias_base, bias_stride, bias_stride_key,
        lse_base, begin_base, end_base, queries, keys, scale, softcap,
        DIM, WIDTH, ROWS, BIAS, SOFTCAP, PRECISION, True,
    )  # fmt: skip
    tl.store(out + (item * heads + head) * keys + cols, total, mask=cols < keys)


@triton.jit
def _pick(scores, best, indices, start):
    """Move each row's largest score to its best, in place of the least, if it is larger.

    Also whether any row has another.
    """
    slots, cols = tl.arange(0, best.shape[1])[None, :], tl.arange(0, scores.shape[1])[None, :]
    largest, at = tl.max(scores, 1), tl.argmax(scores, 1)
    is_larger = (largest > tl.min(best, 1))[:, None]
    is_slot = is_larger & (slots == tl.argmin(best, 1)[:, None])
    best = tl.where(is_slot, largest[:, None], best)
    indices = tl.where(is_slot, (start + at)[:, None], indices)
    scores = tl.where(is_larger & (cols == at[:, None]), float("-inf"), scores)
    more = tl.max((tl.max(scores, 1) > tl.min(best, 1)).to(tl.int32), 0)
    return scores, best, indices, more


@triton.jit
def _read_keys(
    entropy, distance, peak, best, indices, resident, rows, begin, end, shift, position, low, high,
    key_base, key_stride, key_stride_dim, bias_base, bias_stride, bias_stride_key,
    queries, keys, scale, softcap,
    DIM: tl.constexpr, WIDTH: tl.constexpr, COLS: tl.constexpr, BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, ENTROPY: tl.constexpr,
    DISTANCE: tl.constexpr, PEAK: tl.constexpr, TOP: tl.constexpr, SLOTS: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    for tile in range(low, high):
        cols = tile * COLS + tl.arange(0, COLS)
        key = _vectors(key_base, cols, key_stride, key_stride_dim, keys, DIM, WIDTH)
        scores = _scores(resident, key, scale, softcap, SOFTCAP, PRECISION)
        if BIAS:
            offsets = rows.to(tl.int64)[:, None] * bias_stride
            offsets += cols.to(tl.int64)[None, :] * bias_stride_key
            inside = (rows < queries)[:, None] & (cols < keys)[None, :]
            scores += tl.load(bias_base + offsets, mask=inside, other=0.0).to(tl.float32) * LOG2_E
        if MASKED:
            seen = (cols[None, :] >= begin[:, None]) & (cols[None, :] < end[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        if ENTROPY or DISTANCE:
            logs = scores - shift[:, None]
            weights = tl.exp2(logs)
            if ENTROPY:
                entropy -= tl.sum(weights * tl.maximum(logs, LOWEST), 1)
            if DISTANCE:
                apart = tl.abs(position[:, None] - cols.to(tl.float32)[None, :])
                distance += tl.sum(weights * apart, 1)
        if PEAK or TOP > 0:
            largest = tl.max(scores, 1)
        if PEAK:
            peak = tl.maximum(peak, largest)
        if TOP > 0:  # a tile whose largest are all below the k-th best so far adds nothing
            more = tl.max((largest > tl.min(best, 1)).to(tl.int32), 0)
            if MASKED or SLOTS > 8:
                while more > 0:
                    scores, best, indices, more = _pick(scores, best, indices, tile * COLS)
            else:  # a loop inside would keep the compiler from reading ahead
                for _ in tl.static_range(SLOTS):  # a row has no more of them in a tile
                    if more > 0:
                        scores, best, indices, more = _pick(scores, best, indices, tile * COLS)
    return entropy, distance, peak, best, indices


@triton.jit
def of_rows(
    query, key, bias, lse, begins, ends, plan, offsets,
    entropy_out, distance_out, peak_out, best_out, indices_out,
    query_item, query_head, query_stride, query_stride_dim,
    key_item, key_head, key_stride, key_stride_dim,
    bias_item, bias_head, bias_stride, bias_stride_key,
    range_item, plan_item, offset_item, heads, group, queries, keys, scale, softcap,
    DIM: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    BIAS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, ENTROPY: tl.constexpr,
    DISTANCE: tl.constexpr, PEAK: tl.constexpr, TOP: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """What is said of each query: a program has a tile of queries and reads the keys."""
    tiles = tl.cdiv(queries, ROWS)
    tile = tiles - 1 - tl.program_id(0) % tiles  # the longest rows of a causal mask come first
    item = (tl.program_id(0) // tiles // heads).to(tl.int64)
    head = (tl.program_id(0) // tiles % heads).to(tl.int64)
    rows = tile * ROWS + tl.arange(0, ROWS)
    is_row = rows < queries
    query_base = query + item * query_item + head * query_head
    resident = _vectors(query_base, rows, query_stride, query_stride_dim, queries, DIM, WIDTH)
    plan += item * plan_item + tile * 4
    low, full_low, full_high, high = (
        tl.load(plan), tl.load(plan + 1), tl.load(plan + 2), tl.load(plan + 3)
    )  # fmt: skip
    key_base = key + item * key_item + head // group * key_head
    bias_base = bias + item * bias_item + head * bias_head
    row = (item * heads + head) * queries + rows
    shift = tl.load(lse + row, mask=is_row, other=float("inf"))
    begin = tl.load(begins + item * range_item + rows, mask=is_row, other=0)
    end = tl.load(ends + item * range_item + rows, mask=is_row, other=0)
    position = (rows + tl.load(offsets + item * offset_item)).to(tl.float32)
    entropy, distance = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    slots = tl.arange(0, SLOTS)
    # A slot too many holds inf, which nothing replaces.
    best = tl.where(slots < TOP, float("-inf"), float("inf"))[None, :]
    best = tl.broadcast_to(best.to(tl.float32), (ROWS, SLOTS))
    indices = tl.full((ROWS, SLOTS), -1, tl.int32)
    entropy, distance, peak, best, indices = _read_keys(
        entropy, distance, peak, best, indices, resident, rows, begin, end, shift, position,
        low, full_low,
        key_base, key_stride, key_stride_dim, bias_base, bias_stride, bias_stride_key,
        queries, keys, scale, softcap,
        DIM, WIDTH, COLS, BIAS, SOFTCAP, PRECISION, ENTROPY, DISTANCE, PEAK, TOP, SLOTS, True,
    )  # fmt: skip
    entropy, distance, peak, best, indices = _read_keys(
        entropy, distance, peak, best, indices, resident, rows, begin, end, shift, position,
        full_low, full_high,
        key_base, key_stride, key_stride_dim, bias_base, bias_stride, bias_stride_key,
        queries, keys, scale, softcap,
        DIM, WIDTH, COLS, BIAS, SOFTCAP, PRECISION, ENTROPY, DISTANCE, PEAK, TOP, SLOTS, False,
    )  # fmt: skip
    entropy, distance, peak, best, indices = _read_keys(
        entropy, distance, peak, best, indices, resident, rows, begin, end, shift, position,
        full_high, high,
        key_base, key_stride, key_stride_dim, bias_base, bias_stride, bias_stride_key,
        queries, keys, scale, softcap,
        DIM, WIDTH, COLS, BIAS, SOFTCAP, PRECISION, ENTROPY, DISTANCE, PEAK, TOP, SLOTS, True,
    )  # fmt: skip
    if ENTROPY:
        tl.store(entropy_out + row, entropy * LN_2, mask=is_row)
    if DISTANCE:
        tl.store(distance_out + row, distance, mask=is_row)
    if PEAK:
        tl.store(peak_out + row, peak * LN_2, mask=is_row)
    if TOP > 0:
        at = row[:, None] * SLOTS + slots[None, :]
        tl.store(best_out + at, best, mask=is_row[:, None] & (slots < TOP)[None, :])
        tl.store(indices_out + at, indices, mask=is_row[:, None] & (slots < TOP)[None, :])


@triton.jit
def _edge(index, size, bins):
    """Where a bin begins, of bins of even size, the larger ones first."""
    return index * (size // bins) + tl.minimum(index, size % bins)


@triton.jit
def pooled(
    query, key, bias, lse, begins, ends, out,
    query_item, query_head, query_stride, query_stride_dim,
    key_item, key_head, key_stride, key_stride_dim,
    bias_item, bias_head, bias_stride, bias_stride_key,
    range_item, heads, group, queries, keys, scale, softcap,
    first_query, first_key, height, width, down, across,
    DIM: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    BIAS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """A rectangle of the weights in cells: a program has one cell and reads what is seen of it."""
    cell = tl.program_id(0) % (down * across)
    head_of_item = (tl.program_id(0) // (down * across)).to(tl.int64)
    item, head = head_of_item // heads, head_of_item % heads
    top = first_query + _edge(cell // across, height, down)
    bottom = first_query + _edge(cell // across + 1, height, down)
    left = first_key + _edge(cell % across, width, across)
    right = first_key + _edge(cell % across + 1, width, across)
    query_base = query + item * query_item + head * query_head
    key_base = key + item * key_item + head // group * key_head
    bias_base = bias + item * bias_item + head * bias_head
    total, largest = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for row in range(top, bottom, ROWS):
        rows = row + tl.arange(0, ROWS)
        is_row = rows < bottom
        begin = tl.load(begins + item * range_item + rows, mask=is_row, other=keys)
        end = tl.load(ends + item * range_item + rows, mask=is_row, other=0)
        shift = tl.load(lse + head_of_item * queries + rows, mask=is_row, other=float("inf"))
        resident = _vectors(query_base, rows, query_stride, query_stride_dim, bottom, DIM, WIDTH)
        low = tl.maximum(tl.min(tl.where(begin < end, begin, keys), 0), left)
        high = tl.minimum(tl.max(end, 0), right)
        for col in range(low, high, COLS):
            cols = col + tl.arange(0, COLS)
            vectors = _vectors(key_base, cols, key_stride, key_stride_dim, high, DIM, WIDTH)
            scores = _scores(resident, vectors, scale, softcap, SOFTCAP, PRECISION)
            if BIAS:
                offsets = rows.to(tl.int64)[:, None] * bias_stride
                offsets += cols.to(tl.int64)[None, :] * bias_stride_key
                inside = is_row[:, None] & (cols < high)[None, :]
                added = tl.load(bias_base + offsets, mask=inside, other=0.0)
                scores += added.to(tl.float32) * LOG2_E
            seen = (cols[None, :] >= begin[:, None]) & (cols[None, :] < end[:, None])
            seen = seen & (cols < high)[None, :]
            weights = tl.where(seen, tl.exp2(scores - shift[:, None]), 0.0)
            if MEAN:
                total += tl.sum(weights, 1)
            else:
                largest = tl.maximum(largest, tl.max(weights, 1))
    if MEAN:
        figure = tl.sum(total, 0) / ((bottom - top) * (right - left)).to(tl.float32)
    else:
        figure = tl.max(largest, 0)
    tl.store(out + head_of_item * (down * across) + cell, figure)

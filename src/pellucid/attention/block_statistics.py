"""Statistics of all weights, a block at a time.

Every function takes `Scores` and the logsumexp of each row, computes the weights of a block as
exp(score - logsumexp), reduces them and frees them. Under autograd a block is computed again in
the backward pass, so a loss on any of these trains in O(n) memory. Without gradients a compiled
loop reduces them on the CPU, and kernels of our own compute all of it on a GPU.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pellucid.attention import fused_statistics, intervals, numba_statistics, triton_statistics
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.block_pool import each
from pellucid.attention.intervals import Intervals
from pellucid.attention.scores import Block, Scores

Statistic = Literal["received", "entropy", "distance", "peak"]
Summary = dict[str, Tensor]

LOWEST_LOG = -1e4
"""Replaces log 0 where it is multiplied by a weight of 0."""


class Top(NamedTuple):
    """The strongest keys of each query, strongest first."""

    values: Tensor
    """(..., heads, queries, k) weights."""
    indices: Tensor
    """(..., heads, queries, k) int64 keys; -1, with weight 0, where fewer than k are visible."""


def weights_of(scores: Scores, logsumexp: Tensor, block: Block) -> Tensor:
    """(items, heads, rows, cols), the block's columns adjacent."""
    rows = finite(logsumexp[block.items, block.heads, block.rows])
    return torch.exp(scores.of_block(block) - rows.unsqueeze(-1))


def statistics(
    scores: Scores,
    logsumexp: Tensor | None,
    want: frozenset[Statistic],
    top: int = 0,
    queries: Intervals | None = None,
) -> Summary:
    """The requested statistics by name, and "values" and "indices" where top is not 0.

    received is (batch, heads, keys), over the given ranges of queries; the others are (batch,
    heads, queries), with a last dimension of `top` for values and indices. peak is the largest
    logit, -inf where all keys are hidden. Without a logsumexp each row computes its own, without
    the sinks.
    """
    batch, heads, rows, keys = scores.shape
    device, dtype = scores.query.device, scores.dtype
    differentiable = keeps_graph(scores, logsumexp)
    known = logsumexp
    if known is None and not top and want == {"peak"}:  # which asks for no weights
        known = torch.zeros(batch, heads, rows, dtype=dtype, device=device)
    if not differentiable and known is not None and triton_statistics.is_best(scores, top):
        summary = triton_statistics.statistics(scores, known, want, top, queries)
        if summary is not None:
            return summary
    if not differentiable and known is not None and fused_statistics.is_best(scores):
        summary = fused_statistics.statistics(scores, known, want, top, queries)
        if summary is not None:
            return summary
    totals = {
        "received": torch.zeros(batch, heads, keys, dtype=torch.float64, device=device),
        "entropy": torch.zeros(batch, heads, rows, dtype=dtype, device=device),
        "distance": torch.zeros(batch, heads, rows, dtype=dtype, device=device),
        "peak": torch.full((batch, heads, rows), -torch.inf, dtype=dtype, device=device),
        "values": torch.zeros(batch, heads, rows, top, dtype=dtype, device=device),
        "indices": torch.full((batch, heads, rows, top), -1, device=device),
    }
    names = [*want, *(("values", "indices") if top else ())]
    totals = {name: totals[name] for name in names}
    is_compiled = not differentiable and numba_statistics.is_best(scores)

    def summary_of(block: Block) -> Summary:
        lse = None
        if logsumexp is not None:
            lse = finite(logsumexp[block.items, block.heads, block.rows])
        columns = intervals.positions(block.cols, device)
        start = block.rows.start + offset_of(block)
        spans = block.spans(device) if is_compiled else None
        block_scores = scores.of_block(block, hide=spans is None)
        if is_compiled:
            return numba_statistics.summarise(block_scores, spans, lse, columns, start, want, top)
        return summarise_in_torch(block_scores, lse, columns, start, want, top)

    spans = queries if queries is not None else ((0, rows),)
    blocks = (block for span in spans for block in scores.blocks(queries=slice(*span)))
    for block, summary in each(summary_of, blocks, device, differentiable):
        for name, value in summary.items():
            if name == "received":
                for start, stop, part in _by_span(value, block, -1):
                    totals[name][block.items, block.heads, start:stop] += part
            else:
                target = totals[name][block.items, block.heads, block.rows]
                (target[..., : value.shape[-1]] if target.ndim == 4 else target).copy_(value)
    if "received" in totals:
        totals["received"] = totals["received"].to(dtype)
    return totals


def summarise_in_torch(
    masked: Tensor,
    logsumexp: Tensor | None,
    columns: Tensor,
    first: int,
    want: frozenset[Statistic],
    top: int,
) -> Summary:
    """The statistics of one block of masked scores, (items, heads, rows, cols).

    Args:
        masked: scores, -inf where hidden.
        logsumexp: (items, heads, rows), +inf for a fully hidden row; that of the scores where it
            is None.
        columns: (cols,) the key of each column.
        first: the key position of the first row.
        want: names of the statistics.
        top: how many of the strongest keys.
    """
    if logsumexp is None:
        logsumexp = finite(masked.logsumexp(-1))
    logs = masked - logsumexp.unsqueeze(-1)
    weights = torch.exp(logs)
    summary: Summary = {}
    if "received" in want:
        summary["received"] = weights.sum(-2)
    if "entropy" in want:
        summary["entropy"] = -torch.linalg.vecdot(weights, logs.clamp_min(LOWEST_LOG))
    if "distance" in want:
        rows = first + torch.arange(weights.shape[-2], device=weights.device)
        distance = (rows.unsqueeze(-1) - columns).abs().to(weights.dtype)
        summary["distance"] = torch.linalg.vecdot(weights, distance.expand_as(weights))
    if "peak" in want:
        summary["peak"] = masked.amax(-1)
    if top:
        with torch.no_grad():
            indices = top_places(logs, min(top, weights.shape[-1]))
        summary["values"] = weights.gather(-1, indices)
        summary["indices"] = columns[indices].masked_fill(summary["values"] == 0, -1)
    return summary


def top_places(values: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row, largest first: torch.topk, several times faster.

    The k largest lie in the k groups with the largest maxima, so only those are searched. Column j
    is in group j mod groups, so that the maxima are vectorised.
    """
    width = values.shape[-1]
    groups = int((k * width) ** 0.5)
    depth = width // groups if groups else 0
    if depth < 2 or groups < 2 * k:
        return values.topk(k, dim=-1).indices
    even = groups * depth
    grouped = values[..., :even].unflatten(-1, (depth, groups))
    best = grouped.amax(-2).topk(k, dim=-1).indices  # (..., rows, k)
    index = best.unsqueeze(-2).expand(*best.shape[:-1], depth, k)
    steps = torch.arange(depth, device=values.device).unsqueeze(-1) * groups
    candidates = (steps + best.unsqueeze(-2)).flatten(-2)
    rest = torch.arange(even, width, device=values.device).expand(*best.shape[:-1], -1)
    candidates = torch.cat([candidates, rest], -1)
    strengths = torch.cat([grouped.gather(-1, index).flatten(-2), values[..., even:]], -1)
    return candidates.gather(-1, strengths.topk(k, dim=-1).indices)


def transposed_product(scores: Scores, logsumexp: Tensor, x: Tensor) -> Tensor:
    """weights.T @ x: (batch, heads, keys, m) from x (batch, heads, queries, m)."""
    batch, heads, _, keys = scores.shape
    product = x.new_zeros(batch, heads, keys, x.shape[-1], dtype=scores.dtype)
    differentiable = keeps_graph(scores, logsumexp, x)

    def product_of(block: Block) -> Tensor:
        rows = x[block.items, block.heads, block.rows]
        return weights_of(scores, logsumexp, block).mT @ rows

    for block, columns in each(product_of, scores.blocks(), x.device, differentiable):
        for start, stop, part in _by_span(columns, block, -2):
            product[block.items, block.heads, start:stop] += part
    return product


def column_peaks(scores: Scores, logsumexp: Tensor) -> tuple[Tensor, Tensor]:
    """The largest weight of each column and its row, each (batch, heads, keys); no gradients."""
    batch, heads, _, keys = scores.shape
    values = scores.query.new_zeros(batch, heads, keys, dtype=scores.dtype)
    indices = torch.zeros(batch, heads, keys, dtype=torch.int64, device=values.device)

    def peaks_of(block: Block) -> tuple[Tensor, Tensor]:
        return weights_of(scores, logsumexp, block).max(-2)

    for block, peaks in each(peaks_of, scores.blocks(), values.device, False):
        spans = (_by_span(packed, block, -1) for packed in peaks)
        for (start, stop, peak), (_, _, row) in zip(*spans, strict=True):
            cols = (block.items, block.heads, slice(start, stop))
            larger = peak > values[cols]
            values[cols] = torch.where(larger, peak, values[cols])
            indices[cols] = torch.where(larger, row + block.rows.start, indices[cols])
    return values, indices


def pool(
    scores: Scores,
    logsumexp: Tensor,
    rows: int,
    cols: int,
    reduce: Literal["mean", "max"],
    queries: slice,
    keys: slice,
) -> Tensor:
    """(batch, heads, rows, cols): a rectangle of the weights, in bins of even size."""
    height, width = queries.stop - queries.start, keys.stop - keys.start
    batch, heads = scores.shape[:2]
    if not keeps_graph(scores, logsumexp) and triton_statistics.is_best(scores, 0):
        pooled = triton_statistics.pool(scores, logsumexp, rows, cols, reduce, queries, keys)
        if pooled is not None:
            return pooled
    picture = scores.query.new_zeros(batch, heads, rows, cols, dtype=scores.dtype)
    differentiable = keeps_graph(scores, logsumexp)
    sizes = torch.full((rows,), height // rows, device=picture.device)
    sizes[: height % rows] += 1
    bin_of_row = torch.repeat_interleave(torch.arange(rows, device=picture.device), sizes)

    def strip_of(block: Block) -> Tensor:
        weights = weights_of(scores, logsumexp, block)
        full = weights.new_zeros(*weights.shape[:-1], width)
        for start, stop, part in _by_span(weights, block, -1):
            full[..., start - keys.start : stop - keys.start] = part
        return pool_last(full, cols, reduce)

    blocks = scores.blocks(queries=queries, keys=keys)
    for block, strip in each(strip_of, blocks, picture.device, differentiable):
        bins = bin_of_row[block.rows.start - queries.start : block.rows.stop - queries.start]
        target = picture[block.items, block.heads]
        if reduce == "mean":
            target.index_add_(2, bins, strip / sizes[bins].unsqueeze(-1))
        else:
            target.scatter_reduce_(2, bins.unsqueeze(-1).expand_as(strip), strip, "amax")
    return picture


def pool_last(weights: Tensor, bins: int, reduce: Literal["mean", "max"]) -> Tensor:
    """Pool the last dimension in bins of even size, the larger ones first."""
    length = weights.shape[-1]
    long, size = length % bins, length // bins
    parts = weights.split([long * (size + 1), length - long * (size + 1)], dim=-1)
    shaped = [
        part.unflatten(-1, (count, -1))
        for part, count in zip(parts, (long, bins - long), strict=True)
        if count
    ]
    return torch.cat([x.mean(-1) if reduce == "mean" else x.amax(-1) for x in shaped], -1)


def _by_span(packed: Tensor, block: Block, dim: int) -> Iterator[tuple[int, int, Tensor]]:
    """Each range of the block's columns with its part of a tensor of all of them."""
    parts = packed.split([stop - start for start, stop in block.cols], dim)
    for (start, stop), part in zip(block.cols, parts, strict=True):
        yield start, stop, part


def keeps_graph(scores: Scores, *tensors: Tensor | None) -> bool:
    """Whether a result needs gradients."""
    required = scores.requires_grad or any(t is not None and t.requires_grad for t in tensors)
    return torch.is_grad_enabled() and required


def offset_of(block: Block) -> int:
    """The key position of query 0."""
    return 0 if block.mask is None or block.mask.offset is None else int(block.mask.offset)

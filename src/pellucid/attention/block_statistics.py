"""What can be said of all weights together, one block at a time.

Every function takes `Scores` and the logsumexp of each row, makes the weights of a block as
exp(score - logsumexp), reduces them and lets them go. Under autograd a block is computed again in
the backward pass, so a loss on any of these trains in O(n) memory. On the CPU, without gradients,
a compiled sweep does the reducing.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pellucid.attention import intervals, numba_statistics
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.block_pool import each
from pellucid.attention.intervals import Intervals
from pellucid.attention.scores import Block, Scores

Statistic = Literal["received", "entropy", "distance"]
Part = dict[str, Tensor]

LOWEST_LOG = -1e4
"""Stands for log 0 where it is multiplied by a weight of 0."""


class Top(NamedTuple):
    """The strongest keys of each query, strongest first."""

    values: Tensor
    """(..., heads, queries, k) weights."""
    indices: Tensor
    """(..., heads, queries, k) int64 keys; -1, with weight 0, where fewer than k are visible."""


def weights_of(scores: Scores, logsumexp: Tensor, block: Block) -> Tensor:
    """(items, heads, rows, cols), the block's columns side by side."""
    rows = finite(logsumexp[block.items, block.heads, block.rows])
    return torch.exp(scores.of_block(block) - rows.unsqueeze(-1))


def statistics(
    scores: Scores,
    logsumexp: Tensor,
    want: frozenset[Statistic],
    top: int = 0,
    queries: Intervals | None = None,
) -> Part:
    """The statistics asked for, by name; "values" and "indices" too where top is not 0.

    received is (batch, heads, keys), over the given ranges of queries; the others are (batch,
    heads, queries), with a last dimension of `top` for values and indices.
    """
    batch, heads, rows, keys = scores.shape
    device, dtype = scores.query.device, scores.dtype
    found = {
        "received": torch.zeros(batch, heads, keys, dtype=torch.float64, device=device),
        "entropy": torch.zeros(batch, heads, rows, dtype=dtype, device=device),
        "distance": torch.zeros(batch, heads, rows, dtype=dtype, device=device),
        "values": torch.zeros(batch, heads, rows, top, dtype=dtype, device=device),
        "indices": torch.full((batch, heads, rows, top), -1, device=device),
    }
    names = [*want, *(("values", "indices") if top else ())]
    found = {name: found[name] for name in names}
    differentiable = keeps_graph(scores, logsumexp)
    summarise = (
        summarise_in_torch if differentiable else numba_statistics.best(scores, summarise_in_torch)
    )

    def part(block: Block) -> Part:
        lse = finite(logsumexp[block.items, block.heads, block.rows])
        columns = intervals.positions(block.cols, device)
        start = block.rows.start + offset_of(block)
        return summarise(scores.of_block(block), lse, columns, start, want, top)

    spans = queries if queries is not None else ((0, rows),)
    blocks = (block for span in spans for block in scores.blocks(queries=slice(*span)))
    for block, summary in each(part, blocks, device, differentiable):
        for name, value in summary.items():
            if name == "received":
                for start, stop, piece in _by_span(value, block, -1):
                    found[name][block.items, block.heads, start:stop] += piece
            else:
                place = found[name][block.items, block.heads, block.rows]
                (place[..., : value.shape[-1]] if place.ndim == 4 else place).copy_(value)
    if "received" in found:
        found["received"] = found["received"].to(dtype)
    return found


def summarise_in_torch(
    masked: Tensor,
    logsumexp: Tensor,
    columns: Tensor,
    first: int,
    want: frozenset[Statistic],
    top: int,
) -> Part:
    """The statistics of one block of masked scores, (items, heads, rows, cols).

    Args:
        masked: scores, -inf where hidden.
        logsumexp: (items, heads, rows), +inf for a wholly hidden row.
        columns: (cols,) the keys that the columns stand for.
        first: where the first row stands among the keys.
        want: names of the statistics.
        top: how many of the strongest keys.
    """
    logs = masked - logsumexp.unsqueeze(-1)
    weights = torch.exp(logs)
    found: Part = {}
    if "received" in want:
        found["received"] = weights.sum(-2)
    if "entropy" in want:
        found["entropy"] = -torch.linalg.vecdot(weights, logs.clamp_min(LOWEST_LOG))
    if "distance" in want:
        rows = first + torch.arange(weights.shape[-2], device=weights.device)
        apart = (rows.unsqueeze(-1) - columns).abs().to(weights.dtype)
        found["distance"] = torch.linalg.vecdot(weights, apart.expand_as(weights))
    if top:
        with torch.no_grad():
            places = top_places(logs, min(top, weights.shape[-1]))
        found["values"] = weights.gather(-1, places)
        found["indices"] = columns[places].masked_fill(found["values"] == 0, -1)
    return found


def top_places(values: Tensor, k: int) -> Tensor:
    """Where the k largest of each row stand, largest first; as torch.topk, several times faster.

    The k largest lie in the k groups whose maxima are largest, so only those are searched. Column
    j is in group j mod groups, which makes the maxima an operation on whole vectors.
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

    def part(block: Block) -> Tensor:
        rows = x[block.items, block.heads, block.rows]
        return weights_of(scores, logsumexp, block).mT @ rows

    for block, columns in each(part, scores.blocks(), x.device, differentiable):
        for start, stop, piece in _by_span(columns, block, -2):
            product[block.items, block.heads, start:stop] += piece
    return product


def column_peaks(scores: Scores, logsumexp: Tensor) -> tuple[Tensor, Tensor]:
    """The largest weight of each column and its row, each (batch, heads, keys); no gradients."""
    batch, heads, _, keys = scores.shape
    values = scores.query.new_zeros(batch, heads, keys, dtype=scores.dtype)
    places = torch.zeros(batch, heads, keys, dtype=torch.int64, device=values.device)

    def part(block: Block) -> tuple[Tensor, Tensor]:
        return weights_of(scores, logsumexp, block).max(-2)

    for block, found in each(part, scores.blocks(), values.device, False):
        spans = (_by_span(one, block, -1) for one in found)
        for (start, stop, peak), (_, _, row) in zip(*spans, strict=True):
            here = (block.items, block.heads, slice(start, stop))
            larger = peak > values[here]
            values[here] = torch.where(larger, peak, values[here])
            places[here] = torch.where(larger, row + block.rows.start, places[here])
    return values, places


def pool(
    scores: Scores,
    logsumexp: Tensor,
    rows: int,
    cols: int,
    reduce: Literal["mean", "max"],
    queries: slice,
    keys: slice,
) -> Tensor:
    """(batch, heads, rows, cols): a rectangle of the weights, in bins as even as can be."""
    height, width = queries.stop - queries.start, keys.stop - keys.start
    batch, heads = scores.shape[:2]
    picture = scores.query.new_zeros(batch, heads, rows, cols, dtype=scores.dtype)
    differentiable = keeps_graph(scores, logsumexp)
    sizes = _bin_sizes(height, rows).to(picture.device)
    bin_of_row = torch.repeat_interleave(torch.arange(rows, device=picture.device), sizes)

    def part(block: Block) -> Tensor:
        weights = weights_of(scores, logsumexp, block)
        full = weights.new_zeros(*weights.shape[:-1], width)
        for start, stop, piece in _by_span(weights, block, -1):
            full[..., start - keys.start : stop - keys.start] = piece
        return pool_last(full, cols, reduce)

    blocks = scores.blocks(queries=queries, keys=keys)
    for block, strip in each(part, blocks, picture.device, differentiable):
        bins = bin_of_row[block.rows.start - queries.start : block.rows.stop - queries.start]
        place = picture[block.items, block.heads]
        if reduce == "mean":
            place.index_add_(2, bins, strip / sizes[bins].unsqueeze(-1))
        else:
            place.scatter_reduce_(2, bins.unsqueeze(-1).expand_as(strip), strip, "amax")
    return picture


def _bin_sizes(length: int, bins: int) -> Tensor:
    sizes = torch.full((bins,), length // bins)
    sizes[: length % bins] += 1
    return sizes


def pool_last(weights: Tensor, bins: int, reduce: Literal["mean", "max"]) -> Tensor:
    """Pool the last dimension; the first bins are one longer where it does not divide."""
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
    """Each range of the block's columns with its part of a tensor that holds them side by side."""
    parts = packed.split([stop - start for start, stop in block.cols], dim)
    for (start, stop), part in zip(block.cols, parts, strict=True):
        yield start, stop, part


def keeps_graph(scores: Scores, *tensors: Tensor) -> bool:
    wanted = scores.requires_grad or any(t.requires_grad for t in tensors)
    return torch.is_grad_enabled() and wanted


def offset_of(block: Block) -> int:
    return 0 if block.mask is None or block.mask.offset is None else int(block.mask.offset)

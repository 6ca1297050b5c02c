"""Attention weights pooled in cells, together with the logsumexp of their rows.

A block of whole rows is one matrix product; its logsumexp, its weights and their sums and maxima
are then computed while it is still in cache. Computing the logsumexp by the fused kernel first
would take three products instead of one.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.attention import intervals
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.block_pool import each
from pellucid.attention.intervals import Intervals
from pellucid.attention.masks import Mask, Spans
from pellucid.attention.scores import BLOCK_NUMBERS, LEAST_ROWS, Block, Scores, steps

MASKED_ROWS = 16
"""Most scattered rows of a block under a mask, which computes every key that any of them sees."""
TOGETHER = 256
"""The same for neighbouring rows."""


class Cells(NamedTuple):
    """A rectangle of the weights in cells, and the logsumexp of its rows."""

    sums: Tensor
    """(..., heads, down, across) of the weights in each cell."""
    largest: Tensor
    """(..., heads, down, across): the largest of them."""
    logsumexp: Tensor
    """(..., heads, rows)"""


@dataclass(frozen=True, eq=False)
class SelectedRows(Mask):
    """Another mask at some of its rows, ascending."""

    mask: Mask
    positions: Tensor

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return self.mask.batch

    def at(self, item: int) -> Mask:
        return SelectedRows(self.mask.at(item), self.positions)

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.mask.sees(item, head, self.positions[query], key)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        return self.mask.spans(int(self.positions[start]), int(self.positions[stop - 1]) + 1, keys)


def work(scores: Scores, rows: slice) -> int:
    """How many weights of these rows no mask hides, in one head, or few more."""
    keys, mask, count = scores.shape[3], scores.mask, 0
    for part in steps(rows, TOGETHER):
        cols = mask.spans(part.start, part.stop, keys).some if mask is not None else ((0, keys),)
        count += (part.stop - part.start) * intervals.length(cols)
    return count


def cells(
    scores: Scores,
    rows: slice | Tensor,
    keys: slice,
    size: tuple[int, int],
    logsumexp: Tensor | None = None,
) -> Cells:
    """A rectangle in cells of one size, from its corner; the last row and column may be smaller.

    Args:
        scores: (batch, heads, queries, keys), computed a block at a time.
        rows: the queries; ascending where they are positions.
        keys: of the rectangle; unless logsumexp is given, all others are read too.
        size: queries and keys of a cell.
        logsumexp: (batch, heads, rows), where it is known.
    """
    if isinstance(rows, Tensor):
        scores = replace(
            scores,
            query=scores.query[:, :, rows],
            bias=None if scores.bias is None else scores.bias[:, :, rows],
            mask=None if scores.mask is None else SelectedRows(scores.mask, rows),
        )
        rows = slice(0, len(rows))
    items = []
    for item in range(scores.shape[0]):
        known = None if logsumexp is None else logsumexp[item]
        items.append(_of_item(scores.at(item), rows, keys, size, known))
    return Cells(*map(torch.stack, zip(*items, strict=True)))


def _of_item(
    scores: Scores, rows: slice, keys: slice, cell: tuple[int, int], logsumexp: Tensor | None
) -> Cells:
    """`cells` of one batch item, (1, heads, queries, keys)."""
    down, across = cell
    heads = scores.shape[1]
    height, width = rows.stop - rows.start, keys.stop - keys.start
    size = (heads, -(-height // down), -(-width // across))
    empty = scores.query.new_zeros(size, dtype=scores.dtype)
    # That of rows without a block, which see none of these keys.
    initial = scores.query.new_full((heads, height), -torch.inf, dtype=scores.dtype)
    if logsumexp is not None:
        initial = logsumexp.to(scores.dtype, copy=True)
    elif scores.sinks is not None:
        initial = scores.sinks.to(scores.dtype)[:, None].repeat(1, height)
    result = Cells(empty, empty.clone(), initial)
    blocks = _blocks(scores, rows, keys, cell, logsumexp is not None)

    def part(block: Block) -> tuple[list[tuple[slice, Tensor, Tensor]], Tensor]:
        masked = scores.of_block(block)[0]
        known = None if logsumexp is None else logsumexp[block.heads, _from(rows, block.rows)]
        sinks = None if scores.sinks is None else scores.sinks[block.heads].to(masked.dtype)
        shares, known = _weigh(masked, known, sinks)
        pooled, at = [], 0
        for start, stop in block.cols:
            low, high = max(start, keys.start), min(stop, keys.stop)
            if low < high:
                weights = masked[..., at + low - start : at + high - start]
                cols = slice((low - keys.start) // across, -(-(high - keys.start) // across))
                pooled.append((cols, *_pooled(weights, shares, down, across)))
            at += stop - start
        return pooled, known

    for block, (pooled, known) in each(part, blocks, scores.query.device, False):
        inside = _from(rows, block.rows)
        result.logsumexp[block.heads, inside] = known
        cell_rows = slice(inside.start // down, -(-inside.stop // down))
        for cols, sums, maxima in pooled:
            result.sums[block.heads, cell_rows, cols] += sums
            largest = result.largest[block.heads, cell_rows, cols]
            torch.maximum(largest, maxima, out=largest)
    return result


def _blocks(
    scores: Scores, rows: slice, keys: slice, cell: tuple[int, int], is_known: bool
) -> list[Block]:
    """Blocks whose rows and columns make up whole cells, or lie within one."""
    heads, all_keys = scores.shape[1], scores.shape[3]
    wanted: Intervals = ((keys.start, keys.stop),) if is_known else ((0, all_keys),)
    step = max(LEAST_ROWS, BLOCK_NUMBERS // max(1, intervals.length(wanted)))
    mask = scores.mask
    if mask is not None:
        step = min(step, MASKED_ROWS if isinstance(mask, SelectedRows) else TOGETHER)
    step = step // cell[0] * cell[0] or step
    blocks = []
    strips = steps(rows, max(step, cell[0]))
    for part in (part for strip in strips for part in steps(strip, step)):
        cols, masked = wanted, Intervals()
        if mask is not None:
            spans = mask.spans(part.start, part.stop, all_keys)
            cols = intervals.intersection(wanted, _outwards(spans.some, keys.start, cell[1]))
            masked = intervals.intersection(cols, intervals.complement(spans.every, all_keys))
        numbers = (part.stop - part.start) * intervals.length(cols)
        if numbers:
            blocks += [
                Block(slice(0, 1), some_heads, part, cols, mask, masked)
                for some_heads in steps(slice(0, heads), BLOCK_NUMBERS // numbers)
            ]
    return blocks


def _outwards(spans: Intervals, first: int, cell: int) -> Intervals:
    """Ranges widened to whole cells, counted from `first`."""
    return intervals.union(
        ((start - first) // cell * cell + first, -(-(stop - first) // cell) * cell + first)
        for start, stop in spans
    )


def _weigh(
    masked: Tensor, logsumexp: Tensor | None, sinks: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """Turn scores into weights in place, (heads, rows, cols).

    Returns a factor that they still need, (heads, rows, 1), and the logsumexp.
    """
    if logsumexp is not None:
        masked.sub_(finite(logsumexp).unsqueeze(-1)).exp_()
        return None, logsumexp
    highest = masked.amax(-1, keepdim=True)
    if sinks is not None:
        highest = torch.maximum(highest, sinks[:, None, None])
    highest.masked_fill_(highest == -torch.inf, 0)
    total = masked.sub_(highest).exp_().sum(-1, keepdim=True)
    if sinks is not None:
        total += torch.exp(sinks[:, None, None] - highest)
    logsumexp = (highest + total.log()).squeeze(-1)
    return total.masked_fill_(total == 0, 1).reciprocal_(), logsumexp


def _pooled(
    weights: Tensor, shares: Tensor | None, down: int, across: int
) -> tuple[Tensor, Tensor]:
    """Sums and maxima in cells. Rows first, since adding rows is vectorised."""
    if shares is not None:
        weights = weights.mul_(shares)
    rows = weights.shape[-2]
    if down > 1 and rows > 1:
        whole = rows - rows % down
        parts = [weights[:, :whole].unflatten(1, (-1, down))] if whole else []
        parts += [weights[:, None, whole:]] if rows > whole else []
        sums = torch.cat([part.sum(2) for part in parts], 1)
        maxima = torch.cat([part.amax(2) for part in parts], 1)
    else:
        sums = maxima = weights
    if across > 1:
        missing = -weights.shape[-1] % across
        sums, maxima = (
            (pad(x, (0, missing)) if missing else x).unflatten(-1, (-1, across))
            for x in (sums, maxima)
        )
        sums, maxima = sums.sum(-1), maxima.amax(-1)
    return sums, maxima


def _from(whole: slice, part: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)

"""Attention weights in cells, where nobody knows the logsumexp of their rows yet.

A block of whole rows is one matrix product; its logsumexp, its weights and their sums and maxima
are then found while it is still in cache. Finding the logsumexp by the fused kernel first would
take three products in place of one.
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
from pellucid.attention.scores import BLOCK_NUMBERS, LEAST_ROWS, Block, Scores

MASKED_ROWS = 16
"""Most rows that stand apart in one block under a mask, which pays for what any of them sees."""
TOGETHER = 256
"""As above, of rows that lie together."""


class Cells(NamedTuple):
    """A rectangle of the weights in cells, and the logsumexp of its rows."""

    sums: Tensor
    """(..., heads, down, across) of the weights in each cell."""
    largest: Tensor
    """(..., heads, down, across): the largest of them."""
    logsumexp: Tensor
    """(..., heads, rows)"""


@dataclass(frozen=True, eq=False)
class Picked(Mask):
    """A mask of rows wherever they stand, in order."""

    of: Mask
    places: Tensor

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return self.of.batch

    def at(self, item: int) -> Mask:
        return Picked(self.of.at(item), self.places)

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.of.sees(item, head, self.places[query], key)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        return self.of.spans(int(self.places[start]), int(self.places[stop - 1]) + 1, keys)


def work(scores: Scores, rows: slice) -> int:
    """How many weights of one head these rows have that no mask hides, or little more."""
    keys, mask, count = scores.shape[3], scores.mask, 0
    for some in _parts(rows, TOGETHER):
        span = mask.spans(some.start, some.stop, keys).some if mask is not None else ((0, keys),)
        count += (some.stop - some.start) * intervals.length(span)
    return count


def cells(
    scores: Scores,
    rows: slice | Tensor,
    keys: slice,
    size: tuple[int, int],
    logsumexp: Tensor | None = None,
) -> Cells:
    """A rectangle of some rows, from its corner in cells of one size, the last perhaps cut.

    Args:
        scores: (batch, heads, queries, keys), nothing but whole blocks of which is ever made.
        rows: the queries, in order where they are positions.
        keys: of the rectangle; where logsumexp is not given, all others are looked at too.
        size: queries and keys of a cell.
        logsumexp: (batch, heads, rows), where it is known.
    """
    if isinstance(rows, Tensor):
        scores = replace(
            scores,
            query=scores.query[:, :, rows],
            bias=None if scores.bias is None else scores.bias[:, :, rows],
            mask=None if scores.mask is None else Picked(scores.mask, rows),
        )
        rows = slice(0, len(rows))
    found = []
    for item in range(scores.shape[0]):
        known = None if logsumexp is None else logsumexp[item]
        found.append(_of_item(scores.at(item), rows, keys, size, known))
    return Cells(*map(torch.stack, zip(*found, strict=True)))


def _of_item(
    scores: Scores, rows: slice, keys: slice, cell: tuple[int, int], logsumexp: Tensor | None
) -> Cells:
    """As `cells`, of one item of the batch, (1, heads, queries, keys)."""
    down, across = cell
    heads = scores.shape[1]
    height, width = rows.stop - rows.start, keys.stop - keys.start
    size = (heads, -(-height // down), -(-width // across))
    empty = scores.query.new_zeros(size, dtype=scores.dtype)
    nothing = scores.query.new_full((heads, height), -torch.inf, dtype=scores.dtype)
    if logsumexp is not None:  # of rows that see none of these keys, too
        nothing = logsumexp.to(scores.dtype, copy=True)
    elif scores.sinks is not None:
        nothing = scores.sinks.to(scores.dtype)[:, None].repeat(1, height)
    found = Cells(empty, empty.clone(), nothing)
    blocks = _blocks(scores, rows, keys, cell, logsumexp is not None)

    def part(block: Block) -> tuple[list[tuple[slice, Tensor, Tensor]], Tensor]:
        masked = scores.of_block(block)[0]
        known = None if logsumexp is None else logsumexp[block.heads, _from(rows, block.rows)]
        sinks = None if scores.sinks is None else scores.sinks[block.heads].to(masked.dtype)
        shares, known = _weigh(masked, known, sinks)
        pieces, at = [], 0
        for start, stop in block.cols:
            low, high = max(start, keys.start), min(stop, keys.stop)
            if low < high:
                piece = masked[..., at + low - start : at + high - start]
                place = slice((low - keys.start) // across, -(-(high - keys.start) // across))
                pieces.append((place, *_pooled(piece, shares, down, across)))
            at += stop - start
        return pieces, known

    for block, (pieces, known) in each(part, blocks, scores.query.device, False):
        inside = _from(rows, block.rows)
        found.logsumexp[block.heads, inside] = known
        place = slice(inside.start // down, -(-inside.stop // down))
        for cols, sums, most in pieces:
            found.sums[block.heads, place, cols] += sums
            here = found.largest[block.heads, place, cols]
            torch.maximum(here, most, out=here)
    return found


def _blocks(
    scores: Scores, rows: slice, keys: slice, cell: tuple[int, int], is_known: bool
) -> list[Block]:
    """Blocks whose rows make up whole cells, or lie within one, and whose columns do too."""
    heads, all_keys = scores.shape[1], scores.shape[3]
    wanted: Intervals = ((keys.start, keys.stop),) if is_known else ((0, all_keys),)
    step = max(LEAST_ROWS, BLOCK_NUMBERS // max(1, intervals.length(wanted)))
    mask = scores.mask
    if mask is not None:
        step = min(step, MASKED_ROWS if isinstance(mask, Picked) else TOGETHER)
    step = step // cell[0] * cell[0] or step
    blocks = []
    strips = _parts(rows, max(step, cell[0]))
    for some in (part for strip in strips for part in _parts(strip, step)):
        cols, masked = wanted, Intervals()
        if mask is not None:
            spans = mask.spans(some.start, some.stop, all_keys)
            cols = intervals.intersection(wanted, _outwards(spans.some, keys.start, cell[1]))
            masked = intervals.intersection(cols, intervals.complement(spans.every, all_keys))
        one_head = (some.stop - some.start) * intervals.length(cols)
        if one_head:
            few = max(1, BLOCK_NUMBERS // one_head)
            blocks += [
                Block(slice(0, 1), some_heads, some, cols, mask, masked)
                for some_heads in _parts(slice(0, heads), few)
            ]
    return blocks


def _outwards(spans: Intervals, first: int, cell: int) -> Intervals:
    """Ranges that begin and end with a cell, counted from `first`."""
    whole = (
        ((start - first) // cell * cell + first, -(-(stop - first) // cell) * cell + first)
        for start, stop in spans
    )
    return intervals.union(tuple(whole))


def _weigh(
    masked: Tensor, logsumexp: Tensor | None, sinks: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """Make weights of scores, (heads, rows, cols), in their place.

    Returns what they are still to be multiplied with, (heads, rows, 1), and the logsumexp.
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
    """Sums and maxima in cells. Rows first: they are added up a vector at a time."""
    if shares is not None:
        weights = weights.mul_(shares)
    rows = weights.shape[-2]
    if down > 1 and rows > 1:
        whole = rows - rows % down
        parts = [weights[:, :whole].unflatten(1, (-1, down))] if whole else []
        parts += [weights[:, None, whole:]] if rows > whole else []
        sums = torch.cat([one.sum(2) for one in parts], 1)
        most = torch.cat([one.amax(2) for one in parts], 1)
    else:
        sums = most = weights
    if across > 1:
        missing = -weights.shape[-1] % across
        sums, most = (
            (pad(one, (0, missing)) if missing else one).unflatten(-1, (-1, across))
            for one in (sums, most)
        )
        sums, most = sums.sum(-1), most.amax(-1)
    return sums, most


def _parts(whole: slice, step: int) -> list[slice]:
    return [slice(at, min(at + step, whole.stop)) for at in range(whole.start, whole.stop, step)]


def _from(whole: slice, part: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)

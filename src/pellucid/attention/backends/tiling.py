"""Covering a mask with rectangles that a fused kernel can do in one call.

A rectangle is whole, causal, or needs a small tile of the mask; what no query of a range sees is in
none. Rectangles that repeat along a diagonal, as those of a window do, become one call.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.masks import Band, Mask, is_causal
from pellucid.attention.scores import Scores

BAND_ROWS = 128
"""Rows of a piece whose mask is neither whole nor causal: a window pays for its rows too."""
MOST_SPANS = 4
"""Separate ranges of keys that get a kernel call each; more are gathered into one."""
LEAST_ROWS = 16
"""Documents shorter than this on average are not worth a kernel call each."""


STRETCH = 2**32
"""Scores of all heads that one call works out on the CPU: seconds, in which nobody can stop it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of the matrix, or several alike along a diagonal, that one call can do."""

    items: slice
    rows: slice
    """All rows, those of the bands one after the other."""
    cols: slice
    """The columns, those of the first band."""
    causal: bool = False
    """Query i sees key j iff j <= i, counted from the rectangle's corner."""
    mask: Mask | None = None
    """The mask of one item, counted from the rectangle's corner."""
    only: Tensor | None = None
    """Those of the columns, counted from the corner, that any row sees; None = all."""
    bands: int = 1
    """How many rectangles, each one height further down and to the right."""

    @property
    def height(self) -> int:
        return int(self.rows.stop - self.rows.start) // self.bands

    @property
    def width(self) -> int:
        return int(self.cols.stop - self.cols.start)

    @property
    def columns(self) -> slice | Tensor:
        """The columns that are read, those of the first band."""
        return self.cols if self.only is None else self.only + self.cols.start

    def is_all_of(self, scores: Scores) -> bool:
        """Whether it is the whole matrix, and nothing need be cut out."""
        batch, _, queries, keys = scores.shape
        return (self.items.stop, self.height, self.width) == (batch, queries, keys) and (
            self.items.start == 0 and self.only is None
        )

    def queries_of(self, tensor: Tensor) -> Tensor:
        """(items * bands, heads, height, ...) of a (batch, heads, queries, ...) tensor."""
        part = tensor[self.items, :, self.rows]
        if self.bands > 1:
            part = part.unflatten(2, (self.bands, self.height)).movedim(2, 1).flatten(0, 1)
        return part

    def keys_of(self, tensor: Tensor) -> Tensor:
        """(items * bands, heads, width, dim) of a (batch, heads, keys, dim) tensor."""
        if self.bands == 1:
            return tensor[self.items, :, self.columns]
        stop = self.cols.stop + (self.bands - 1) * self.height
        part = tensor[self.items, :, self.cols.start : stop]
        bands: Tensor = part.unfold(2, self.width, self.height)  # (items, heads, bands, dim, width)
        return bands.mT.movedim(2, 1).flatten(0, 1)

    def put(self, total: Tensor, found: Tensor) -> None:
        """Put what was found for `queries_of` where it came from."""
        total[self.items, :, self.rows] = self._rows_in_order(found)

    def add_to_queries(self, total: Tensor, found: Tensor) -> None:
        """Add it instead, to what other pieces found."""
        total[self.items, :, self.rows] += self._rows_in_order(found)

    def _rows_in_order(self, found: Tensor) -> Tensor:
        """What `queries_of` took apart: (items, heads, rows, ...)."""
        if self.bands > 1:
            found = found.unflatten(0, (-1, self.bands)).movedim(1, 2).flatten(2, 3)
        return found

    def add_to_keys(self, total: Tensor, found: Tensor) -> None:
        """Add what was found for `keys_of` where it came from."""
        if self.bands == 1:
            total[self.items, :, self.columns] += found
            return
        for band, part in enumerate(found.unflatten(0, (-1, self.bands)).unbind(1)):
            start = self.cols.start + band * self.height
            total[self.items, :, start : start + self.width] += part

    def bias(self, scores: Scores) -> Tensor | None:
        """What the kernel adds to the scores: their bias, and -inf where the mask hides a key."""
        bias = None
        if scores.bias is not None:  # the pieces are then of one band
            bias = self.queries_of(scores.bias)[..., self.columns].to(scores.query.dtype)
        if self.mask is not None:
            size = (slice(0, scores.shape[1]), slice(0, self.height), slice(0, self.width))
            tile = self.mask.tile(*size, device=scores.query.device)
            tile = tile if self.only is None else tile[..., self.only]
            blank = scores.query.new_zeros(()) if bias is None else bias
            bias = torch.where(tile, blank, -torch.inf)
            bias = bias.unsqueeze(0) if bias.ndim == 3 else bias
        return bias if bias is None or bias.stride(-1) == 1 else bias.contiguous()

    def continued_by(self, other: "Piece") -> bool:
        """Whether the other is one more band of this."""
        return (
            (self.items, self.causal, self.only) == (other.items, other.causal, None)
            and (self.height, self.width, self.rows.stop)
            == (other.height, other.width, other.rows.start)
            and self.cols.start + self.bands * self.height == other.cols.start
            and _alike(self.mask, other.mask)
        )


def pieces(scores: Scores) -> list[Piece]:
    """Cover all that is visible, and as little else as whole kernel calls allow."""
    found = _pieces(scores)
    if scores.query.device.type != "cpu" or math.prod(scores.shape) <= STRETCH:
        return found
    return [part for piece in found for part in _stretches(piece, scores)]


def _stretches(piece: Piece, scores: Scores) -> Iterator[Piece]:
    """The same in calls that are over soon, where it is one of more than small tiles."""
    items = piece.items.stop - piece.items.start
    rows = max(1, STRETCH // (items * scores.shape[1] * piece.width))
    if piece.mask is not None or piece.bands > 1 or piece.only is not None or rows >= piece.height:
        yield piece
        return
    first, left = piece.rows.start, piece.cols.start
    for start in range(0, piece.height, rows):
        stop = min(start + rows, piece.height)
        part = slice(first + start, first + stop)
        if not piece.causal:
            yield replace(piece, rows=part)
            continue
        before = min(start, piece.width)
        if before:  # what the rows before have seen is seen by all of these
            yield Piece(piece.items, part, slice(left, left + before))
        if before < piece.width:
            end = min(left + stop, piece.cols.stop)
            yield Piece(piece.items, part, slice(left + start, end), causal=True)


def _pieces(scores: Scores) -> list[Piece]:
    batch, _, queries, keys = scores.shape
    mask, everything = scores.mask, slice(0, batch)
    if batch == 0:
        return []
    if mask is None:
        return [Piece(everything, slice(0, queries), slice(0, keys))]
    is_plain = mask.batch is None and scores.bias is None
    if is_plain and is_causal(mask) and mask.offset == 0:  # most calls there are
        return [Piece(everything, slice(0, queries), slice(0, min(queries, keys)), causal=True)]
    parts = (
        [(everything, mask)]
        if mask.batch is None
        else [(slice(item, item + 1), mask.at(item)) for item in range(batch)]
    )
    biased = scores.bias is not None
    found = (
        piece
        for items, part in parts
        for start, stop in pairwise(_cuts(part, queries))
        for piece in _cover(part, items, start, stop, keys, biased)
    )
    return list(found) if biased else _joined(found)


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].continued_by(piece):
            last = joined[-1]
            rows = slice(last.rows.start, piece.rows.stop)
            joined[-1] = replace(last, rows=rows, bands=last.bands + 1)
        else:
            joined.append(piece)
    return joined


def _alike(left: Mask | None, right: Mask | None) -> bool:
    if isinstance(left, Band) and isinstance(right, Band):
        return (left.left, left.right, left.offset) == (right.left, right.right, right.offset)
    return left is None and right is None


def _cuts(mask: Mask, queries: int) -> list[int]:
    cuts = sorted({0, queries, *mask.breaks()})
    return cuts if len(cuts) < 3 + queries // LEAST_ROWS else [0, queries]


def _cover(
    mask: Mask, items: slice, start: int, stop: int, keys: int, biased: bool
) -> Iterator[Piece]:
    some, every = mask.spans(start, stop, keys)
    rows = slice(start, stop)
    inner = [mask.restrict(rows, slice(*span), keys) for span in some]
    # With a bias, whether a row sees anything must be read off the sum of bias and mask.
    easy = len(some) == 1 and (inner[0] is None or (is_causal(inner[0]) and not biased))
    if not easy and stop - start > BAND_ROWS:
        for at in range(start, stop, BAND_ROWS):
            yield from _cover(mask, items, at, min(at + BAND_ROWS, stop), keys, biased)
        return
    if len(some) > MOST_SPANS:
        hull = slice(some[0][0], some[-1][1])
        only = intervals.positions(some, torch.device("cpu")) - hull.start
        yield Piece(items, rows, hull, mask=mask.restrict(rows, hull, keys), only=only)
        return
    for (low, high), part in zip(some, inner, strict=True):
        clear = max(intervals.intersection(((low, high),), every), key=_size, default=(0, 0))
        if part is not None and is_causal(part) and not biased:
            yield from _causal(part, items, rows, slice(low, high))
        elif part is not None and _size(clear) > max(2 * BAND_ROWS, 3 * (high - low) // 4):
            # Nearly all of it is seen by all: a mask for the rest alone.
            yield Piece(items, rows, slice(*clear))
            for side in ((low, clear[0]), (clear[1], high)):
                if _size(side):
                    rest = mask.restrict(rows, slice(*side), keys)
                    yield Piece(items, rows, slice(*side), mask=rest)
        else:
            yield Piece(items, rows, slice(low, high), mask=part)


def _size(interval: tuple[int, int]) -> int:
    return interval[1] - interval[0]


def _causal(band: Mask, items: slice, rows: slice, cols: slice) -> Iterator[Piece]:
    """A causal rectangle: what all rows see, and the triangle that is left."""
    offset = int(band.offset or 0)
    if offset >= 0:
        # Row 0 sees columns 0 to offset: those before `offset` are seen by all.
        yield from [Piece(items, rows, slice(cols.start, cols.start + offset))] if offset else []
        yield Piece(items, rows, slice(cols.start + offset, cols.stop), causal=True)
    else:
        yield Piece(items, slice(rows.start - offset, rows.stop), cols, causal=True)

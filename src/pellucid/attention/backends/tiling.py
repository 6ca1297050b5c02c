"""Cover a mask with rectangles that a fused kernel computes in one call each.

A rectangle is whole, causal, or needs a small tile of the mask; keys that no query sees are in
none. Rectangles that repeat along a diagonal, as those of a window do, become one call.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from pellucid.attention import fused_attention, intervals
from pellucid.attention.masks import Band, Mask, is_causal
from pellucid.attention.scores import Scores

BAND_ROWS = 128
"""Rows of a rectangle that is neither whole nor causal: a window pays for its rows too."""
STRIP_ROWS, STRIPS = 128, 4
"""Rows of a strip of a causal square, and how many strips are faster than one call: of fewer, the
calls cost more than the hidden scores that they save."""
LEAST_HEADS = 16
"""Heads of all items together below which they do, too."""
MOST_SPANS = 4
"""Separate ranges of keys that get a kernel call each; more are gathered into one call."""
LEAST_ROWS = 16
"""Documents shorter than this on average are not worth a kernel call each."""
STRETCH = 2**32
"""Scores of all heads in one call on the CPU: seconds in which it cannot be interrupted."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle of the matrix, or several equal ones along a diagonal, for one call."""

    items: slice
    rows: slice
    """The rows of all bands, consecutive."""
    cols: slice
    """The columns, those of the first band."""
    causal: bool = False
    """Query i sees key j iff j <= i, counted from the rectangle's corner."""
    mask: Mask | None = None
    """The mask of one item, counted from the rectangle's corner."""
    only: Tensor | None = None
    """The columns that any row sees, counted from the corner; None = all."""
    bands: int = 1
    """How many rectangles, each one height further down and to the right than the last."""

    @property
    def height(self) -> int:
        return int(self.rows.stop - self.rows.start) // self.bands

    @property
    def width(self) -> int:
        return int(self.cols.stop - self.cols.start)

    @property
    def columns(self) -> slice | Tensor:
        """The columns that the first band reads."""
        return self.cols if self.only is None else self.only + self.cols.start

    def is_all_of(self, scores: Scores) -> bool:
        """Whether it is the whole matrix."""
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

    def put(self, total: Tensor, result: Tensor) -> None:
        """Write a result for `queries_of` back to its rows."""
        total[self.items, :, self.rows] = self._rows_in_order(result)

    def add_to_queries(self, total: Tensor, result: Tensor) -> None:
        """Add it instead, to the results of other rectangles."""
        total[self.items, :, self.rows] += self._rows_in_order(result)

    def _rows_in_order(self, result: Tensor) -> Tensor:
        """The inverse of `queries_of`: (items, heads, rows, ...)."""
        if self.bands > 1:
            result = result.unflatten(0, (-1, self.bands)).movedim(1, 2).flatten(2, 3)
        return result

    def add_to_keys(self, total: Tensor, result: Tensor) -> None:
        """Add a result for `keys_of` to its columns."""
        if self.bands == 1:
            total[self.items, :, self.columns] += result
            return
        for band, part in enumerate(result.unflatten(0, (-1, self.bands)).unbind(1)):
            start = self.cols.start + band * self.height
            total[self.items, :, start : start + self.width] += part

    def bias(self, scores: Scores) -> Tensor | None:
        """What the kernel adds to the scores: the bias, and -inf where the mask hides a key."""
        bias = None
        if scores.bias is not None:  # rectangles then have one band
            bias = self.queries_of(scores.bias)[..., self.columns].to(scores.query.dtype)
        if self.mask is not None:
            size = (slice(0, scores.shape[1]), slice(0, self.height), slice(0, self.width))
            tile = self.mask.tile(*size, device=scores.query.device)
            tile = tile if self.only is None else tile[..., self.only]
            blank = scores.query.new_zeros(()) if bias is None else bias
            bias = torch.where(tile, blank, -torch.inf)
            bias = bias.unsqueeze(0) if bias.ndim == 3 else bias
        return bias if bias is None or bias.stride(-1) == 1 else bias.contiguous()

    def continued_by(self, other: "Rectangle") -> bool:
        """Whether the other is the next band of this one."""
        return (
            (self.items, self.causal, self.only) == (other.items, other.causal, None)
            and (self.height, self.width, self.rows.stop)
            == (other.height, other.width, other.rows.start)
            and self.cols.start + self.bands * self.height == other.cols.start
            and isinstance(self.mask, Band | None)
            and self.mask == other.mask
        )


def rectangles(scores: Scores, backward: bool = False) -> list[Rectangle]:
    """Cover all that is visible, and as little else as whole kernel calls allow.

    Args:
        scores: what to cover.
        backward: whether the calls are those of the backward pass.
    """
    calls = _cover_all(scores, backward)
    if scores.query.device.type != "cpu" or math.prod(scores.shape) <= STRETCH:
        return calls
    return [part for rectangle in calls for part in _stretches(rectangle, scores)]


def _stretches(rectangle: Rectangle, scores: Scores) -> Iterator[Rectangle]:
    """The same in shorter calls, where it is more than a small tile."""
    items = rectangle.items.stop - rectangle.items.start
    rows = max(1, STRETCH // (items * scores.shape[1] * rectangle.width))
    is_tile = rectangle.mask is not None or rectangle.bands > 1 or rectangle.only is not None
    if is_tile or rows >= rectangle.height:
        yield rectangle
        return
    first, left = rectangle.rows.start, rectangle.cols.start
    for start in range(0, rectangle.height, rows):
        stop = min(start + rows, rectangle.height)
        part = slice(first + start, first + stop)
        if not rectangle.causal:
            yield replace(rectangle, rows=part)
            continue
        before = min(start, rectangle.width)
        if before:  # the keys that earlier rows see, all of these see
            yield Rectangle(rectangle.items, part, slice(left, left + before))
        if before < rectangle.width:
            end = min(left + stop, rectangle.cols.stop)
            yield Rectangle(rectangle.items, part, slice(left + start, end), causal=True)


def _cover_all(scores: Scores, backward: bool) -> list[Rectangle]:
    batch, _, queries, keys = scores.shape
    mask, everything = scores.mask, slice(0, batch)
    if batch == 0:
        return []
    if mask is None:
        return [Rectangle(everything, slice(0, queries), slice(0, keys))]
    is_plain = mask.batch is None and scores.bias is None
    if is_plain and is_causal(mask) and mask.offset == 0:  # the most common call
        whole = Rectangle(everything, slice(0, queries), slice(0, min(queries, keys)), causal=True)
        return _strips(whole, mask) if _computes_hidden(scores, backward) else [whole]
    parts = (
        [(everything, mask)]
        if mask.batch is None
        else [(slice(item, item + 1), mask.at(item)) for item in range(batch)]
    )
    biased = scores.bias is not None
    calls = (
        rectangle
        for items, part in parts
        for start, stop in pairwise(_cuts(part, queries))
        for rectangle in _cover(part, items, start, stop, keys, biased)
    )
    return list(calls) if biased else _joined(calls)


def _computes_hidden(scores: Scores, backward: bool) -> bool:
    """Whether one causal call computes the hidden scores too, as the kernel of the CPU does up to
    512 keys, which it takes at once.
    """
    batch, heads, queries, keys = scores.shape
    is_short = queries == keys and (STRIPS - 1) * STRIP_ROWS < keys <= STRIPS * STRIP_ROWS
    is_worth_it = is_short and batch * heads >= LEAST_HEADS and scores.dtype == torch.float32
    if not is_worth_it or scores.query.device.type != "cpu":
        return False
    return backward or not fused_attention.is_best(scores.query, scores.key, causal=True)


def _strips(whole: Rectangle, mask: Mask) -> list[Rectangle]:
    """A causal square as strips of rows, each with the keys that its last row sees."""
    size = whole.height
    strips = []
    for start in range(0, size, STRIP_ROWS):
        stop = min(start + STRIP_ROWS, size)
        rows, cols = slice(start, stop), slice(0, stop)
        strips.append(Rectangle(whole.items, rows, cols, mask=mask.restrict(rows, cols, size)))
    return strips


def _joined(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """Those that repeat along a diagonal as bands of one."""
    joined: list[Rectangle] = []
    for rectangle in rectangles:
        if joined and joined[-1].continued_by(rectangle):
            last = joined[-1]
            rows = slice(last.rows.start, rectangle.rows.stop)
            joined[-1] = replace(last, rows=rows, bands=last.bands + 1)
        else:
            joined.append(rectangle)
    return joined


def _cuts(mask: Mask, queries: int) -> list[int]:
    cuts = sorted({0, queries, *mask.breaks()})
    return cuts if len(cuts) < 3 + queries // LEAST_ROWS else [0, queries]


def _cover(
    mask: Mask, items: slice, start: int, stop: int, keys: int, biased: bool
) -> Iterator[Rectangle]:
    some, every = mask.spans(start, stop, keys)
    rows = slice(start, stop)
    inner = [mask.restrict(rows, slice(*span), keys) for span in some]
    # With a bias, whether a row sees anything is read from the sum of bias and mask.
    is_simple = len(some) == 1 and (inner[0] is None or (is_causal(inner[0]) and not biased))
    if not is_simple and stop - start > BAND_ROWS:
        for at in range(start, stop, BAND_ROWS):
            yield from _cover(mask, items, at, min(at + BAND_ROWS, stop), keys, biased)
        return
    if len(some) > MOST_SPANS:
        hull = slice(some[0][0], some[-1][1])
        only = intervals.positions(some, torch.device("cpu")) - hull.start
        yield Rectangle(items, rows, hull, mask=mask.restrict(rows, hull, keys), only=only)
        return
    for (low, high), part in zip(some, inner, strict=True):
        clear = max(intervals.intersection(((low, high),), every), key=_size, default=(0, 0))
        if part is not None and is_causal(part) and not biased:
            yield from _causal(part, items, rows, slice(low, high))
        elif part is not None and _size(clear) > max(2 * BAND_ROWS, 3 * (high - low) // 4):
            # Every row sees nearly all of it: only the rest needs a mask.
            yield Rectangle(items, rows, slice(*clear))
            for side in ((low, clear[0]), (clear[1], high)):
                if _size(side):
                    rest = mask.restrict(rows, slice(*side), keys)
                    yield Rectangle(items, rows, slice(*side), mask=rest)
        else:
            yield Rectangle(items, rows, slice(low, high), mask=part)


def _size(interval: tuple[int, int]) -> int:
    return interval[1] - interval[0]


def _causal(band: Mask, items: slice, rows: slice, cols: slice) -> Iterator[Rectangle]:
    """A causal rectangle: the columns that all rows see, and the triangle that is left."""
    offset = int(band.offset or 0)
    if offset >= 0:
        # Row 0 sees columns 0 to offset: those before `offset` are seen by all.
        middle = cols.start + offset
        if offset:
            yield Rectangle(items, rows, slice(cols.start, middle))
        yield Rectangle(items, rows, slice(middle, cols.stop), causal=True)
    else:
        yield Rectangle(items, slice(rows.start - offset, rows.stop), cols, causal=True)

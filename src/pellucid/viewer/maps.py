"""The map of one head, any part of it at any scale, and never whole.

A map is drawn from tiles of SIDE x SIDE cells; at level z a cell stands for 2**z queries times
2**z keys, so that level 0 shows single weights and the top level fits a whole map into one tile.
A fine tile is pooled from just its rectangle. A coarse one would cost the whole map each time: the
map is pooled once into a base, band by band, and they are made of that. Until that is there, a tile
of sampled rows stands in, and says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.attention import AttentionWeights
from pellucid.attention.streaming import pool_last
from pellucid.errors import ArgumentError, OutOfRangeError

Reduce = Literal["mean", "max"]

SIDE = 256
"""Cells of a tile, each way."""
BASE = 5
"""The highest level that is pooled from weights: a tile of it reads 8,192 x 8,192 of them."""
BAND = 2**11
"""Queries whose logsumexp is found at once."""
SAMPLED = 64
"""Rows that stand in for all of a tile."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Cells, (down, across), and whether they are of all weights or of sampled rows."""

    cells: Tensor
    is_exact: bool


class Map:
    """One head, for several threads."""

    def __init__(self, weights: AttentionWeights, is_known: bool = False) -> None:
        """Of weights, (1, queries, keys).

        Args:
            weights: of one head.
            is_known: whether their logsumexp was recorded.
        """
        self.weights = weights
        self.queries, self.keys = weights.shape[-2:]
        starts = range(0, self.queries, BAND)
        self._bands = [weights.rows(slice(at, min(at + BAND, self.queries))) for at in starts]
        self._locks = [Lock() for _ in self._bands]
        self._known = set(range(len(self._bands))) if is_known else set()
        self._bases: dict[Reduce, _Base] = {}

    @property
    def top(self) -> int:
        """The level at which one tile shows all of it."""
        return max(0, (-(-max(self.queries, self.keys) // SIDE) - 1).bit_length())

    def tile(
        self, level: int, row: int, col: int, reduce: Reduce = "mean", *, exact: bool = True
    ) -> Tile:
        """One tile; unless `exact` perhaps of sampled rows, where all would take long.

        Raises:
            OutOfRangeError: there is no such level or tile.
            ArgumentError: another reduce.
        """
        if reduce not in get_args(Reduce):
            raise ArgumentError(f"reduce must be 'mean' or 'max', not {reduce!r}")
        if not 0 <= level <= self.top:
            raise OutOfRangeError(f"there is no level {level}; the highest is {self.top}")
        rows = _span("row", row, level, self.queries)
        cols = _span("column", col, level, self.keys)
        with torch.no_grad():
            if not exact and self._takes_long(level, rows, reduce):
                return Tile(self._sampled(rows, cols, 2**level, reduce), False)
            if level <= BASE:
                return Tile(self._pooled(rows, cols, 2**level, reduce), True)
            return Tile(self._base(reduce).tile(rows, cols, 2**level), True)

    def row(self, query: int) -> Tensor:
        """(keys,): what one token attends to.

        Raises:
            OutOfRangeError: there is no such token.
        """
        _check("query", query, self.queries)
        with torch.no_grad():
            return self.weights.sample([query])[0, 0]

    def column(self, key: int) -> Tensor:
        """(queries,): what attends to one token; finds the logsumexp of all rows first.

        Raises:
            OutOfRangeError: there is no such token.
        """
        _check("key", key, self.keys)
        with torch.no_grad():
            return torch.cat([self._band(at)[0, :, key] for at in range(len(self._bands))])

    def thumbnail(self, size: int) -> Tensor:
        """(size, size) or less: the strongest weights of as many sampled rows."""
        with torch.no_grad():
            rows = self.weights.sample(_spread(slice(0, self.queries), min(size, self.queries)))
            return pool_last(rows[0], min(size, self.keys), "max")

    def _takes_long(self, level: int, rows: slice, reduce: Reduce) -> bool:
        if level > BASE:
            return not self._base(reduce).has(rows)
        return len(set(_bands_of(rows)) - self._known) > 1

    def _band(self, at: int) -> AttentionWeights:
        """The weights of a band, with their logsumexp."""
        with self._locks[at]:
            self._bands[at].logsumexp  # noqa: B018  found, where it is not known yet
            self._known.add(at)
        return self._bands[at]

    def _pooled(self, rows: slice, cols: slice, cell: int, reduce: Reduce) -> Tensor:
        parts = []
        for at in _bands_of(rows):
            start, stop = max(rows.start - at * BAND, 0), min(rows.stop - at * BAND, BAND)
            parts.append(grid(self._band(at), slice(start, stop), cols, cell, reduce))
        return torch.cat(parts)

    def _sampled(self, rows: slice, cols: slice, cell: int, reduce: Reduce) -> Tensor:
        """As `_pooled`, of a few rows that each stand for their neighbours."""
        down = -(-(rows.stop - rows.start) // cell)
        few = min(SAMPLED, down)
        strip = self.weights.sample(_spread(rows, few))[0, :, cols]
        across = [
            pool_last(strip[:, part.start - cols.start : part.stop - cols.start], count, reduce)
            for count, part in _evenly(cols, cell)
        ]
        return torch.cat(across, 1)[torch.arange(down) * few // down]

    def _base(self, reduce: Reduce) -> "_Base":
        return self._bases.setdefault(reduce, _Base(self, reduce))


class _Base:
    """A whole map in cells of level BASE, found a band at a time."""

    def __init__(self, of: Map, reduce: Reduce) -> None:
        self._of, self._reduce = of, reduce
        self._cells: dict[int, Tensor] = {}

    def has(self, rows: slice) -> bool:
        return all(at in self._cells for at in _bands_of(rows))

    def tile(self, rows: slice, cols: slice, cell: int) -> Tensor:
        bands = [self._found(at) for at in _bands_of(rows)]
        cells = torch.cat(bands)[:, cols.start // 2**BASE : -(-cols.stop // 2**BASE)]
        down = _joined(cells.T, rows, cell, self._reduce).T
        return _joined(down, cols, cell, self._reduce)

    def _found(self, at: int) -> Tensor:
        if at not in self._cells:
            of = self._of
            rows = slice(at * BAND, min((at + 1) * BAND, of.queries))
            self._cells[at] = of._pooled(rows, slice(0, of.keys), 2**BASE, self._reduce)
        return self._cells[at]


def grid(weights: AttentionWeights, rows: slice, cols: slice, cell: int, reduce: Reduce) -> Tensor:
    """(down, across): a rectangle of one head in squares of `cell`, the last perhaps cut."""
    if cell == 1:
        return weights[0, rows, cols]
    return torch.cat(
        [
            torch.cat(
                [
                    weights.pool(down, across, reduce, (some_rows, some_cols))[0]
                    for across, some_cols in _evenly(cols, cell)
                ],
                1,
            )
            for down, some_rows in _evenly(rows, cell)
        ]
    )


def _evenly(span: slice, cell: int) -> Iterator[tuple[int, slice]]:
    """How many cells are whole, and of what; then one for the rest, if there is any."""
    whole = (span.stop - span.start) // cell
    middle = span.start + whole * cell
    if whole:
        yield whole, slice(span.start, middle)
    if middle < span.stop:
        yield 1, slice(middle, span.stop)


def _joined(cells: Tensor, span: slice, cell: int, reduce: Reduce) -> Tensor:
    """(others, small cells of a span) to cells of a larger size, each small one as it counts."""
    group = cell // 2**BASE
    count = cells.shape[1]
    missing = -count % group
    if reduce == "max":
        highest: Tensor = pad(cells, (0, missing)).unflatten(1, (-1, group)).amax(2)
        return highest
    sizes = torch.full((count,), float(2**BASE))
    sizes[-1] = (span.stop - span.start) - (count - 1) * 2**BASE
    means: Tensor = pad(cells * sizes, (0, missing)).unflatten(1, (-1, group)).sum(2)
    means /= pad(sizes, (0, missing)).unflatten(0, (-1, group)).sum(1)
    return means


def _bands_of(rows: slice) -> range:
    return range(rows.start // BAND, -(-rows.stop // BAND))


def _spread(rows: slice, count: int) -> Tensor:
    """So many rows, each in the middle of its share."""
    size = rows.stop - rows.start
    places: Tensor = rows.start + (2 * torch.arange(count) + 1) * size // (2 * count)
    return places


def _span(name: str, number: int, level: int, size: int) -> slice:
    start = number * SIDE * 2**level
    if number < 0 or start >= size:
        raise OutOfRangeError(f"there is no tile in {name} {number} of level {level}")
    return slice(start, min(start + SIDE * 2**level, size))


def _check(name: str, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise OutOfRangeError(f"there is no {name} {number}; there are {count}")

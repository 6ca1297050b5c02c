"""The attention map of one head as a pyramid of tiles, which is never computed whole.

A map is drawn from tiles of SIDE x SIDE cells; at level z a cell stands for 2**z queries times
2**z keys, so that level 0 shows single weights and the top level fits a whole map into one tile.
Single weights are those that `weights[...]` gives. All else comes from bands: some rows, of which
one pass finds the logsumexp and the cells of a middling level. Coarse tiles are made of those
cells, finer ones of the scores of just their rectangle. Where bands would take long, a tile of
sampled rows stands in, and says so.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError, OutOfRangeError

Reduce = Literal["mean", "max"]
Name = tuple[Any, ...]
"""The key of a cached value: a map, and a part of it."""

SIDE = 256
"""Cells of a tile, each way."""
FINER = 3
"""Levels of which bands keep the cells, from the top one down: 2,048 x 2,048 cells of the last."""
BAND = 512
"""Queries of a band, unless its cells are larger."""
SAMPLED = 64
"""Rows sampled for a draft of a tile."""
SOON = 2**24
"""Weights up to which sampling is not worthwhile."""
BYTES = 2**29
"""Bytes cached for all maps together."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Cells, (rows, columns), and whether they are exact or made of sampled rows."""

    cells: Tensor
    is_exact: bool


class Band(NamedTuple):
    """What is cached for some rows."""

    sums: Tensor
    """(down, across) of the weights in each cell."""
    most: Tensor
    """(down, across): the largest."""
    logsumexp: Tensor
    """(rows,)"""


class TensorCache:
    """A cache of tensors that keeps those used last, up to a size in bytes; thread-safe."""

    def __init__(self, most: int = BYTES) -> None:
        self.bytes, self._most = 0, most
        self._tensors: OrderedDict[Name, tuple[Tensor, ...]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: Name) -> Any:
        """The tensors of a key; None if they are not cached."""
        with self._lock:
            if name in self._tensors:
                self._tensors.move_to_end(name)
            return self._tensors.get(name)

    def has(self, name: Name) -> bool:
        return name in self._tensors

    def put(self, name: Name, tensors: tuple[Tensor, ...]) -> None:
        with self._lock:
            self.bytes += _bytes(tensors) - _bytes(self._tensors.pop(name, ()))
            self._tensors[name] = tensors
            while self.bytes > self._most:
                self.bytes -= _bytes(self._tensors.popitem(last=False)[1])


def top_level(queries: int, keys: int) -> int:
    """The level at which one tile shows a whole map."""
    return max(0, (-(-max(queries, keys) // SIDE) - 1).bit_length())


class Map:
    """The map of one head; thread-safe."""

    def __init__(
        self, weights: AttentionWeights, is_known: bool = False, cache: TensorCache | None = None
    ) -> None:
        """Of weights, (1, queries, keys).

        Args:
            weights: of one head.
            is_known: whether their logsumexp was recorded.
            cache: a cache, which maps can share.
        """
        self.weights = weights
        self.queries, self.keys = weights.shape[-2:]
        self._recorded = weights.logsumexp if is_known else None
        self._cache = TensorCache() if cache is None else cache
        self._base = max(1, self.top - FINER)
        self._band = max(BAND, 2**self._base)

    @property
    def top(self) -> int:
        """The level at which one tile shows all of it."""
        return top_level(self.queries, self.keys)

    def tile(
        self, level: int, row: int, col: int, reduce: Reduce = "mean", *, exact: bool = True
    ) -> Tile:
        """One tile; unless `exact`, a slow one may be made of sampled rows.

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
            name = (self, level, row, col) if level else (self, level, row)
            if not exact and self._takes_long(name, rows, cols):
                return Tile(self._sampled(level, rows, cols, reduce), False)
            if level == 0:
                return Tile(self._single(name, rows, cols), True)
            pooled = self._cache.get(name)
            if pooled is None:
                find = self._fine if level < self._base else self._coarse
                pooled = find(level, rows, cols)
                self._cache.put(name, pooled)
            sums, most = pooled
            if reduce == "max":
                return Tile(most, True)
            return Tile(sums / self._counts(rows, cols, 2**level, 2**level), True)

    def row(self, query: int) -> Tensor:
        """(keys,): what one token attends to.

        Raises:
            OutOfRangeError: there is no such token.
        """
        _check("query", query, self.queries)
        with torch.no_grad():
            return self.weights.sample([query])[0, 0]

    def column(self, key: int) -> Tensor:
        """(queries,): what attends to one token; computes the logsumexp of all rows first.

        Raises:
            OutOfRangeError: there is no such token.
        """
        _check("key", key, self.keys)
        with torch.no_grad():
            rows = slice(0, self.queries)
            known = self.weights.rows(rows)
            known.set_logsumexp(self._logsumexp(rows))
            return known[0, :, key]

    def _takes_long(self, name: Name, rows: slice, cols: slice) -> bool:
        if self._cache.has(name):
            return False
        level = name[1]
        work = 0
        if level == 0:
            work = self.weights.work(rows)
        elif level < self._base:
            work = (rows.stop - rows.start) * (cols.stop - cols.start)
        if level >= self._base or (level > 0 and self._recorded is None):
            bands = [at for at in self._bands_of(rows) if not self._cache.has((self, "band", at))]
            work += sum(self.weights.work(self._rows_of(at)) for at in bands)
        return work > SOON

    def _single(self, name: Name, rows: slice, cols: slice) -> Tensor:
        """Single weights, to the last bit those of `weights[..., rows, cols]`."""
        cached = self._cache.get(name)
        few = self.weights.rows(rows)
        if cached is not None:
            few.set_logsumexp(*cached)
        else:
            self._cache.put(name, (few.logsumexp.clone(),))
        return few[0, :, cols]

    def _fine(self, level: int, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """Sums and maxima of the scores of the rectangle."""
        cell = 2**level
        logsumexp = self._logsumexp(rows).unsqueeze(0)
        sums, most, _ = self.weights.cells((cell, cell), (rows, cols), logsumexp)
        return sums[0], most[0]

    def _coarse(self, level: int, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """As `_fine`, of the cells of bands."""
        cells = slice(cols.start >> self._base, -(-cols.stop >> self._base))
        bands = [self._find_band(at) for at in self._bands_of(rows)]
        group = 2 ** (level - self._base)
        sums = torch.cat([band.sums[:, cells] for band in bands])
        most = torch.cat([band.most[:, cells] for band in bands])
        return _joined(sums, group, torch.sum), _joined(most, group, torch.amax)

    def _sampled(self, level: int, rows: slice, cols: slice, reduce: Reduce) -> Tensor:
        """Of a few rows that each stand for their neighbours."""
        cell = 2**level
        down = -(-(rows.stop - rows.start) // cell)
        few = min(SAMPLED, down)
        some = _spread(rows, few, self.weights.device)
        sums, most, _ = self.weights.cells((1, cell), (some, cols))
        single = slice(0, 1)
        strip = most[0] if reduce == "max" else sums[0] / self._counts(single, cols, 1, cell)
        return strip[torch.arange(down) * few // down]

    def _find_band(self, at: int) -> Band:
        # No lock: who waits for a turn, so that another goes first, must not hold what that needs.
        band: Band | None = self._cache.get((self, "band", at))
        if band is None:
            rows, cell = self._rows_of(at), 2**self._base
            known = None if self._recorded is None else self._recorded[:, rows]
            whole = self.weights.cells((cell, cell), (rows, slice(None)), known)
            band = Band(*(part[0] for part in whole))
            self._cache.put((self, "band", at), band)
        return band

    def _logsumexp(self, rows: slice) -> Tensor:
        """(rows,)"""
        if self._recorded is not None:
            return self._recorded[0, rows]
        bands = self._bands_of(rows)
        whole = torch.cat([self._find_band(at).logsumexp for at in bands])
        first = bands[0] * self._band
        return whole[rows.start - first : rows.stop - first]

    def _counts(self, rows: slice, cols: slice, down: int, across: int) -> Tensor:
        """(down, across): how many weights each cell stands for; the last are perhaps cut."""
        high, wide = (
            torch.tensor([min(cell, part.stop - at) for at in range(part.start, part.stop, cell)])
            for part, cell in ((rows, down), (cols, across))
        )
        return (high[:, None] * wide).to(self.weights.device, self.weights.dtype)

    def _bands_of(self, rows: slice) -> range:
        return range(rows.start // self._band, -(-rows.stop // self._band))

    def _rows_of(self, at: int) -> slice:
        return slice(at * self._band, min((at + 1) * self._band, self.queries))


def thumbnails(weights: AttentionWeights, size: int) -> Tensor:
    """(heads, size, size) or less: the strongest weights of sampled rows, all heads of a text."""
    queries, keys = weights.shape[-2:]
    few = -(-queries // -(-queries // size))
    some = _spread(slice(0, queries), few, weights.device)
    return weights.cells((1, -(-keys // size)), (some, slice(None))).largest


def _joined(cells: Tensor, group: int, join: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Squares of cells made one, the last perhaps cut; all are at least 0."""
    down, across = cells.shape
    filled = pad(cells, (0, -across % group, 0, -down % group))
    # Rows first: they are joined a vector at a time.
    return join(join(filled.unflatten(0, (-1, group)), 1).unflatten(1, (-1, group)), 2)


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _spread(rows: slice, count: int, device: torch.device) -> Tensor:
    """So many rows, each in the middle of its share."""
    size = rows.stop - rows.start
    middles = (2 * torch.arange(count, device=device) + 1) * size // (2 * count)
    positions: Tensor = rows.start + middles
    return positions


def _span(name: str, number: int, level: int, size: int) -> slice:
    start = number * SIDE * 2**level
    if number < 0 or start >= size:
        raise OutOfRangeError(f"there is no tile in {name} {number} of level {level}")
    return slice(start, min(start + SIDE * 2**level, size))


def _check(name: str, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise OutOfRangeError(f"there is no {name} {number}; there are {count}")

"""Masks: which query may see which key, as rules and never as n x n booleans.

A rule answers two questions. `sees` says for single (query, key) pairs whether the key is visible.
`spans` says for a whole range of queries which keys *some* of them may see and which keys *every*
one of them sees; what lies outside the first is skipped, and inside the second no mask is applied.
The two bounds carry through `&`, `|` and `~` by the algebra of sets, so a combined mask skips
as well as its parts do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.energies import mapped
from pellucid.attention.intervals import Intervals
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError

__all__ = ["Mask", "causal", "dense", "documents", "padding", "prefix", "window"]


class Spans(NamedTuple):
    """What a range of queries can see."""

    some: Intervals
    """No query of the range sees a key outside these."""
    every: Intervals
    """Every query of the range sees each key in these."""


class Extent(NamedTuple):
    """The sizes a mask is used with."""

    batch_shape: torch.Size
    heads: int
    queries: int
    keys: int
    device: torch.device


class Mask:
    """Which query may see which key. Combine with `&`, `|`, `~`; print to read.

    Made by `causal`, `window`, `padding`, `documents`, `prefix` and `dense`. `attention` binds a
    mask to its sizes; the other methods are those of a bound mask.
    """

    batch: int | None = None
    """How many batch items the mask tells apart; None where one rule serves all."""
    offset: "PerItem | None" = None
    """Where query 0 stands among the keys, as far as the mask knows."""

    def __and__(self, other: "Mask | Tensor") -> "Mask":
        return And(self, as_mask(other))

    def __or__(self, other: "Mask | Tensor") -> "Mask":
        return Or(self, as_mask(other))

    def __invert__(self) -> "Mask":
        return Not(self)

    __rand__, __ror__ = __and__, __or__

    def __bool__(self) -> bool:
        raise TypeMismatchError("a mask is neither true nor false: combine masks with & | ~")

    def bind(self, extent: Extent) -> "Mask":
        """The mask for these sizes, batch dimensions flattened; raises where it does not fit."""
        raise NotImplementedError

    def at(self, item: int) -> "Mask":
        """The mask of one batch item."""
        raise NotImplementedError

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Visible or not, for int64 positions that broadcast together."""
        raise NotImplementedError

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        """(heads or 1, rows, cols) bool, of a mask that is for one item."""
        item = torch.zeros((), dtype=torch.int64, device=device)
        head, row, col = (
            torch.arange(part.start, part.stop, device=device) for part in (heads, rows, cols)
        )
        seen = self.sees(item, head[:, None, None], row[:, None], col)
        count = len(seen) if seen.ndim == 3 else 1  # broadcast_shapes would import half of torch
        return seen.expand(count, len(row), len(col))

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        """What the queries from start up to stop can see, of a mask that is for one item."""
        raise NotImplementedError

    def breaks(self) -> set[int]:
        """Queries at which what is visible changes all at once: good places to cut."""
        return set()

    def of_rows(self, rows: slice) -> "Mask":
        """The mask of some of the queries, counted from the first of them, all items at once."""
        raise NotImplementedError

    def of_heads(self, heads: slice) -> "Mask":
        """The mask of some of the heads; most are the same for all."""
        return self

    def dense(self, queries: int, keys: int) -> Tensor:
        """Every (query, key) pair, True where the key may be seen: n x n booleans, to look at.

        Args:
            queries, keys: how many.

        Returns:
            (queries, keys); (batch, 1, queries, keys) where items differ; where a dense mask is
            part of it, with the dimensions that has before the last two.

        Raises:
            ShapeError: the mask is for other sizes.
        """
        outer = self.outer_shape()
        devices: list[torch.device] = []
        self.map(lambda tensor: devices.append(tensor.device) or tensor)  # type: ignore[func-returns-value]
        device = devices[0] if devices else torch.device("cpu")
        extent = Extent(torch.Size(outer[:-1]), outer[-1] if outer else 1, queries, keys, device)
        bound = self.bind(extent)
        sizes = (extent.batch_shape.numel(), extent.heads, queries, keys)
        places = [torch.arange(size, device=device) for size in sizes]
        seen = bound.sees(*torch.meshgrid(*places, indexing="ij"))
        return seen.expand(sizes).reshape(*outer, queries, keys)

    def outer_shape(self) -> tuple[int, ...]:
        """The sizes before queries and keys that the mask tells apart: (..., heads), or none."""
        return () if self.batch is None else (self.batch, 1)

    def __eq__(self, other: object) -> bool:
        """Whether both are made alike, of the same rules and numbers; not whether all they show is.

        Of `&` and `|` the order does not matter.
        """
        if type(self) is not type(other):
            return NotImplemented if not isinstance(other, Mask) else False
        ours, theirs = vars_of(self), vars_of(other)
        return all(_alike(ours[name], theirs[name]) for name in ours)

    def __hash__(self) -> int:
        kinds = (_hashable(part) for part in vars_of(self).values())
        return hash((type(self).__name__, *kinds))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Mask":
        """The mask with each of its tensors replaced by what `change` makes of it."""
        return mapped(self, change)

    def restrict(self, rows: slice, cols: slice, keys: int) -> "Mask | None":
        """The mask of a rectangle, counted from its corner; None where all of it is visible."""
        if intervals.covers(self.spans(rows.start, rows.stop, keys).every, cols.start, cols.stop):
            return None
        return self._cut(rows, cols, keys)

    def _cut(self, rows: slice, cols: slice, keys: int) -> "Mask":
        raise NotImplementedError


UNBOUNDED = 2**62
"""A reach that no text has."""
PerItem = int | Tensor
"""One number for all, or an int64 tensor with one a batch item."""


@dataclass(frozen=True, eq=False, repr=False)
class Band(Mask):
    """Query i sees key j iff i + offset - left <= j <= i + offset + right; None = no bound."""

    left: int | None
    right: int | None
    offset: PerItem

    def __repr__(self) -> str:
        where = self.offset.tolist() if isinstance(self.offset, Tensor) else self.offset
        offset = f"offset={where}" if where else ""
        if self.left is None and self.right == 0:
            return f"causal({offset})"
        sides = f"left={self.left}, right={self.right}"
        sides = "" if self.left is None and self.right is None else sides
        return f"window({', '.join(filter(None, (sides, offset)))})"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.offset) if isinstance(self.offset, Tensor) else None

    def bind(self, extent: Extent) -> Mask:
        if isinstance(self.offset, int):
            return self
        return Band(self.left, self.right, _bind_per_item(self.offset, "offset", extent))

    def at(self, item: int) -> Mask:
        return Band(self.left, self.right, _value_at(self.offset, item))

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        offset = self.offset[item] if isinstance(self.offset, Tensor) else self.offset
        distance = key - query - offset
        left, right = self._reach
        return (distance >= -left) & (distance <= right)

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        size = (1, rows.stop - rows.start, cols.stop - cols.start)
        seen = torch.ones(size, dtype=torch.bool, device=device)
        diagonal = int(self.offset) + rows.start - cols.start
        if self.left is not None:
            seen.triu_(diagonal - self.left)
        return seen if self.right is None else seen.tril_(diagonal + self.right)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        first, last = start + int(self.offset), stop - 1 + int(self.offset)
        left, right = self._reach
        return Spans(
            some=intervals.clip(first - left, last + right + 1, keys),
            every=intervals.clip(last - left, first + right + 1, keys),
        )

    def of_rows(self, rows: slice) -> Mask:
        return Band(self.left, self.right, self.offset + rows.start)

    @property
    def _reach(self) -> tuple[int, int]:
        left, right = (UNBOUNDED if reach is None else reach for reach in (self.left, self.right))
        return left, right

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        offset = int(self.offset) + rows.start - cols.start
        last_row, last_col = rows.stop - rows.start - 1, cols.stop - cols.start - 1
        # A bound that hides nothing in here is dropped: a window wider than the text is causal.
        left = self.left if self.left is not None and last_row + offset > self.left else None
        right = self.right if self.right is not None and offset + self.right < last_col else None
        if left is None and right is not None:
            return Band(None, 0, offset + right)
        return Band(left, right, offset)


@dataclass(frozen=True, eq=False, repr=False)
class Below(Mask):
    """Every query sees the keys before `limit`."""

    limit: PerItem
    name: str
    flagged: int | None = None
    """How many keys there must be, where the limit was read from one flag a key."""

    def __repr__(self) -> str:
        limit = self.limit.tolist() if isinstance(self.limit, Tensor) else self.limit
        return f"{self.name}({limit})"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.limit) if isinstance(self.limit, Tensor) else None

    def bind(self, extent: Extent) -> Mask:
        if self.flagged is not None:
            _check_flags(self.name, self.flagged, "key", extent.keys)
        limit = _bind_per_item(self.limit, self.name, extent)
        longest = int(limit.max()) if isinstance(limit, Tensor) and limit.numel() else limit
        if self.name == "padding" and isinstance(longest, int) and longest > extent.keys:
            raise ShapeError(f"padding has a length of {longest} but there are {extent.keys} keys")
        return Below(limit, self.name)

    def at(self, item: int) -> Mask:
        return Below(_value_at(self.limit, item), self.name)

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key < (self.limit[item] if isinstance(self.limit, Tensor) else self.limit)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        visible = intervals.clip(0, int(self.limit), keys)
        return Spans(visible, visible)

    def of_rows(self, rows: slice) -> Mask:
        return self

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        return Below(max(0, int(self.limit) - cols.start), self.name)


@dataclass(frozen=True, eq=False, repr=False)
class Flags(Mask):
    """One flag a position, the same for all that stands across from it."""

    flags: Tensor
    """bool, (positions,) or (batch, positions)."""

    name = ""
    along = ""
    """What the positions are, "key" or "query"."""

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.flags) if self.flags.ndim == 2 else None

    def bind(self, extent: Extent) -> Mask:
        size = extent.keys if self.along == "key" else extent.queries
        batch = extent.batch_shape.numel()
        _check_flags(self.name, self.flags.shape[-1], self.along, size)
        if self.flags.shape[:-1].numel() not in (1, batch):
            raise ShapeError(
                f"{self.name} has flags of shape {tuple(self.flags.shape)}, one row a batch item, "
                f"but the batch shape is {tuple(extent.batch_shape)}"
            )
        flags = self.flags.to(extent.device).reshape(-1, size)
        alike = bool((flags == flags[:1]).all())  # one rule then serves all items
        return type(self)(flags[0] if alike and len(flags) else flags)

    def at(self, item: int) -> Mask:
        return self if self.batch is None else type(self)(self.flags[item])

    def _at_places(self, item: Tensor, place: Tensor) -> Tensor:
        return self.flags[place] if self.batch is None else self.flags[item, place]


class Present(Flags):
    """Every query sees the keys that are flagged."""

    name, along = "padding", "key"

    def __repr__(self) -> str:
        keys = self.flags.shape[-1]
        hidden = keys - self.flags.sum(-1)
        left = torch.arange(keys, device=hidden.device) >= hidden.unsqueeze(-1)
        if torch.equal(self.flags, left):
            return f"padding(left {hidden.tolist()} of {keys})"
        return f"padding({int(self.flags.sum())} of {self.flags.numel()} keys)"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._at_places(item, key)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        return Spans(self._visible, self._visible)

    @cached_property
    def _visible(self) -> Intervals:
        return intervals.runs(self.flags)

    def of_rows(self, rows: slice) -> Mask:
        return self

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        return Present(self.flags[cols])


class Rows(Flags):
    """A query that is flagged sees every key, and the others none."""

    name, along = "rows", "query"

    def __repr__(self) -> str:
        return f"rows({int(self.flags.sum())} of {self.flags.numel()} queries)"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._at_places(item, query)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        seen, everything = self.flags[start:stop], intervals.clip(0, keys, keys)
        return Spans(everything if seen.any() else (), everything if seen.all() else ())

    def breaks(self) -> set[int]:
        return {edge for run in intervals.runs(self.flags) for edge in run}

    def of_rows(self, rows: slice) -> Mask:
        return Rows(self.flags[..., rows])

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        return Rows(self.flags[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Documents(Mask):
    """A query sees the keys that carry its own id."""

    query_ids: Tensor
    key_ids: Tensor

    def __repr__(self) -> str:
        ids = self.query_ids
        return f"documents({ids.unique().numel()} ids over {ids.shape[-1]} queries)"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.query_ids) if self.query_ids.ndim == 2 else None

    def bind(self, extent: Extent) -> Mask:
        sizes = (("query", self.query_ids, extent.queries), ("key", self.key_ids, extent.keys))
        for name, ids, wanted in sizes:
            if ids.shape[-1] != wanted:
                raise ShapeError(
                    f"documents has ids for {ids.shape[-1]} {name} positions but there are {wanted}"
                )
        batched = self.query_ids.ndim > 1 or self.key_ids.ndim > 1
        shape = extent.batch_shape if batched else ()
        bound = []
        for name, ids, wanted in sizes:
            try:
                bound.append(ids.to(extent.device).expand(*shape, wanted))
            except RuntimeError:
                raise ShapeError(
                    f"documents has {name} ids of shape {tuple(ids.shape)} but the batch shape is "
                    f"{tuple(extent.batch_shape)}"
                ) from None
        return Documents(*(ids.reshape(-1, ids.shape[-1]) if batched else ids for ids in bound))

    def at(self, item: int) -> Mask:
        return self if self.batch is None else Documents(self.query_ids[item], self.key_ids[item])

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if self.batch is None:
            return self.query_ids[query] == self.key_ids[key]
        return self.query_ids[item, query] == self.key_ids[item, key]

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        return (self.query_ids[rows, None] == self.key_ids[cols]).unsqueeze(0)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        present = self.query_ids[start:stop].unique()
        some = intervals.runs(torch.isin(self.key_ids, present))
        return Spans(some, some if present.numel() == 1 else ())

    def breaks(self) -> set[int]:
        return set((torch.diff(self.query_ids).nonzero().flatten() + 1).tolist())

    def of_rows(self, rows: slice) -> Mask:
        return Documents(self.query_ids[..., rows], self.key_ids)

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        return Documents(self.query_ids[rows], self.key_ids[cols])


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Mask):
    """Visible where a bool tensor is True: for masks that no rule describes."""

    visible: Tensor

    def outer_shape(self) -> tuple[int, ...]:
        return tuple(self.visible.shape[:-2])

    def __repr__(self) -> str:
        return f"dense({' x '.join(map(str, self.visible.shape))})"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        bound = self.visible.ndim == 4 and self.visible.stride(0) != 0
        return len(self.visible) if bound and len(self.visible) > 1 else None

    def bind(self, extent: Extent) -> Mask:
        visible = self.visible
        if visible.device != extent.device:
            raise TypeMismatchError(f"mask is on {visible.device} but query is on {extent.device}")
        return Dense(broadcast_to_extent("mask", visible, extent))

    def at(self, item: int) -> Mask:
        return Dense(self.visible[item : item + 1]) if self.batch else self

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.visible[item if self.batch else torch.zeros_like(item), head, query, key]

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        return self.visible[0, heads, rows, cols]

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        rows = self.visible[0, :, start:stop]
        if self.visible.stride(1) == 0:
            rows = rows[:1]
        if self.visible.stride(2) == 0:
            rows = rows[:, :1]
        return Spans(*(intervals.runs(seen) for seen in (rows.any(1).any(0), rows.all(1).all(0))))

    def of_rows(self, rows: slice) -> Mask:
        return Dense(self.visible[:, :, rows])

    def of_heads(self, heads: slice) -> Mask:
        return Dense(self.visible[:, heads])

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        return Dense(self.visible[:, :, rows, cols])


@dataclass(frozen=True, eq=False, repr=False)
class Pair(Mask):
    """Two masks joined by an operator."""

    left: Mask
    right: Mask

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return self.left.batch or self.right.batch

    @property
    def offset(self) -> PerItem | None:  # type: ignore[override]
        offset = self.left.offset  # asked once: both sides may be pairs themselves
        return self.right.offset if offset is None else offset

    def bind(self, extent: Extent) -> Mask:
        return type(self)(self.left.bind(extent), self.right.bind(extent))

    def at(self, item: int) -> Mask:
        return type(self)(self.left.at(item), self.right.at(item))

    def breaks(self) -> set[int]:
        return self.left.breaks() | self.right.breaks()

    def of_rows(self, rows: slice) -> Mask:
        return type(self)(self.left.of_rows(rows), self.right.of_rows(rows))

    def of_heads(self, heads: slice) -> Mask:
        return type(self)(self.left.of_heads(heads), self.right.of_heads(heads))

    def outer_shape(self) -> tuple[int, ...]:
        outer = (self.left.outer_shape(), self.right.outer_shape())
        return tuple(torch.broadcast_shapes(*outer))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Pair):
            return NotImplemented if not isinstance(other, Mask) else False
        pairs = ((other.left, other.right), (other.right, other.left))
        return any((self.left, self.right) == pair for pair in pairs)

    def __hash__(self) -> int:
        return hash((type(self).__name__, frozenset((self.left, self.right))))


class And(Pair):
    """Visible to both."""

    def __repr__(self) -> str:
        return f"({self.left} & {self.right})"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.left.sees(item, head, query, key) & self.right.sees(item, head, query, key)

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        return self.left.tile(heads, rows, cols, device) & self.right.tile(
            heads, rows, cols, device
        )

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        left, right = self.left.spans(start, stop, keys), self.right.spans(start, stop, keys)
        return Spans(*map(intervals.intersection, left, right))

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        parts = (part.restrict(rows, cols, keys) for part in (self.left, self.right))
        kept = [part for part in parts if part is not None]
        return kept[0] if len(kept) == 1 else And(*kept)


class Or(Pair):
    """Visible to either."""

    def __repr__(self) -> str:
        return f"({self.left} | {self.right})"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.left.sees(item, head, query, key) | self.right.sees(item, head, query, key)

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        return self.left.tile(heads, rows, cols, device) | self.right.tile(
            heads, rows, cols, device
        )

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        left, right = self.left.spans(start, stop, keys), self.right.spans(start, stop, keys)
        return Spans(*map(intervals.union, left, right))

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        inside: Intervals = ((cols.start, cols.stop),)
        kept = [
            part._cut(rows, cols, keys)
            for part in (self.left, self.right)
            if intervals.intersection(part.spans(rows.start, rows.stop, keys).some, inside)
        ]
        return kept[0] if len(kept) == 1 else Or(*kept) if kept else Below(0, "prefix")


@dataclass(frozen=True, eq=False, repr=False)
class Not(Mask):
    """Visible where the other mask hides."""

    hidden: Mask

    def outer_shape(self) -> tuple[int, ...]:
        return self.hidden.outer_shape()

    def __repr__(self) -> str:
        return f"~{self.hidden}"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return self.hidden.batch

    def bind(self, extent: Extent) -> Mask:
        return Not(self.hidden.bind(extent))

    def at(self, item: int) -> Mask:
        return Not(self.hidden.at(item))

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ~self.hidden.sees(item, head, query, key)

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        return ~self.hidden.tile(heads, rows, cols, device)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        some, every = self.hidden.spans(start, stop, keys)
        return Spans(intervals.complement(every, keys), intervals.complement(some, keys))

    def breaks(self) -> set[int]:
        return self.hidden.breaks()

    def of_rows(self, rows: slice) -> Mask:
        return Not(self.hidden.of_rows(rows))

    def of_heads(self, heads: slice) -> Mask:
        return Not(self.hidden.of_heads(heads))

    def _cut(self, rows: slice, cols: slice, keys: int) -> Mask:
        return Not(self.hidden._cut(rows, cols, keys))


def causal(offset: PerItem | Sequence[int] = 0) -> Mask:
    """Query i sees key j iff j <= i + offset.

    Args:
        offset: how many keys come before the first query (those of a cache, say); an int, or a
            list or an int tensor with one a batch item.
    """
    return window(left=None, right=0, offset=offset)


def window(
    left: int | None = None, right: int | None = None, offset: PerItem | Sequence[int] = 0
) -> Mask:
    """Query i sees key j iff i + offset - left <= j <= i + offset + right.

    A model's "sliding window of W tokens" is `window(left=W - 1, right=0)`.

    Args:
        left: keys seen before the query's own position, which is always seen; None = all.
        right: keys seen after it; None = all.
        offset: where query 0 stands among the keys; an int or one a batch item.

    Raises:
        ArgumentError: left or right is negative.
    """
    for name, reach in (("left", left), ("right", right)):
        if reach is not None and (type(reach) is not int or reach < 0):
            raise ArgumentError(f"window needs {name} to be None or an int >= 0, got {reach!r}")
    return Band(left, right, _per_item(offset, "offset", negative=True))


def padding(lengths: PerItem | Sequence[int]) -> Mask:
    """Every query sees the real keys; what padding holds never matters.

    Args:
        lengths: how many keys are real, the first ones: an int, or a list or tensor of one a batch
            item, (batch,). Or
            bool, (keys,) or (batch, keys), True = real, with padding on any side: what a tokenizer
            gives, as `attention_mask.bool()`.
    """
    if isinstance(lengths, Tensor) and lengths.dtype == torch.bool:
        if lengths.ndim == 0:
            raise ShapeError("padding needs flags of shape (..., keys), got a single one")
        return present(lengths)
    return Below(_per_item(lengths, "padding"), "padding")


def present(flags: Tensor) -> Mask:
    """Padding by one flag a key, which are lengths where it is all on the right."""
    keys, real = flags.shape[-1], flags.sum(-1)
    if torch.equal(flags, torch.arange(keys, device=flags.device) < real.unsqueeze(-1)):
        return Below(real if flags.ndim > 1 else int(real), "padding", flagged=keys)
    return Present(flags)


def prefix(n: PerItem | Sequence[int]) -> Mask:
    """Every query sees the first n keys: `causal() | prefix(n)` is a prefix language model."""
    return Below(_per_item(n, "prefix"), "prefix")


def documents(ids: Tensor, key_ids: Tensor | None = None) -> Mask:
    """A query sees the keys with its own id: several documents in one row, none seeing another.

    Args:
        ids: int, (queries,) or (batch, queries).
        key_ids: int, (keys,) or (batch, keys), where they are not the same.
    """
    keys = ids if key_ids is None else key_ids
    for name, given in (("ids", ids), ("key_ids", keys)):
        if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex():
            raise TypeMismatchError(
                f"documents needs {name} to be an int tensor, got {_kind(given)}"
            )
        if given.ndim == 0:
            raise ShapeError(
                f"documents needs {name} of shape (..., positions), got a single number"
            )
    return Documents(ids, keys)


def dense(visible: Tensor) -> Mask:
    """Visible where True: any pattern, at the price of the booleans.

    Args:
        visible: bool, broadcasts to (..., heads, queries, keys).
    """
    if not isinstance(visible, Tensor) or visible.dtype != torch.bool:
        raise TypeMismatchError(
            "mask must be a pellucid mask or a bool tensor (True = may be seen), "
            f"got {_kind(visible)}"
        )
    return Dense(visible)


def is_causal(mask: Mask | None) -> bool:
    """Whether it hides what comes later, and nothing else."""
    return isinstance(mask, Band) and mask.left is None and mask.right == 0


def as_mask(mask: "Mask | Tensor") -> Mask:
    return mask if isinstance(mask, Mask) else dense(mask)


def broadcast_to_extent(name: str, tensor: Tensor, extent: Extent) -> Tensor:
    """(batch, heads, queries, keys), expanded in place of copied wherever that can be."""
    batch_shape, heads, queries, keys, _ = extent
    try:
        expanded = tensor.expand(*batch_shape, heads, queries, keys)
    except RuntimeError:
        raise ShapeError(
            f"{name} of shape {tuple(tensor.shape)} does not broadcast to (..., heads, queries, "
            f"keys) = {(*batch_shape, heads, queries, keys)}"
        ) from None
    return expanded.reshape(-1, heads, queries, keys)


def mask_of_rows(mask: Mask | None, rows: slice) -> Mask | None:
    """The mask of some of the queries, which knows where the first of them stands."""
    if mask is not None:
        mask = mask.of_rows(rows)
    if rows.start == 0 or (mask is not None and mask.offset is not None):
        return mask
    place = Band(None, None, rows.start)  # hides nothing
    return place if mask is None else And(mask, place)


def vars_of(mask: Mask) -> dict[str, Any]:
    """What a mask is made of; nothing but itself, where nobody can tell."""
    made: Any = mask
    if not is_dataclass(made):
        return {"itself": id(mask)}
    return {field.name: getattr(mask, field.name) for field in fields(made)}


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.shape == other.shape and one.device == other.device
        return same and bool((one == other).all())
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)


def _hashable(part: Any) -> Any:
    """Alike for what is alike: of tensors their sizes, as their numbers may be on a device."""
    return part.shape if isinstance(part, Tensor) else part


def _check_flags(name: str, count: int, along: str, wanted: int) -> None:
    if count != wanted:
        raise ShapeError(f"{name} has {count} {along} flags but there are {wanted}")


def _per_item(value: PerItem | Sequence[int], name: str, negative: bool = False) -> PerItem:
    if isinstance(value, list | tuple):
        if not value or not all(type(one) is int for one in value):
            raise TypeMismatchError(f"{name} must be ints, got {value!r}")
        value = torch.tensor(value)
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeMismatchError(f"{name} must be an int or an int tensor, got {_kind(value)}")
        if not negative and value.numel() and int(value.min()) < 0:
            raise ArgumentError(f"{name} must not be negative, got {value.tolist()}")
    elif not isinstance(value, int) or isinstance(value, bool):
        raise TypeMismatchError(f"{name} must be an int or an int tensor, got {value!r}")
    elif not negative and value < 0:
        raise ArgumentError(f"{name} must not be negative, got {value}")
    return value


def _bind_per_item(value: PerItem, name: str, extent: Extent) -> PerItem:
    if isinstance(value, int):
        return value
    batch = extent.batch_shape.numel()
    if value.numel() not in (1, batch):
        raise ShapeError(
            f"{name} has {value.numel()} values, one a batch item, but the batch shape is "
            f"{tuple(extent.batch_shape)}"
        )
    values = value.flatten()
    if bool((values == values[:1]).all()) and values.numel():
        return int(values[0])  # one rule serves all items, and needs no cutting by item
    return values.to(extent.device, torch.int64)


def _value_at(value: PerItem, item: int) -> int:
    return int(value[item]) if isinstance(value, Tensor) else value


def _kind(value: object) -> str:
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else repr(value)

"""The kinds of mask: bands along the diagonal, limits, flags per position, documents."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.intervals import Intervals
from pellucid.attention.masks import checks
from pellucid.attention.masks.checks import Extent
from pellucid.attention.masks.mask import And, Mask, PerItem, Spans
from pellucid.errors import ShapeError

UNBOUNDED = 2**62
"""A reach beyond any text."""


@dataclass(frozen=True, eq=False, repr=False)
class Band(Mask):
    """Query i sees key j iff i + offset - left <= j <= i + offset + right; None = no bound."""

    left: int | None
    right: int | None
    offset: PerItem

    def __repr__(self) -> str:
        values = self.offset.tolist() if isinstance(self.offset, Tensor) else self.offset
        offset = f"offset={values}" if values else ""
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
        return Band(self.left, self.right, checks.bind_per_item(self.offset, "offset", extent))

    def at(self, item: int) -> Mask:
        return Band(self.left, self.right, _value_at(self.offset, item))

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        offset = self.offset[item] if isinstance(self.offset, Tensor) else self.offset
        distance = key - query - offset
        left, right = self._reach
        return (distance >= -left) & (distance <= right)

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        size = (1, rows.stop - rows.start, cols.stop - cols.start)
        visible = torch.ones(size, dtype=torch.bool, device=device)
        diagonal = int(self.offset) + rows.start - cols.start
        if self.left is not None:
            visible.triu_(diagonal - self.left)
        return visible if self.right is None else visible.tril_(diagonal + self.right)

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

    def crop(self, rows: slice, cols: slice) -> Mask:
        offset = int(self.offset) + rows.start - cols.start
        last_row, last_col = rows.stop - rows.start - 1, cols.stop - cols.start - 1
        # A bound that hides nothing here is dropped: a window wider than the text is causal.
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
    """How many keys there must be, where the limit was read from one flag per key."""

    def __repr__(self) -> str:
        limit = self.limit.tolist() if isinstance(self.limit, Tensor) else self.limit
        return f"{self.name}({limit})"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.limit) if isinstance(self.limit, Tensor) else None

    def bind(self, extent: Extent) -> Mask:
        if self.flagged is not None:
            checks.flag_count(self.name, self.flagged, "key", extent.keys)
        limit = checks.bind_per_item(self.limit, self.name, extent)
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

    def crop(self, rows: slice, cols: slice) -> Mask:
        return Below(max(0, int(self.limit) - cols.start), self.name)


@dataclass(frozen=True, eq=False, repr=False)
class Flags(Mask):
    """One flag per key, the same for all queries; or one per query, the same for all keys."""

    flags: Tensor
    """bool, (positions,) or (batch, positions)."""

    name = ""
    along = ""
    """What a flag is for, a "key" or a "query"."""

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.flags) if self.flags.ndim == 2 else None

    def bind(self, extent: Extent) -> Mask:
        size = extent.keys if self.along == "key" else extent.queries
        batch = extent.batch_shape.numel()
        checks.flag_count(self.name, self.flags.shape[-1], self.along, size)
        if self.flags.shape[:-1].numel() not in (1, batch):
            raise ShapeError(
                f"{self.name} has flags of shape {tuple(self.flags.shape)}, one row per batch "
                f"item, but the batch shape is {tuple(extent.batch_shape)}"
            )
        flags = self.flags.to(extent.device).reshape(-1, size)
        is_shared = bool((flags == flags[:1]).all())  # one rule serves all items
        return type(self)(flags[0] if is_shared and len(flags) else flags)

    def at(self, item: int) -> Mask:
        return self if self.batch is None else type(self)(self.flags[item])

    def _at_positions(self, item: Tensor, position: Tensor) -> Tensor:
        return self.flags[position] if self.batch is None else self.flags[item, position]


class Present(Flags):
    """Every query sees the flagged keys."""

    name, along = "padding", "key"

    def __repr__(self) -> str:
        keys = self.flags.shape[-1]
        hidden = keys - self.flags.sum(-1)
        left = torch.arange(keys, device=hidden.device) >= hidden.unsqueeze(-1)
        if torch.equal(self.flags, left):
            return f"padding(left {hidden.tolist()} of {keys})"
        return f"padding({int(self.flags.sum())} of {self.flags.numel()} keys)"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._at_positions(item, key)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        return Spans(self._visible, self._visible)

    @cached_property
    def _visible(self) -> Intervals:
        return intervals.runs(self.flags)

    def of_rows(self, rows: slice) -> Mask:
        return self

    def crop(self, rows: slice, cols: slice) -> Mask:
        return Present(self.flags[cols])


class Rows(Flags):
    """A flagged query sees every key, and the others none."""

    name, along = "rows", "query"

    def __repr__(self) -> str:
        return f"rows({int(self.flags.sum())} of {self.flags.numel()} queries)"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._at_positions(item, query)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        rows, everything = self.flags[start:stop], intervals.clip(0, keys, keys)
        return Spans(everything if rows.any() else (), everything if rows.all() else ())

    def breaks(self) -> set[int]:
        return {edge for run in intervals.runs(self.flags) for edge in run}

    def of_rows(self, rows: slice) -> Mask:
        return Rows(self.flags[..., rows])

    def crop(self, rows: slice, cols: slice) -> Mask:
        return Rows(self.flags[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Heads(Mask):
    """In a flagged head every query sees every key, and in the others none."""

    flags: Tensor
    """bool, (heads,) or (batch, heads)."""

    def __repr__(self) -> str:
        return f"heads({int(self.flags.sum())} of {self.flags.numel()})"

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return len(self.flags) if self.flags.ndim == 2 else None

    def outer_shape(self) -> tuple[int, ...]:
        return tuple(self.flags.shape)

    def bind(self, extent: Extent) -> Mask:
        checks.flag_count("heads", self.flags.shape[-1], "head", extent.heads)
        flags = self.flags.to(extent.device).reshape(-1, extent.heads)
        if len(flags) not in (1, extent.batch_shape.numel()):
            raise ShapeError(
                f"heads has flags of shape {tuple(self.flags.shape)}, one row per batch item, but "
                f"the batch shape is {tuple(extent.batch_shape)}"
            )
        is_shared = bool((flags == flags[:1]).all())  # one rule serves all items
        return Heads(flags[0] if is_shared and len(flags) else flags)

    def at(self, item: int) -> Mask:
        return self if self.batch is None else Heads(self.flags[item])

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.flags[head] if self.batch is None else self.flags[item, head]

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        everything = intervals.clip(0, keys, keys)
        return Spans(
            everything if bool(self.flags.any()) else (),
            everything if bool(self.flags.all()) else (),
        )

    def of_rows(self, rows: slice) -> Mask:
        return self

    def of_heads(self, heads: slice) -> Mask:
        return Heads(self.flags[..., heads])

    def crop(self, rows: slice, cols: slice) -> Mask:
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Documents(Mask):
    """A query sees the keys with its own id."""

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
        ids = self.query_ids[start:stop].unique()
        some = intervals.runs(torch.isin(self.key_ids, ids))
        return Spans(some, some if ids.numel() == 1 else ())

    def breaks(self) -> set[int]:
        return set((torch.diff(self.query_ids).nonzero().flatten() + 1).tolist())

    def of_rows(self, rows: slice) -> Mask:
        return Documents(self.query_ids[..., rows], self.key_ids)

    def crop(self, rows: slice, cols: slice) -> Mask:
        return Documents(self.query_ids[rows], self.key_ids[cols])


def is_causal(mask: Mask | None) -> bool:
    """Whether it hides the keys that come later, and nothing else."""
    return isinstance(mask, Band) and mask.left is None and mask.right == 0


def mask_of_rows(mask: Mask | None, rows: slice) -> Mask | None:
    """The mask of a range of queries, which keeps the key position of the first of them."""
    if mask is not None:
        mask = mask.of_rows(rows)
    if rows.start == 0 or (mask is not None and mask.offset is not None):
        return mask
    return with_offset(mask, rows.start)


def with_offset(mask: Mask | None, offset: int) -> Mask:
    """The mask, told the key position of query 0; hides nothing more."""
    position = Band(None, None, offset)
    return position if mask is None else And(mask, position)


def _value_at(value: PerItem, item: int) -> int:
    return int(value[item]) if isinstance(value, Tensor) else value

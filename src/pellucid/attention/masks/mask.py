"""What a mask is, and the algebra that joins masks.

A mask answers two questions. `sees` says for single (query, key) pairs whether the key is visible.
`spans` says for a range of queries which keys *some* of them see and which keys *every* one of
them sees: keys outside the first are skipped, and inside the second no mask is applied. Both bounds
carry through `&`, `|` and `~` by the algebra of sets, so a combined mask skips as much as its parts
do.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.energies import mapped, tensors_of
from pellucid.attention.intervals import Intervals
from pellucid.attention.masks import checks
from pellucid.attention.masks.checks import Extent
from pellucid.errors import TypeMismatchError

PerItem = int | Tensor
"""One number for all, or an int64 tensor with one per batch item."""


class Spans(NamedTuple):
    """What a range of queries can see."""

    some: Intervals
    """No query of the range sees a key outside these."""
    every: Intervals
    """Every query of the range sees each key in these."""


class Mask:
    """Which query may see which key. Combine with `&`, `|`, `~`; print to read.

    Made by `causal`, `window`, `padding`, `documents`, `prefix` and `dense`. `attention` binds a
    mask to its sizes; the other methods are those of a bound mask.
    """

    batch: int | None = None
    """How many batch items have a mask of their own; None where one rule serves all."""
    offset: PerItem | None = None
    """The key position of query 0, as far as the mask tells."""

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
        """Whether the query sees the key, for int64 positions that broadcast together."""
        raise NotImplementedError

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        """(heads or 1, rows, cols) bool, of a mask of one item."""
        item = torch.zeros((), dtype=torch.int64, device=device)
        head, row, col = (
            torch.arange(part.start, part.stop, device=device) for part in (heads, rows, cols)
        )
        visible = self.sees(item, head[:, None, None], row[:, None], col)
        # broadcast_shapes would import half of torch
        count = len(visible) if visible.ndim == 3 else 1
        return visible.expand(count, len(row), len(col))

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        """What the queries from start up to stop can see, of a mask of one item."""
        raise NotImplementedError

    def breaks(self) -> set[int]:
        """Queries at which the visible keys change abruptly: good places to split."""
        return set()

    def of_rows(self, rows: slice) -> "Mask":
        """The mask of a range of queries, counted from its first, for all items."""
        raise NotImplementedError

    def of_heads(self, heads: slice) -> "Mask":
        """The mask of a range of heads; most masks are the same for all."""
        return self

    def restrict(self, rows: slice, cols: slice, keys: int) -> "Mask | None":
        """The mask of a rectangle, counted from its corner; None where all of it is visible.

        The rectangle must hold a key that the spans of its rows do not rule out.
        """
        mask, spans = self.restrict_with_spans(rows, cols, keys)
        assert intervals.intersection(spans.some, ((cols.start, cols.stop),))
        return mask

    def restrict_with_spans(
        self, rows: slice, cols: slice, keys: int
    ) -> "tuple[Mask | None, Spans]":
        """The mask of a rectangle, None where it is all visible or all hidden; and its rows' spans.

        Found together, so that a combined mask asks each of its parts once.
        """
        spans = self.spans(rows.start, rows.stop, keys)
        return None if _is_uniform(spans, cols) else self.crop(rows, cols), spans

    def crop(self, rows: slice, cols: slice) -> "Mask":
        """The mask of a rectangle, counted from its corner."""
        raise NotImplementedError

    def dense(self, queries: int, keys: int) -> Tensor:
        """Every (query, key) pair as n x n booleans, True where the key may be seen.

        Args:
            queries, keys: how many there are.

        Returns:
            (queries, keys); (batch, 1, queries, keys) where items differ; with a dense mask among
            its parts, the dimensions that has before the last two.

        Raises:
            ShapeError: the mask is for other sizes.
        """
        outer = self.outer_shape()
        device = next((tensor.device for tensor in tensors_of(self)), torch.device("cpu"))
        extent = Extent(torch.Size(outer[:-1]), outer[-1] if outer else 1, queries, keys, device)
        sizes = (extent.batch_shape.numel(), extent.heads, queries, keys)
        positions = [torch.arange(size, device=device) for size in sizes]
        visible = self.bind(extent).sees(*torch.meshgrid(*positions, indexing="ij"))
        return visible.expand(sizes).reshape(*outer, queries, keys)

    def outer_shape(self) -> tuple[int, ...]:
        """The sizes before queries and keys along which the mask differs: (..., heads), or ()."""
        return () if self.batch is None else (self.batch, 1)

    def __eq__(self, other: object) -> bool:
        """Whether both are made of the same rules and numbers, not whether they show the same.

        Of `&` and `|` the order does not matter.
        """
        if type(self) is not type(other):
            return NotImplemented if not isinstance(other, Mask) else False
        ours, theirs = _fields_of(self), _fields_of(other)
        return all(_are_equal(ours[name], theirs[name]) for name in ours)

    def __hash__(self) -> int:
        # Of tensors the sizes, as their numbers may be on a device.
        values = (x.shape if isinstance(x, Tensor) else x for x in _fields_of(self).values())
        return hash((type(self).__name__, *values))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Mask":
        """The mask with each of its tensors replaced by what `change` makes of it."""
        return mapped(self, change)


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
        is_bound = self.visible.ndim == 4 and self.visible.stride(0) != 0
        return len(self.visible) if is_bound and len(self.visible) > 1 else None

    def bind(self, extent: Extent) -> Mask:
        visible = self.visible
        if visible.device != extent.device:
            raise TypeMismatchError(f"mask is on {visible.device} but query is on {extent.device}")
        return Dense(checks.broadcast_to_extent("mask", visible, extent))

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
        return Spans(intervals.runs(rows.any(1).any(0)), intervals.runs(rows.all(1).all(0)))

    def of_rows(self, rows: slice) -> Mask:
        return Dense(self.visible[:, :, rows])

    def of_heads(self, heads: slice) -> Mask:
        return Dense(self.visible[:, heads])

    def crop(self, rows: slice, cols: slice) -> Mask:
        return Dense(self.visible[:, :, rows, cols])


class Combined(Mask):
    """A mask made of other masks."""

    @property
    def parts(self) -> tuple[Mask, ...]:
        return tuple(_fields_of(self).values())

    @property
    def batch(self) -> int | None:  # type: ignore[override]
        return next(filter(None, (part.batch for part in self.parts)), None)

    def bind(self, extent: Extent) -> Mask:
        return self._of_each(lambda part: part.bind(extent))

    def at(self, item: int) -> Mask:
        return self._of_each(lambda part: part.at(item))

    def of_rows(self, rows: slice) -> Mask:
        return self._of_each(lambda part: part.of_rows(rows))

    def of_heads(self, heads: slice) -> Mask:
        return self._of_each(lambda part: part.of_heads(heads))

    def breaks(self) -> set[int]:
        return set().union(*(part.breaks() for part in self.parts))

    def outer_shape(self) -> tuple[int, ...]:
        return tuple(torch.broadcast_shapes(*(part.outer_shape() for part in self.parts)))

    def _of_each(self, change: Callable[[Mask], Mask]) -> Mask:
        return type(self)(*map(change, self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class Pair(Combined):
    """Two masks joined by an operator."""

    left: Mask
    right: Mask

    sign: ClassVar[str]

    @staticmethod
    def join(left: Tensor, right: Tensor, /) -> Tensor:
        """What the pair shows, of what each shows."""
        raise NotImplementedError

    @staticmethod
    def join_intervals(left: Intervals, right: Intervals, /) -> Intervals:
        """The same of sets of keys."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"({self.left} {self.sign} {self.right})"

    @property
    def offset(self) -> PerItem | None:  # type: ignore[override]
        offset = self.left.offset  # read once: each side may be a pair itself
        return self.right.offset if offset is None else offset

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        position = (item, head, query, key)
        return self.join(self.left.sees(*position), self.right.sees(*position))

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        place = (heads, rows, cols, device)
        return self.join(self.left.tile(*place), self.right.tile(*place))

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        queries = (start, stop, keys)
        return self._join_spans(self.left.spans(*queries), self.right.spans(*queries))

    def restrict_with_spans(self, rows: slice, cols: slice, keys: int) -> tuple[Mask | None, Spans]:
        left, left_spans = self.left.restrict_with_spans(rows, cols, keys)
        right, right_spans = self.right.restrict_with_spans(rows, cols, keys)
        spans = self._join_spans(left_spans, right_spans)
        if _is_uniform(spans, cols):
            return None, spans
        # A uniform part that does not decide the rectangle by itself changes nothing in it.
        mixed = [mask for mask in (left, right) if mask is not None]
        return mixed[0] if len(mixed) == 1 else type(self)(*mixed), spans

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Pair):
            return NotImplemented if not isinstance(other, Mask) else False
        return self.parts in (other.parts, other.parts[::-1])

    def __hash__(self) -> int:
        return hash((type(self).__name__, frozenset(self.parts)))

    def _join_spans(self, left: Spans, right: Spans) -> Spans:
        return Spans(*map(self.join_intervals, left, right))


class And(Pair):
    """Visible to both."""

    sign = "&"
    join = staticmethod(operator.and_)
    join_intervals = staticmethod(intervals.intersection)


class Or(Pair):
    """Visible to either."""

    sign = "|"
    join = staticmethod(operator.or_)
    join_intervals = staticmethod(intervals.union)


@dataclass(frozen=True, eq=False, repr=False)
class Not(Combined):
    """Visible where the other mask hides."""

    hidden: Mask

    def __repr__(self) -> str:
        return f"~{self.hidden}"

    def sees(self, item: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ~self.hidden.sees(item, head, query, key)

    def tile(self, heads: slice, rows: slice, cols: slice, device: torch.device) -> Tensor:
        return ~self.hidden.tile(heads, rows, cols, device)

    def spans(self, start: int, stop: int, keys: int) -> Spans:
        return _complement(self.hidden.spans(start, stop, keys), keys)

    def restrict_with_spans(self, rows: slice, cols: slice, keys: int) -> tuple[Mask | None, Spans]:
        hidden, spans = self.hidden.restrict_with_spans(rows, cols, keys)
        return None if hidden is None else Not(hidden), _complement(spans, keys)


def dense(visible: Tensor) -> Mask:
    """Visible where True: any pattern, at the price of the booleans.

    Args:
        visible: bool, broadcasts to (..., heads, queries, keys).
    """
    if not isinstance(visible, Tensor) or visible.dtype != torch.bool:
        raise TypeMismatchError(
            "mask must be a pellucid mask or a bool tensor (True = may be seen), "
            f"got {checks.kind_of(visible)}"
        )
    return Dense(visible)


def as_mask(mask: Mask | Tensor) -> Mask:
    return mask if isinstance(mask, Mask) else dense(mask)


def _is_uniform(spans: Spans, cols: slice) -> bool:
    """Whether all rows see all of these columns, or none of them."""
    if intervals.covers(spans.every, cols.start, cols.stop):
        return True
    return not intervals.intersection(spans.some, ((cols.start, cols.stop),))


def _complement(spans: Spans, keys: int) -> Spans:
    return Spans(*(intervals.complement(span, keys) for span in (spans.every, spans.some)))


def _fields_of(mask: Mask) -> dict[str, Any]:
    """The fields of a mask; of one that is no dataclass its identity alone."""
    instance: Any = mask
    if not is_dataclass(instance):
        return {"id": id(mask)}
    return {field.name: getattr(mask, field.name) for field in fields(instance)}


def _are_equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        same = left.shape == right.shape and left.device == right.device
        return same and bool((left == right).all())
    return not isinstance(left, Tensor) and not isinstance(right, Tensor) and bool(left == right)

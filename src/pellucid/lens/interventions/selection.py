"""What an edit names: heads, items of a batch, positions in a text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError

Chosen = int | slice | Sequence[int] | Tensor | None
"""A number, several, a slice, flags (a bool tensor), or None = all. Negative numbers count from the
end."""
MOST_LISTED = 5


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice along one axis."""

    what: str
    """"head", "query", "key" or "item"."""
    numbers: tuple[int, ...] | None = None
    span: slice | None = None
    met: set[int] = field(default_factory=set, compare=False)
    """Which of the numbers there were, in any call."""

    @classmethod
    def of(cls, what: str, chosen: Any) -> "Selection":
        """A choice as the user has written it.

        Raises:
            TypeMismatchError: it is none of `Chosen`.
            ArgumentError: it chooses nothing.
            ShapeError: flags have more than one axis.
        """
        if chosen is None:
            return cls(what)
        if isinstance(chosen, slice):
            ends = (chosen.start, chosen.stop, chosen.step)
            if not all(end is None or type(end) is int for end in ends) or chosen.step == 0:
                raise TypeMismatchError(f"a slice of {what} numbers needs ints, got {chosen}")
            return cls(what, span=chosen)
        if isinstance(chosen, Tensor) and chosen.dtype == torch.bool:
            if chosen.ndim != 1:
                raise ShapeError(
                    f"flags of {what} numbers must have one axis, got shape {tuple(chosen.shape)}"
                )
            numbers = chosen.nonzero().flatten().tolist()
        elif isinstance(chosen, Tensor) and not chosen.is_floating_point():
            numbers = chosen.flatten().tolist()
        else:
            is_several = isinstance(chosen, Iterable) and not isinstance(chosen, str | Tensor)
            numbers = list(chosen) if is_several else [chosen]
        if not all(isinstance(x, Integral) and not isinstance(x, bool) for x in numbers):
            raise TypeMismatchError(
                f"{what} must be a number, several, a slice, flags, or None = all; got {chosen!r}"
            )
        if not numbers:
            raise ArgumentError(f"an edit of no {what} does nothing; leave it out")
        return cls(what, tuple(dict.fromkeys(map(int, numbers))))

    @property
    def is_all(self) -> bool:
        return self.numbers is None and self.span is None

    def among(self, size: int, of: str) -> list[int]:
        """The chosen numbers along an axis of a size.

        Raises:
            OutOfRangeError: a number is not there; `of` says of what.
        """
        if self.numbers is None:
            return list(range(size)[slice(None) if self.span is None else self.span])
        for number in self.numbers:
            if not -size <= number < size:
                raise OutOfRangeError(
                    f"there is no {self.what} {number} in {of}: it has {size}, numbered from 0"
                )
        return sorted({number % size for number in self.numbers})

    def within(self, start: int, stop: int, total: int) -> Tensor | None:
        """The chosen positions of a text of `total` tokens from start up to stop, less start.

        Returns:
            (n,) int64, ascending; None if they are all.
        """
        if self.numbers is None:
            if self.span is None:
                return None
            every = torch.arange(total)[self._ascending(total)]
            chosen = every[(every >= start) & (every < stop)]
        else:
            numbers = torch.tensor(self.numbers)
            positions = torch.where(numbers < 0, numbers + total, numbers)
            there = (positions >= start) & (positions < stop)
            self.met.update(torch.tensor(self.numbers)[there].tolist())
            chosen = positions[there].unique()
        return chosen - start

    def _ascending(self, total: int) -> slice:
        assert self.span is not None
        positions = range(total)[self.span]
        if not positions:
            return slice(0, 0)
        first, last, step = (
            min(positions[0], positions[-1]),
            max(positions[0], positions[-1]),
            positions.step,
        )
        return slice(first, last + 1, abs(step))

    def never_met(self) -> str:
        """The numbers that no call had, for a message; empty if all were met."""
        left = [number for number in self.numbers or () if number not in self.met]
        more = f" and {len(left) - MOST_LISTED} more" if len(left) > MOST_LISTED else ""
        return ", ".join(map(str, left[:MOST_LISTED])) + more

    def overlaps(self, other: "Selection", *, surely: bool = True) -> bool:
        """Whether both surely choose a number in common, or may do so: -1 may be 5."""
        if self.is_all or other.is_all:
            return True
        ours, theirs = self.known(), other.known()
        if ours is None or theirs is None:
            return not surely
        is_same_end = min(ours, default=0) >= 0 and min(theirs, default=0) >= 0
        return not ours.isdisjoint(theirs) or not (surely or is_same_end)

    def covers(self, other: "Selection") -> bool:
        """Whether it surely chooses every number that another one does."""
        if self.is_all or self == other:
            return True
        if other.is_all:
            return False
        ours, theirs = self.known(), other.known()
        return ours is not None and theirs is not None and theirs <= ours

    def known(self) -> set[int] | None:
        """The numbers, as far as they are known without the size."""
        if self.numbers is not None:
            return set(self.numbers)
        assert self.span is not None
        start, stop = self.span.start or 0, self.span.stop
        if stop is None or start < 0 or stop < 0:
            return None
        return set(range(start, stop)[:: self.span.step or 1])

    def __str__(self) -> str:
        if self.numbers is None:
            if self.span is None:
                return "all"
            ends = ("" if x is None else str(x) for x in (self.span.start, self.span.stop))
            return ":".join(ends)
        if len(self.numbers) == 1:
            return str(self.numbers[0])
        more = ", ..." if len(self.numbers) > MOST_LISTED else ""
        return f"[{', '.join(map(str, self.numbers[:MOST_LISTED]))}{more}]"

"""Calls of Python functions that are still running, told apart from those that came before.

A frame cannot be referred to weakly, and who refers to it keeps its variables alive, a cache among
them. But what hangs on it can: a mark in the place of its trace function, which nobody looks at
unless the program is being traced.
"""

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["RunningCall", "innermost"]


class _Mark:
    """What is freed with a frame."""

    def __call__(self, *_: Any) -> None:
        """Trace nothing."""


@dataclass(frozen=True, slots=True)
class RunningCall:
    """One call of a function."""

    number: int
    """Its frame's, which another frame may have once this one is freed."""
    name: str
    """The function's."""
    alive: Callable[[], object | None]

    @classmethod
    def of(cls, frame: FrameType) -> "RunningCall":
        mark = frame.f_trace
        if mark is None:
            frame.f_trace = mark = _Mark()
        # A debugger has the place: then the frame itself is kept.
        alive = weakref.ref(mark) if isinstance(mark, _Mark) else (lambda: frame)
        return cls(id(frame), frame.f_code.co_name, alive)


def innermost(calls: Sequence[RunningCall]) -> int | None:
    """Which of these calls, innermost first, is the first that is still running on this thread."""
    places = {call.number: place for place, call in reversed(list(enumerate(calls)))}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        place = places.get(id(frame))
        if place is not None and calls[place].alive() is not None:
            return place
        frame = frame.f_back
    return None

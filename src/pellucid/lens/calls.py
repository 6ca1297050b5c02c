"""Calls of Python functions that are still running, told apart from those that came before.

A frame cannot be referred to weakly, and who refers to it keeps its variables alive, a cache among
them. But what hangs on it can: a mark in the place of its trace function, which nobody looks at
unless the program is being traced.
"""

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["RunningCall", "running"]


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

    def is_among(self, numbers: set[int]) -> bool:
        """Whether it is one of the calls that `running` has found."""
        return self.number in numbers and self.alive() is not None


def running() -> set[int]:
    """The numbers of the frames of this thread."""
    found = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found.add(id(frame))
        frame = frame.f_back
    return found

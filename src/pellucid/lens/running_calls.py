"""Whether calls of Python functions are still running.

A frame has no weak references, and a strong one would keep its variables alive, such as a cache.
But an object that hangs on the frame has: a marker in the place of its trace function, which Python
ignores unless the program is being traced.
"""

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["RunningCall", "innermost"]


class _Marker:
    """An object that is freed with its frame."""

    def __call__(self, *_: Any) -> None:
        """Trace nothing."""


@dataclass(frozen=True, slots=True)
class RunningCall:
    """One call of a function."""

    frame_id: int
    """The id of the frame; another frame may have it once this one is freed."""
    name: str
    """The name of the function."""
    alive: Callable[[], object | None]
    """Returns None once the frame is freed."""

    @classmethod
    def of(cls, frame: FrameType) -> "RunningCall":
        marker = frame.f_trace
        if marker is None:
            frame.f_trace = marker = _Marker()
        # If a debugger has set a trace function, the frame itself is kept alive.
        alive = weakref.ref(marker) if isinstance(marker, _Marker) else (lambda: frame)
        return cls(id(frame), frame.f_code.co_name, alive)

    def is_same(self, other: "RunningCall") -> bool:
        """Whether this is a call that is still running, and the same as another one."""
        return self.frame_id == other.frame_id and self.alive() is not None


def innermost(calls: Sequence[RunningCall]) -> int | None:
    """The index of the first of these calls, innermost first, that still runs on this thread."""
    indices = {call.frame_id: index for index, call in reversed(list(enumerate(calls)))}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        index = indices.get(id(frame))
        if index is not None and calls[index].alive() is not None:
            return index
        frame = frame.f_back
    return None

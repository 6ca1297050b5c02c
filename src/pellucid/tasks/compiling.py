"""A word on the terminal while Numba compiles: that takes a while, the first time on a machine."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COMPILING = "compiling the fast step, once on this machine"


@contextmanager
def compilation_named(step: Callable[[str, int, int], None]) -> Iterator[None]:
    """Name the step that goes on, whenever Numba compiles something rather than finds it on disk.

    Args:
        step: told what goes on, how much is done, and of how much.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    try:
        from numba.core import event
    except ImportError:
        yield
        return

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            step(COMPILING, 0, 1)

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield

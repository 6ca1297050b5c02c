"""A progress message while Numba compiles, which takes a while the first time on a machine."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pellucid.layers.background import compiling_in_background

__all__ = ["COMPILING", "compilation_named", "compiling_in_background"]

COMPILING = "compiling the fast decoding step, once on this machine"


@contextmanager
def compilation_named(step: Callable[[str, int, int], None]) -> Iterator[None]:
    """Report each compilation by Numba that is not answered from its disk cache.

    Args:
        step: called with a description, the amount done and the total.
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

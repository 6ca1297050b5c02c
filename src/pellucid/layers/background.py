"""Compiling in another thread, while plain torch does what is to be compiled.

    with compiling_in_background():
        model(ids, cache=cache)     # the first steps run as they would without Numba

The first use of a compiled function takes up to half a minute on a machine whose cache of them is
empty. What is compiled is saved function by function, so that a process that ends meanwhile leaves
the rest to the next.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

WAIT = 1.0
"""Seconds to wait for a function when it is first asked for: it may be in the cache on disk."""

_is_open = ContextVar("compile in the background", default=False)
_lock = threading.Lock()
_jobs: dict[Any, "_Job"] = {}
_waiting: "deque[_Job]" = deque()
_worker: threading.Thread | None = None


@contextmanager
def compiling_in_background() -> Iterator[None]:
    """Within the block, and in its thread alone, go on in plain torch while Numba compiles."""
    token = _is_open.set(True)
    try:
        yield
    finally:
        _is_open.reset(token)


def may_call(function: Any, *arguments: Any) -> bool:
    """Whether to call a compiled function now; if not, it is being compiled for such arguments.

    Args:
        function: of Numba.
        *arguments: what it would be called with.
    """
    if not _is_open.get():
        return True
    kinds = tuple(function.typeof_pyval(argument) for argument in arguments)
    if kinds in function.overloads:
        return True
    with _lock:
        job = _jobs.get((function, kinds))
        is_new = job is None
        if job is None:
            job = _jobs[function, kinds] = _Job(function, kinds)
            _waiting.append(job)
            _start()
    return job.done.wait(WAIT if is_new else 0)


class _Job:
    def __init__(self, function: Any, kinds: tuple[Any, ...]) -> None:
        self.function, self.kinds, self.done = function, kinds, threading.Event()


class _EndedError(BaseException):
    """The program ends; Numba takes any other exception for one of the code that it compiles."""


def _start() -> None:
    global _worker
    if _worker is None:
        # No daemon: such a thread would be cut off inside LLVM.
        _worker = threading.Thread(target=_work, name="compiling", daemon=False)
        _worker.start()


def _work() -> None:
    global _worker
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            is_own = threading.current_thread() is _worker
            if is_own and not threading.main_thread().is_alive():
                raise _EndedError

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        while True:
            with _lock:
                if not _waiting:
                    _worker = None
                    return
                job = _waiting.popleft()
            try:
                job.function.compile(job.kinds)
            except _EndedError:
                return
            except Exception:
                pass
            finally:
                job.done.set()

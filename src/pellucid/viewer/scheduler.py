"""Threads that compute answers, one per pace: slow requests let quick ones go first."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar, get_args

from pellucid.attention.block_pool import between
from pellucid.viewer.requests import Pace

Result = TypeVar("Result")

PACES: tuple[Pace, ...] = get_args(Pace)
"""The most urgent first."""
PATIENCE = 0.002
"""Seconds between checks whether a request may run."""
REST = 0.3
"""Seconds without a request before measuring goes on: pages send requests in quick succession, and
a kernel that has begun takes half the machine."""


class DroppedError(Exception):
    """The request was cancelled."""


class Scheduler:
    """Requests that run or wait."""

    def __init__(self) -> None:
        self._pools = {pace: ThreadPoolExecutor(1, f"pellucid-{pace}") for pace in PACES}
        self._waiting = dict.fromkeys(PACES, 0)
        self._dropped: dict[Future[Any], Event] = {}
        self._last_done = -REST
        self._lock, self._closed = Lock(), Event()

    def submit(self, pace: Pace, call: Callable[[], Result]) -> Future[Result]:
        """Run a call in the thread of its pace."""
        dropped = Event()

        def make() -> Result:
            wait = partial(self._wait, pace, dropped)
            wait()
            with between(wait):
                return call()

        def done(future: Future[Result]) -> None:
            with self._lock:
                self._waiting[pace] -= 1
                if pace != "measuring":
                    self._last_done = time.monotonic()
                self._dropped.pop(future, None)

        with self._lock:
            self._waiting[pace] += 1  # before it may begin
            future = self._pools[pace].submit(make)
            self._dropped[future] = dropped
        future.add_done_callback(done)
        return future

    def drop(self, future: Future[Result]) -> None:
        """Cancel a request: it does not begin, or stops before its next block."""
        future.cancel()
        with self._lock:
            dropped = self._dropped.get(future)
        if dropped is not None:
            dropped.set()

    def close(self) -> None:
        """Start nothing more, and stop what is running."""
        self._closed.set()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self, pace: Pace, dropped: Event) -> None:
        """Wait until this pace may run. Measuring is never dropped: it serves the next request."""
        first = PACES[: PACES.index(pace)]
        while True:
            if self._closed.is_set() or (dropped.is_set() and pace != "measuring"):
                raise DroppedError("the request was cancelled")
            is_quiet = pace != "measuring" or time.monotonic() - self._last_done >= REST
            if is_quiet and not any(self._waiting[other] for other in first):
                return
            time.sleep(PATIENCE)

"""Threads that find answers, one a pace: what takes long lets what is soon done go first."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar, get_args

from pellucid.attention.block_pool import between
from pellucid.viewer.api import Pace

Result = TypeVar("Result")

PACES: tuple[Pace, ...] = get_args(Pace)
"""Those that go first come first."""
PATIENCE = 0.002
"""Seconds between looks whether it is one's turn."""
REST = 0.3
"""Seconds without another question before measuring goes on: pages ask one thing after another,
and a pass of a kernel, once begun, takes half the machine."""


class DroppedError(Exception):
    """Nobody waits for the answer any more."""


class Scheduler:
    """Answers in the making."""

    def __init__(self) -> None:
        self._pools = {pace: ThreadPoolExecutor(1, f"pellucid-{pace}") for pace in PACES}
        self._waiting = dict.fromkeys(PACES, 0)
        self._dropped: dict[Future[Any], Event] = {}
        self._last_done = -REST
        self._lock, self._closed = Lock(), Event()

    def submit(self, pace: Pace, call: Callable[[], Result]) -> Future[Result]:
        """What a call gives, made in the thread of its pace."""
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
        """Nobody waits for this any more: it is not begun, or stops before its next block."""
        future.cancel()
        with self._lock:
            dropped = self._dropped.get(future)
        if dropped is not None:
            dropped.set()

    def close(self) -> None:
        """Begin nothing more, and stop what is at work."""
        self._closed.set()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self, pace: Pace, dropped: Event) -> None:
        """Until it is the turn of this pace. What is measured serves whoever asks next."""
        first = PACES[: PACES.index(pace)]
        while True:
            if self._closed.is_set() or (dropped.is_set() and pace != "measuring"):
                raise DroppedError("nobody waits for this any more")
            is_quiet = pace != "measuring" or time.monotonic() - self._last_done >= REST
            if is_quiet and not any(self._waiting[other] for other in first):
                return
            time.sleep(PATIENCE)

"""Timing beside a peer on a noisy machine, and peak memory in a process of its own."""

import ctypes
import gc
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection

Call = Callable[[], object]

clock = time.perf_counter
"""What seconds are read from; `time.process_time` on a machine that others keep busy."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One call beside its peer, both in seconds."""

    ours: float
    peer: float
    ratio: float
    """The median over rounds of ours / peer, each taken within one round."""


def seconds(
    call: Call, repeat: int, synchronize: Call, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The mean time of one of `repeat` calls in a row."""
    synchronize()
    start = clock()
    for _ in range(repeat):
        call()
    synchronize()
    return (clock() - start) / repeat


def processor_seconds(call: Call, repeat: int = 5) -> float:
    """The least processor time of this process that a call took, however many others run."""
    spent = []
    for _ in range(repeat):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return min(spent)


def beside(
    calls: Mapping[str, Call],
    peer: Call,
    *,
    synchronize: Call = lambda: None,
    budget: float = 3.0,
    least: int = 3,
    most: int = 300,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Comparison]:
    """Each call between two calls of its peer: peer, a, peer, b, peer, a, peer, b, peer ...

    A machine that slows down for a while slows both, so the ratio is taken to the mean of the two
    neighbours, and the median of the ratios is reported. Short calls are repeated within a sample
    to last a few milliseconds. There are as many rounds as fit the `budget` in seconds, between
    `least` and `most`, after one that warms up and is thrown away.
    """
    for call in (peer, *calls.values()):
        call()
    once = {id(call): seconds(call, 1, synchronize, clock) for call in (peer, *calls.values())}
    repeats = {call: max(1, round(0.003 / max(time, 1e-6))) for call, time in once.items()}
    round_time = sum(
        once[id(call)] * repeats[id(call)] + once[id(peer)] * repeats[id(peer)]
        for call in calls.values()
    )
    rounds = min(most, max(least, round(budget / round_time)))

    peers = [seconds(peer, repeats[id(peer)], synchronize, clock)]
    ours: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            ours[name].append(seconds(call, repeats[id(call)], synchronize, clock))
            peers.append(seconds(peer, repeats[id(peer)], synchronize, clock))

    neighbours = [(before + after) / 2 for before, after in pairwise(peers)]
    found = {}
    for index, (name, samples) in enumerate(ours.items()):
        beside_it = neighbours[index :: len(calls)]
        found[name] = Comparison(
            ours=statistics.median(samples),
            peer=statistics.median(beside_it),
            ratio=statistics.median(a / b for a, b in zip(samples, beside_it, strict=True)),
        )
    return found


class Elsewhere:
    """A call that is made in a process of its own, with that one's memory and settings."""

    def __init__(self, make: Callable[[], Call]) -> None:
        spawned = multiprocessing.get_context("spawn")
        self.pipe, there = spawned.Pipe()
        spawned.Process(target=_serve, args=(make, there), daemon=True).start()

    def __call__(self) -> object:
        self.pipe.send(None)
        return self.pipe.recv()


def _serve(make: Callable[[], Call], pipe: Connection) -> None:
    call = make()
    with suppress(EOFError):  # who asked is gone
        while True:
            pipe.recv()
            pipe.send(call())


def printed_by(code: str) -> float:
    """The number that a fresh Python process prints when it runs `code`."""
    [number] = all_printed_by(code)
    return number


def all_printed_by(code: str, **environment: str) -> list[float]:
    """The numbers that a fresh Python process prints when it runs `code`."""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return [float(word) for word in ran.stdout.split()]


def import_seconds(statement: str) -> float:
    """How long `statement` takes in a fresh process, without the start of Python itself."""
    return printed_by(
        f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    )


def release() -> None:
    """Give memory that is free, but kept for later, back to the system (glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """The most resident memory of this process in bytes since entering the block, over what it
    had then, by the kernel's own high-water mark (Linux; `extra` is set on leaving the block).
    """

    extra: int

    def __enter__(self) -> "PeakMemory":
        with open("/proc/self/clear_refs", "w") as marks:
            marks.write("5")  # the high-water mark starts again from what is resident now
        self._before = _high_water_mark()
        return self

    @property
    def so_far(self) -> int:
        """The same inside the block."""
        return _high_water_mark() - self._before

    def __exit__(self, *_: object) -> None:
        self.extra = self.so_far


def _high_water_mark() -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

"""Each family in a process of its own, forked from one that has loaded transformers already."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from benchmarks.families.comparing import NOT_BUILT

PRELOADED = ["benchmarks.families.examining"]
LONGEST = 60
"""Seconds of computing that a family may take."""
PATIENCE = 10
"""How many times as long it may take on a machine that is busy with other things."""

TOO_LONG = f"took longer than {LONGEST} s"

Done = Callable[[str, list[dict[str, Any]]], None]


@dataclass(eq=False)
class _Worker:
    family: str
    process: BaseProcess
    pipe: Connection
    deadline: float
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def is_over(self) -> bool:
        """Take what has come, and say whether that is all."""
        while self.pipe.poll():
            try:
                said = self.pipe.recv()
            except EOFError:
                self.process.join()
                late = self.process.exitcode == -signal.SIGXCPU
                self._lost(TOO_LONG if late else "its process died")
                return True
            if said is None:
                return True
            self.outcomes.append(said)
        if time.monotonic() > self.deadline:
            self.process.kill()
            self._lost(TOO_LONG)
            return True
        return False

    def _lost(self, reason: str) -> None:
        self.outcomes.append(lost(self.family, reason))


def lost(family: str, reason: str) -> dict[str, Any]:
    from benchmarks.families.examining import Outcome

    return asdict(Outcome(family, "", "", NOT_BUILT, reasons=[reason]))


def run(families: Iterable[str], jobs: int, done: Done) -> None:
    """Examine families, `jobs` at a time, and hand on the outcomes of each as it is over."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    waiting, running = list(families), list[_Worker]()
    while waiting or running:
        while waiting and len(running) < jobs:
            family = waiting.pop(0)
            pipe, theirs = server.Pipe(duplex=False)
            process = server.Process(target=_examine, args=(family, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append(_Worker(family, process, pipe, time.monotonic() + LONGEST * PATIENCE))
        wait([worker.pipe for worker in running], timeout=1.0)
        for worker in list(running):
            if worker.is_over():
                running.remove(worker)
                worker.process.join()
                done(worker.family, worker.outcomes)


def _examine(family: str, pipe: Connection) -> None:
    import warnings

    from benchmarks.families.examining import examined

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST + 5))
    for outcome in examined(family):
        pipe.send(outcome)
    pipe.send(None)

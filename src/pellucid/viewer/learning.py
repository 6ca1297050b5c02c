"""The stations of `pellucid learn` for the page, and the race of two models that is run there."""

import json
import time
from collections.abc import Iterator
from dataclasses import astuple
from functools import cache
from threading import Lock
from typing import Any

from pellucid.errors import OutOfRangeError
from pellucid.lessons import stations
from pellucid.lessons.notebook import to_notebook
from pellucid.lessons.scaling_training import TrainingComparison, TrainingStep, train_both
from pellucid.lessons.slides import to_slides
from pellucid.viewer.lesson import as_json

RACE = 300
"""Steps of a race; where d_k is below LEAST, both models learn slowly, and take more of them."""
LEAST = 32
MORE = 3
"""How many times as many."""
TURN = 0.3
"""Seconds that one answer trains for, at least one step."""


def length(d_k: int) -> int:
    """The steps of a race with keys of this size."""
    return RACE if d_k >= LEAST else MORE * RACE


def path() -> dict[str, Any]:
    """The names and titles of all stations, in order."""
    named = [{"name": name, "title": title} for name, title in stations.STATIONS.items()]
    return {"stations": named}


def station(number: int) -> dict[str, Any]:
    """All of one station, as `stations.to_json` gives it; lessons as the page reads them.

    Raises:
        OutOfRangeError: there is no such station.
    """
    stop = _station(number)
    read: dict[str, Any] = json.loads(stations.to_json(stop))
    for shown, of in ((read, stop), (read["change"], stop.change)):
        if of.lesson is not None:
            shown["lesson"] = as_json(of.lesson)
            del shown["walk"]  # the page works it out itself
    return read


def station_file(number: int, kind: str) -> dict[str, Any]:
    """A station as a file: a "notebook" or "slides".

    Raises:
        OutOfRangeError: there is no such station.
    """
    stop = _station(number)
    write, ending = {"notebook": (to_notebook, "ipynb"), "slides": (to_slides, "html")}[kind]
    return {"name": f"{stop.name}.{ending}", "text": write(stop)}


@cache
def _station(number: int) -> stations.Station:
    if not 0 <= number < len(stations.STATIONS):
        last = len(stations.STATIONS) - 1
        raise OutOfRangeError(f"there is no station {number}; there are 0 to {last}")
    return stations.station(str(number + 1))


class Race:
    """Two models side by side, one of which does not divide its scores; one race at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._of: tuple[int, int] | None = None
        self._steps: list[tuple[TrainingStep, TrainingStep]] = []
        self._rest: Iterator[tuple[TrainingStep, TrainingStep]] = iter(())

    def steps(self, d_k: int, seed: int, first: int) -> dict[str, Any]:
        """The steps from `first` on, as far as they go in a moment.

        Each step holds loss, entropy, largest logit and right answers, of the model that divides
        and of the other. The last answer has a sentence too.
        """
        with self._lock:
            if self._of != (d_k, seed):
                self._of, self._steps = (d_k, seed), []
                self._rest = train_both(d_k, steps=length(d_k), seed=seed)
            end = time.monotonic() + TURN
            for pair in self._rest:
                self._steps.append(pair)
                if time.monotonic() > end:
                    break
            taken = list(self._steps)
        sentence = None
        if len(taken) == length(d_k):
            scaled, unscaled = zip(*taken, strict=True)
            sentence = TrainingComparison(
                d_k=d_k, seed=seed, learning_rate=1e-3, scaled=scaled, unscaled=unscaled
            ).sentence()
        steps = [[astuple(step) for step in pair] for pair in taken[first:]]
        return {"steps": steps, "of": length(d_k), "sentence": sentence}

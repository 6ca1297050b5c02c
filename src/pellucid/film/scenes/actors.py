"""Marks that are being made: actors, who are told where to be; and rows of them."""

from dataclasses import replace
from typing import Any

from pellucid.film.script import Scene
from pellucid.film.shapes import Mark, Pose
from pellucid.film.style import Layout

FADE = 0.35
"""Seconds in which something comes or goes."""
MOVE = 0.8
STEP = 0.09
"""Seconds between one row and the next, where they come one by one."""


class Actor:
    """A mark that is being made: it is told where to be, forward in time."""

    def __init__(self, fixed: dict[str, Any], pose: Pose, fade: float) -> None:
        self.fixed = fixed
        self.poses = [replace(pose, alpha=0.0), replace(pose, t=pose.t + fade)]

    @property
    def now(self) -> Pose:
        return self.poses[-1]

    def move(self, t: float, seconds: float = MOVE, **changes: Any) -> "Actor":
        t = max(t, self.now.t)
        self.poses += [replace(self.now, t=t), replace(self.now, t=t + seconds, **changes)]
        return self

    def leave(self, t: float, seconds: float = FADE) -> None:
        if self.now.alpha:
            self.move(t, seconds, alpha=0.0)

    def mark(self, end: float) -> Mark:
        poses = [*self.poses, replace(self.now, t=max(end, self.now.t))]
        return Mark(poses=tuple(poses), **self.fixed)


class Rows:
    """The keys of one query, a row each, and what stands in it."""

    def __init__(self, scene: Scene, at: Layout) -> None:
        self.scene, self.at = scene, at
        self.count = len(scene.keys) + (scene.rest is not None)
        top, bottom = at.rows
        self.high = min(at.row, (bottom - top) / self.count)
        self.top = top + (bottom - top - self.high * self.count) / 2
        self.labels: list[Actor] = []
        self.plain: list[list[Actor]] = []
        self.keys: list[list[Actor]] = []
        self.values: list[list[Actor]] = []
        self.bars: list[Actor] = []
        self.numbers: list[Actor | None] = [None] * self.count
        self.query: list[Actor] = []
        self.others: list[Actor] = []

    def middle(self, row: int) -> float:
        return self.top + self.high * (row + 0.5)

    @property
    def bottom(self) -> float:
        return self.top + self.high * self.count

    @property
    def cell(self) -> float:
        """How high a vector is."""
        return min(0.62 * self.high, 54.0)

    def everything(self) -> list[Actor]:
        parts = [*self.labels, *self.bars, *self.query, *self.others]
        parts += [number for number in self.numbers if number is not None]
        for group in (self.plain, self.keys, self.values):
            parts += [actor for row in group for actor in row]
        return parts

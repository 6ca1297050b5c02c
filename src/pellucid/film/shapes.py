"""What is drawn: marks that move between poses, in pixels and seconds. Plain data."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from pellucid.common.colours import Colour
from pellucid.film.numbers import Number
from pellucid.film.style import mixed

FAINTEST = 1 / 255
"""What is less opaque is not there."""
Shape = Literal["text", "box", "cells", "arc", "curve", "hatch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where a mark is and how it looks, at one time."""

    t: float
    x: float
    """Of text, where its `align` says; of all others the left side."""
    y: float
    """Of text the baseline; of all others the top."""
    w: float = 0.0
    h: float = 0.0
    """Of text the size of its letters; of an arc how far it bends up, of a curve how far down it
    ends."""
    alpha: float = 1.0
    grown: float = 1.0
    """How much of it there is, from 0 to 1: of an arc from its beginning."""
    colour: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """What is said when a mark appears."""

    scene: int
    line: str
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing in the picture, there from its first pose to its last."""

    shape: Shape
    poses: tuple[Pose, ...]
    text: str = ""
    weight: int = 400
    align: float = 0.0
    """Of text: 0 = x is its left side, 0.5 its middle, 1 its right."""
    width: float = 0.0
    """Of text: how wide it is at size 1."""
    values: tuple[float, ...] = ()
    """Of cells: numbers from -1 to 1, a cell each."""
    under: Colour = (0, 0, 0)
    """Of cells: what the numbers stand on."""
    radius: float = 0.0
    line: float = 0.0
    """Of boxes and arcs: how thick the line is; 0 fills."""
    number: Number | None = None
    """What a text shows, where that is a number."""
    cue: Cue | None = None

    @property
    def start(self) -> float:
        return self.poses[0].t

    @property
    def end(self) -> float:
        return self.poses[-1].t

    def at(self, t: float) -> Pose | None:
        """How it is at a time; None where it is not to be seen."""
        poses = self.poses
        if not poses[0].t <= t < poses[-1].t:
            return None
        place = bisect_right(poses, t, key=lambda pose: pose.t) - 1
        before, after = poses[place], poses[min(place + 1, len(poses) - 1)]
        if same(before, after):
            return None if before.alpha == 0 else before
        part = ease((t - before.t) / (after.t - before.t))
        alpha = before.alpha + (after.alpha - before.alpha) * part
        if alpha < FAINTEST:
            return None
        return Pose(
            t=t,
            x=before.x + (after.x - before.x) * part,
            y=before.y + (after.y - before.y) * part,
            w=before.w + (after.w - before.w) * part,
            h=before.h + (after.h - before.h) * part,
            alpha=alpha,
            grown=before.grown + (after.grown - before.grown) * part,
            colour=mixed(before.colour, after.colour, part),
        )

    def still_until(self, t: float) -> float:
        """Up to when it stays as it is at a time; that time itself where it moves."""
        poses = self.poses
        if t < poses[0].t:
            return poses[0].t
        if t >= poses[-1].t:
            return math.inf
        place = bisect_right(poses, t, key=lambda pose: pose.t)
        return poses[place].t if same(poses[place - 1], poses[place]) else t

    def box(self, pose: Pose) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what a pose covers."""
        if self.shape == "text":
            wide = self.width * pose.h
            left = pose.x - self.align * wide
            return left, pose.y - 0.76 * pose.h, left + wide, pose.y + 0.22 * pose.h
        if self.shape == "arc":
            left, right = sorted((pose.x, pose.x + pose.w))
            edge = self.line
            return (
                left - edge,
                pose.y - abs(pose.h) - edge,
                right + edge,
                pose.y + abs(pose.h) + edge,
            )
        left, right = sorted((pose.x, pose.x + pose.w))
        top, bottom = sorted((pose.y, pose.y + pose.h))
        return left - self.line, top - self.line, right + self.line, bottom + self.line


def same(first: Pose, second: Pose) -> bool:
    return first is second or (
        first.x == second.x
        and first.y == second.y
        and first.w == second.w
        and first.h == second.h
        and first.alpha == second.alpha
        and first.grown == second.grown
        and first.colour == second.colour
    )


def ease(part: float) -> float:
    """Slow, fast, slow: from 0 to 1 with no jolt at either end."""
    return part * part * part * (part * (6 * part - 15) + 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All marks of a film, those behind first."""

    width: int
    height: int
    paper: Colour
    seconds: float
    marks: tuple[Mark, ...]

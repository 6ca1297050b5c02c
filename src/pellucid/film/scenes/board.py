"""The board: what all scenes put their marks on, and what each of them has."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pellucid.common.colours import Colour
from pellucid.common.wording import short
from pellucid.film.attention_narration import WRITTEN_CELLS
from pellucid.film.numbers import Number
from pellucid.film.scenes.actors import FADE, Actor, Rows
from pellucid.film.script import Line, Scene, Script
from pellucid.film.shapes import Cue, Mark, Picture, Pose
from pellucid.film.style import Look, layout_for, mixed

Measure = Callable[[str, int], float]
"""How wide a text of a weight is at size 1."""


class Board:
    """The picture of a script as far as it is made. All places are in units of `style.Layout`."""

    def __init__(self, script: Script, measure: Measure, size: tuple[int, int], look: Look) -> None:
        """An empty picture.

        Args:
            script: with times.
            measure: of the font that it is drawn with.
            size: width and height in pixels.
            look: its colours.
        """
        self.script, self.measure, self.look, self.size = script, measure, look, size
        self.at = layout_for(*size)
        self.actors: list[Actor] = []
        self.scene, self.number = script.scenes[0], 0
        """The scene that is being made."""
        self.rows: Rows | None = None
        """The keys that stand there, with what belongs to them."""
        self.axis = (0.0, 1.0)
        """Where a score of zero stands, and units a score."""
        self.words: list[Actor] = []
        """The sentence in small, on top."""
        self._header: list[Actor] = []

    def clear(self, t: float) -> None:
        """The rows leave."""
        if self.rows is not None:
            for actor in dict.fromkeys(self.rows.everything()):
                actor.leave(t - FADE)
            self.rows = None

    def picture(self) -> Picture:
        """What was made, in pixels."""
        end = self.script.until + 1.0
        return Picture(
            width=self.size[0],
            height=self.size[1],
            paper=self.look.paper,
            seconds=self.script.until,
            marks=tuple(self._placed(actor.mark(end)) for actor in self.actors),
        )

    def _placed(self, mark: Mark) -> Mark:
        """From units to pixels; a picture of other proportions has them in its middle."""
        unit = min(self.size[0] / self.at.wide, self.size[1] / self.at.high)
        left = (self.size[0] - self.at.wide * unit) / 2
        top = (self.size[1] - self.at.high * unit) / 2
        poses = tuple(
            replace(
                pose,
                x=left + pose.x * unit,
                y=top + pose.y * unit,
                w=pose.w * unit,
                h=pose.h * unit,
            )
            for pose in mark.poses
        )
        return replace(mark, poses=poses, radius=mark.radius * unit, line=mark.line * unit)

    def add(self, shape: str, t: float, x: float, y: float, **more: Any) -> Actor:
        fade = more.pop("fade", FADE)
        pose = {
            name: more.pop(name) for name in ("w", "h", "alpha", "grown", "colour") if name in more
        }
        pose.setdefault("colour", self.look.ink)
        actor = Actor({"shape": shape, **more}, Pose(t=t, x=x, y=y, **pose), fade)
        self.actors.append(actor)
        return actor

    def text(
        self,
        text: str,
        t: float,
        x: float,
        y: float,
        size: float,
        *,
        weight: int = 400,
        align: float = 0.0,
        room: float = math.inf,
        **more: Any,
    ) -> Actor:
        """A text, made smaller and then shorter where it has not enough room."""
        wide = self.measure(text, weight)
        if wide * size > room:
            size = max(0.72 * size, room / wide)
            while len(text) > 2 and self.measure(text, weight) * size > room:
                text = short(text, len(text) - 1)
            wide = self.measure(text, weight)
        return self.add(
            "text", t, x, y, h=size, text=text, weight=weight, align=align, width=wide, **more
        )

    def figure(
        self,
        number: Number,
        t: float,
        x: float,
        y: float,
        size: float,
        *,
        cue: Cue | None = None,
        **more: Any,
    ) -> Actor:
        return self.text(number.text, t, x, y, size, number=number, cue=cue, **more)

    def cue(self, line: str, part: str = "") -> Cue | None:
        return Cue(scene=self.number, line=line, part=part) if self.scene.line(line) else None

    def vector(
        self,
        numbers: Sequence[Number],
        t: float,
        x: float,
        y: float,
        wide: float,
        high: float,
        role: Colour,
        largest: float,
    ) -> list[Actor]:
        """A vector: written out if it is short, else a bar for each number. y is its middle."""
        under = mixed(self.look.panel, role, 0.08)
        if not numbers:  # nothing is known of them: plain tiles
            tiles = self.add(
                "cells",
                t,
                x,
                y - high / 2,
                w=wide,
                h=high,
                values=(0.0,) * 8,
                under=mixed(self.look.panel, role, 0.25),
                colour=role,
                radius=6,
            )
            return [tiles]
        written = len(numbers) <= WRITTEN_CELLS
        values = tuple(0.0 if written else number.value / largest for number in numbers)
        actors = [
            self.add(
                "cells",
                t,
                x,
                y - high / 2,
                w=wide,
                h=high,
                values=values,
                colour=role,
                under=mixed(self.look.paper, role, 0.16) if written else under,
                radius=6,
            )
        ]
        if written:
            room = wide / len(numbers)
            size = min(0.5 * high, 27.0)
            for place, number in enumerate(numbers):
                actors.append(
                    self.figure(
                        number,
                        t + 0.15,
                        x + room * (place + 0.5),
                        y + 0.36 * size,
                        size,
                        align=0.5,
                        room=room - 10,
                        colour=self.look.ink,
                    )
                )
        return actors

    def largest(self, names: str) -> float:
        """The largest number of the vectors of a scene, for those that are drawn as bars."""
        magnitudes = [
            abs(number.value)
            for name, row in self.scene.numbers.items()
            if name.split(".")[0] in names
            for number in row
        ]
        return max(magnitudes, default=1.0) or 1.0

    def head(self, scene: Scene) -> None:
        at = scene.at
        for actor in self._header:
            actor.leave(at - FADE)
        self._header = []
        if not scene.title or scene.name == "opening":
            return
        layout, look = self.at, self.look
        self._header.append(
            self.text(
                scene.title,
                at + 0.02,
                layout.margin,
                layout.header,
                44,
                weight=600,
                room=0.45 * layout.wide if layout.is_wide else layout.wide - 2 * layout.margin,
            )
        )
        if scene.formula:
            beside = layout.is_wide
            self._header.append(
                self.text(
                    scene.formula,
                    at + 0.02,
                    layout.wide - layout.margin if beside else layout.margin,
                    layout.formula,
                    32,
                    align=1.0 if beside else 0.0,
                    colour=look.soft,
                    room=layout.wide / 2 - 140 if beside else layout.wide - 2 * layout.margin,
                )
            )

    def caption(self, line: Line) -> None:
        """What is said, below, in at most two lines at a time."""
        size = 34 if self.at.is_wide else 36
        room = (self.at.wide - 2 * self.at.margin) / size
        shown = pages(line.text, room, self.measure)
        letters = sum(len(row) for page in shown for row in page)
        t = line.at
        for page in shown:
            until = t + (line.until - line.at) * sum(map(len, page)) / letters
            for number, row in enumerate(reversed(page)):
                self.text(
                    row,
                    t,
                    self.at.wide / 2,
                    self.at.caption - 1.35 * size * number,
                    size,
                    align=0.5,
                    colour=self.look.soft,
                    fade=0.1,
                ).leave(until, 0.1)
            t = until + 0.1


def broken(text: str, room: float, measure: Measure, weight: int = 400) -> list[str]:
    """A text broken between words into lines of a width at size 1."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and measure(longer, weight) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def pages(text: str, room: float, measure: Measure) -> list[list[str]]:
    """The same, two lines at a time."""
    lines = broken(text, room, measure)
    return [lines[place : place + 2] for place in range(0, len(lines), 2)]

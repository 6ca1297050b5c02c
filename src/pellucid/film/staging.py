"""Where everything stands and how it moves: the picture of a script with times.

A scene's numbers come in when they are said. What stays from one scene to the next stays where it
is: a film is one picture that changes, not a row of slides.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pellucid.common import colours
from pellucid.common.colours import Colour
from pellucid.common.wording import short
from pellucid.film.looks import LOOKS, Look, Places, Theme, mixed, places
from pellucid.film.marks import Cue, Mark, Picture, Pose
from pellucid.film.numbers import Number
from pellucid.film.script import Line, Scene, Script
from pellucid.film.spelling import clean, is_word
from pellucid.film.writing import WRITTEN_CELLS

Measure = Callable[[str, int], float]
"""How wide a text of a weight is at size 1."""
FADE = 0.35
"""Seconds in which something comes or goes."""
MOVE = 0.8
STEP = 0.09
"""Seconds between one row and the next, where they come one by one."""


def stage(
    script: Script,
    measure: Measure,
    *,
    size: tuple[int, int],
    theme: Theme = "light",
    captions: bool = False,
) -> Picture:
    """The picture of a script.

    Args:
        script: with times.
        measure: of the font that it is drawn with.
        size: width and height in pixels.
        theme: its colours.
        captions: write what is said below, for films without sound.
    """
    return _Stage(script, measure, size, LOOKS[theme], captions).picture()


class _Actor:
    """A mark that is being made: it is told where to be, forward in time."""

    def __init__(self, fixed: dict[str, Any], pose: Pose, fade: float) -> None:
        self.fixed = fixed
        self.poses = [replace(pose, alpha=0.0), replace(pose, t=pose.t + fade)]

    @property
    def now(self) -> Pose:
        return self.poses[-1]

    def move(self, t: float, seconds: float = MOVE, **changes: Any) -> "_Actor":
        t = max(t, self.now.t)
        self.poses += [replace(self.now, t=t), replace(self.now, t=t + seconds, **changes)]
        return self

    def leave(self, t: float, seconds: float = FADE) -> None:
        if self.now.alpha:
            self.move(t, seconds, alpha=0.0)

    def mark(self, end: float) -> Mark:
        poses = [*self.poses, replace(self.now, t=max(end, self.now.t))]
        return Mark(poses=tuple(poses), **self.fixed)


class _Rows:
    """The keys of one query, a row each, and what stands in it."""

    def __init__(self, scene: Scene, at: Places) -> None:
        self.scene, self.at = scene, at
        self.count = len(scene.keys) + (scene.rest is not None)
        top, bottom = at.rows
        self.high = min(at.row, (bottom - top) / self.count)
        self.top = top + (bottom - top - self.high * self.count) / 2
        self.labels: list[_Actor] = []
        self.plain: list[list[_Actor]] = []
        self.keys: list[list[_Actor]] = []
        self.values: list[list[_Actor]] = []
        self.bars: list[_Actor] = []
        self.numbers: list[_Actor | None] = [None] * self.count
        self.query: list[_Actor] = []
        self.others: list[_Actor] = []

    def middle(self, row: int) -> float:
        return self.top + self.high * (row + 0.5)

    @property
    def bottom(self) -> float:
        return self.top + self.high * self.count

    @property
    def cell(self) -> float:
        """How high a vector is."""
        return min(0.62 * self.high, 54.0)

    def everything(self) -> list[_Actor]:
        parts = [*self.labels, *self.bars, *self.query, *self.others]
        parts += [one for one in self.numbers if one is not None]
        for group in (self.plain, self.keys, self.values):
            parts += [actor for row in group for actor in row]
        return parts


class _Stage:
    def __init__(
        self, script: Script, measure: Measure, size: tuple[int, int], look: Look, captions: bool
    ) -> None:
        self.script, self.measure, self.look, self.captions = script, measure, look, captions
        self.size, self.at = size, places(*size)
        self.unit = min(size[0] / self.at.wide, size[1] / self.at.high)
        # What is not as wide or high as the places are made for stands in the middle.
        self.left = (size[0] - self.at.wide * self.unit) / 2
        self.top = (size[1] - self.at.high * self.unit) / 2
        self.actors: list[_Actor] = []
        self.rows: _Rows | None = None
        self.header: list[_Actor] = []
        self.words: list[_Actor] = []
        self.scene = script.scenes[0]

    def picture(self) -> Picture:
        for number, scene in enumerate(self.script.scenes):
            self.scene, self.number = scene, number
            self._head(scene)
            getattr(self, f"_{scene.name}")(scene)
        if self.captions:
            for line in self.script.lines:
                self._caption(line)
        end = self.script.until + 1.0
        marks = (actor.mark(end) for actor in self.actors)
        return Picture(
            width=self.size[0],
            height=self.size[1],
            paper=self.look.paper,
            seconds=self.script.until,
            marks=tuple(self._placed(mark) for mark in marks),
        )

    def _placed(self, mark: Mark) -> Mark:
        """From units to pixels."""
        unit = self.unit
        poses = tuple(
            replace(
                pose,
                x=self.left + pose.x * unit,
                y=self.top + pose.y * unit,
                w=pose.w * unit,
                h=pose.h * unit,
            )
            for pose in mark.poses
        )
        return replace(mark, poses=poses, radius=mark.radius * unit, line=mark.line * unit)

    # Parts

    def _add(self, shape: str, t: float, x: float, y: float, **more: Any) -> _Actor:
        fade = more.pop("fade", FADE)
        pose = {name: more.pop(name) for name in ("w", "h", "alpha", "grown", "colour") if name in more}
        pose.setdefault("colour", self.look.ink)
        actor = _Actor({"shape": shape, **more}, Pose(t=t, x=x, y=y, **pose), fade)
        self.actors.append(actor)
        return actor

    def _text(
        self, text: str, t: float, x: float, y: float, size: float, *, weight: int = 400,
        align: float = 0.0, room: float = math.inf, **more: Any,
    ) -> _Actor:  # fmt: skip
        """A text, made smaller and then shorter where it has not enough room."""
        wide = self.measure(text, weight)
        if wide * size > room:
            size = max(0.72 * size, room / wide)
            while len(text) > 2 and self.measure(text, weight) * size > room:
                text = short(text, len(text) - 1)
            wide = self.measure(text, weight)
        return self._add("text", t, x, y, h=size, text=text, weight=weight, align=align, width=wide, **more)

    def _figure(
        self, number: Number, t: float, x: float, y: float, size: float, *, cue: Cue | None = None,
        **more: Any,
    ) -> _Actor:  # fmt: skip
        return self._text(number.text, t, x, y, size, number=number, cue=cue, **more)

    def _cue(self, line: str, part: str = "") -> Cue | None:
        return Cue(scene=self.number, line=line, part=part) if self.scene.line(line) else None

    def _vector(
        self, numbers: Sequence[Number], t: float, x: float, y: float, wide: float, high: float,
        role: Colour, largest: float,
    ) -> list[_Actor]:  # fmt: skip
        """A vector: written out if it is short, else a bar for each number. y is its middle."""
        under = mixed(self.look.panel, role, 0.08)
        if not numbers:  # nothing is known of them: plain tiles
            tiles = self._add("cells", t, x, y - high / 2, w=wide, h=high, values=(0.0,) * 8,
                              under=mixed(self.look.panel, role, 0.25), colour=role, radius=6)  # fmt: skip
            return [tiles]
        written = len(numbers) <= WRITTEN_CELLS
        values = tuple(0.0 if written else number.value / largest for number in numbers)
        actors = [
            self._add("cells", t, x, y - high / 2, w=wide, h=high, values=values, colour=role,
                      under=mixed(self.look.paper, role, 0.16) if written else under, radius=6)  # fmt: skip
        ]
        if written:
            room = wide / len(numbers)
            size = min(0.5 * high, 27.0)
            for place, number in enumerate(numbers):
                actors.append(
                    self._figure(number, t + 0.15, x + room * (place + 0.5), y + 0.36 * size, size,
                                 align=0.5, room=room - 10, colour=self.look.ink)  # fmt: skip
                )
        return actors

    def _largest(self, names: str) -> float:
        """The largest number of the vectors of a scene, for those that are drawn as bars."""
        found = [
            abs(number.value)
            for name, row in self.scene.numbers.items()
            if name.split(".")[0] in names
            for number in row
        ]
        return max(found, default=1.0) or 1.0

    # What all scenes have

    def _head(self, scene: Scene) -> None:
        at = scene.at
        for actor in self.header:
            actor.leave(at - FADE)
        self.header = []
        if not scene.title or scene.name == "opening":
            return
        places, look = self.at, self.look
        self.header.append(
            self._text(scene.title, at + 0.02, places.margin, places.header, 44, weight=600,
                       room=0.45 * places.wide if places.is_wide else places.wide - 2 * places.margin)  # fmt: skip
        )
        if scene.formula:
            beside = places.is_wide
            self.header.append(
                self._text(scene.formula, at + 0.02, places.wide - places.margin if beside else places.margin,
                           places.formula, 32, align=1.0 if beside else 0.0, colour=look.soft,
                           room=places.wide / 2 - 140 if beside else places.wide - 2 * places.margin)  # fmt: skip
            )

    def _caption(self, line: Line) -> None:
        """What is said, below, in at most two lines at a time."""
        size = 34 if self.at.is_wide else 36
        room = (self.at.wide - 2 * self.at.margin) / size
        pages = _pages(line.text, room, self.measure)
        letters = sum(len(row) for page in pages for row in page)
        t = line.at
        for page in pages:
            until = t + (line.until - line.at) * sum(map(len, page)) / letters
            for number, row in enumerate(reversed(page)):
                self._text(row, t, self.at.wide / 2, self.at.caption - 1.35 * size * number, size,
                           align=0.5, colour=self.look.soft, fade=0.1).leave(until, 0.1)  # fmt: skip
            t = until + 0.1

    # The sentence

    def _spread(
        self, words: Sequence[str], joins: Sequence[bool], size: float, weight: int, room: float
    ) -> list[list[tuple[int, float, float]]]:
        """Lines of (word, left, width) around the middle; the pieces of a word are closer."""
        lines: list[list[tuple[int, float, float]]] = [[]]
        x = 0.0
        for place, word in enumerate(words):
            wide = self.measure(word, weight) * size
            if lines[-1]:
                x += (0.1 if joins[place] else 0.36) * size
            if lines[-1] and x + wide > room:
                lines.append([])
                x = 0.0
            lines[-1].append((place, x, wide))
            x += wide
        middle = self.at.wide / 2
        centred = []
        for line in lines:
            whole = line[-1][1] + line[-1][2] if line else 0.0
            centred.append([(place, x - whole / 2 + middle, wide) for place, x, wide in line])
        return centred

    def _window(self, most: int) -> range:
        """The tokens of a long sentence that are shown: those around what it is about."""
        count = len(self.script.sources)
        wanted = [key for key in self.scene.keys] or [0]
        about = self.scene.query if not self.script.is_cross else wanted[0]
        first = max(0, min(about - most // 2, count - most))
        return range(first, min(count, first + most))

    def _large(self, scene: Scene, t: float, fade: float = FADE) -> None:
        """The sentence large, each word on the shade of its share."""
        weights = scene.numbers["weights"]
        shown = list(self._window(40))
        for end in (-1, 0):  # the model's own marks, where they have no part in it
            key = shown[end]
            if len(shown) > 1 and weights[key].value < 0.02 and _is_mark(self.script.sources[key]):
                shown.pop(end)
        words = [clean(self.script.sources[key]) for key in shown]
        joins = [self.script.glued[key] for key in shown]
        room = self.at.wide - 2 * self.at.margin
        size = 104.0 if self.at.is_wide else 92.0
        while True:
            lines = self._spread(words, joins, size, 600, room)
            if (len(lines) <= 3 and all(line[-1][1] + line[-1][2] <= self.at.wide for line in lines)) or size < 34:
                break
            size *= 0.92
        high = 1.96 * size
        middle = self.at.high * (0.47 if self.at.is_wide else 0.45)
        query = clean(self.script.tokens[scene.query])
        top = middle - high * len(lines) / 2
        told = sorted(shown, key=lambda key: -weights[key].value)[:4]
        small = min(max(24.0, 0.27 * size), 0.5 * size)
        self.large: list[_Actor] = []
        for number, line in enumerate(lines):
            y = top + high * (number + 0.62)
            taken = -math.inf  # by the percentages so far
            for place, x, wide in line:
                key = shown[place]
                is_query = key == scene.query and not self.script.is_cross
                share = weights[key].value
                fill = colours.shade(share, self.look.ramp)
                plain = self.look.ink if is_word(words[place]) else self.look.soft
                ink = colours.ink(fill) if share > 0.3 else plain
                box = self._add("box", t, x - 0.14 * size, y - 0.98 * size, w=wide + 0.28 * size, h=1.3 * size,
                                colour=fill, radius=0.16 * size, alpha=1.0 if share >= 0.02 else 0.0, fade=fade)  # fmt: skip
                self.large.append(box)
                if is_query:
                    self.large.append(
                        self._add("box", t, x - 0.14 * size, y - 0.98 * size, w=wide + 0.28 * size, h=1.3 * size,
                                  colour=self.look.query, radius=0.16 * size, line=4.5, fade=fade)  # fmt: skip
                    )
                text = self._text(words[place], t, x, y, size, weight=600, colour=ink, fade=fade)
                self.large.append(text)
                half = 0.6 * self.measure(weights[key].text, 500) * small
                if key in told and share >= 0.005 and x + wide / 2 - half > taken:
                    taken = x + wide / 2 + half
                    self.large.append(
                        self._figure(weights[key], t, x + wide / 2, y + 0.66 * size, small,
                                     align=0.5, weight=500, colour=self.look.soft, fade=fade)  # fmt: skip
                    )
        if self.script.is_cross:
            self._translated(scene, t, top + high * len(lines) + 0.5 * size, fade)
        said = f"attention of '{query}'"
        if self.script.is_cross:
            said = f"where '{query}' comes from"
        self.large.append(
            self._text(said, t, self.at.wide / 2, top - 0.35 * size, 40, align=0.5, weight=500,
                       colour=self.look.query, fade=fade, room=room)  # fmt: skip
        )
        self.large.append(
            self._text(self.script.about[0] if self.script.about else "", t, self.at.wide / 2,
                       self.at.caption - (100 if self.captions else 0), 26, align=0.5, colour=self.look.soft,
                       fade=fade, room=room)  # fmt: skip
        )

    def _translated(self, scene: Scene, t: float, y: float, fade: float) -> None:
        """The translation, below the sentence that it is of."""
        words = [clean(token) for token in self.script.tokens if not _is_mark(token)]
        room = self.at.wide - 2 * self.at.margin
        for line in self._spread(words, self.script.targets_glued, 52.0, 500, room):
            for place, x, _ in line:
                asks = place == scene.query
                self.large.append(
                    self._text(words[place], t, x, y, 52, weight=600 if asks else 500, fade=fade,
                               colour=self.look.query if asks else self.look.soft)  # fmt: skip
                )
            y += 74

    def _small(self, t: float) -> None:
        """The sentence in small, on top, from now on; of a translation both."""
        for actor in self.words:
            actor.leave(t - FADE)
        look, script = self.look, self.script
        room = self.at.wide - 2 * self.at.margin
        size, most = 34.0, 40
        while True:
            shown = self._window(most)
            words = [clean(script.sources[key]) for key in shown]
            joins = [script.glued[key] for key in shown]
            asks = None if script.is_cross else self.scene.query - shown.start
            if script.is_cross:  # where there is no room for both, the keys are below
                if not self.at.is_wide:
                    words, joins = [], []
                asks = len(words) + 1 + self.scene.query
                words += ["→", *map(clean, script.tokens)]
                joins += [False, *script.targets_glued]
            [line] = self._spread(words, joins, size, 500, math.inf)
            wide = line[-1][1] + line[-1][2] - line[0][1]
            if wide <= room or most < 3:
                break
            size, most = (size - 2, most) if size > 26 else (size, most - 1)
        shift = self.at.margin - line[0][1]
        self.words = [
            self._text(words[place], t, x + shift, self.at.sentence, size,
                       weight=600 if place == asks else 500, colour=look.query if place == asks else look.soft)  # fmt: skip
            for place, x, _ in line
        ]

    # Scenes

    def _title(self, scene: Scene) -> None:
        self._large(scene, -1.0)  # there from the first frame, which is the thumbnail
        for actor in self.large:
            actor.leave(scene.until - FADE)

    def _tokens(self, scene: Scene) -> None:
        self._small(scene.at)
        self.rows = rows = _Rows(scene, self.at)
        self._labels(rows, scene.moment("split"))
        ids = scene.numbers.get("ids", ())
        if ids and (line := scene.line("ids")):
            shown = [
                self._figure(number, line.moment() + STEP * row, self.at.key, rows.middle(row) + 11, 30,
                             colour=self.look.soft)  # fmt: skip
                for row, number in enumerate(ids)
            ]
            for row, actor in enumerate(shown):
                actor.leave(scene.until - FADE - 0.3 + 0.02 * row)

    def _labels(self, rows: _Rows, t: float) -> None:
        """The names of the keys."""
        scene, at = rows.scene, self.at
        size = min(0.46 * rows.high, 40.0)
        for row, label in enumerate(scene.labels):
            is_query = scene.keys[row] == scene.query and not self.script.is_cross
            rows.labels.append(
                self._text(label, t + STEP * row, at.label, rows.middle(row) + 0.36 * size, size, align=1.0,
                           weight=600, room=at.label_room, colour=self.look.query if is_query else self.look.ink)  # fmt: skip
            )
        if scene.rest is not None:
            rows.labels.append(
                self._text(f"{scene.rest.text} others", t + STEP * len(scene.labels), at.label,
                           rows.middle(len(scene.labels)) + 0.3 * size, 0.8 * size, align=1.0,
                           room=at.label_room, colour=self.look.soft, number=scene.rest)  # fmt: skip
            )

    def _vectors(self, scene: Scene) -> None:
        rows = self._known_rows(scene)
        t, largest = scene.moment("vector", "vector"), self._largest("X")
        for row in range(len(scene.keys)):
            numbers = scene.numbers.get(f"X.{row}", ())
            rows.plain.append(
                self._vector(numbers, t + STEP * row, self.at.key, rows.middle(row), self.at.cells, rows.cell,
                             self.look.soft, largest)  # fmt: skip
            )
        if scene.line("own") and scene.query in scene.keys:
            row = scene.keys.index(scene.query)
            self._pulse(scene.moment("own"), self.at.key, rows.middle(row), rows.cell, self.look.query)

    def _pulse(self, t: float, x: float, y: float, high: float, colour: Colour) -> None:
        """A frame around a vector, for a moment."""
        self._add("box", t, x - 7, y - high / 2 - 7, w=self.at.cells + 14, h=high + 14, colour=colour,
                  radius=12, line=4).leave(t + 1.6)  # fmt: skip

    def _known_rows(self, scene: Scene) -> _Rows:
        """The rows of before, or new ones if what was before has been left out."""
        if self.rows is None:
            self._small(scene.at)
            self.rows = _Rows(scene, self.at)
            self._labels(self.rows, scene.at)
        return self.rows

    def _projections(self, scene: Scene) -> None:
        rows = self._known_rows(scene)
        at, look = self.at, self.look
        own = scene.keys.index(scene.query) if scene.query in scene.keys and not self.script.is_cross else None
        # The query leaves its row and goes to its own place.
        t = scene.moment("query", "query")
        self._ask(rows, scene, t, at.key if own is not None else at.query[0],
                  rows.middle(own) if own is not None else at.query[1] + 60)  # fmt: skip
        # The keys take the place of the vectors.
        t = scene.moment("key", "keys")
        for row, vector in enumerate(rows.plain):
            for actor in vector:
                actor.leave(t - FADE + STEP * row)
        self._head_of("key", rows, t, at.key, look.key)
        for row in range(len(scene.keys)):
            rows.keys.append(
                self._vector(scene.numbers[f"K.{row}"], t + 0.02 + STEP * row, at.key, rows.middle(row), at.cells,
                             rows.cell, look.key, self._largest("K"))  # fmt: skip
            )
        # The values go to the other side.
        t = scene.moment("value", "values")
        self._head_of("value", rows, t, at.value, look.value)
        for row in range(len(scene.keys)):
            self._fly(rows, scene.numbers[f"V.{row}"], t + STEP * row, at.key, rows.middle(row), look.value, self._largest("V"))

    def _head_of(self, name: str, rows: _Rows, t: float, x: float, colour: Colour) -> None:
        rows.others.append(
            self._text(name, t, x + self.at.cells / 2, rows.top - 6, 26, align=0.5, weight=600, colour=colour)
        )

    def _fly(
        self, rows: _Rows, numbers: Sequence[Number], t: float, x: float, y: float, role: Colour, largest: float
    ) -> None:  # fmt: skip
        """A value goes from there to its place; numbers appear where it has come to rest."""
        at = self.at
        row = len(rows.values)
        moving = self._vector(numbers, t, x, y, at.cells, rows.cell, role, largest)
        moving[0].move(t + FADE, MOVE, x=at.value)
        for actor in moving[1:]:
            wait = FADE + MOVE
            actor.poses = [
                replace(pose, t=pose.t + wait, x=pose.x + at.value - x) for pose in actor.poses
            ]
        rows.values.append(moving)
        assert rows.middle(row) == y

    def _ask(self, rows: _Rows, scene: Scene, t: float, x: float, y: float) -> None:
        """The query comes to its place from there."""
        at, look = self.at, self.look
        left, middle = at.query
        middle = (rows.top + rows.bottom) / 2 if at.is_wide else middle
        name = short(clean(self.script.tokens[scene.query]), 18)
        high = max(rows.cell, 46.0)
        vector = self._vector(scene.numbers["Q"], t, x, y, at.cells, high, look.query, self._largest("Q"))
        vector[0].move(t + FADE, MOVE, x=left, y=middle - high / 2)
        for actor in vector[1:]:
            wait = FADE + MOVE
            actor.poses = [
                replace(pose, t=pose.t + wait, x=pose.x + left - x, y=pose.y + middle - y)
                for pose in actor.poses
            ]
        label = self._text(f"query of '{name}'", t + MOVE, left + (0 if at.is_wide else at.cells / 2),
                           middle - high / 2 - 20, 30, weight=600, colour=look.query, align=0 if at.is_wide else 0.5,
                           room=at.label - at.label_room - left - 10 if at.is_wide else 600)  # fmt: skip
        rows.query = [*vector, label]
        rows.others.append(label)

    # Scores

    def _axis(self, numbers: Sequence[Number]) -> tuple[float, float]:
        """Where zero stands, and units a score."""
        left, right = self.at.bar
        known = [number.value for number in numbers if math.isfinite(number.value)] or [0.0]
        low, high = min(0.0, *known), max(0.0, *known)
        scale = (right - left) / (high - low) if high > low else 0.0
        return left - low * scale, scale

    def _bar(self, rows: _Rows, row: int, t: float, value: float, axis: tuple[float, float], cue: Cue | None = None) -> None:
        zero, scale = axis
        high = 0.42 * rows.high
        bar = self._add("box", t, zero, rows.middle(row) - high / 2, w=2, h=high, colour=self.look.query,
                        radius=6, fade=0.05, cue=cue)  # fmt: skip
        bar.move(t + 0.05, MOVE, w=value * scale or 2)
        rows.bars.append(bar)

    def _score(self, scene: Scene) -> None:
        rows = self._known_rows(scene)
        at = self.at
        scores = scene.numbers["scores"]
        self.axis = axis = self._axis(scores)
        one = next(row for row, number in enumerate(scores) if number == scene.numbers["one"][0])
        t = scene.moment("compare", "multiplied")
        lines = [self._link(rows, row, scene.moment("all") + STEP * row) for row in range(len(scores)) if row != one]
        lines.append(self._link(rows, one, t))
        for line in lines:
            line.leave(scene.until - FADE)
        self._pulse(scene.moment("compare", "key"), at.key, rows.middle(one), rows.cell, self.look.key)
        said = scene.numbers["one"][0].text
        t = scene.moment("one", said)
        every = scene.moment("all", "each")
        rows.bars = []
        for row, number in enumerate(scores):
            when = t if row == one else max(every + STEP * row, t + 0.2)
            cue = self._cue("one", said) if row == one else None
            self._bar(rows, row, when, number.value, axis, cue)
            self._score_text(rows, row, number, when, axis, cue)

    def _link(self, rows: _Rows, row: int, t: float) -> _Actor:
        """A line from the query to a key."""
        at = self.at
        left, middle = at.query
        if at.is_wide:
            x, y = left + at.cells + 8, (rows.top + rows.bottom) / 2
            label = rows.labels[row]
            end = at.label - label.fixed["width"] * label.now.h - 14
            return self._add("curve", t, x, y, w=end - x, h=rows.middle(row) - y, line=3,
                             colour=self.look.query, alpha=0.55, grown=0.0).move(t, 0.6, grown=1.0)  # fmt: skip
        return self._add("box", t, at.key - 5, rows.middle(row) - rows.cell / 2 - 5, w=at.cells + 10, h=rows.cell + 10,
                         line=3, radius=9, colour=self.look.query, alpha=0.55)  # fmt: skip

    def _score_text(
        self, rows: _Rows, row: int, number: Number, t: float, axis: tuple[float, float], cue: Cue | None = None
    ) -> None:  # fmt: skip
        """A number at the end of its bar, in the place of the one that stood there."""
        old = rows.numbers[row] if row < len(rows.numbers) else None
        if old is not None:
            old.leave(t - 0.3, 0.25)
        zero, scale = axis
        finite = math.isfinite(number.value)
        x = (max(zero, zero + number.value * scale) if finite else zero) + 16
        size = min(0.38 * rows.high, 34.0)
        rows.numbers[row] = self._figure(number, t, x, rows.middle(row) + 0.36 * size, size, weight=500, cue=cue,
                                         colour=self.look.ink if finite else self.look.soft)  # fmt: skip

    def _rescale(self, scene: Scene, name: str, line: str, part: str = "") -> None:
        """Bars and numbers become others."""
        rows = self._known_rows(scene)
        t = scene.moment(line, part)
        for row, number in enumerate(scene.numbers[name]):
            zero, scale = self.axis
            finite = math.isfinite(number.value)
            rows.bars[row].move(t, MOVE, w=(number.value * scale if finite else 0) or 2)
            self._score_text(rows, row, number, t + MOVE, self.axis)

    def _scale(self, scene: Scene) -> None:
        self._rescale(scene, "scaled", "divide", "divided")

    def _cap(self, scene: Scene) -> None:
        self._rescale(scene, "capped", "cap")

    def _mask(self, scene: Scene) -> None:
        rows = self._known_rows(scene)
        t = scene.moment("hide")
        grid = [scene.numbers[f"grid.{row}"] for row in range(len(scene.keys)) if f"grid.{row}" in scene.numbers]
        back = scene.moment("own") if scene.line("own") else scene.until - 1.2
        if grid:
            self._triangle(rows, grid, t, back)
        for row, number in enumerate(scene.numbers["masked"]):
            hidden = number.value == -math.inf
            shown = rows.numbers[row]
            assert shown is not None
            if hidden:
                self._hide(rows, row, back + STEP * row if grid else t, number)
            elif shown.fixed["number"].text != number.text:  # a bias was added
                rows.bars[row].move(back, MOVE, w=number.value * self.axis[1] or 2)
                self._score_text(rows, row, number, back + MOVE, self.axis)

    def _hide(self, rows: _Rows, row: int, t: float, number: Number) -> None:
        """A hidden key: its score falls to minus infinity, and its row fades."""
        left, right = self.at.bar
        hatch = self._add("hatch", t, left, rows.middle(row) - 0.36 * rows.high, w=right - left, h=2.0,
                          colour=self.look.line, under=self.look.panel, radius=10)  # fmt: skip
        hatch.move(t, 0.5, h=0.72 * rows.high)
        rows.others.append(hatch)
        rows.bars[row].leave(t)
        old = rows.numbers[row]
        if old is not None:
            old.leave(t - 0.3, 0.25)
        size = min(0.38 * rows.high, 34.0)
        rows.numbers[row] = self._figure(number, t + 0.3, right + 16, rows.middle(row) + 0.36 * size, size,
                                         weight=500, colour=self.look.soft)  # fmt: skip
        for actor in [*rows.keys[row], *rows.values[row], rows.labels[row]]:
            actor.move(t, 0.5, alpha=0.3)

    def _triangle(self, rows: _Rows, grid: Sequence[Sequence[Number]], t: float, back: float) -> None:
        """All scores as a grid; the mask falls on what it hides; then the rows are back."""
        at, look = self.at, self.look
        away = [*rows.bars, *rows.others, *(one for one in rows.numbers if one)]
        away += [actor for group in (rows.keys, rows.values, [rows.query]) for row in group for actor in row]
        begin = t - 0.75
        for actor in dict.fromkeys(away):
            actor.move(begin, FADE, alpha=0.0)
            actor.move(back - FADE, FADE, alpha=1.0)
        left = at.key
        count = len(grid)
        wide = min((at.wide - at.margin - left) / count, 2.2 * rows.high)
        known = [number.value for row in grid for number in row if math.isfinite(number.value)]
        low, high = min(known), max(known)
        size = min(0.34 * rows.high, 26.0)
        parts = []
        for column, label in enumerate(self.scene.labels):
            parts.append(
                self._text(label, begin + FADE, left + wide * (column + 0.5), rows.top - 10, size, align=0.5,
                           room=wide - 12, colour=look.soft)  # fmt: skip
            )
        for row, numbers in enumerate(grid):
            for column, number in enumerate(numbers):
                x, y = left + wide * column + 3, rows.middle(row) - rows.high / 2 + 3
                hidden = number.value == -math.inf
                part = 0.5 if hidden or high == low else 0.08 + 0.5 * (number.value - low) / (high - low)
                parts.append(
                    self._add("box", begin + 0.2, x, y, w=wide - 6, h=rows.high - 6, radius=8,
                              colour=mixed(look.paper, look.query, 0.3 if hidden else part))  # fmt: skip
                )
                if hidden:
                    when = t + 0.25 + 0.12 * (column + row) * 4 / count
                    hatch = self._add("hatch", when, x, y, w=wide - 6, h=2.0, colour=look.line,
                                      under=look.panel, radius=8, fade=0.05)  # fmt: skip
                    hatch.move(when, 0.5, h=rows.high - 6)
                    parts.append(hatch)
                    parts.append(
                        self._figure(number, when + 0.4, x + wide / 2 - 3, rows.middle(row) + 0.36 * size, size,
                                     align=0.5, colour=look.soft, room=wide - 10)  # fmt: skip
                    )
        query = self.scene.keys.index(self.scene.query)
        frame = self._add("box", back - 1.3, left - 3, rows.middle(query) - rows.high / 2, w=wide * count + 6,
                          h=rows.high, radius=10, line=4, colour=look.query)  # fmt: skip
        for actor in [*parts, frame]:
            actor.leave(back - FADE - 0.3, 0.3)

    # Shares

    def _softmax(self, scene: Scene) -> None:
        rows = self._known_rows(scene)
        weights = [*scene.numbers["weights"], *scene.numbers.get("rest", ())]
        left, right = self.at.bar
        most = max(number.value for number in weights)
        axis = (left, (right - left) / most)
        line, share = scene.line("softmax"), scene.line("share")
        assert share is not None
        said = {number.of: share.moment(number.text) for number in share.numbers}
        # Bars are where they belong before the first share is said.
        first = min(said.values()) - MOVE - 0.05
        t = min(line.moment("shares") if line else scene.at + 0.3, first)
        if len(rows.bars) < len(weights):
            self._bar(rows, len(weights) - 1, t, 0.0, axis)
        for row, number in enumerate(weights):
            bar = rows.bars[row]
            if bar.now.alpha:
                bar.move(t, MOVE, x=left, w=number.value * axis[1] or 2)
            cue = None
            when = max(t + MOVE, share.at - 0.1) + STEP * row
            if number.of in said:
                when, cue = said[number.of], self._cue("share", number.text)
            old = rows.numbers[row]
            if old is not None:
                old.leave(t - 0.3, 0.25)
                rows.numbers[row] = None
            if number.value == 0 and not bar.now.alpha:
                continue  # hidden
            x = left + number.value * axis[1] + 16
            size = min(0.42 * rows.high, 38.0)
            rows.numbers[row] = self._figure(number, when, x, rows.middle(row) + 0.36 * size, size, weight=600,
                                             colour=self.look.query, cue=cue)  # fmt: skip

    def _mix(self, scene: Scene) -> None:
        rows = self._known_rows(scene)
        at, look = self.at, self.look
        weights = scene.numbers["weights"]
        most = max(number.value for number in weights)
        t = scene.moment("take", "value") if scene.line("take") else scene.at + 0.2
        for row, number in enumerate(weights):
            for actor in rows.values[row]:
                actor.move(t + STEP * row, MOVE, alpha=max(0.12, number.value / most))
        for row, number in enumerate(weights):
            link = self._add("box", t + STEP * row, at.value - 12, rows.middle(row) - 0.21 * rows.high, w=6,
                             h=0.42 * rows.high, radius=3, colour=look.query, alpha=max(0.1, number.value / most))  # fmt: skip
            rows.others.append(link)
        # The sum stands below, as in a column of figures.
        t = scene.moment("sum")
        y = rows.bottom + 62
        rule = self._add("box", t, at.value, rows.bottom + 14, w=2.0, h=3, colour=look.ink, radius=1.5)
        rule.move(t, 0.5, w=at.cells)
        rows.others.append(rule)
        largest = self._largest("V")
        for row, number in enumerate(weights):
            values = scene.numbers[f"V.{row}"]
            falling = self._vector(values, t + 0.2, at.value, rows.middle(row), at.cells, rows.cell, look.value, largest)
            for extra in falling[1:]:
                self.actors.remove(extra)
            falling[0].poses = [replace(pose, alpha=pose.alpha * number.value / most) for pose in falling[0].poses]
            falling[0].move(t + 0.4, MOVE, y=y - rows.cell / 2).leave(t + 0.4 + MOVE, 0.3)
        when = t + 0.4 + MOVE
        result = self._vector(scene.numbers["context"], when, at.value, y, at.cells, rows.cell, look.result,
                              self._largest("context"))  # fmt: skip
        name = short(clean(self.script.tokens[scene.query]), 14)
        label = self._text(f"'{name}' takes along", when, at.value - 30, y + 11, 30, weight=600, align=1.0,
                           colour=look.result, room=at.value - at.label)  # fmt: skip
        rows.others += [*result, label]

    def _again(self, scene: Scene) -> None:
        self._clear(scene.at)
        self._small(scene.at + 0.05)
        self.rows = rows = _Rows(scene, self.at)
        at, look = self.at, self.look
        self._labels(rows, scene.at + 0.05)
        t = scene.moment("asks")
        self._head_of("key", rows, t, at.key, look.key)
        self._head_of("value", rows, t, at.value, look.value)
        for row in range(len(scene.keys)):
            for name, x, colour, group in (("K", at.key, look.key, rows.keys), ("V", at.value, look.value, rows.values)):
                group.append(
                    self._vector(scene.numbers[f"{name}.{row}"], t + STEP * row, x, rows.middle(row), at.cells,
                                 rows.cell, colour, self._largest(name))  # fmt: skip
                )
        self._ask(rows, scene, t, at.query[0], (rows.top + rows.bottom) / 2 if at.is_wide else at.query[1])
        t = scene.moment("scores")
        scores = scene.numbers["masked"]
        self.axis = axis = self._axis(scores)
        for row, number in enumerate(scores):
            when = t + STEP * row
            self._bar(rows, row, when, number.value if math.isfinite(number.value) else 0.0, axis)
            if number.value == -math.inf:
                self._hide(rows, row, max(when, t + 0.6), number)
            else:
                self._score_text(rows, row, number, when + 0.5, axis)

    def _clear(self, t: float) -> None:
        """The rows leave."""
        if self.rows is not None:
            for actor in dict.fromkeys(self.rows.everything()):
                actor.leave(t - FADE)
            self.rows = None

    def _end(self, scene: Scene) -> None:
        self._clear(scene.at)
        for actor in self.words:
            actor.leave(scene.at - FADE)
        self._large(scene, scene.at + 0.1)

    # What may come next

    def _next(self, scene: Scene) -> None:
        self._clear(scene.at)
        for actor in self.words:
            actor.leave(scene.at - FADE)
        self.words = []
        at, look = self.at, self.look
        t = scene.at + 0.05
        numbers = scene.numbers["next"]
        size = 46.0
        pages = _lines(scene.text, (at.wide - 2 * at.margin) / size, self.measure)[-2:]
        parts = [
            self._text(text, t, at.margin, at.sentence + 40 + 1.4 * size * number, size, weight=500)
            for number, text in enumerate(pages)
        ]
        first = at.rows[0] + (140 if at.is_wide else 60)
        high = min(at.row, (at.rows[1] + 40 - first) / len(numbers))
        left, right = (at.label, at.bar[1] + 120) if at.is_wide else (at.label + 60, at.value)
        most = max(number.value for number in numbers)
        shown = scene.moment("next", numbers[0].text)
        for row, (label, number) in enumerate(zip(scene.labels, numbers, strict=True)):
            y = first + high * (row + 0.5)
            when = scene.at + 0.4 + STEP * row
            bar_wide = max(2.0, (right - left) * number.value / most)
            chosen = row == 0
            parts.append(
                self._text(label, when, left - 26, y + 14, 38, align=1.0, weight=600, room=left - 26 - at.margin)
            )
            bar = self._add("box", when, left, y - 0.22 * high, w=2.0, h=0.44 * high, radius=6, colour=look.query,
                            alpha=1.0 if chosen else 0.45)  # fmt: skip
            parts.append(bar.move(when, MOVE, w=bar_wide))
            parts.append(
                self._figure(number, shown if chosen else when + MOVE, left + bar_wide + 16, y + 13, 36, weight=600,
                             colour=look.query, cue=self._cue("next", number.text) if chosen else None)  # fmt: skip
            )
        parts.append(
            self._add("box", shown + 0.3, at.margin, first, w=at.wide - 2 * at.margin, h=high, line=4, radius=12,
                      colour=look.query)  # fmt: skip
        )
        for part in parts:
            part.leave(scene.until - FADE)

    # Other lessons

    def _opening(self, scene: Scene) -> None:
        size = 96.0 if self.at.is_wide else 80.0
        lines = _lines(scene.title, (self.at.wide - 2 * self.at.margin) / size, lambda text, _: self.measure(text, 600))
        top = self.at.high / 2 - 0.65 * size * (len(lines) - 1)
        for number, text in enumerate(lines):
            self._text(text, -1.0, self.at.wide / 2, top + 1.3 * size * number, size, align=0.5, weight=600).leave(
                scene.until - FADE
            )

    def _table(self, scene: Scene) -> None:
        """Matrices one below the other, their numbers on the shade of a share."""
        at, look = self.at, self.look
        t = scene.moment("said")
        count = sum(len(rows) + 1.6 for _, rows, _ in scene.tables)
        high = min(at.row, (at.rows[1] + 80 - at.rows[0]) / count)
        size = min(0.46 * high, 34.0)
        y = at.rows[0]
        parts = []
        for name, rows, columns in scene.tables:
            left = at.label + 30
            wide = min((at.wide - at.margin - left) / len(columns), 260)
            parts.append(self._text(name, t, at.margin, y + 0.8 * high, size, weight=600, colour=look.soft,
                                    room=at.label - at.margin))  # fmt: skip
            for column, label in enumerate(columns):
                parts.append(
                    self._text(label, t, left + wide * (column + 0.5), y + 0.8 * high, 0.9 * size, align=0.5,
                               colour=look.soft, room=wide - 12)  # fmt: skip
                )
            y += high
            for row, label in enumerate(rows):
                when = t + STEP * row
                parts.append(
                    self._text(label, when, at.label, y + 0.64 * high, size, align=1.0, weight=600,
                               room=at.label_room)  # fmt: skip
                )
                for column, number in enumerate(scene.numbers[f"{name}.{row}"]):
                    share = number.value if number.kind == "percent" else 0.0
                    fill = colours.shade(share, look.ramp) if number.kind == "percent" else look.panel
                    ink = colours.ink(fill) if number.kind == "percent" else look.ink
                    parts.append(
                        self._add("box", when, left + wide * column + 3, y + 3, w=wide - 6, h=high - 6, radius=8,
                                  colour=fill)  # fmt: skip
                    )
                    parts.append(
                        self._figure(number, when, left + wide * (column + 0.5), y + 0.64 * high, size, align=0.5,
                                     room=wide - 16, colour=ink)  # fmt: skip
                    )
                y += high
            y += 0.6 * high
        for part in parts:
            part.leave(scene.until - FADE)


def _is_mark(token: str) -> bool:
    """Whether it is one of the model's own."""
    return token[0] in "<[" and token[-1] in ">]" and len(token) > 2


def _lines(text: str, room: float, measure: Measure, weight: int = 400) -> list[str]:
    """A text broken between words into lines of a width at size 1."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and measure(longer, weight) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _pages(text: str, room: float, measure: Measure) -> list[list[str]]:
    """The same, two lines at a time."""
    lines = _lines(text, room, measure)
    return [lines[place : place + 2] for place in range(0, len(lines), 2)]

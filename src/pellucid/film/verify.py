"""A film checked against the walk that it was made from.

Nothing here trusts the script: each number is worked out again, from the queries, keys and values
where the walk has them, and each label's box is measured again, frame by frame.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pellucid.film.encoding import FRAMES
from pellucid.film.numbers import Figures, Number, matrices, text_of
from pellucid.film.phrases import shown_part
from pellucid.film.script import Script
from pellucid.film.shapes import Mark, Picture, same
from pellucid.film.sound import RATE, loudness
from pellucid.film.token_text import clean
from pellucid.film.voices import Samples
from pellucid.lessons.walk import Walk

AGREEMENT = 0.1
"""Seconds that speech and picture may be apart."""
EVEN = 1.5
"""dB that a line may be louder or softer than the mean of all."""
_SEEN = 0.05
"""What is less opaque cannot be read, and overlaps nothing."""
_QUIET = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is wrong with a film."""

    kind: str
    """number, arithmetic, overlap, outside, timing, loudness or thumbnail."""
    message: str


def verify(
    walk: Walk, script: Script, picture: Picture | None = None, samples: Samples | None = None
) -> list[Fault]:
    """Everything that is wrong with a film; nothing, if all is well.

    Args:
        walk: what it was made from.
        script: its script, with times.
        picture: what is seen.
        samples: what is heard, at `sound.RATE`.
    """
    faults = [*arithmetic(walk), *numbers(walk, script, picture)]
    if picture is not None:
        faults += [*overlaps(picture), *timing(script, picture), *thumbnail(script, picture)]
    if samples is not None:
        faults += [*onsets(script, samples), *evenness(script, samples)]
    return faults


def arithmetic(walk: Walk) -> Iterator[Fault]:
    """Steps of the walk that do not follow from the ones before."""
    values = {name: np.array(matrix.values, np.float64) for name, matrix in matrices(walk).items()}
    if not {"Q", "K", "V", "scores", "scaled", "masked", "weights", "context"} <= values.keys():
        return
    expected = {"scores": values["Q"] @ values["K"].T, "context": values["weights"] @ values["V"]}
    for letter, role in (("Q", "query"), ("K", "key"), ("V", "value")):
        source = "X of the source"
        rows = source if letter != "Q" and source in values else "X"
        if rows in values and f"W_{role}" in values:
            expected[letter] = values[rows] @ values[f"W_{role}"]
    if "W_output" in values:
        expected["output"] = values["concat"] @ values["W_output"]
    large = np.abs(values["scores"]) > 1e-3
    if large.any():
        factor = np.median(values["scaled"][large] / values["scores"][large])
        expected["scaled"] = values["scores"] * factor
    seen = np.isfinite(values["masked"])
    powers = np.exp(np.where(seen, values["masked"], -np.inf))
    shares = powers / np.maximum(powers.sum(axis=1, keepdims=True), 1e-300)
    total = values["weights"].sum(axis=1, keepdims=True)
    # A sink takes its part of each row; the rest is shared as the softmax says.
    expected["weights"] = shares * np.minimum(total, 1.0)
    for name, numbers in expected.items():
        size = max(1.0, float(np.abs(numbers).max()))
        worst = float(np.abs(numbers - values[name]).max())
        if worst > 1e-4 * size:
            yield Fault(kind="arithmetic", message=f"{name} is off by {worst:.2g}")


def numbers(walk: Walk, script: Script, picture: Picture | None = None) -> Iterator[Fault]:
    """Numbers, said or shown, that are not the walk's; and digits that are no number of it."""
    figures = Figures(walk)
    for scene in script.scenes:
        for line in scene.lines:
            yield from _all(figures, line.numbers, f"line '{line.text}'")
            rest = line.text
            for known in (*line.names, *(number.text for number in line.numbers)):
                if known not in rest:
                    yield Fault(kind="number", message=f"line '{line.text}' does not say {known}")
                rest = rest.replace(known, "", 1)
            if re.search(r"\d", rest):
                yield Fault(
                    kind="number", message=f"line '{line.text}' says what nobody counted: {rest}"
                )
        drawn = len(scene.numbers.get("Q", ()))
        if drawn and scene.text != shown_part(drawn, round(figures.value("columns(Q)"))):
            yield Fault(kind="number", message=f"scene {scene.name} says {scene.text}")
        for name, shown in scene.numbers.items():
            yield from _all(figures, shown, f"scene {scene.name}, {name}")
    if picture is not None:
        yield from _drawn(figures, script, picture)


def _drawn(figures: Figures, script: Script, picture: Picture) -> Iterator[Fault]:
    """Numbers in the picture that are not the walk's, and digits that are no number and no word."""
    words = {script.title, *script.about, *map(clean, (*script.tokens, *script.sources))}
    for scene in script.scenes:
        words |= {scene.title, scene.formula, scene.text, *scene.labels}
        words |= {word for name, *labels in scene.tables for word in (name, *sum(labels, ()))}
    spoken = " ".join(line.text for line in script.lines)
    for mark in picture.marks:
        text = mark.text.removesuffix("…")
        if mark.number is not None:
            yield from _all(figures, [mark.number], "the picture")
            if not (mark.number.text.startswith(text) or mark.number.text in text):
                yield Fault(kind="number", message=f"{mark.text} is drawn for {mark.number.text}")
            text = text.replace(mark.number.text, "")
            text = "" if mark.number.text.startswith(text) else text
        if (
            re.search(r"\d", text)
            and text not in spoken
            and not any(text in word for word in words)
        ):
            yield Fault(kind="number", message=f"'{mark.text}' is drawn, and nobody counted it")


def _all(figures: Figures, shown: Sequence[Number], where: str) -> Iterator[Fault]:
    for number in shown:
        value = figures.value(number.of)
        text = text_of(value, number.kind, number.decimals)
        if text != number.text or not (value == number.value or math.isclose(value, number.value)):
            yield Fault(kind="number", message=f"{where}: {number.of} is {text}, not {number.text}")


def overlaps(picture: Picture, rate: int = FRAMES) -> Iterator[Fault]:
    """Labels that in some frame lie over one another, are cut by the edge of a filled shape, or
    leave the picture; each is reported once.
    """
    texts = [mark for mark in picture.marks if mark.shape == "text"]
    solids = [mark for mark in picture.marks if mark.shape in ("box", "hatch") and not mark.line]
    text_boxes, solid_boxes = _Boxes(texts), _Boxes(solids)
    reported: set[str] = set()
    last: tuple[bytes, bytes] | None = None
    for frame in _changes([*texts, *solids], round(picture.seconds * rate), rate):
        t = frame / rate
        visible, boxes = text_boxes.at(t)
        behind, edges = solid_boxes.at(t)
        now = (boxes.tobytes(), edges.tobytes())
        if not visible or now == last:
            continue
        last = now
        far = np.array([picture.width, picture.height])
        out = np.any((boxes[:, :2] < 0) | (boxes[:, 2:] > far), axis=1)
        collisions = [
            ("outside", index, "leaves the picture") for index in np.flatnonzero(out).tolist()
        ]
        collisions += [
            ("overlap", index, f"and '{texts[visible[other]].text}'")
            for index, other in np.argwhere(np.triu(_meet(boxes, boxes), 1)).tolist()
        ]
        within = (boxes[:, None, 0] >= edges[:, 0] - 1) & (boxes[:, None, 2] <= edges[:, 2] + 1)
        collisions += [
            ("overlap", index, f"is cut by a {solids[behind[other]].shape}")
            for index, other in np.argwhere(_meet(boxes, edges) & ~within).tolist()
        ]
        for kind, index, rest in collisions:
            what = f"'{texts[visible[index]].text}' {rest}"
            if what not in reported:
                reported.add(what)
                yield Fault(kind=kind, message=f"{what} at {t:.2f} s")


def _changes(marks: Sequence[Mark], frames: int, rate: int) -> list[int]:
    """Frames that may differ from the one before: a film stands still most of the time."""
    changed = np.zeros(frames, bool)
    for mark in marks:
        for before, after in pairwise(mark.poses):
            first, end = (max(0, math.floor(pose.t * rate)) for pose in (before, after))
            # A frame more at either end: a time is rounded when it becomes a number of frames.
            changed[first : (first if same(before, after) else end) + 2] = True
            changed[end : end + 2] = True
    return np.flatnonzero(changed).tolist()


def _meet(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(some, others): which boxes have more than an edge in common."""
    first, second = some[:, None], others[None]
    beside = (first[..., :2] >= second[..., 2:] - 0.5) | (first[..., 2:] <= second[..., :2] + 0.5)
    overlapping: NDArray[np.bool_] = np.logical_not(np.any(beside, axis=-1))
    return overlapping


class _Boxes:
    """What marks cover, at one time after another."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._marks = marks
        self._until = np.full(len(marks), -math.inf)
        self._is_visible = np.zeros(len(marks), bool)
        self._boxes = np.zeros((len(marks), 4))

    def at(self, t: float) -> tuple[list[int], NDArray[np.float64]]:
        """Those that can be seen, and what each covers: left, top, right, bottom."""
        for index in np.flatnonzero(self._until <= t).tolist():
            mark = self._marks[index]
            pose = mark.at(t)
            self._until[index] = mark.still_until(t)
            self._is_visible[index] = pose is not None and pose.alpha > _SEEN
            if pose is not None:
                self._boxes[index] = mark.box(pose)
        visible = np.flatnonzero(self._is_visible)
        return visible.tolist(), self._boxes[visible]


def timing(script: Script, picture: Picture, rate: int = FRAMES) -> Iterator[Fault]:
    """Numbers that come into the picture when they are not being said."""
    for mark in picture.marks:
        if mark.cue is None:
            continue
        moment = script.scenes[mark.cue.scene].moment(mark.cue.line, mark.cue.part)
        shown = math.ceil(mark.start * rate) / rate  # the first frame that has it
        if abs(shown - moment) > AGREEMENT:
            message = f"'{mark.text}' is said at {moment:.2f} s and shown at {shown:.2f} s"
            yield Fault(kind="timing", message=message)


def thumbnail(script: Script, picture: Picture) -> Iterator[Fault]:
    """A first frame that does not say what the film is about."""
    shown = [mark.text for mark in picture.marks if mark.shape == "text" and _is_seen(mark, 0.0)]
    if not shown:
        yield Fault(kind="thumbnail", message="the first frame has no words")


def _is_seen(mark: Mark, t: float) -> bool:
    pose = mark.at(t)
    return pose is not None and pose.alpha > 0.9


def onsets(script: Script, samples: Samples) -> Iterator[Fault]:
    """Lines that are not heard when the script has them."""
    for line in script.lines:
        first, end = (max(0, round(t * RATE)) for t in (line.at - AGREEMENT, line.until))
        audible = np.flatnonzero(np.abs(samples[first:end]) > _QUIET)
        if not len(audible):
            yield Fault(kind="timing", message=f"line '{line.text}' is not heard")
            continue
        begin = (first + int(audible[0])) / RATE
        if abs(begin - line.at) > AGREEMENT:
            message = f"line '{line.text}' is heard at {begin:.2f} s, not {line.at:.2f} s"
            yield Fault(kind="timing", message=message)


def evenness(script: Script, samples: Samples) -> Iterator[Fault]:
    """Lines that are louder or softer than the others."""
    levels = [
        loudness(samples[round(line.at * RATE) : round(line.until * RATE)], RATE)
        for line in script.lines
    ]
    known = [level for level in levels if level > -math.inf]
    if not known:
        return
    middle = sum(known) / len(known)
    for line, level in zip(script.lines, levels, strict=True):
        if abs(level - middle) > EVEN:
            message = f"line '{line.text}' has {level:.1f} dB, the others {middle:.1f} dB"
            yield Fault(kind="loudness", message=message)

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
    found = {name: np.array(one.values, np.float64) for name, one in matrices(walk).items()}
    if not {"Q", "K", "V", "scores", "scaled", "masked", "weights", "context"} <= found.keys():
        return
    expected = {"scores": found["Q"] @ found["K"].T, "context": found["weights"] @ found["V"]}
    for letter, role in (("Q", "query"), ("K", "key"), ("V", "value")):
        source = "X of the source"
        rows = source if letter != "Q" and source in found else "X"
        if rows in found and f"W_{role}" in found:
            expected[letter] = found[rows] @ found[f"W_{role}"]
    if "W_output" in found:
        expected["output"] = found["concat"] @ found["W_output"]
    large = np.abs(found["scores"]) > 1e-3
    if large.any():
        factor = np.median(found["scaled"][large] / found["scores"][large])
        expected["scaled"] = found["scores"] * factor
    seen = np.isfinite(found["masked"])
    powers = np.exp(np.where(seen, found["masked"], -np.inf))
    shares = powers / np.maximum(powers.sum(axis=1, keepdims=True), 1e-300)
    total = found["weights"].sum(axis=1, keepdims=True)
    # A sink takes its part of each row; the rest is shared as the softmax says.
    expected["weights"] = shares * np.minimum(total, 1.0)
    for name, numbers in expected.items():
        size = max(1.0, float(np.abs(numbers).max()))
        worst = float(np.abs(numbers - found[name]).max())
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
        if re.search(r"\d", text) and text not in spoken and not any(text in one for one in words):
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
    reported: set[str] = set()
    last: tuple[bytes, bytes] | None = None
    for frame in _changes([*texts, *solids], round(picture.seconds * rate), rate):
        t = frame / rate
        places, boxes = _boxes(texts, t)
        behind, edges = _boxes(solids, t)
        now = (boxes.tobytes(), edges.tobytes())
        if not places or now == last:
            continue
        last = now
        far = np.array([picture.width, picture.height])
        out = np.any((boxes[:, :2] < 0) | (boxes[:, 2:] > far), axis=1)
        found = [("outside", place, "leaves the picture") for place in np.flatnonzero(out).tolist()]
        found += [
            ("overlap", one, f"and '{texts[places[other]].text}'")
            for one, other in np.argwhere(np.triu(_meet(boxes, boxes), 1)).tolist()
        ]
        within = (boxes[:, None, 0] >= edges[:, 0] - 1) & (boxes[:, None, 2] <= edges[:, 2] + 1)
        found += [
            ("overlap", one, f"is cut by a {solids[behind[other]].shape}")
            for one, other in np.argwhere(_meet(boxes, edges) & ~within).tolist()
        ]
        for kind, one, rest in found:
            what = f"'{texts[places[one]].text}' {rest}"
            if what not in reported:
                reported.add(what)
                yield Fault(kind=kind, message=f"{what} at {t:.2f} s")


def _changes(marks: Sequence[Mark], frames: int, rate: int) -> list[int]:
    """Frames that may differ from the one before: a film stands still most of the time."""
    changed = np.zeros(frames, bool)
    for mark in marks:
        for one, other in pairwise(mark.poses):
            first, end = (max(0, math.floor(pose.t * rate)) for pose in (one, other))
            # A frame more at either end: a time is rounded when it becomes a number of frames.
            changed[first : (first if same(one, other) else end) + 2] = True
            changed[end : end + 2] = True
    return np.flatnonzero(changed).tolist()


def _meet(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(some, others): which boxes have more than an edge in common."""
    one, other = some[:, None], others[None]
    beside = (one[..., :2] >= other[..., 2:] - 0.5) | (one[..., 2:] <= other[..., :2] + 0.5)
    found: NDArray[np.bool_] = np.logical_not(np.any(beside, axis=-1))
    return found


def _boxes(marks: Sequence[Mark], t: float) -> tuple[list[int], NDArray[np.float64]]:
    """Those that can be seen, and what each covers: left, top, right, bottom."""
    places, boxes = [], []
    for place, mark in enumerate(marks):
        pose = mark.at(t)
        if pose is not None and pose.alpha > _SEEN:
            places.append(place)
            boxes.append(mark.box(pose))
    return places, np.array(boxes, np.float64).reshape(-1, 4)


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
        heard = np.flatnonzero(np.abs(samples[first:end]) > _QUIET)
        if not len(heard):
            yield Fault(kind="timing", message=f"line '{line.text}' is not heard")
            continue
        begin = (first + int(heard[0])) / RATE
        if abs(begin - line.at) > AGREEMENT:
            message = f"line '{line.text}' is heard at {begin:.2f} s, not {line.at:.2f} s"
            yield Fault(kind="timing", message=message)


def evenness(script: Script, samples: Samples) -> Iterator[Fault]:
    """Lines that are louder or softer than the others."""
    found = [
        loudness(samples[round(line.at * RATE) : round(line.until * RATE)], RATE)
        for line in script.lines
    ]
    known = [one for one in found if one > -math.inf]
    if not known:
        return
    middle = sum(known) / len(known)
    for line, one in zip(script.lines, found, strict=True):
        if abs(one - middle) > EVEN:
            message = f"line '{line.text}' has {one:.1f} dB, the others {middle:.1f} dB"
            yield Fault(kind="loudness", message=message)

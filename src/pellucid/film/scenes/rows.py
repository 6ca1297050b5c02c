"""The keys of a query, a row each, and what stands in it: vectors, scores, shares."""

import math
from collections.abc import Sequence
from dataclasses import replace

from pellucid.common.colours import Colour
from pellucid.common.wording import short
from pellucid.film.numbers import Number
from pellucid.film.scenes.actors import FADE, MOVE, STEP, Actor, Rows
from pellucid.film.scenes.board import Board
from pellucid.film.scenes.sentence import small
from pellucid.film.script import Scene
from pellucid.film.shapes import Cue
from pellucid.film.token_text import clean


def labels(board: Board, rows: Rows, t: float) -> None:
    """The names of the keys."""
    scene, at = rows.scene, board.at
    size = min(0.46 * rows.high, 40.0)
    for row, label in enumerate(scene.labels):
        is_query = scene.keys[row] == scene.query and not board.script.is_cross
        rows.labels.append(
            board.text(
                label,
                t + STEP * row,
                at.label,
                rows.middle(row) + 0.36 * size,
                size,
                align=1.0,
                weight=600,
                room=at.label_room,
                colour=board.look.query if is_query else board.look.ink,
            )
        )
    if scene.rest is not None:
        rows.labels.append(
            board.text(
                f"{scene.rest.text} others",
                t + STEP * len(scene.labels),
                at.label,
                rows.middle(len(scene.labels)) + 0.3 * size,
                0.8 * size,
                align=1.0,
                room=at.label_room,
                colour=board.look.soft,
                number=scene.rest,
            )
        )


def pulse(board: Board, t: float, x: float, y: float, high: float, colour: Colour) -> None:
    """A frame around a vector, for a moment."""
    board.add(
        "box",
        t,
        x - 7,
        y - high / 2 - 7,
        w=board.at.cells + 14,
        h=high + 14,
        colour=colour,
        radius=12,
        line=4,
    ).leave(t + 1.6)


def known_rows(board: Board, scene: Scene) -> Rows:
    """The rows of before, or new ones if what was before has been left out."""
    if board.rows is None:
        small(board, scene.at)
        board.rows = Rows(scene, board.at)
        labels(board, board.rows, scene.at)
    return board.rows


def head_of(board: Board, name: str, rows: Rows, t: float, x: float, colour: Colour) -> None:
    rows.others.append(
        board.text(
            name,
            t,
            x + board.at.cells / 2,
            rows.top - 6,
            26,
            align=0.5,
            weight=600,
            colour=colour,
        )
    )


def fly(
    board: Board,
    rows: Rows,
    numbers: Sequence[Number],
    t: float,
    x: float,
    y: float,
    role: Colour,
    largest: float,
) -> None:
    """A value goes from there to its place; numbers appear where it has come to rest."""
    at = board.at
    row = len(rows.values)
    moving = board.vector(numbers, t, x, y, at.cells, rows.cell, role, largest)
    moving[0].move(t + FADE, MOVE, x=at.value)
    for actor in moving[1:]:
        wait = FADE + MOVE
        actor.poses = [
            replace(pose, t=pose.t + wait, x=pose.x + at.value - x) for pose in actor.poses
        ]
    rows.values.append(moving)
    assert rows.middle(row) == y


def ask(board: Board, rows: Rows, scene: Scene, t: float, x: float, y: float) -> None:
    """The query comes to its place from there."""
    at, look = board.at, board.look
    left, middle = at.query
    middle = (rows.top + rows.bottom) / 2 if at.is_wide else middle
    name = short(clean(board.script.tokens[scene.query]), 18)
    high = max(rows.cell, 46.0)
    vector = board.vector(
        scene.numbers["Q"], t, x, y, at.cells, high, look.query, board.largest("Q")
    )
    vector[0].move(t + FADE, MOVE, x=left, y=middle - high / 2)
    for actor in vector[1:]:
        wait = FADE + MOVE
        actor.poses = [
            replace(pose, t=pose.t + wait, x=pose.x + left - x, y=pose.y + middle - y)
            for pose in actor.poses
        ]
    label = board.text(
        f"query of '{name}'",
        t + MOVE,
        left + (0 if at.is_wide else at.cells / 2),
        middle - high / 2 - 20,
        30,
        weight=600,
        colour=look.query,
        align=0 if at.is_wide else 0.5,
        room=at.label - at.label_room - left - 10 if at.is_wide else 600,
    )
    rows.query = [*vector, label]
    if scene.text:
        # Below the cells, or beside them where the rows begin below.
        x, y = (left, middle + high / 2 + 34) if at.is_wide else (left + at.cells + 18, middle + 8)
        note = board.text(scene.text, t + MOVE, x, y, 24, colour=look.soft, room=at.cells + 40)
        rows.query.append(note)
    rows.others += rows.query[len(vector) :]


def axis_of(board: Board, numbers: Sequence[Number]) -> tuple[float, float]:
    """Where zero stands, and units a score."""
    left, right = board.at.bar
    known = [number.value for number in numbers if math.isfinite(number.value)] or [0.0]
    low, high = min(0.0, *known), max(0.0, *known)
    scale = (right - left) / (high - low) if high > low else 0.0
    return left - low * scale, scale


def add_bar(
    board: Board,
    rows: Rows,
    row: int,
    t: float,
    value: float,
    axis: tuple[float, float],
    cue: Cue | None = None,
) -> None:
    zero, scale = axis
    high = 0.42 * rows.high
    bar = board.add(
        "box",
        t,
        zero,
        rows.middle(row) - high / 2,
        w=2,
        h=high,
        colour=board.look.query,
        radius=6,
        fade=0.05,
        cue=cue,
    )
    bar.move(t + 0.05, MOVE, w=value * scale or 2)
    rows.bars.append(bar)


def link(board: Board, rows: Rows, row: int, t: float) -> Actor:
    """A line from the query to a key."""
    at = board.at
    if at.is_wide:
        x, y = at.query[0] + at.cells + 8, (rows.top + rows.bottom) / 2
        label = rows.labels[row]
        end = at.label - label.fixed["width"] * label.now.h - 14
        return board.add(
            "curve",
            t,
            x,
            y,
            w=end - x,
            h=rows.middle(row) - y,
            line=3,
            colour=board.look.query,
            alpha=0.55,
            grown=0.0,
        ).move(t, 0.6, grown=1.0)
    return board.add(
        "box",
        t,
        at.key - 5,
        rows.middle(row) - rows.cell / 2 - 5,
        w=at.cells + 10,
        h=rows.cell + 10,
        line=3,
        radius=9,
        colour=board.look.query,
        alpha=0.55,
    )


def score_text(
    board: Board,
    rows: Rows,
    row: int,
    number: Number,
    t: float,
    axis: tuple[float, float],
    cue: Cue | None = None,
) -> None:
    """A number at the end of its bar, in the place of the one that stood there."""
    old = rows.numbers[row] if row < len(rows.numbers) else None
    if old is not None:
        old.leave(t - 0.3, 0.25)
    zero, scale = axis
    finite = math.isfinite(number.value)
    x = (max(zero, zero + number.value * scale) if finite else zero) + 16
    size = min(0.38 * rows.high, 34.0)
    rows.numbers[row] = board.figure(
        number,
        t,
        x,
        rows.middle(row) + 0.36 * size,
        size,
        weight=500,
        cue=cue,
        colour=board.look.ink if finite else board.look.soft,
    )


def change_bar(board: Board, rows: Rows, row: int, number: Number, t: float) -> None:
    """A bar becomes another: its number leaves, it grows or shrinks, and the new number comes."""
    old = rows.numbers[row]
    assert old is not None
    old.leave(t - 0.3, 0.25)
    t = max(t, old.now.t)
    wide = number.value * board.axis[1] if math.isfinite(number.value) else 0.0
    rows.bars[row].move(t, MOVE, w=wide or 2)
    score_text(board, rows, row, number, t + MOVE, board.axis)

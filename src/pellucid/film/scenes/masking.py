"""The scene of the mask: hidden scores fall to minus infinity."""

import math
from collections.abc import Sequence

from pellucid.film.numbers import Number
from pellucid.film.scenes.actors import FADE, STEP, Rows
from pellucid.film.scenes.board import Board
from pellucid.film.scenes.rows import (
    change_bar,
    known_rows,
)
from pellucid.film.script import Scene
from pellucid.film.style import mixed


def mask(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    t = scene.moment("hide")
    grid = [
        scene.numbers[f"grid.{row}"]
        for row in range(len(scene.keys))
        if f"grid.{row}" in scene.numbers
    ]
    back = scene.moment("own") if scene.line("own") else scene.until - 1.2
    if grid:
        triangle(board, rows, grid, t, back)
    for row, number in enumerate(scene.numbers["masked"]):
        hidden = number.value == -math.inf
        shown = rows.numbers[row]
        assert shown is not None
        if hidden:
            hide(board, rows, row, back + STEP * row if grid else t, number)
        elif shown.fixed["number"].text != number.text:  # a bias was added
            change_bar(board, rows, row, number, back)


def hide(board: Board, rows: Rows, row: int, t: float, number: Number) -> None:
    """A hidden key: its score falls to minus infinity, and its row fades."""
    left, right = board.at.bar
    hatch = board.add(
        "hatch",
        t,
        left,
        rows.middle(row) - 0.36 * rows.high,
        w=right - left,
        h=2.0,
        colour=board.look.line,
        under=board.look.panel,
        radius=10,
    )
    hatch.move(t, 0.5, h=0.72 * rows.high)
    rows.others.append(hatch)
    rows.bars[row].leave(t)
    old = rows.numbers[row]
    if old is not None:
        old.leave(t - 0.3, 0.25)
    size = min(0.38 * rows.high, 34.0)
    rows.numbers[row] = board.figure(
        number,
        t + 0.3,
        right + 16,
        rows.middle(row) + 0.36 * size,
        size,
        weight=500,
        colour=board.look.soft,
    )
    for actor in [*rows.keys[row], *rows.values[row], rows.labels[row]]:
        actor.move(t, 0.5, alpha=0.3)


def triangle(
    board: Board, rows: Rows, grid: Sequence[Sequence[Number]], t: float, back: float
) -> None:
    """All scores as a grid; the mask falls on what it hides; then the rows are back."""
    at, look = board.at, board.look
    away = [*rows.bars, *rows.others, *(number for number in rows.numbers if number)]
    away += [
        actor for group in (rows.keys, rows.values, [rows.query]) for row in group for actor in row
    ]
    begin = t - 0.75
    for actor in dict.fromkeys(away):
        actor.move(begin, FADE, alpha=0.0)
        actor.move(back - FADE, FADE, alpha=1.0)
    left = at.key
    count = len(grid)
    wide = min((at.wide - at.margin - left) / count, 2.2 * rows.high)
    before = [
        [number.value for number in board.scene.numbers[f"before.{row}"]] for row in range(count)
    ]
    low, high = min(map(min, before)), max(map(max, before))
    size = min(0.34 * rows.high, 26.0)
    parts = []
    for column, label in enumerate(board.scene.labels):
        parts.append(
            board.text(
                label,
                begin + FADE,
                left + wide * (column + 0.5),
                rows.top - 10,
                size,
                align=0.5,
                room=wide - 12,
                colour=look.soft,
            )
        )
    for row, numbers in enumerate(grid):
        for column, number in enumerate(numbers):
            x, y = left + wide * column + 3, rows.middle(row) - rows.high / 2 + 3
            hidden = number.value == -math.inf
            part = 0.08 + 0.5 * (before[row][column] - low) / max(high - low, 1e-9)
            parts.append(
                board.add(
                    "box",
                    begin + FADE,
                    x,
                    y,
                    w=wide - 6,
                    h=rows.high - 6,
                    radius=8,
                    colour=mixed(look.paper, look.query, part),
                )
            )
            if hidden:
                when = t + 0.25 + 0.12 * (column + row) * 4 / count
                hatch = board.add(
                    "hatch",
                    when,
                    x,
                    y,
                    w=wide - 6,
                    h=2.0,
                    colour=look.line,
                    under=look.panel,
                    radius=8,
                    fade=0.05,
                )
                hatch.move(when, 0.5, h=rows.high - 6)
                parts.append(hatch)
                parts.append(
                    board.figure(
                        number,
                        when + 0.4,
                        x + wide / 2 - 3,
                        rows.middle(row) + 0.36 * size,
                        size,
                        align=0.5,
                        colour=look.soft,
                        room=wide - 10,
                    )
                )
    query = board.scene.keys.index(board.scene.query)
    frame = board.add(
        "box",
        back - 1.3,
        left - 3,
        rows.middle(query) - rows.high / 2,
        w=wide * count + 6,
        h=rows.high,
        radius=10,
        line=4,
        colour=look.query,
    )
    for actor in [*parts, frame]:
        actor.leave(back - FADE - 0.3, 0.3)

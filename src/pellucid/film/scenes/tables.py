"""Scenes of numbers in tables: what may come next, and lessons that are no attention."""

from pellucid.common import colours
from pellucid.film.scenes.actors import FADE, MOVE, STEP, Actor
from pellucid.film.scenes.board import Board, broken
from pellucid.film.script import Scene


def next_token(board: Board, scene: Scene) -> None:
    board.clear(scene.at)
    for actor in board.words:
        actor.leave(scene.at - FADE)
    board.words = []
    at, look = board.at, board.look
    t = scene.at + 0.05
    numbers = scene.numbers["next"]
    size = 46.0
    pages = broken(scene.text, (at.wide - 2 * at.margin) / size, board.measure)[-2:]
    parts = [
        board.text(text, t, at.margin, at.sentence + 40 + 1.4 * size * number, size, weight=500)
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
            board.text(
                label,
                when,
                left - 26,
                y + 14,
                38,
                align=1.0,
                weight=600,
                room=left - 26 - at.margin,
            )
        )
        bar = board.add(
            "box",
            when,
            left,
            y - 0.22 * high,
            w=2.0,
            h=0.44 * high,
            radius=6,
            colour=look.query,
            alpha=1.0 if chosen else 0.45,
        )
        parts.append(bar.move(when, MOVE, w=bar_wide))
        parts.append(
            board.figure(
                number,
                shown if chosen else when + MOVE,
                left + bar_wide + 16,
                y + 13,
                36,
                weight=600,
                colour=look.query,
                cue=board.cue("next", number.text) if chosen else None,
            )
        )
    parts.append(
        board.add(
            "box",
            shown + 0.3,
            at.margin,
            first,
            w=at.wide - 2 * at.margin,
            h=high,
            line=4,
            radius=12,
            colour=look.query,
        )
    )
    for part in parts:
        part.leave(scene.until - FADE)


def opening(board: Board, scene: Scene) -> None:
    size = 96.0 if board.at.is_wide else 80.0
    lines = broken(
        scene.title,
        (board.at.wide - 2 * board.at.margin) / size,
        lambda text, _: board.measure(text, 600),
    )
    top = board.at.high / 2 - 0.65 * size * (len(lines) - 1)
    for number, text in enumerate(lines):
        board.text(
            text, -1.0, board.at.wide / 2, top + 1.3 * size * number, size, align=0.5, weight=600
        ).leave(scene.until - FADE)


def table(board: Board, scene: Scene) -> None:
    """Matrices beside one another, or below where there is no width for that."""
    board.clear(scene.at)
    at = board.at
    parts: list[Actor] = []
    # What there is to read stands below the matrices, or large where there are none.
    size, y = (28.0, at.rows[1] + 90) if scene.tables else (54.0, (at.rows[0] + at.rows[1]) / 2)
    lines = broken(scene.text, (at.wide - 2 * at.margin) / size, board.measure)
    for number, text in enumerate(lines if scene.text else ()):
        place = (scene.moment("said"), at.margin, y + 1.4 * size * number, size)
        parts.append(
            board.text(text, *place, colour=board.look.soft if scene.tables else board.look.ink)
        )
    if scene.tables:
        parts += _matrices(board, scene)
    for part in parts:
        part.leave(scene.until - FADE)


def _matrices(board: Board, scene: Scene) -> list[Actor]:
    at = board.at
    cells = [len(columns) + _NAME_CELLS for _, _, columns in scene.tables]
    lines = [len(rows) + 1.6 for _, rows, _ in scene.tables]
    cell = (at.wide - 2 * at.margin) / (sum(cells) if at.is_wide else max(cells))
    room = at.rows[1] + 40 - at.rows[0]
    high = min(at.row, room / (max(lines) if at.is_wide else sum(lines)))
    x, y = float(at.margin), at.rows[0]
    parts: list[Actor] = []
    for number, (wide, deep) in enumerate(zip(cells, lines, strict=True)):
        parts += _matrix(board, scene, number, (x, y), (min(cell, 230.0), high))
        x, y = (x + wide * cell, y) if at.is_wide else (x, y + deep * high)
    return parts


_NAME_CELLS = 1.3
"""How many cells the names of a matrix's rows are wide."""


def _matrix(
    board: Board, scene: Scene, number: int, corner: tuple[float, float], cell: tuple[float, float]
) -> list[Actor]:
    """A matrix with its names, its percentages on the shade of a share."""
    look, t, (x, y), (wide, high) = board.look, scene.moment("said"), corner, cell
    name, rows, columns = scene.tables[number]
    left, size = x + _NAME_CELLS * wide, min(0.46 * high, 34.0)
    under = y + 0.8 * high
    room = _NAME_CELLS * wide - 16
    parts = [board.text(name, t, x, under, size, weight=600, colour=look.soft, room=room)]
    for column, label in enumerate(columns):
        middle = left + wide * (column + 0.5)
        parts.append(
            board.text(
                label, t, middle, under, 0.9 * size, align=0.5, colour=look.soft, room=wide - 12
            )
        )
    for row, label in enumerate(rows):
        top, when = y + high * (row + 1), t + STEP * row
        base = top + 0.64 * high
        parts.append(
            board.text(label, when, left - 14, base, size, align=1.0, weight=600, room=room)
        )
        for column, entry in enumerate(scene.numbers[f"{name}.{row}"]):
            fill, ink = look.panel, look.ink
            if entry.kind == "percent":
                fill = colours.shade(entry.value, look.ramp)
                ink = colours.ink(fill)
            box = {"w": wide - 6, "h": high - 6, "radius": 8}
            parts.append(
                board.add("box", when, left + wide * column + 3, top + 3, colour=fill, **box)
            )
            middle = left + wide * (column + 0.5)
            parts.append(
                board.figure(entry, when, middle, base, size, align=0.5, room=wide - 16, colour=ink)
            )
    return parts

"""Scenes of numbers in tables: what may come next, and lessons that are no attention."""

from pellucid.common import colours
from pellucid.film.script import Scene
from pellucid.film.stage.actors import FADE, MOVE, STEP
from pellucid.film.stage.board import Board, broken


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
    """Matrices one below the other, their numbers on the shade of a share."""
    at, look = board.at, board.look
    t = scene.moment("said")
    count = sum(len(rows) + 1.6 for _, rows, _ in scene.tables)
    high = min(at.row, (at.rows[1] + 80 - at.rows[0]) / count)
    size = min(0.46 * high, 34.0)
    y = at.rows[0]
    parts = []
    for name, rows, columns in scene.tables:
        left = at.label + 30
        wide = min((at.wide - at.margin - left) / len(columns), 260)
        parts.append(
            board.text(
                name,
                t,
                at.margin,
                y + 0.8 * high,
                size,
                weight=600,
                colour=look.soft,
                room=at.label - at.margin,
            )
        )
        for column, label in enumerate(columns):
            parts.append(
                board.text(
                    label,
                    t,
                    left + wide * (column + 0.5),
                    y + 0.8 * high,
                    0.9 * size,
                    align=0.5,
                    colour=look.soft,
                    room=wide - 12,
                )
            )
        y += high
        for row, label in enumerate(rows):
            when = t + STEP * row
            parts.append(
                board.text(
                    label,
                    when,
                    at.label,
                    y + 0.64 * high,
                    size,
                    align=1.0,
                    weight=600,
                    room=at.label_room,
                )
            )
            for column, number in enumerate(scene.numbers[f"{name}.{row}"]):
                share = number.value if number.kind == "percent" else 0.0
                fill = colours.shade(share, look.ramp) if number.kind == "percent" else look.panel
                ink = colours.ink(fill) if number.kind == "percent" else look.ink
                parts.append(
                    board.add(
                        "box",
                        when,
                        left + wide * column + 3,
                        y + 3,
                        w=wide - 6,
                        h=high - 6,
                        radius=8,
                        colour=fill,
                    )
                )
                parts.append(
                    board.figure(
                        number,
                        when,
                        left + wide * (column + 0.5),
                        y + 0.64 * high,
                        size,
                        align=0.5,
                        room=wide - 16,
                        colour=ink,
                    )
                )
            y += high
        y += 0.6 * high
    for part in parts:
        part.leave(scene.until - FADE)

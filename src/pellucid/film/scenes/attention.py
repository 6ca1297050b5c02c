"""The scenes of attention, from tokens to what is taken along."""

import math
from collections.abc import Sequence
from dataclasses import replace

from pellucid.common.wording import short
from pellucid.film.numbers import Number
from pellucid.film.scenes.actors import FADE, MOVE, STEP, Rows
from pellucid.film.scenes.board import Board
from pellucid.film.scenes.rows import (
    add_bar,
    ask,
    axis_of,
    change_bar,
    fly,
    head_of,
    known_rows,
    labels,
    link,
    pulse,
    score_text,
)
from pellucid.film.scenes.sentence import small
from pellucid.film.script import Scene
from pellucid.film.style import mixed
from pellucid.film.token_text import clean


def tokens(board: Board, scene: Scene) -> None:
    small(board, scene.at)
    board.rows = rows = Rows(scene, board.at)
    labels(board, rows, scene.moment("split"))
    ids = scene.numbers.get("ids", ())
    if ids and (line := scene.line("ids")):
        shown = [
            board.figure(
                number,
                line.moment() + STEP * row,
                board.at.key,
                rows.middle(row) + 11,
                30,
                colour=board.look.soft,
            )
            for row, number in enumerate(ids)
        ]
        for row, actor in enumerate(shown):
            actor.leave(scene.until - FADE - 0.3 + 0.02 * row)


def vectors(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    t, largest = scene.moment("vector", "vector"), board.largest("X")
    for row in range(len(scene.keys)):
        numbers = scene.numbers.get(f"X.{row}", ())
        rows.plain.append(
            board.vector(
                numbers,
                t + STEP * row,
                board.at.key,
                rows.middle(row),
                board.at.cells,
                rows.cell,
                board.look.soft,
                largest,
            )
        )
    if scene.line("own") and scene.query in scene.keys:
        row = scene.keys.index(scene.query)
        pulse(
            board, scene.moment("own"), board.at.key, rows.middle(row), rows.cell, board.look.query
        )


def projections(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    at, look = board.at, board.look
    own = (
        scene.keys.index(scene.query)
        if scene.query in scene.keys and not board.script.is_cross
        else None
    )
    # The query leaves its row and goes to its own place.
    t = scene.moment("query", "query")
    ask(
        board,
        rows,
        scene,
        t,
        at.key if own is not None else at.query[0],
        rows.middle(own) if own is not None else at.query[1] + 60,
    )
    # The keys take the place of the vectors.
    t = scene.moment("key", "keys")
    for row, vector in enumerate(rows.plain):
        for actor in vector:
            actor.leave(t - FADE + STEP * row)
    head_of(board, "key", rows, t, at.key, look.key)
    for row in range(len(scene.keys)):
        rows.keys.append(
            board.vector(
                scene.numbers[f"K.{row}"],
                t + 0.02 + STEP * row,
                at.key,
                rows.middle(row),
                at.cells,
                rows.cell,
                look.key,
                board.largest("K"),
            )
        )
    # The values go to the other side.
    t = scene.moment("value", "values")
    head_of(board, "value", rows, t, at.value, look.value)
    for row in range(len(scene.keys)):
        fly(
            board,
            rows,
            scene.numbers[f"V.{row}"],
            t + STEP * row,
            at.key,
            rows.middle(row),
            look.value,
            board.largest("V"),
        )


def score(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    at = board.at
    scores = scene.numbers["scores"]
    board.axis = axis = axis_of(board, scores)
    one = next(row for row, number in enumerate(scores) if number == scene.numbers["one"][0])
    t = scene.moment("compare", "multiplied")
    lines = [
        link(board, rows, row, scene.moment("all") + STEP * row)
        for row in range(len(scores))
        if row != one
    ]
    lines.append(link(board, rows, one, t))
    for line in lines:
        line.leave(scene.until - FADE)
    pulse(
        board, scene.moment("compare", "key"), at.key, rows.middle(one), rows.cell, board.look.key
    )
    said = scene.numbers["one"][0].text
    t = scene.moment("one", said)
    every = scene.moment("all", "each")
    rows.bars = []
    for row, number in enumerate(scores):
        when = t if row == one else max(every + STEP * row, t + 0.2)
        cue = board.cue("one", said) if row == one else None
        add_bar(board, rows, row, when, number.value, axis, cue)
        score_text(board, rows, row, number, when, axis, cue)


def rescale(board: Board, scene: Scene, name: str, line: str, part: str = "") -> None:
    """Bars and numbers become others."""
    rows = known_rows(board, scene)
    for row, number in enumerate(scene.numbers[name]):
        change_bar(board, rows, row, number, scene.moment(line, part))


def scale(board: Board, scene: Scene) -> None:
    rescale(board, scene, "scaled", "divide", "divided")


def cap(board: Board, scene: Scene) -> None:
    rescale(board, scene, "capped", "cap")


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
    away = [*rows.bars, *rows.others, *(one for one in rows.numbers if one)]
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


def softmax(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    weights = [*scene.numbers["weights"], *scene.numbers.get("rest", ())]
    left, right = board.at.bar
    most = max(number.value for number in weights)
    axis = (left, (right - left) / most)
    line, share = scene.line("softmax"), scene.line("share")
    assert share is not None
    said = {number.of: share.moment(number.text) for number in share.numbers}
    # Bars are where they belong before the first share is said.
    first = min(said.values()) - MOVE - 0.05
    t = min(line.moment("shares") if line else scene.at + 0.3, first)
    if len(rows.bars) < len(weights):
        add_bar(board, rows, len(weights) - 1, t, 0.0, axis)
    for row, number in enumerate(weights):
        bar, begin = rows.bars[row], t
        old = rows.numbers[row]
        if old is not None:
            old.leave(t - 0.3, 0.25)
            rows.numbers[row], begin = None, max(t, old.now.t)
        cue = None
        when = max(begin + MOVE, share.at - 0.1) + STEP * row
        if number.of in said:
            when, cue = said[number.of], board.cue("share", number.text)
        if bar.now.alpha:  # it has come to rest when its number comes
            seconds = max(0.1, min(MOVE, when - begin))
            bar.move(begin, seconds, x=left, w=number.value * axis[1] or 2)
        if number.value == 0 and not bar.now.alpha:
            continue  # hidden
        x = left + number.value * axis[1] + 16
        size = min(0.42 * rows.high, 38.0)
        rows.numbers[row] = board.figure(
            number,
            when,
            x,
            rows.middle(row) + 0.36 * size,
            size,
            weight=600,
            colour=board.look.query,
            cue=cue,
        )


def mix(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    at, look = board.at, board.look
    weights = scene.numbers["weights"]
    most = max(number.value for number in weights)
    t = scene.moment("take", "value") if scene.line("take") else scene.at + 0.2
    for row, number in enumerate(weights):
        for actor in rows.values[row]:
            actor.move(t + STEP * row, MOVE, alpha=max(0.12, number.value / most))
    for row, number in enumerate(weights):
        link = board.add(
            "box",
            t + STEP * row,
            at.value - 12,
            rows.middle(row) - 0.21 * rows.high,
            w=6,
            h=0.42 * rows.high,
            radius=3,
            colour=look.query,
            alpha=max(0.1, number.value / most),
        )
        rows.others.append(link)
    # The sum stands below, as in a column of figures.
    t = scene.moment("sum")
    y = rows.bottom + 62
    rule = board.add("box", t, at.value, rows.bottom + 14, w=2.0, h=3, colour=look.ink, radius=1.5)
    rule.move(t, 0.5, w=at.cells)
    rows.others.append(rule)
    largest = board.largest("V")
    for row, number in enumerate(weights):
        values = scene.numbers[f"V.{row}"]
        falling = board.vector(
            values,
            t + 0.2,
            at.value,
            rows.middle(row),
            at.cells,
            rows.cell,
            look.value,
            largest,
        )
        for extra in falling[1:]:
            board.actors.remove(extra)
        falling[0].poses = [
            replace(pose, alpha=pose.alpha * number.value / most) for pose in falling[0].poses
        ]
        falling[0].move(t + 0.4, MOVE, y=y - rows.cell / 2).leave(t + 0.4 + MOVE, 0.3)
    when = t + 0.4 + MOVE
    result = board.vector(
        scene.numbers["context"],
        when,
        at.value,
        y,
        at.cells,
        rows.cell,
        look.result,
        board.largest("context"),
    )
    name = short(clean(board.script.tokens[scene.query]), 14)
    label = board.text(
        f"'{name}' takes along",
        when,
        at.value - 30,
        y + 11,
        30,
        weight=600,
        align=1.0,
        colour=look.result,
        room=at.value - at.label,
    )
    rows.others += [*result, label]


def again(board: Board, scene: Scene) -> None:
    board.clear(scene.at)
    small(board, scene.at + 0.05)
    board.rows = rows = Rows(scene, board.at)
    at, look = board.at, board.look
    labels(board, rows, scene.at + 0.05)
    t = scene.moment("asks")
    head_of(board, "key", rows, t, at.key, look.key)
    head_of(board, "value", rows, t, at.value, look.value)
    for row in range(len(scene.keys)):
        for name, x, colour, group in (
            ("K", at.key, look.key, rows.keys),
            ("V", at.value, look.value, rows.values),
        ):
            group.append(
                board.vector(
                    scene.numbers[f"{name}.{row}"],
                    t + STEP * row,
                    x,
                    rows.middle(row),
                    at.cells,
                    rows.cell,
                    colour,
                    board.largest(name),
                )
            )
    ask(
        board,
        rows,
        scene,
        t,
        at.query[0],
        (rows.top + rows.bottom) / 2 if at.is_wide else at.query[1],
    )
    t = scene.moment("scores")
    scores = scene.numbers["masked"]
    board.axis = axis = axis_of(board, scores)
    for row, number in enumerate(scores):
        when = t + STEP * row
        add_bar(board, rows, row, when, number.value if math.isfinite(number.value) else 0.0, axis)
        if number.value == -math.inf:
            hide(board, rows, row, max(when, t + 0.6), number)
        else:
            score_text(board, rows, row, number, when + 0.5, axis)

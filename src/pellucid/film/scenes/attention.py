"""The scenes of attention, from tokens to what is taken along."""

import math
from dataclasses import replace

from pellucid.common.wording import short
from pellucid.film.scenes.actors import FADE, MOVE, STEP, Rows
from pellucid.film.scenes.board import Board
from pellucid.film.scenes.masking import hide
from pellucid.film.scenes.rows import (
    add_bar,
    ask,
    axis_of,
    change_bar,
    head_of,
    known_rows,
    labels,
    link,
    pulse,
    score_text,
)
from pellucid.film.scenes.sentence import small
from pellucid.film.script import Scene
from pellucid.film.token_text import clean


def score(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    at = board.at
    scores = scene.numbers["scores"]
    board.axis = axis = axis_of(board, scores)
    example = next(row for row, number in enumerate(scores) if number == scene.numbers["one"][0])
    t = scene.moment("compare", "multiplied")
    lines = [
        link(board, rows, row, scene.moment("all") + STEP * row)
        for row in range(len(scores))
        if row != example
    ]
    lines.append(link(board, rows, example, t))
    for line in lines:
        line.leave(scene.until - FADE)
    pulse(
        board,
        scene.moment("compare", "key"),
        at.key,
        rows.middle(example),
        rows.cell,
        board.look.key,
    )
    text = scene.numbers["one"][0].text
    t = scene.moment("one", text)
    every = scene.moment("all", "each")
    rows.bars = []
    for row, number in enumerate(scores):
        when = t if row == example else max(every + STEP * row, t + 0.2)
        cue = board.cue("one", text) if row == example else None
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


def softmax(board: Board, scene: Scene) -> None:
    rows = known_rows(board, scene)
    weights = [*scene.numbers["weights"], *scene.numbers.get("rest", ())]
    left, right = board.at.bar
    most = max(number.value for number in weights)
    axis = (left, (right - left) / most)
    line, share = scene.line("softmax"), scene.line("share")
    assert share is not None
    moments = {number.of: share.moment(number.text) for number in share.numbers}
    # Bars are where they belong before the first share is said.
    first = min(moments.values()) - MOVE - 0.05
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
        if number.of in moments:
            when, cue = moments[number.of], board.cue("share", number.text)
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

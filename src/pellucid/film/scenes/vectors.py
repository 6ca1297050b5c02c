"""The scenes before attention: tokens, their vectors, and queries, keys and values."""

from pellucid.film.scenes.actors import FADE, STEP, Rows
from pellucid.film.scenes.board import Board
from pellucid.film.scenes.rows import (
    ask,
    fly,
    head_of,
    known_rows,
    labels,
    pulse,
)
from pellucid.film.scenes.sentence import small
from pellucid.film.script import Scene


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

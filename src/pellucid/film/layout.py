"""Where everything stands and how it moves: the picture of a script with times.

A scene's numbers come in when they are said. What stays from one scene to the next stays where it
is: a film is one picture that changes, not a row of slides.
"""

from collections.abc import Callable

from pellucid.film.scenes import attention, masking, sentence, tables, vectors
from pellucid.film.scenes.board import Board, Measure
from pellucid.film.script import Scene, Script
from pellucid.film.shapes import Picture
from pellucid.film.style import LOOKS, Theme

_SCENES: dict[str, Callable[[Board, Scene], None]] = {
    "title": sentence.title,
    "tokens": vectors.tokens,
    "vectors": vectors.vectors,
    "projections": vectors.projections,
    "score": attention.score,
    "scale": attention.scale,
    "cap": attention.cap,
    "mask": masking.mask,
    "softmax": attention.softmax,
    "mix": attention.mix,
    "again": attention.again,
    "next": tables.next_token,
    "end": sentence.end,
    "opening": tables.opening,
    "table": tables.table,
}


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
    board = Board(script, measure, size, LOOKS[theme])
    for number, scene in enumerate(script.scenes):
        board.scene, board.number = scene, number
        board.head(scene)
        _SCENES[scene.name](board, scene)
    for line in script.lines if captions else ():
        board.caption(line)
    return board.picture()

"""The sentence: large at the beginning and at the end, in small on top between them."""

import math
from collections.abc import Callable, Sequence

from pellucid.common import colours
from pellucid.film.scenes.actors import FADE, Actor
from pellucid.film.scenes.board import Board
from pellucid.film.script import Scene
from pellucid.film.token_text import clean, is_word, runs_left

Words = tuple[list[str], list[bool], int]
"""Words, whether each goes on the one before, and which of them asks."""
Line = tuple[list[tuple[str, float, bool]], float, float]
"""Words with their left sides and whether they ask; the left side of all; the size."""


def spread(
    board: Board, words: Sequence[str], joins: Sequence[bool], size: float, weight: int, room: float
) -> list[list[tuple[int, float, float]]]:
    """Lines of (word, left, width) around the middle; the pieces of a word are closer."""
    lines: list[list[tuple[int, float, float]]] = [[]]
    x = 0.0
    for place, word in enumerate(words):
        wide = board.measure(word, weight) * size
        if lines[-1]:
            x += (0.04 if joins[place] else 0.36) * size
        if lines[-1] and x + wide > room:
            lines.append([])
            x = 0.0
        lines[-1].append((place, x, wide))
        x += wide
    middle = board.at.wide / 2
    leftwards = runs_left(" ".join(words))
    centred = []
    for line in lines:
        whole = line[-1][1] + line[-1][2] if line else 0.0
        centred.append(
            [
                (place, middle - whole / 2 + (whole - x - wide if leftwards else x), wide)
                for place, x, wide in line
            ]
        )
    return centred


def window(count: int, about: int, most: int) -> range:
    """The tokens of a long text that are shown: those around one."""
    first = max(0, min(about - most // 2, count - most))
    return range(first, min(count, first + most))


def sources_shown(board: Board, most: int) -> range:
    """Those of the sentence: around the query, or amid the keys that are shown."""
    keys = board.scene.keys
    about = keys[len(keys) // 2] if board.script.is_cross else board.scene.query
    return window(len(board.script.sources), about, most)


def fitting(board: Board, words: Callable[[int], Words], sizes: Sequence[float]) -> Line:
    """One line of words that has room: smaller first, then with fewer words.

    Args:
        board: that it is for.
        words: for how many at most, words with who joins and which asks.
        sizes: from the largest.
    """
    room = board.at.wide - 2 * board.at.margin
    for size, most in [
        *((size, 40) for size in sizes),
        *((sizes[-1], n) for n in range(39, 0, -1)),
    ]:
        texts, joins, asks = words(most)
        [line] = spread(board, texts, joins, size, 500, math.inf)
        left = min(x for _, x, _ in line)
        if max(x + wide for _, x, wide in line) - left <= room:
            break
    return [(texts[place], x, place == asks) for place, x, _ in line], left, size


def large(board: Board, scene: Scene, t: float) -> list[Actor]:
    """The sentence large, each word on the shade of its share."""
    look, is_cross = board.look, board.script.is_cross
    weights = scene.numbers["weights"]
    shown = list(sources_shown(board, 40))
    for end in (-1, 0):  # the model's own marks, where they have no part in it
        key = shown[end]
        if len(shown) > 1 and weights[key].value < 0.02 and is_mark(board.script.sources[key]):
            shown.pop(end)
    words = [clean(board.script.sources[key]) for key in shown]
    joins = [*(board.script.glued[key] for key in shown), False]
    room = board.at.wide - 2 * board.at.margin
    size = 104.0 if board.at.is_wide else 92.0
    while True:
        lines = spread(board, words, joins, size, 600, room)
        if (
            len(lines) <= 3
            and all(x + wide <= board.at.wide for line in lines for _, x, wide in line)
        ) or size < 34:
            break
        size *= 0.92
    high, leftwards = 1.96 * size, runs_left(" ".join(words))
    middle = board.at.high * (0.47 if board.at.is_wide else 0.45)
    query = clean(board.script.tokens[scene.query])
    top = middle - high * len(lines) / 2
    strongest = sorted(shown, key=lambda key: -weights[key].value)[:4]
    small = min(max(24.0, 0.27 * size), 0.5 * size)
    parts: list[Actor] = []
    for number, line in enumerate(lines):
        y = top + high * (number + 0.62)
        taken = -math.inf  # by the percentages so far
        for place, x, wide in line:
            key = shown[place]
            share = weights[key].value
            fill = colours.shade(share, look.ramp)
            plain = look.ink if is_word(words[place]) else look.soft
            ink = colours.ink(fill) if share > 0.3 else plain
            # The pieces of a word are so close that their boxes just meet.
            sides = [0.02 if joins[at] else 0.14 for at in (place, place + 1)]
            before, after = reversed(sides) if leftwards else sides
            box = {"w": wide + (before + after) * size, "h": 1.3 * size, "radius": 0.16 * size}
            corner = (x - before * size, y - 0.98 * size)
            if share >= 0.02:
                parts.append(board.add("box", t, *corner, colour=fill, **box))
            if key == scene.query and not is_cross:
                parts.append(board.add("box", t, *corner, colour=look.query, line=4.5, **box))
            parts.append(board.text(words[place], t, x, y, size, weight=600, colour=ink))
            middle, half = x + wide / 2, 0.6 * board.measure(weights[key].text, 500) * small
            if key in strongest and share >= 0.005 and middle - half > taken:
                taken = middle + half
                at = (t, middle, y + 0.66 * size, small)
                parts.append(
                    board.figure(weights[key], *at, weight=500, align=0.5, colour=look.soft)
                )
    if is_cross:
        parts += translated(board, t, top + high * len(lines) + 0.5 * size)
    heading = f"where '{query}' comes from" if is_cross else f"attention of '{query}'"
    about = board.script.about[0] if board.script.about else ""
    above = (t, board.at.wide / 2, top - 0.35 * size, 40)
    below = (t, board.at.wide / 2, board.at.caption - 100, 26)
    parts.append(board.text(heading, *above, weight=500, colour=look.query, align=0.5, room=room))
    parts.append(board.text(about, *below, colour=look.soft, align=0.5, room=room))
    return parts


def targets_shown(board: Board, most: int) -> Words:
    """Those of the translation, around the one that asks."""
    script, query = board.script, board.scene.query
    shown = window(len(script.tokens), query, most)
    tokens = [place for place in shown if place == query or not is_mark(script.tokens[place])]
    return (
        [clean(script.tokens[place]) for place in tokens],
        [script.targets_glued[place] for place in tokens],
        tokens.index(query),
    )


def translated(board: Board, t: float, y: float) -> list[Actor]:
    """The translation, below the sentence that it is of."""
    line, _, size = fitting(board, lambda most: targets_shown(board, most), (52, 46, 40))
    look = board.look
    return [
        board.text(text, t, x, y, size, weight=500, colour=look.query if asks else look.soft)
        for text, x, asks in line
    ]


def small(board: Board, t: float) -> None:
    """The sentence in small, on top, from now on; of a translation both."""
    for actor in board.words:
        actor.leave(t - FADE)
    look, script = board.look, board.script

    def words(most: int) -> Words:
        shown = sources_shown(board, most)
        texts = [clean(script.sources[key]) for key in shown]
        joins = [script.glued[key] for key in shown]
        if not script.is_cross:
            return texts, joins, board.scene.query - shown.start
        others, other_joins, asks = targets_shown(board, most)
        if not board.at.is_wide:  # where there is no room for both, the keys are below
            return others, other_joins, asks
        return [*texts, "→", *others], [*joins, False, *other_joins], len(texts) + 1 + asks

    line, left, size = fitting(board, words, (34, 32, 30, 28, 26))
    shift = board.at.margin - left
    board.words = [
        board.text(
            text,
            t,
            x + shift,
            board.at.sentence,
            size,
            weight=600 if asks else 500,
            colour=look.query if asks else look.soft,
        )
        for text, x, asks in line
    ]


def title(board: Board, scene: Scene) -> None:
    # There from the first frame, which is the thumbnail.
    for actor in large(board, scene, -1.0):
        actor.leave(scene.until - FADE)


def end(board: Board, scene: Scene) -> None:
    board.clear(scene.at)
    for actor in board.words:
        actor.leave(scene.at - FADE)
    large(board, scene, scene.at + 0.1)


def is_mark(token: str) -> bool:
    """Whether it is one of the model's own."""
    return token[0] in "<[" and token[-1] in ">]" and len(token) > 2

"""The script of a walk: what is said and shown, in short sentences with the walk's own numbers."""

from collections.abc import Sequence

from pellucid.film.attention_narration import RowNarration
from pellucid.film.matrix_narration import joined_heads, opening, table
from pellucid.film.numbers import Figures
from pellucid.film.phrases import quoted, spoken
from pellucid.film.script import Scene, Script
from pellucid.film.token_text import clean, glued, is_word
from pellucid.lessons.walk import Walk

_STEPS = {"query", "key", "value", "score", "scale", "mask", "softmax", "mix"}


def write(
    walk: Walk,
    *,
    query: int | None = None,
    finds: Sequence[int] = (),
    chapters: int = 1,
    brief: bool = False,
) -> Script:
    """The script of a walk, without times.

    Args:
        walk: with a row for each token that asks.
        query: the row that it is about; the one with most to tell if None.
        finds: keys that are looked for, shown whatever they get.
        chapters: how many rows it is about, the later ones told more briefly.
        brief: tell the first one as briefly as these, for a film of seconds.
    """
    if not {step.name for step in walk.steps} >= _STEPS:
        scenes = [table(walk, step) for step in walk.steps]
        return Script(
            title=walk.title,
            about=walk.about,
            tokens=walk.tokens,
            sources=walk.tokens,
            glued=(),
            targets_glued=(),
            scenes=(opening(walk), *scenes),
        )
    figures = Figures(walk)
    ranked = _ranked_rows(walk, figures)
    first = ranked[0] if query is None else query
    rows = [first, *(row for row in ranked if row != first)][:chapters]
    main, *others = [
        RowNarration(walk, figures, row, finds if row == first else ()) for row in rows
    ]
    if brief:
        scenes = [main.title(), *main.again("Query and keys")]
    else:
        scenes = [*main.beginning(), *main.attention()]
    for other in others:
        scenes += other.again()
    scenes += [*joined_heads(figures, main), *_continuations(walk, figures)]
    return Script(
        title=walk.title,
        about=walk.about,
        tokens=walk.tokens,
        sources=main.sources,
        glued=glued(walk.title, main.sources),
        targets_glued=glued(walk.title, walk.tokens),
        scenes=(*scenes, main.end()),
    )


def _ranked_rows(walk: Walk, figures: Figures) -> list[int]:
    """The rows, those first that give most to other words."""
    weights = figures.matrices["weights"]
    is_cross = walk.tokens != weights.column_labels
    joins = (*glued(walk.title, walk.tokens), False)

    def share_of_others(row: int) -> float:
        to_others = sum(
            value
            for column, value in enumerate(weights.values[row])
            if is_word(weights.column_labels[column]) and (is_cross or column != row)
        )
        is_whole = not (joins[row] or joins[row + 1])
        return to_others + is_word(walk.tokens[row]) + is_whole

    return sorted(range(len(walk.tokens)), key=share_of_others, reverse=True)


def _continuations(walk: Walk, figures: Figures) -> list[Scene]:
    """What may come next, a scene for each token that was written."""
    scenes = []
    for number, step in enumerate(step for step in walk.steps if step.name.startswith("next")):
        [matrix] = step.matrices
        shown = figures.row(matrix.name, 0, range(len(matrix.column_labels)))
        chosen = quoted(matrix.column_labels, 0)
        lines = [
            spoken("ask", "From such vectors, the model computes how likely each next token is.")
            if number == 0
            else None,
            spoken(
                "next",
                "Then comes {word}, with {n}." if number else "{word} is the likeliest, with {n}.",
                word=chosen,
                n=shown[0],
            ),
            spoken("add", "It is added to the text, and the model reads on.", 2)
            if number == 0
            else None,
        ]
        scenes.append(
            Scene(
                name="next",
                title="The next token",
                formula="softmax over the vocabulary",
                lines=tuple(line for line in lines if line is not None),
                labels=tuple(map(clean, matrix.column_labels)),
                text=matrix.row_labels[0],
                numbers={"next": shown},
            )
        )
    return scenes

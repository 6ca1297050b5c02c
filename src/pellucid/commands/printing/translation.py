"""Translations as lines, and the words that each was made of as a grid."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pellucid.commands.printing.console import noted, say, shaded_line, steps
from pellucid.common.files import printable
from pellucid.common.grid import bands
from pellucid.common.wording import count
from pellucid.errors import ArgumentError
from pellucid.lens.alignment import Alignment
from pellucid.models import EncoderDecoder
from pellucid.tasks.compiling import compilation_named
from pellucid.tasks.translation import Translation, alignment, translate
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

Heads = Sequence[tuple[int, int]] | None
"""Layers and heads that the model names for alignment; None = all were taken."""


def translated(model: EncoderDecoder, found: Items, **options: Any) -> list[Translation]:
    """Translations with a bar on a terminal, and what was cut said on stderr.

    Args:
        model: that translates.
        found: the texts.
        options: those of `translate`.
    """
    with noted(), steps() as step, compilation_named(step):
        return translate(
            model,
            found.texts,
            names=found.names,
            progress=lambda done, of: step(f"translating {count(of, 'text')}", done, of),
            **options,
        )


def aligned(model: EncoderDecoder, done: Sequence[Translation]) -> list[Alignment | None]:
    """What the words of each were made of; None where it has no words."""
    found: list[Alignment | None] = []
    with steps() as step:
        for number, one in enumerate(done, start=1):
            try:
                found.append(alignment(model, one))
            except ArgumentError:
                found.append(None)
            step(f"aligning {count(len(done), 'text')}", number, len(done))
    return found


def columns(
    found: Items, done: Sequence[Translation], grids: Sequence[Alignment | None] | None
) -> dict[str, table_writing.Column]:
    """What is written of each text; of a grid, its words and (words, source words) weights."""
    made: dict[str, table_writing.Column] = {
        "line": found.lines,
        "source": found.texts,
        "text": [one.text for one in done],
        "score": [one.score for one in done],
    }
    if grids is not None:
        made |= {
            "source_words": [[] if grid is None else grid.source for grid in grids],
            "words": [[] if grid is None else grid.target for grid in grids],
            "weights": [[] if grid is None else grid.weights.tolist() for grid in grids],
        }
    return made


def lines(found: Items, done: Sequence[Translation]) -> list[str]:
    """A line for each line of the file: those that are empty stay so."""
    texts = dict.fromkeys(found.blank, "")
    for line, one in zip(found.lines, done, strict=True):
        texts[line] = " ".join(one.text.splitlines())
    return [texts[line] for line in sorted(texts)]


def show(
    found: Items,
    done: Sequence[Translation],
    grids: Sequence[Alignment | None] | None,
    console: Console,
    heads: Heads = None,
) -> None:
    """Print translations, with their grids if there are any; `heads` are those of the grids."""
    if grids is not None:
        show_aligned(done, grids, console, heads)
        return
    for line in lines(found, done):
        print(printable(line))


def show_aligned(
    done: Sequence[Translation],
    grids: Sequence[Alignment | None],
    console: Console,
    heads: Heads = None,
) -> None:
    """Print each translation and what its words were made of."""
    for one, grid in zip(done, grids, strict=True):
        say(" ".join(printable(one.text).split()), console, style="bold")
        console.print()
        if grid is None:
            say("It has no words.", console, style="dim")
            console.print()
            continue
        for part in bands(grid.target, grid.source, grid.weights.tolist(), console.width):
            for line in part:
                console.print(shaded_line(line), no_wrap=True)
            console.print()
    if not heads:
        where = "the mean over layers and heads"
    elif len(heads) == 1:
        where = f"in layer {heads[0][0]}, head {heads[0][1]}, which the model names for it"
    else:
        where = f"the mean over the {len(heads)} heads that the model names for it"
    say(
        "A row is a word of the translation: how many percent of its attention each word of the "
        f"text got, {where}. Marks such as the end of the text have the rest.",
        console,
        style="dim",
    )

"""`pellucid translate`: translations as lines, and the words that each was made of as a grid."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from pellucid.common.files import printable
from pellucid.common.terminal import say, shaded, steps
from pellucid.common.wording import count
from pellucid.errors import ArgumentError
from pellucid.lens.align import WIDEST, Alignment
from pellucid.models import EncoderDecoder
from pellucid.tasks.compiling import compilation_named
from pellucid.tasks.terminal import noted
from pellucid.tasks.translate import Translation, alignment, translate
from pellucid.text import tables
from pellucid.text.items import Items

NARROWEST = 3
"""Columns of the terminal that 100 takes."""


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
) -> dict[str, tables.Column]:
    """What is written of each text; of a grid, its words and (words, source words) weights."""
    made: dict[str, tables.Column] = {
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
) -> None:
    """Print translations, with their grids if there are any."""
    if grids is not None:
        show_aligned(done, grids, console)
        return
    for line in lines(found, done):
        print(printable(line))


def show_aligned(
    done: Sequence[Translation], grids: Sequence[Alignment | None], console: Console
) -> None:
    """Print each translation and what its words were made of."""
    for one, grid in zip(done, grids, strict=True):
        say(" ".join(printable(one.text).split()), console, style="bold")
        console.print()
        if grid is None:
            say("It has no words.", console, style="dim")
            console.print()
            continue
        for part in _parts(grid, console.width):
            for line in part:
                console.print(line, no_wrap=True)
            console.print()
    say(
        "A row is a word of the translation: how many percent of its attention each word of the "
        "text got, the mean over layers and heads. Marks such as the end of the text have the "
        "rest.",
        console,
        style="dim",
    )


def _parts(grid: Alignment, width: int) -> Iterator[list[Text]]:
    """The lines of a grid, as many source words at a time as the terminal is wide enough for."""
    most = max(NARROWEST, min(WIDEST, width // 2 - 1))
    source, target = ([_cut(word, most) for word in side] for side in (grid.source, grid.target))
    side = max(map(cell_len, target))
    widths = [max(NARROWEST, cell_len(word)) for word in source]
    start = 0
    while start < len(source):
        stop, used = start + 1, side + 2 + widths[start]
        while stop < len(source) and used + 2 + widths[stop] <= width:
            used += 2 + widths[stop]
            stop += 1
        part = [Text(" " * side, style="dim")]
        part += [Text(_padded(word, side)) for word in target]
        for place in range(start, stop):
            part[0].append(f"  {_padded(source[place], widths[place])}")
            for line, share in zip(part[1:], grid.weights[:, place].tolist(), strict=True):
                told = f"{100 * share:.0f}" if share >= 0.005 else "·"
                line.append("  ").append_text(shaded(_padded(told, widths[place]), share))
        yield part
        start = stop


def _cut(word: str, most: int) -> str:
    word = " ".join(printable(word).split())
    return word if cell_len(word) <= most else set_cell_size(word, most - 1).rstrip() + "…"


def _padded(word: str, width: int) -> str:
    return " " * (width - cell_len(word)) + word

"""Translations as lines, and their word alignments as grids."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pellucid.commands.printing.console import isolated, note, noted, say, steps
from pellucid.commands.printing.shades import shaded_line
from pellucid.common.files import printable
from pellucid.common.grid import bands
from pellucid.common.wording import count
from pellucid.errors import ArgumentError
from pellucid.lens.alignment import Alignment
from pellucid.models import EncoderDecoder
from pellucid.tasks.compiling import compilation_named, compiling_in_background
from pellucid.tasks.language_pair import pair_of
from pellucid.tasks.translated import Translation
from pellucid.tasks.translation import translate
from pellucid.tasks.word_alignment import alignment
from pellucid.text import table_writing
from pellucid.text.kept_spans import changed
from pellucid.text.text_inputs import Items

Heads = Sequence[tuple[int, int]] | None
"""(layer, head) pairs that the model names for alignment; None = all were used."""


def translated(model: EncoderDecoder, items: Items, **options: Any) -> list[Translation]:
    """Translate with a progress bar and with warnings on stderr.

    Args:
        model: the translator.
        items: the texts.
        options: of `translate`.
    """
    pair = pair_of(model, options.get("source"), options.get("target"))
    if pair.languages is not None and pair.languages.source and pair.source is None:
        note(f"the texts are read as {pair.languages.source}; --from names another language")
    with (
        noted(items.notes),
        compiling_in_background(),
        steps() as step,
        compilation_named(step),
    ):
        translations = translate(
            model,
            items.texts,
            names=items.names,
            progress=lambda done, of: step(f"translating {count(of, 'text')}", done, of),
            **options,
        )
    lost = [part for each in translations for part in changed(each.source, each.text)]
    if lost:
        which = f"'{printable(lost[0])}'" + (f" and {len(lost) - 1:,} more" if lost[1:] else "")
        kept = "--protect all keeps addresses, tags, placeholders"
        advice = "" if options.get("protect") == "all" else f"; {kept}"
        note(f"changed in translation: {which}{advice}")
    return translations


def aligned(model: EncoderDecoder, translations: Sequence[Translation]) -> list[Alignment | None]:
    """The alignment of each translation; None if it has no words."""
    alignments: list[Alignment | None] = []
    with steps() as step:
        for number, translation in enumerate(translations, start=1):
            try:
                alignments.append(alignment(model, translation))
            except ArgumentError:
                alignments.append(None)
            step(f"aligning {count(len(translations), 'text')}", number, len(translations))
    return alignments


def columns(
    items: Items, translations: Sequence[Translation], grids: Sequence[Alignment | None] | None
) -> dict[str, table_writing.Column]:
    """The columns of a table; alignments add the words and (words, source words) weights."""
    table: dict[str, table_writing.Column] = {
        **items.location_columns,
        "source": items.texts,
        "text": [translation.text for translation in translations],
        "score": [translation.score for translation in translations],
    }
    if grids is not None:
        table |= {
            "source_words": [[] if grid is None else grid.source for grid in grids],
            "words": [[] if grid is None else grid.target for grid in grids],
            "weights": [[] if grid is None else grid.weights.tolist() for grid in grids],
        }
    return table


def rows(
    table: dict[str, table_writing.Column], translations: Sequence[Translation]
) -> list[dict[str, Any]]:
    """The rows of a table, each with its sentences as places in its text and in its translation,
    and with what was kept as it is.
    """
    return [
        row
        | {
            "sentences": [
                {"source": list(sentence.source), "text": list(sentence.text)}
                for sentence in translation.sentences
            ],
            "protected": list(translation.protected),
        }
        for row, translation in zip(table_writing.rows_of(table), translations, strict=True)
    ]


def lines(items: Items, translations: Sequence[Translation]) -> list[str]:
    """A line for each line of the file; empty lines stay empty, but for those of a folder."""
    if items.files:
        return [" ".join(translation.text.splitlines()) for translation in translations]
    texts = dict.fromkeys(items.blank, "")
    for line, translation in zip(items.lines, translations, strict=True):
        texts[line] = " ".join(translation.text.splitlines())
    return [texts[line] for line in sorted(texts)]


def show(
    items: Items,
    translations: Sequence[Translation],
    grids: Sequence[Alignment | None] | None,
    console: Console,
    heads: Heads = None,
) -> None:
    """Print translations or, if given, their alignments; `heads` are those of the alignments."""
    if grids is not None:
        show_aligned(translations, grids, console, heads)
        return
    for line in lines(items, translations):
        print(printable(line))


def show_aligned(
    translations: Sequence[Translation],
    grids: Sequence[Alignment | None],
    console: Console,
    heads: Heads = None,
) -> None:
    """Print each translation with its alignment."""
    for translation, grid in zip(translations, grids, strict=True):
        text = " ".join(printable(translation.text).split())
        say(isolated(text), console, style="bold")
        console.print()
        if grid is None:
            say("This translation has no words.", console, style="dim")
            console.print()
            continue
        for part in bands(grid.target, grid.source, grid.weights.tolist(), console.width):
            for line in part:
                console.print(shaded_line(line), no_wrap=True)
            console.print()
    if not heads:
        where = "the mean over layers and heads"
    elif len(heads) == 1:
        where = f"in layer {heads[0][0]}, head {heads[0][1]}, which the model names for alignment"
    else:
        where = f"the mean over the {len(heads)} heads that the model names for alignment"
    say(
        "A row is a word of the translation, and each number the percentage of its attention that "
        f"a word of the text received: {where}. Special tokens received the rest.",
        console,
        style="dim",
    )

"""`pellucid explain` and `pellucid scaling`."""

from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.shared import (
    JsonOption,
    OverwriteOption,
    check_files,
    model_option,
    write,
)
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.lessons.lesson import Form, Lesson
    from pellucid.lessons.walk import Walk

commands = typer.Typer()


class Weights(StrEnum):
    """How an example's weights are made."""

    parameters = "parameters"
    linear = "linear"


@commands.command()
def explain(
    sentence: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE", help='What the model reads, like "Write a poem".'),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            help="An example instead: poem, journey, bright or lookup (of the notes), context "
            "(one word in several sentences), verdict (was a film liked?) or next (what comes "
            "next?)."
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Your own words instead, with random numbers."),
    ] = None,
    lesson: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A lesson that --save wrote, perhaps edited."),
    ] = None,
    model: Annotated[
        str | None,
        model_option(
            "An encoder, a decoder, or the encoder of both (default: Pellucid's decoder)."
        ),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Which layer, from 0 (default: the clearest).")
    ] = None,
    head: Annotated[
        int | None, typer.Option(help="Which head, from 0 (default: the clearest).")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="Show the rows of one word; or the word to look up, compare or write next.",
        ),
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Hide from each token the tokens after it.")
    ] = False,
    weights: Annotated[
        Weights | None,
        typer.Option(help="How the weights of --example journey or of --words are made."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The words that --words attend to: cross-attention."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The random seed when --words are given.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="The embedding size of --words (default: 4).")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="The size of queries and keys of --words (default: 2).")
    ] = None,
    heads: Annotated[int | None, typer.Option(help="How many heads --words have.")] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="KEY=NUMBER,...", help="Your own table for --example lookup."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Your own text for context (several), verdict or next."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="The factor on the scores (default: 1/√d_k).")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="The divisor of the scores before the softmax (default: 1)."),
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="Show every step, from the tokens to the context.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Save the lesson as JSON, to edit and to read with --from again."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with every step.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture of the weights.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Show one attention head at work: its weights in percent, with --steps number by number."""
    from pellucid.common.files import is_blank, printable

    if sentence and len(sentence) > 1:
        raise ArgumentError(f'explain takes one sentence; put it in quotes: "{" ".join(sentence)}"')
    values = locals().items()
    options = {name: value for name, value in values if value is not None and value is not False}
    kind = _kind_of_lesson(options)
    if query is not None:
        if is_blank(query):
            raise ArgumentError("--query is empty; give one word of the sentence")
        query = printable(query)
    check_files(overwrite=overwrite, saves="json", html=html, svg=svg, save=save)
    form: Form | None = weights.value if weights else None
    if kind == "sentence":
        assert sentence is not None
        if is_blank(sentence[0]):
            raise ArgumentError('sentence is empty; give some words, like "Write a poem"')
        from pellucid.lessons.model import walk_model

        walk = walk_model(
            printable(sentence[0]), model=model, layer=layer, head=head, query=query, causal=causal
        )
    elif kind == "lookup" and table is not None:
        from pellucid.lessons.lookup import walk_lookup

        rows = _table(table)
        if query is None:
            raise ArgumentError("--table needs --query, the word to look up")
        walk = walk_lookup(query, rows)
    elif example is not None and not options.keys() & {"scale", "temperature", "save"}:
        from pellucid.commands.printing.console import waiting
        from pellucid.lessons.examples import walk_example

        with waiting("working out the example"):
            walk = walk_example(example, causal=causal, weights=form, query=query, text=text)
    else:
        from pellucid.lessons.steps import walk_lesson

        of_words = {name: options[name] for name in _OF_WORDS & options.keys()}
        document = _lesson(example, words, lesson, form, causal, of_words)
        if changes := {name: options[name] for name in {"scale", "temperature"} & options.keys()}:
            document = document.change(**changes)
        walk = walk_lesson(document, query=query, head=head or 0)
        if save is not None:
            write(save, document.to_json(), "json", overwrite)
    _save(walk, html, svg, overwrite)
    if json:
        from pellucid.lessons.walk import to_json

        typer.echo(to_json(walk))
    else:
        from rich.console import Console

        from pellucid.commands.printing.walk import show

        show(walk, Console(), steps=steps)


_OF_WORDS = {"source", "seed", "width", "size", "heads"}
_GOES_WITH = {
    "model": ("sentence",),
    "layer": ("sentence",),
    "head": ("sentence", "words", "from"),
    "causal": ("sentence", "example", "words", "from"),
    "weights": ("example", "words"),
    "table": ("lookup",),
    "text": ("text",),
    **dict.fromkeys(_OF_WORDS, ("words",)),
    **dict.fromkeys(("scale", "temperature", "save"), ("example", "words", "from")),
}
_CALLED = {
    "sentence": "a sentence",
    "example": "--example",
    "lookup": "--example lookup",
    "text": "--example context, verdict or next",
    "words": "--words",
    "from": "--from",
}


def _kind_of_lesson(options: dict[str, Any]) -> str:
    """Where the lesson comes from; refuse options that do not apply to it."""
    kinds = [
        "from" if name == "lesson" else name
        for name in ("sentence", "example", "words", "lesson")
        if name in options
    ]
    if len(kinds) != 1:
        raise ArgumentError(
            'give either a sentence, like "Write a poem", or one of --example, --words and --from'
        )
    (kind,) = kinds
    if kind == "example":
        others = {"lookup": "lookup", "context": "text", "verdict": "text", "next": "text"}
        kind = others.get(options["example"], kind)
    for name, goes_with in _GOES_WITH.items():
        if name in options and kind not in goes_with:
            wanted = " or ".join(_CALLED[kind] for kind in goes_with)
            raise ArgumentError(f"--{name} goes with {wanted}, not with {_CALLED[kind]}")
    return kind


def _lesson(
    example: str | None,
    words: str | None,
    path: Path | None,
    form: "Form | None",
    causal: bool,
    of_words: dict[str, Any],
) -> "Lesson":
    if example is not None:
        from pellucid.lessons.examples import example_lesson

        return example_lesson(example, causal=causal, weights=form)
    from pellucid.common.files import printable
    from pellucid.lessons.lesson import random_lesson, read_lesson

    if path is not None:
        document = read_lesson(path).change(about=(f"Read from {printable(str(path))}.",))
    else:
        assert words is not None
        document = random_lesson(words, form=form or "parameters", **of_words)
    return document.change(mask="causal") if causal else document


def _table(text: str) -> dict[str, float]:
    """KEY=NUMBER,... as a table."""
    rows = {}
    for row in text.split(","):
        key, equals, value = row.partition("=")
        try:
            rows[key.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not key.strip() or not isfinite(rows[key.strip()]):
            raise ArgumentError(
                f"--table must be KEY=NUMBER pairs separated by commas, not '{row}'"
            )
    return rows


def _save(walk: "Walk", html: Path | None, svg: Path | None, overwrite: bool) -> None:
    if html is not None:
        from pellucid.lessons.page import to_html

        write(html, to_html(walk), "html", overwrite)
    if svg is not None:
        from pellucid.lessons.picture import to_svg

        write(svg, to_svg(walk), "svg", overwrite)

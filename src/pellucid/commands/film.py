"""`pellucid film`."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.shared import OverwriteOption, check_files, model_option, wrote
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.film.prompt import Wish
    from pellucid.lessons.walk import Walk

commands = typer.Typer()


class Size(StrEnum):
    """How large a film is."""

    hd = "720p"
    full_hd = "1080p"
    square = "square"
    upright = "upright"


class Theme(StrEnum):
    """The colours of a film."""

    light = "light"
    dark = "dark"


@commands.command()
def film(
    sentence: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SENTENCE",
            help='What the model reads, like "Write a poem"; or a prompt that quotes it: "show '
            "how 'it' finds 'the animal' in 'The animal was tired, so it slept', slowly\".",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the film to this .mp4 file."),
    ] = None,
    gif: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a small GIF without sound."),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(help="An example instead, as of pellucid explain: poem, journey, lookup, ..."),
    ] = None,
    lesson: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A lesson that pellucid explain --save or the page wrote, perhaps edited.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        model_option(
            "An encoder, a decoder, or the encoder of both; with --translate, both "
            "(default: Pellucid's own)."
        ),
    ] = None,
    translate: Annotated[
        bool, typer.Option("--translate", help="Show where a word of the translation comes from.")
    ] = False,
    generate: Annotated[
        bool, typer.Option("--generate", help="Show what may come next, and go on.")
    ] = False,
    layer: Annotated[
        int | None, typer.Option(help="Which layer, from 0 (default: the clearest).")
    ] = None,
    head: Annotated[
        int | None, typer.Option(help="Which head, from 0 (default: the clearest).")
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="WORD", help="Show what this word looks at.")
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Hide from each token the tokens after it.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="The length to aim at, in minutes.")
    ] = None,
    voice: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The voice: one of espeak-ng's, such as en-gb; piper; or piper:FILE.onnx.",
        ),
    ] = "en-us+f3",
    silent: Annotated[
        bool, typer.Option("--silent", help="Show captions instead of speaking.")
    ] = False,
    size: Annotated[Size, typer.Option(help="The size of the picture.")] = Size.full_hd,
    theme: Annotated[Theme, typer.Option(help="The colours.")] = Theme.light,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a narrated film of attention at work."""
    from pellucid.film.render import beside, check_minutes

    if sentence and len(sentence) > 1:
        raise ArgumentError(f'film takes one sentence; put it in quotes: "{" ".join(sentence)}"')
    if sum((bool(sentence), example is not None, lesson is not None)) != 1:
        raise ArgumentError('give either a sentence, like "Write a poem", or --example, or --from')
    if output is None and gif is None:
        raise ArgumentError("say where the film goes: -o poem.mp4, or --gif poem.gif")
    check_minutes(minutes)
    check_files((".mp4",), overwrite=overwrite, output=output, gif=gif)
    if output is not None:
        texts = beside(output)
        check_files(overwrite=overwrite, vtt=texts["vtt"], srt=texts["srt"], txt=texts["txt"])

    from pellucid.film import render
    from pellucid.film.voices import open_voice
    from pellucid.lessons.walk import find_token

    render.check_installed()
    speaker = None if silent or output is None else open_voice(voice)
    pace, row = 1.0, None
    finds: tuple[int, ...] = ()
    if example is not None or lesson is not None:
        _refuse(
            "--example" if lesson is None else "--from",
            {
                "model": model,
                "layer": layer,
                "head": head if lesson is None else None,
                "translate": translate or None,
                "generate": generate or None,
            },
        )
        if example is not None:
            walk = _of_example(example, query, causal)
        else:
            assert lesson is not None
            walk = _of_file(lesson, causal, head)
        if query is not None and example != "lookup":
            row = find_token(walk.tokens, query)[0]
    else:
        from pellucid.commands.printing.console import waiting
        from pellucid.film.walk_sources import walk_wished

        assert sentence is not None
        wish = _wish(sentence[0], query, causal, translate, generate)
        with waiting("reading"):
            walk, row, finds = walk_wished(wish, model=model, layer=layer, head=head)
        pace = wish.pace

    from pellucid.commands.printing.console import note, noted, steps

    with noted(), steps() as step:
        step("speaking", 0, 0)
        made = render.compose(walk, speaker, query=row, finds=finds, minutes=minutes, pace=pace)
        written = render.save(
            made,
            output,
            gif,
            size=size.value,
            theme=theme.value,
            overwrite=overwrite,
            progress=step,
        )
    seconds = made.script.until
    if minutes is not None and abs(seconds - 60 * minutes) > 0.1 * 60 * minutes:
        most = "shortest" if seconds > 60 * minutes else "longest"
        note(
            f"you asked for {minutes:g} minutes; the {most} film of this takes "
            f"{seconds / 60:.1f} minutes"
        )
    for path in written:
        wrote(path)


def _wish(text: str, query: str | None, causal: bool, translate: bool, generate: bool) -> "Wish":
    """What the prompt and the options ask for together."""
    from pellucid.commands.printing.console import note
    from pellucid.common.files import is_blank, printable
    from pellucid.film import prompt

    text = printable(text)
    if is_blank(text):
        raise ArgumentError('sentence is empty; give some words, like "Write a poem"')
    if prompt.looks_like_one(text):
        note(f"this is filmed as the sentence itself; a prompt quotes its parts: {prompt.GRAMMAR}")
    wish = prompt.understood(text)
    if query is not None:
        if is_blank(query):
            raise ArgumentError("--query is empty; give one word of the sentence")
        if wish.query is not None:
            raise ArgumentError(f"--query '{query}': the prompt asks about '{wish.query}' already")
        wish = replace(wish, query=printable(query))
    wish = replace(
        wish,
        causal=wish.causal or causal,
        translate=wish.translate or translate,
        generate=wish.generate or generate,
    )
    if wish.translate and wish.generate:
        raise ArgumentError("--translate and --generate are two films; ask for one of them")
    if wish.translate and wish.causal:
        raise ArgumentError("--causal has no meaning with --translate: a source has no mask")
    return wish


def _refuse(kind: str, options: dict[str, object]) -> None:
    """Refuse what goes with a sentence alone."""
    for option, given in options.items():
        if given is not None:
            raise ArgumentError(f"--{option} goes with a sentence, not with {kind}")


def _of_example(name: str, query: str | None, causal: bool) -> "Walk":
    """The walk of an example; only a look-up depends on the query."""
    from pellucid.lessons.examples import walk_example

    return walk_example(name, causal=causal, query=query if name == "lookup" else None)


def _of_file(path: Path, causal: bool, head: int | None) -> "Walk":
    """The walk of a lesson that was saved."""
    from pellucid.film.walk_sources import of_one_head
    from pellucid.lessons.lesson import read_lesson
    from pellucid.lessons.steps import walk_lesson

    lesson = read_lesson(path)
    walk = walk_lesson(lesson.change(mask="causal") if causal else lesson, head=head or 0)
    return of_one_head(walk, head or 0) if lesson.heads > 1 else walk

"""`pellucid film`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.shared import OverwriteOption, check_files, model_option, wrote
from pellucid.errors import ArgumentError

commands = typer.Typer()


class Size(StrEnum):
    """How large a film is."""

    hd = "720p"
    full_hd = "1080p"
    square = "square"
    upright = "upright"


class Look(StrEnum):
    """The colours of a film."""

    light = "light"
    dark = "dark"


@commands.command()
def film(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE", help='What the model reads, like "Write a poem".'),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the film to an .mp4."),
    ] = None,
    gif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as a small GIF, without sound.")
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(help="Show an example of the notes: poem, journey, bright or lookup."),
    ] = None,
    model: Annotated[
        str | None,
        model_option("An encoder or decoder, or the encoder of both; Pellucid's decoder unless given."),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Which layer, from 0; the most telling unless given.")] = None,
    head: Annotated[int | None, typer.Option(help="Which head, from 0; the most telling unless given.")] = None,
    query: Annotated[str | None, typer.Option(metavar="WORD", help="Show the query of this word.")] = None,
    causal: Annotated[bool, typer.Option("--causal", help="Hide from each token those after it.")] = False,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="How long it is to be, about.")] = None,
    voice: Annotated[str, typer.Option(metavar="NAME", help="Who speaks: a voice of espeak-ng, piper or piper:FILE.onnx.")] = "en-us+f3",
    silent: Annotated[bool, typer.Option("--silent", help="Write what would be said into the picture instead.")] = False,
    size: Annotated[Size, typer.Option(help="How large.")] = Size.full_hd,
    theme: Annotated[Look, typer.Option(help="The colours.")] = Look.light,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a narrated film of one attention head at work."""
    from pellucid.commands.printing.console import steps
    from pellucid.film import making
    from pellucid.film.voices import open_voice
    from pellucid.lessons.examples import walk_example
    from pellucid.lessons.model import walk_model

    if output is None and gif is None:
        raise ArgumentError("say where to: -o poem.mp4 or --gif poem.gif")
    walk = walk_example(example, causal=causal) if example else walk_model(words[0], model=model, layer=layer, head=head, causal=causal)
    with steps() as step:
        step("speaking", 0, 0)
        made = making.compose(walk, None if silent else open_voice(voice), minutes=minutes)
        for path in making.save(made, output, gif, size=size.value, theme=theme.value, overwrite=overwrite, progress=step):
            wrote(path)

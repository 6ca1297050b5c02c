"""`pellucid view`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.lens import (
    LayersOption,
    MaxTokensOption,
    ReaderOption,
    TargetOption,
    TextFileOption,
    TextOrRecording,
)
from pellucid.commands.shared import model_option, one_text
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command("view")
def view(
    what: TextOrRecording = None,
    file: TextFileOption = None,
    target: TargetOption = None,
    model: ReaderOption = None,
    layers: LayersOption = None,
    max_tokens: MaxTokensOption = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Let the model generate up to N tokens from the text."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Another text or recording, to lay beside the first."),
    ] = None,
    against_model: Annotated[
        str | None,
        model_option("Another model, to read the same or the other text."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; other machines need a token then.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", help="Where to listen; a free one near 7227 if 0.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option(" /--no-browser", help="Print the address, and open nothing.")
    ] = True,
) -> None:
    """Look at attention in the browser."""
    from pellucid.common.terminal import steps
    from pellucid.lens.terminal import read_text
    from pellucid.viewer import reading
    from pellucid.viewer.serve import listening, serve

    said = one_text("view", what)
    of_reading = (file, target, model, layers, max_tokens, new_tokens)
    if reading.is_recording(said) and any(one is not None for one in of_reading):
        raise ArgumentError(
            "a recording is shown as it is: leave out --file, --target, --model, --layers, "
            "--max-tokens and --new-tokens"
        )
    if against_model is not None and reading.is_recording(against or said):
        raise ArgumentError("--against-model reads a text, and a recording is there already")
    volumes = []
    with listening(host, port) as at:
        with steps() as step:
            read = partial(
                reading.read,
                target=target,
                layers=layers,
                max_tokens=max_tokens,
                new_tokens=new_tokens,
                step=step,
            )
            text = ""
            if said is not None and reading.is_recording(said):
                volumes.append(reading.saved(said))
            else:
                text = read_text(said, file)
                volumes.append(read(text, reading.title_of(text, file), model=model))
            if against is not None and reading.is_recording(against):
                volumes.append(reading.saved(against))
            elif against is not None:
                title = reading.title_of(read_text(against, None))
                volumes.append(read(against, title, model=against_model or model))
            elif against_model is not None:
                title = f"{reading.title_of(text, file)} ({Path(against_model).name})"
                volumes.append(read(text, title, model=against_model))
        serve(volumes, at, browser)

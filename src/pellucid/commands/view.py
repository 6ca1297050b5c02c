"""`pellucid view`."""

import sys
from contextlib import nullcontext
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
from pellucid.commands.shared import EncodingOption, model_option, one_text
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command("view")
def view(
    what: TextOrRecording = None,
    file: TextFileOption = None,
    encoding: EncodingOption = None,
    target: TargetOption = None,
    model: ReaderOption = None,
    layers: LayersOption = None,
    max_tokens: MaxTokensOption = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Let the model generate up to N tokens after the text."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Another text or recording, to compare with the first."),
    ] = None,
    against_model: Annotated[
        str | None,
        model_option("Another model, to read the same text or the other one."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; other machines need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", help="The port to listen on; 0 takes a free one near 7227.")
    ] = 0,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the address without opening a browser."),
    ] = False,
) -> None:
    """Show attention in the browser; without a text, type one there."""
    from pellucid.commands.inputs import parse_layers, read_text
    from pellucid.commands.printing.console import noted, steps
    from pellucid.viewer import volumes
    from pellucid.viewer.reading import models_at_hand
    from pellucid.viewer.serve import listening, serve

    text_or_path = one_text("view", what)
    of_reading = (file, target, model, layers, max_tokens, new_tokens)
    if volumes.is_recording(text_or_path) and any(option is not None for option in of_reading):
        raise ArgumentError(
            "a recording is shown as it is: leave out --file, --target, --model, --layers, "
            "--max-tokens and --new-tokens"
        )
    if against_model is not None and volumes.is_recording(against or text_or_path):
        raise ArgumentError("--against-model reads a text, not a recording")
    shown = []
    with listening(host, port) as at:
        # Warnings about generation are printed after the progress bar is gone.
        with noted() if new_tokens else nullcontext(), steps() as step:
            read = partial(
                volumes.read,
                target=target,
                layers=parse_layers(layers),
                max_tokens=max_tokens,
                new_tokens=new_tokens,
                step=step,
            )
            text = ""
            of_text = (file, target, layers, max_tokens, new_tokens, against, against_model)
            if text_or_path is not None and volumes.is_recording(text_or_path):
                shown.append(volumes.saved(text_or_path))
            elif text_or_path is not None or any(option is not None for option in of_text):
                text = read_text(text_or_path, file, encoding)
                shown.append(read(text, volumes.title_of(text, file), model=model))
            if against is not None and volumes.is_recording(against):
                shown.append(volumes.saved(against))
            elif against is not None:
                title = volumes.title_of(read_text(against, None))
                shown.append(read(against, title, model=against_model or model))
            elif against_model is not None:
                title = f"{volumes.title_of(text, file)} ({Path(against_model).name})"
                shown.append(read(text, title, model=against_model))
        serve(shown, at, not no_browser, _show_address, models_at_hand(model, against_model))


def _show_address(address: str) -> None:
    typer.echo(f"{address}\nCtrl-C stops.")
    sys.stdout.flush()

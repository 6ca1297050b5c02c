"""`pellucid view`."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.lens import (
    LayersOption,
    MaxTokensOption,
    ReaderOption,
    TargetOption,
    TextFileOption,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command("view")
def view(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT",
            help='What the model reads, like "Write a poem"; or a recording, FILE.safetensors.',
        ),
    ] = None,
    file: TextFileOption = None,
    target: TargetOption = None,
    model: ReaderOption = None,
    layers: LayersOption = None,
    max_tokens: MaxTokensOption = None,
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
    from pellucid.lens import terminal
    from pellucid.lens.recording import Recording
    from pellucid.viewer.atlas import Volume
    from pellucid.viewer.serve import serve

    if what and len(what) > 1:
        raise ArgumentError(f'view takes one text; put it in quotes: "{" ".join(what)}"')
    said = what[0] if what else None
    if said is not None and said.endswith(".safetensors"):
        if any(one is not None for one in (file, target, model, layers, max_tokens)):
            raise ArgumentError(
                "a recording is shown as it is: leave out --file, --target, --model, --layers and "
                "--max-tokens"
            )
        seen, title = Recording.load(said), Path(said).name
    else:
        text = terminal.read_text(said, file)
        with steps() as step:
            _, _, seen = terminal.recorded(
                text, target, model, terminal.parse_layers(layers), max_tokens, step
            )
        title = file.name if file is not None else " ".join(text.split())[:60]
    serve([Volume(seen, title)], host, port, browser)

"""`pellucid view`."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.shared import model_option
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
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the text from a UTF-8 file instead.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the decoder of an encoder-decoder reads."),
    ] = None,
    model: Annotated[
        str | None,
        model_option("A Hugging Face directory or name; Pellucid's decoder unless given."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="Which layers; all unless given.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Cut what is longer than that.")
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
    from pellucid.lens import terminal
    from pellucid.lens.recording import Recording
    from pellucid.viewer.serve import serve

    if what and len(what) > 1:
        raise ArgumentError(f'view takes one text; put it in quotes: "{" ".join(what)}"')
    said = what[0] if what else None
    if said is not None and said.endswith(".safetensors"):
        if file is not None or target is not None or model is not None:
            raise ArgumentError("a recording needs no --file, --target or --model")
        seen, title = Recording.load(said), Path(said).name
    else:
        text = terminal.read_text(said, file)
        with steps() as step:
            _, _, seen = terminal.recorded(
                text, target, model, terminal.parse_layers(layers), max_tokens, step
            )
        title = file.name if file is not None else " ".join(text.split())[:60]
    serve(seen, title, host, port, browser)

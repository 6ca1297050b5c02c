"""`pellucid export`."""

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
from pellucid.commands.shared import (
    EncodingOption,
    JsonOption,
    OverwriteOption,
    check_files,
    one_text,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command("export")
def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the page: .html.")
    ],
    what: TextOrRecording = None,
    file: TextFileOption = None,
    encoding: EncodingOption = None,
    target: TargetOption = None,
    model: ReaderOption = None,
    layers: LayersOption = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Heads per layer whose maps the page holds, numbers separated by commas (default: "
            "all). The overview shows all.",
        ),
    ] = None,
    max_tokens: MaxTokensOption = None,
    title: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="The title (default: the name of the file, or the text)."
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(metavar="MIB", help="The most data the page may hold, before compression."),
    ] = 64,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write a page that shows attention offline, without a server."""
    check_files((".html", ".htm"), overwrite=overwrite, output=output)
    head_numbers = _numbers(heads)
    if limit < 1:
        raise ArgumentError(f"--limit must be 1 or more, not {limit}")

    from pellucid.attention.limits import readable_bytes
    from pellucid.commands.inputs import parse_layers, read_text
    from pellucid.commands.printing.console import steps
    from pellucid.common.files import printable, to_json, write_whole
    from pellucid.viewer import volumes
    from pellucid.viewer.catalogue import Catalogue
    from pellucid.viewer.html_export import exported

    text_or_path = one_text("export", what)
    with steps() as step:
        if text_or_path is not None and volumes.is_recording(text_or_path):
            if any(option is not None for option in (file, target, model, max_tokens)):
                raise ArgumentError(
                    "a recording is exported as it is: leave out --file, --target, --model and "
                    "--max-tokens"
                )
            volume = volumes.saved(text_or_path, parse_layers(layers))
        else:
            text = read_text(text_or_path, file, encoding)
            volume = volumes.read(
                text,
                volumes.title_of(text, file),
                target=target,
                model=model,
                layers=parse_layers(layers),
                max_tokens=max_tokens,
                step=step,
            )
        if title is not None:
            volume = volume._replace(title=title)
        page = exported(Catalogue(volume), heads=head_numbers, limit=limit * 2**20, step=step)
        write_whole(output, page, "html", overwrite=overwrite)
    size = output.stat().st_size
    typer.echo(f"wrote {printable(str(output))}, {readable_bytes(size)}", err=True)
    if json:
        typer.echo(to_json({"file": str(output), "bytes": size, "title": volume.title}))


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise ArgumentError(f"--heads must be numbers separated by commas, not '{text}'")
    return [int(part) for part in parts]

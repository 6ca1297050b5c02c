"""What the commands share."""

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, for scripts.")]


def write(path: Path, text: str) -> None:
    from pellucid.common.files import printable, write_whole

    write_whole(path, text)
    typer.echo(f"wrote {printable(str(path))}", err=True)


def wrote(path: Path) -> None:
    """Say on stderr that a file has been written."""
    from pellucid.common.files import printable

    typer.echo(f"wrote {printable(str(path))}", err=True)

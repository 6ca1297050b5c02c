"""What the commands share: options, what is checked before the work, and how an answer leaves."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.text.tables import Column

SeedOption = Annotated[int, typer.Option(metavar="N", help="Where the random numbers start.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, for scripts.")]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts; else those of --file or of standard input."),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read the texts from a file: one a line, or .csv, .tsv, .jsonl, .parquet; or -.",
    ),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which column or field; text or the only one if not given."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse texts that are empty or too long, not leave out and cut."
    ),
]
COLUMNS = (".csv", ".json", ".parquet")
TEXTS = (".txt", *COLUMNS)


def output_option(*kinds: str) -> Any:
    """-o FILE of one of these kinds."""
    told = ", ".join(kinds)
    return typer.Option("--output", "-o", metavar="FILE", help=f"Write to a file instead: {told}.")


def model_option(about: str) -> Any:
    """--model, a directory or a name, not empty."""
    return typer.Option(metavar="MODEL", help=about, callback=_named)


def _named(model: str | None) -> str | None:
    if model is not None and not model.strip():
        raise ArgumentError("--model is empty; give a model's directory or its name on the hub")
    return model


def check_files(kinds: Sequence[str] = (), **files: Path | None) -> None:
    """Refuse, before any work, files that could not be written at its end.

    Args:
        kinds: of --output.
        files: by the names of their options.

    Raises:
        ArgumentError: --output is of another kind, or two options name one file.
        FileError: there cannot be such a file.
        MissingExtraError: --output is Parquet, and pyarrow is not installed.
    """
    from pellucid.common.files import check_writable

    seen: dict[str, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        if option == "output":
            from pellucid.text.tables import check_kind

            check_kind(path, kinds)
        other = seen.setdefault(os.path.realpath(path), option)
        if other != option:
            raise ArgumentError(f"--{other} and --{option} cannot both be '{path}'")
        check_writable(path)


def one_text(command: str, given: list[str] | None) -> str | None:
    """The text that a command is given; whoever names a file instead is told how to.

    Raises:
        ArgumentError: there are several, as of words without quotes.
    """
    if not given:
        return None
    if len(given) > 1:
        raise ArgumentError(f'{command} takes one text; put it in quotes: "{" ".join(given)}"')
    text = given[0]
    if len(text) < 256 and not text.endswith(".safetensors") and os.path.isfile(text):
        from pellucid.common.files import printable

        name = printable(text)
        typer.echo(f"pellucid: reading the name '{name}'; the file is --file '{name}'", err=True)
    return text


def write(path: Path, text: str) -> None:
    """Write a file, and say so."""
    from pellucid.common.files import write_whole

    write_whole(path, text)
    wrote(path)


def wrote(path: Path) -> None:
    """Say on stderr that a file has been written."""
    from pellucid.common.files import printable

    typer.echo(f"wrote {printable(str(path))}", err=True)


def give(
    output: Path | None,
    json: bool,
    *,
    said: Callable[[], Mapping[str, Any]],
    columns: "Callable[[], Mapping[str, Column]]",
    show: Callable[[], None],
    text: Callable[[], str] | None = None,
) -> None:
    """Give an answer where it is wanted: in a file, as JSON, or else on the terminal.

    Args:
        output: a file, of the kind that its name says.
        json: print JSON.
        said: the answer for .json.
        columns: for tables.
        show: prints it for people.
        text: for .txt, which a command without it has refused.
    """
    from pellucid.tasks.terminal import to_json
    from pellucid.text import tables

    if output is not None:
        kind = output.suffix.lower()
        if kind == ".json":
            write(output, to_json(said()) + "\n")
        elif kind == ".txt":
            assert text is not None
            write(output, text())
        else:
            tables.write(output, columns())
            wrote(output)
    if json:
        typer.echo(to_json(said()))
    elif output is None:
        show()


def plain_console() -> Any:
    """Prints what it is given, without colouring numbers."""
    from rich.console import Console

    return Console(highlight=False)

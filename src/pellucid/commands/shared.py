"""What the commands share: options, what is checked before the work, and how an answer leaves."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid import pretrained
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.text.table_writing import Column

SeedOption = Annotated[int, typer.Option(metavar="N", help="Where the random numbers start.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of the same kind that are there already.")
]
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
    known = f"A directory, a name on the hub, or one of {', '.join(pretrained.NAMES)}."
    return typer.Option(metavar="MODEL", help=f"{about} {known}", callback=_named)


def _named(model: str | None) -> str | None:
    if model is not None and not model.strip():
        raise ArgumentError("--model is empty; give a model's directory or its name on the hub")
    return model


def check_files(
    kinds: Sequence[str] = (), *, overwrite: bool, saves: str = "recording", **files: Path | None
) -> None:
    """Refuse, before any work, files that could not be written at its end, or should not be.

    Args:
        kinds: of --output.
        overwrite: whether files of the same kind may be replaced.
        saves: of which kind --save is.
        files: by the names of their options.

    Raises:
        ArgumentError: a name says another kind, two options name one file, or the command reads it.
        ExistsError: there is a file, and it may not be replaced.
        FileError: there cannot be such a file.
        MissingExtraError: --output is Parquet, and pyarrow is not installed.
    """
    from pellucid.common.files import check_writable

    seen: dict[str, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        if option == "output":
            from pellucid.text.table_writing import check_kind

            check_kind(path, kinds)
        other = seen.setdefault(os.path.realpath(path), option)
        if other != option:
            raise ArgumentError(f"--{other} and --{option} cannot both be '{path}'")
        _check_unread(option, path, set(files))
        kind = kind_of(path) if option == "output" else saves if option == "save" else option
        check_writable(path, kind, overwrite=overwrite)


def kind_of(path: Path) -> str:
    """Which of `files.KINDS` an --output is, which has been checked to be one."""
    from pellucid.common.files import KINDS

    return next(kind for kind, endings in KINDS.items() if path.suffix.lower() in endings)


def _check_unread(option: str, path: Path, outputs: set[str]) -> None:
    """Refuse to write what the command reads: the same file, or one of the model's directory."""
    try:
        there = os.stat(path)
    except OSError:
        return  # nothing is there, or nothing can be: then `check_writable` says why
    for name, one in _inputs(outputs):
        try:
            read = os.fstat(0) if one == "-" else os.stat(one)
        except (OSError, ValueError):  # it is a text and no file
            continue
        if os.path.samestat(read, there):
            raise ArgumentError(f"--{option} '{path}' is what {name} reads; write to another file")
        folder = os.path.dirname(os.path.realpath(path))
        if one != "-" and os.path.isdir(one) and os.path.samefile(folder, one):
            raise ArgumentError(
                f"--{option} '{path}' is a file of what {name} reads; write to another directory"
            )


def _inputs(outputs: set[str]) -> Iterator[tuple[str, str]]:
    """What the command was given that may name a file, whatever it is called, and its name."""
    # click's, from wherever this typer has its click.
    home = typer.Context.__mro__[1].__module__.rpartition(".")[0]
    context = import_module(f"{home}.globals").get_current_context()
    for one in context.command.params:
        given = context.params.get(one.name or "")
        if one.name in outputs or not isinstance(given, str | Path | list | tuple):
            continue
        told = max(one.opts, key=len) if one.param_type_name == "option" else "the command"
        for value in given if isinstance(given, list | tuple) else [given]:
            yield told, str(value)
    if sys.stdin is not None and not sys.stdin.isatty():
        yield "standard input", "-"


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


def write(path: Path, text: str, kind: str, overwrite: bool) -> None:
    """Write a file, and say so."""
    from pellucid.common.files import write_whole

    write_whole(path, text, kind, overwrite=overwrite)
    wrote(path)


def wrote(path: Path) -> None:
    """Say on stderr that a file has been written."""
    from pellucid.common.files import printable

    typer.echo(f"wrote {printable(str(path))}", err=True)


def give(
    output: Path | None,
    json: bool,
    *,
    overwrite: bool,
    said: Callable[[], Mapping[str, Any]],
    columns: "Callable[[], Mapping[str, Column]]",
    show: Callable[[], None],
    text: Callable[[], str] | None = None,
) -> None:
    """Give an answer where it is wanted: in a file, as JSON, or else on the terminal.

    Args:
        output: a file, of the kind that its name says.
        json: print JSON.
        overwrite: whether a file of its kind may be replaced.
        said: the answer for .json.
        columns: for tables.
        show: prints it for people.
        text: for .txt, which a command without it has refused.
    """
    from pellucid.common.files import to_json
    from pellucid.text import table_writing

    if output is not None:
        kind = kind_of(output)
        if kind == "json":
            write(output, to_json(said()) + "\n", kind, overwrite)
        elif kind == "txt":
            assert text is not None
            write(output, text(), kind, overwrite)
        else:
            table_writing.write(output, columns(), overwrite=overwrite)
            wrote(output)
    if json:
        typer.echo(to_json(said()))
    elif output is None:
        show()


def plain_console() -> Any:
    """Prints what it is given, without colouring numbers."""
    from rich.console import Console

    return Console(highlight=False)

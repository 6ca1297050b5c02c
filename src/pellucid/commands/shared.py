"""Shared by the commands: options, checks before the work, and writing the result."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid import pretrained
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.text.table_writing import Column

SeedOption = Annotated[int, typer.Option(metavar="N", help="The random seed.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files of the same kind.")
]
SvgOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture.")]
HtmlOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, for scripts.")]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts (default: from --file or standard input)."),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read texts from a file: one per line, or .csv, .tsv, .json, .jsonl, .parquet; from a "
        "folder of them; or from -.",
    ),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which column, or field like message.text; or its number, if the file has no header "
        "(default: text, or the only one).",
    ),
]
DelimiterOption = Annotated[
    str | None,
    typer.Option(
        metavar="D", help="What separates columns: comma, semicolon, tab, pipe, or a character."
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Encoding of the file, like windows-1252 (default: UTF-8)."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse texts that are empty or too long, instead of skipping or cutting."
    ),
]
PredictOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="What the examples have: a label, labels (several a text) or a number (default: "
        "a label, unless they are numbers that cannot be labels).",
    ),
]
SeparatorOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What divides several labels (default: any of ; | ,)."),
]
BalancedOption = Annotated[
    bool, typer.Option("--balanced", help="Give each label the same weight, common or rare.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="Of products of matrices: float32; bfloat16, faster with AMX at some loss of digits, "
        "which is told; or auto, the faster one.",
    ),
]
COLUMNS = (".csv", ".json", ".parquet")
TEXTS = (".txt", *COLUMNS)


class ByName(StrEnum):
    """What takes the place of a head's output."""

    zero = "zero"
    mean = "mean"


def output_option(*kinds: str) -> Any:
    """-o FILE of one of these kinds."""
    text = f"Write to a file instead: {', '.join(kinds)}."
    return typer.Option("--output", "-o", metavar="FILE", help=text)


def model_option(about: str) -> Any:
    """--model, a directory or a name; `about` says which models the command takes."""
    known = f"A directory, a name on the hub, or one of {', '.join(pretrained.NAMES)}."
    return typer.Option(metavar="MODEL", help=f"{about} {known}", callback=_not_empty)


def _not_empty(model: str | None) -> str | None:
    if model is not None and not model.strip():
        raise ArgumentError("--model is empty; give a model's directory or its name on the hub")
    return model


def check_files(
    kinds: Sequence[str] = (), *, overwrite: bool, saves: str = "recording", **files: Path | None
) -> None:
    """Refuse output files that cannot or should not be written, before any work is done.

    Args:
        kinds: file endings that --output may have.
        overwrite: whether existing files of the same kind may be replaced.
        saves: the kind of file that --save writes.
        files: output files by the names of their options.

    Raises:
        ArgumentError: a name ends as another kind, two options name one file, or the command
            reads it.
        ExistsError: a file exists and may not be replaced.
        FileError: the file cannot be written.
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
    """Which of `files.KINDS` an --output is, after `check_files`."""
    from pellucid.common.files import KINDS

    return next(kind for kind, endings in KINDS.items() if path.suffix.lower() in endings)


def _check_unread(option: str, path: Path, outputs: set[str]) -> None:
    """Refuse to overwrite an input: the same file, or a file in a directory that is read."""
    try:
        existing = os.stat(path)
    except OSError:
        return  # it does not exist, or `check_writable` refuses it
    for name, value in _inputs(outputs):
        try:
            status = os.fstat(0) if value == "-" else os.stat(value)
        except (OSError, ValueError):  # a text, not a file
            continue
        if os.path.samestat(status, existing):
            raise ArgumentError(f"--{option} '{path}' is read by {name}; write to another file")
        folder = os.path.dirname(os.path.realpath(path))
        if value != "-" and os.path.isdir(value) and os.path.samefile(folder, value):
            raise ArgumentError(
                f"--{option} '{path}' is in the directory that {name} reads; write to another "
                "directory"
            )


def _inputs(outputs: set[str]) -> Iterator[tuple[str, str]]:
    """What may name an input file: the name of each argument, and its value."""
    context = _context()
    for parameter in context.command.params:
        values = context.params.get(parameter.name or "")
        if parameter.name in outputs or not isinstance(values, str | Path | list | tuple):
            continue
        is_option = parameter.param_type_name == "option"
        name = max(parameter.opts, key=len) if is_option else "the command"
        for value in values if isinstance(values, list | tuple) else [values]:
            yield name, str(value)
    if sys.stdin is not None and not sys.stdin.isatty():
        yield "standard input", "-"


def given_options() -> dict[str, str]:
    """The options and arguments that the user gave, each with the name that the user knows."""
    context = _context()
    return {
        parameter.name: max(parameter.opts, key=len)
        if parameter.param_type_name == "option"
        else parameter.metavar or parameter.name
        for parameter in context.command.params
        if "DEFAULT" not in str(context.get_parameter_source(parameter.name))
    }


def _context() -> Any:
    """The running command's context, of the click that this typer uses: it may be its own copy."""
    home = typer.Context.__mro__[1].__module__.rpartition(".")[0]
    return import_module(f"{home}.globals").get_current_context()


def one_text(command: str, texts: list[str] | None) -> str | None:
    """The command's text argument, if given; a note follows if it is the name of a file.

    Raises:
        ArgumentError: there are several, such as words without quotes.
    """
    if not texts:
        return None
    if len(texts) > 1:
        raise ArgumentError(f'{command} takes one text; put it in quotes: "{" ".join(texts)}"')
    text = texts[0]
    if len(text) < 256 and not text.endswith(".safetensors") and os.path.isfile(text):
        from pellucid.commands.printing.console import note

        note(f"'{text}' is read as a text; use --file '{text}' to read the file")
    return text


def write(path: Path, content: str | bytes, kind: str, overwrite: bool) -> None:
    """Write a file, and report it on stderr."""
    from pellucid.common.files import write_whole

    write_whole(path, content, kind, overwrite=overwrite)
    wrote(path)


def write_pictures(
    svg: Path | None,
    html: Path | None,
    overwrite: bool,
    to_svg: Callable[[], str],
    to_html: Callable[[], str],
) -> None:
    """Draw what is to be written as a picture and as a page."""
    for path, kind, draw in ((svg, "svg", to_svg), (html, "html", to_html)):
        if path is not None:
            write(path, draw(), kind, overwrite)


def wrote(path: Path) -> None:
    """Report on stderr that a file has been written."""
    from pellucid.common.files import printable

    typer.echo(f"wrote {printable(str(path))}", err=True)


def give(
    output: Path | None,
    json: bool,
    *,
    overwrite: bool,
    data: Callable[[], Mapping[str, Any]],
    columns: "Callable[[], Mapping[str, Column]]",
    show: Callable[[], None],
    text: Callable[[], str] | None = None,
) -> None:
    """Write a result to a file, as JSON to stdout, or else for people to the terminal.

    Args:
        output: the file; its ending says its kind.
        json: whether to print JSON.
        overwrite: whether an existing file of the same kind may be replaced.
        data: gives the result for .json and --json.
        columns: gives the result for tables.
        show: prints the result for people.
        text: gives the result for .txt; needed only by commands that write it.
    """
    from pellucid.common.files import to_json
    from pellucid.text import table_writing

    if output is not None:
        kind = kind_of(output)
        if kind == "json":
            write(output, to_json(data()) + "\n", kind, overwrite)
        elif kind == "txt":
            assert text is not None
            write(output, text(), kind, overwrite)
        else:
            table_writing.write(output, columns(), overwrite=overwrite)
            wrote(output)
    if json:
        typer.echo(to_json(data()))
    elif output is None:
        show()


def plain_console() -> Any:
    """A console that does not colour numbers."""
    from rich.console import Console

    return Console(highlight=False)


def check_seed(seed: int) -> None:
    from pellucid.tasks.clustering import SEEDS
    from pellucid.tasks.whole_numbers import check_whole

    check_whole("--seed", seed, 0, SEEDS)

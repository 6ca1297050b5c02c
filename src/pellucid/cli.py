"""The command line: assembles the commands and handles their errors.

Heavy modules are imported only by the command that needs them, so that `pellucid --help` is fast.
"""

import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import typer

from pellucid import __version__
from pellucid.commands import (
    ablation,
    chat,
    classify,
    export,
    film,
    generation,
    learn,
    lens,
    lessons,
    scaling,
    tasks,
    tracing,
    train,
    view,
)
from pellucid.errors import FileError, PellucidError

app = typer.Typer(
    name="pellucid",
    help="Attention you can see through.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (
    *(lessons, scaling, learn, film, lens, tracing, ablation, view, export, tasks, classify),
    *(generation, chat),
):
    app.registered_commands += part.commands.registered_commands
app.add_typer(train.train)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pellucid {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@cache
def _command() -> Any:
    """The commands as click knows them: to read all their options takes longer than many a run."""
    return typer.main.get_command(app)


# click's, from wherever this typer has its click.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class _OutputError(OSError):
    """Standard output cannot be written."""


class _Output(io.RawIOBase):
    """Standard output, whose errors say that they are its own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self._raw.closed and bool(self._raw.isatty())  # colorama asks at exit

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def write(self, data: Any) -> int | None:
        try:
            # click writes nothing to see whether it could: on a full disk, that fails.
            written: int | None = self._raw.write(data) if data else 0
            return written
        except OSError as error:
            # What is left goes nowhere: Python would try once more to write it when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise _OutputError(*error.args) from error


@contextmanager
def _marked_output() -> Iterator[None]:
    """Standard output whose errors are `_OutputError`s."""
    stdout: Any = sys.stdout
    raw = _Output(getattr(stdout.buffer, "raw", stdout.buffer))
    sys.stdout = io.TextIOWrapper(
        raw if stdout.write_through else io.BufferedWriter(raw),
        encoding=stdout.encoding,
        errors="replace",  # a character that the terminal cannot show is a question mark
        line_buffering=stdout.line_buffering,
        write_through=stdout.write_through,
    )
    try:
        yield
    finally:
        sys.stdout = stdout


def main() -> None:
    """Run the command line; an expected error is one line on stderr, and exit status 2."""
    if sys.stderr is not None:
        sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isdecimal() and int(columns)):
        os.environ.pop("COLUMNS", None)  # a width of 0 leaves no room for output
    try:
        sys.exit(_run(sys.argv[1:] or ["--help"]))
    except PellucidError as error:
        message = _with_option_name(str(error), sys.argv[1:])
    except _UsageError as error:
        message = _usage_message(error, sys.argv[1:])
    _to_stderr(message)
    sys.exit(2)


def _run(arguments: list[str]) -> int:
    """Run one command and write all its output; returns the exit status."""
    if sys.stdout is None:
        raise FileError("cannot write the output: standard output is closed")
    from pellucid.common.files import reason_of

    try:
        with warnings.catch_warnings(), _marked_output():
            warnings.showwarning = lambda message, *_, **__: _to_stderr(str(message))
            status = _command()(arguments, prog_name="pellucid", standalone_mode=False)
            sys.stdout.flush()
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):  # click takes it for the end of standard input
            raise FileError(f"a file ends too early: {reason_of(error.__cause__)}") from error
        return 1
    except PellucidError:
        raise
    except _OutputError as error:
        if error.errno == errno.EPIPE:  # the reader has closed the pipe
            return 1
        raise FileError(f"cannot write the output: {reason_of(error)}") from error
    except OSError as error:
        name = f"'{error.filename}': " if error.filename else ""
        raise FileError(f"{name}{reason_of(error)}") from error
    return status or 0


def _to_stderr(message: str) -> None:
    """Print a message in one line."""
    from pellucid.common.files import printable

    with suppress(OSError):  # if stderr cannot be written, the exit status says that it failed
        typer.echo(f"pellucid: {printable(' '.join(message.split()))}", err=True)


def _with_option_name(message: str, arguments: list[str]) -> str:
    """A message like "top_p must be ...", with the name of the command's option, --top-p."""
    message = message.replace("; overwrite=True ", "; --overwrite ")
    name, must, rest = message.partition(" must be ")
    command: Any = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    for option in command.params if must else ():
        if option.name == name and option.opts[0].startswith("--"):
            return f"{option.opts[0]}{must}{rest}"
    return message


def _usage_message(error: Exception, arguments: list[str]) -> str:
    """click's message, with the value that was given, and where to find help."""
    context, option = getattr(error, "ctx", None), getattr(error, "param", None)
    known = getattr(_command(), "commands", {})
    path = ["pellucid", *(word for word in arguments[:1] if word in known)]
    command = context.command_path if context else " ".join(path)
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    message = message.replace("Value error, ", "")  # where a value is not one of an enumeration
    if isinstance(error, typer.BadParameter):
        for name in option.opts if option else ():
            values = [after for before, after in pairwise(arguments) if before == name]
            values += [word.split("=", 1)[1] for word in arguments if word.startswith(f"{name}=")]
            if values and repr(values[-1]) not in message:
                message += f", not '{values[-1]}'"
    see = " See" if message.endswith("?") else "; see"
    return f"{message}{see} {command} --help"

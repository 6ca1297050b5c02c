"""The command line: the commands put together, and what happens when one fails.

Nothing heavy is imported before the command that needs it, so that `pellucid --help` is instant.
"""

import os
import sys
import warnings
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any

import typer

from pellucid import __version__
from pellucid.commands import export, generation, learn, lens, lessons, tasks, train, view
from pellucid.errors import FileError, PellucidError

app = typer.Typer(
    name="pellucid",
    help="Attention you can see through.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (lessons, learn, lens, view, export, tasks, generation):
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


# click's, from wherever this typer has its click.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; an expected error is one line on stderr, and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe or terminal that cannot show a character gets a question mark, not a traceback.
        if stream is not None:
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not _is_width(os.environ.get("COLUMNS", "")):
        os.environ.pop("COLUMNS", None)  # nothing can be shown in no columns
    try:
        sys.exit(_run(sys.argv[1:] or ["--help"]))
    except PellucidError as error:
        complaint = _as_option(str(error), sys.argv[1:])
    except _UsageError as error:
        complaint = _usage(error, sys.argv[1:])
    from pellucid.common.files import printable

    with suppress(OSError):  # where stderr cannot be written either, the status has to say it
        typer.echo(f"pellucid: {printable(' '.join(complaint.split()))}", err=True)
    sys.exit(2)


def _run(arguments: list[str]) -> int:
    """Run one command, all its output written; gives the exit status."""
    if sys.stdout is None:
        raise FileError("cannot write the output: standard output is closed")
    from pellucid.common.files import reason_of

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = app(arguments, prog_name="pellucid", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):  # click takes it for the end of standard input
            raise FileError(f"a file ends too early: {reason_of(error.__cause__)}") from error
        return 1
    except PellucidError:
        raise
    except OSError as error:
        if not _is_of_output(error):
            named = f"'{error.filename}': " if error.filename else ""
            raise FileError(f"{named}{reason_of(error)}") from error
        # Python would try to write the rest once more on its way out, and complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            return 1
        raise FileError(f"cannot write the output: {reason_of(error)}") from error
    return status or 0


def _is_width(columns: str) -> bool:
    return columns.isdecimal() and int(columns) > 0


def _is_of_output(error: OSError) -> bool:
    """Whether it is one of writing to standard output, whose errors name no file."""
    return error.filename is None and error.errno is not None


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in one line, without the place in our code where it comes from."""
    from pellucid.common.files import printable

    with suppress(OSError):
        typer.echo(f"pellucid: {printable(' '.join(str(message).split()))}", err=True)


def _as_option(complaint: str, arguments: list[str]) -> str:
    """The complaint, that "top_p must be" so and so, with the name that the command has for it."""
    name, must, rest = complaint.partition(" must be ")
    command: Any = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    for option in command.params if must else ():
        if option.name == name and option.opts[0].startswith("--"):
            return f"{option.opts[0]}{must}{rest}"
    return complaint


def _usage(error: Exception, arguments: list[str]) -> str:
    """What click has to say, what came, and where to read on."""
    context, option = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context else "pellucid"
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    if isinstance(error, typer.BadParameter):
        for name in option.opts if option else ():
            given = [after for before, after in pairwise(arguments) if before == name]
            given += [word.split("=", 1)[1] for word in arguments if word.startswith(f"{name}=")]
            if given and repr(given[-1]) not in message:
                message += f", not '{given[-1]}'"
    return f"{message}; see {command} --help"

"""Text as wide as the terminal, tables, notes and progress bars."""

import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from textwrap import fill

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pellucid.common.files import printable

STUCK = "\ue000"
"""Stands for a blank at which no line may break."""


def say(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Print text, wrapped at the terminal's width without trailing spaces.

    No line breaks at the blank with which a quoted token begins.
    """
    text = text.replace("“ ", f"“{STUCK}")
    margin = " " * indent
    if cell_len(text) == len(text):
        broken = fill(text, console.width, initial_indent=margin, subsequent_indent=margin)
    else:  # letters of two columns, such as Chinese, or of none
        lines = Text(text).wrap(console, max(2, console.width - indent))
        broken = "\n".join(margin + line.plain.rstrip() for line in lines)
    console.print(Text(broken.replace(STUCK, " "), style=style))


def plain_table() -> Table:
    """An empty table without rules."""
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def add_texts(grid: Table, name: str) -> None:
    """Add a column of texts, which are cut to the width that the other columns leave."""
    grid.expand = True
    grid.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)


def one_line(text: str) -> Text:
    """A text without its line breaks."""
    return Text(isolated(" ".join(printable(text).split())))


def isolated(text: str) -> str:
    """The text in a first-strong isolate (UAX #9, section 2.4), if the terminal reorders lines and
    the text has letters that run from right to left: so they turn around nothing beside them.

    The text must come from `printable`, which leaves no control in it that would end the isolate.
    """
    if not reorders(os.environ) or sys.stdout is None or not sys.stdout.isatty():
        return text
    turns = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in text)
    return f"\u2068{text}\u2069" if turns else text


def reorders(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is known to follow the bidirectional algorithm.

    Others show letters in the order in which they come, and some show isolates as boxes.
    """
    vte = environment.get("VTE_VERSION", "")
    return (
        (vte.isdecimal() and int(vte) >= 5800)  # GNOME's terminals
        or "KONSOLE_VERSION" in environment
        or environment.get("TERM_PROGRAM") in ("Apple_Terminal", "mintty")
        or environment.get("TERM", "").startswith("mlterm")
    )


@contextmanager
def noted(notes: list[str] | None = None) -> Iterator[None]:
    """Print the warnings of the block as notes after it, and add them to `notes`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        note(str(warning.message))
        if notes is not None:
            notes.append(str(warning.message))


def note(text: str) -> None:
    """Print a message on stderr."""
    print(f"pellucid: {printable(text)}", file=sys.stderr)


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar if stderr is a terminal; call it with a step's name, progress and total."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        console=console,
        transient=True,
        disable=sys.stderr is None or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=None)

        def step(name: str, done: int, of: int) -> None:
            bar.update(task, description=name, completed=done, total=of if done else None)

        yield step


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """A progress bar with a name while something is worked out; says so if Numba compiles."""
    from pellucid.tasks.compiling import compilation_named

    with steps() as step, compilation_named(step):
        step(name, 0, 0)
        yield

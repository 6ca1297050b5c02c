"""Text as wide as the terminal, tables, notes and progress bars."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import fill

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pellucid.common.files import printable


def say(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Print text, wrapped at the terminal's width without trailing spaces."""
    margin = " " * indent
    broken = fill(text, console.width, initial_indent=margin, subsequent_indent=margin)
    console.print(Text(broken, style=style))


def plain_table() -> Table:
    """An empty table without rules."""
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def add_texts(grid: Table, name: str) -> None:
    """Add a column of texts, which are cut to the width that the other columns leave."""
    grid.expand = True
    grid.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)


def one_line(text: str) -> Text:
    """A text without its line breaks."""
    return Text(" ".join(printable(text).split()))


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

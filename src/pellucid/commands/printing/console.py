"""What every command prints with: text as wide as the terminal, and shares as shades."""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from textwrap import fill

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pellucid.common import colours
from pellucid.common.files import printable
from pellucid.common.grid import Cell

# Terminals that say what their background is say so here; most are dark.
RAMP = colours.LIGHT if os.environ.get("COLORFGBG", "").endswith((";7", ";15")) else colours.DARK


def say(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Print text, broken at the terminal's width without trailing blanks."""
    margin = " " * indent
    broken = fill(text, console.width, initial_indent=margin, subsequent_indent=margin)
    console.print(Text(broken, style=style))


def shaded(text: str, share: float) -> Text:
    """Text on the shade of a number from 0 to 1."""
    paper = colours.shade(share, RAMP)
    # What is next to nothing stays as dark or light as the terminal is.
    style = f"{colours.css(colours.ink(paper))} on {colours.css(paper)}" if share > 0.03 else "dim"
    return Text(text, style=style)


def shaded_line(cells: Iterable[Cell]) -> Text:
    """A line of a grid of percents, each on its shade."""
    line = Text()
    for cell in cells:
        if cell.share is None:
            line.append(cell.text, style="dim" if cell.is_title else "")
        else:
            line.append_text(shaded(cell.text, cell.share))
    return line


def plain_table() -> Table:
    """A table without lines, to be filled."""
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def add_texts(grid: Table, name: str) -> None:
    """A column that has what room the others leave: texts are cut, and nothing beside them is."""
    grid.expand = True
    grid.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)


def one_line(text: str) -> Text:
    """A text without its line breaks."""
    return Text(" ".join(printable(text).split()))


@contextmanager
def noted() -> Iterator[None]:
    """Warnings are notes, once the block is over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        note(str(warning.message))


def note(text: str) -> None:
    """Say on stderr what is no part of the answer."""
    print(f"pellucid: {printable(text)}", file=sys.stderr)


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """What to call with a step's name, how much is done and of how much; a bar on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=sys.stderr is None or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=None)

        def step(name: str, done: int, of: int) -> None:
            bar.update(task, description=name, completed=done, total=of if done else None)

        yield step

"""What every command prints with: text as wide as the terminal, and shares as shades."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import fill

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from pellucid.common import colours
from pellucid.common.files import printable

# Terminals that say what their background is say so here; most are dark.
RAMP = colours.LIGHT if os.environ.get("COLORFGBG", "").endswith((";7", ";15")) else colours.DARK
NARROWEST, WIDEST = 3, 14
"""Letters that a column of shares takes: what 100 does at least, and a word at most."""


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


def bands(
    rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]], width: int
) -> Iterator[list[Text]]:
    """The lines of a grid of percents, as many columns at a time as there is room for.

    Args:
        rows: what each is called; long names are cut.
        columns: likewise.
        shares: (rows, columns), from 0 to 1.
        width: letters of a line.
    """
    most = max(NARROWEST, min(WIDEST, width // 2 - 1))
    rows, columns = ([_cut(name, most) for name in side] for side in (rows, columns))
    side = max(map(cell_len, rows))
    widths = [max(NARROWEST, cell_len(name)) for name in columns]
    start = 0
    while start < len(columns):
        stop, used = start + 1, side + 2 + widths[start]
        while stop < len(columns) and used + 2 + widths[stop] <= width:
            used += 2 + widths[stop]
            stop += 1
        part = [Text(" " * side, style="dim")]
        part += [Text(_padded(name, side)) for name in rows]
        for place in range(start, stop):
            part[0].append(f"  {_padded(columns[place], widths[place])}")
            for line, numbers in zip(part[1:], shares, strict=True):
                share = numbers[place]
                told = f"{100 * share:.0f}" if share >= 0.005 else "·"
                line.append("  ").append_text(shaded(_padded(told, widths[place]), share))
        yield part
        start = stop


def _cut(name: str, most: int) -> str:
    name = " ".join(printable(name).split())
    return name if cell_len(name) <= most else set_cell_size(name, most - 1).rstrip() + "…"


def _padded(name: str, width: int) -> str:
    return " " * (width - cell_len(name)) + name


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

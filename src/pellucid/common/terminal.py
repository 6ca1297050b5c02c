"""What every command prints with: text as wide as the terminal, and shares as shades."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import fill

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from pellucid.common import colours

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

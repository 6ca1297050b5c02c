"""What every command prints with: text as wide as the terminal, and shares as shades."""

import os
from textwrap import fill

from rich.console import Console
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

"""Shares from 0 to 1 as shades, on the terminal's light or dark background."""

import os
from collections.abc import Iterable

from rich.text import Text

from pellucid.common import colours
from pellucid.common.grid import Cell

# Some terminals give their background here; most are dark.
RAMP = colours.LIGHT if os.environ.get("COLORFGBG", "").endswith((";7", ";15")) else colours.DARK


def shaded(text: str, share: float) -> Text:
    """Text on the shade of a share, from 0 to 1."""
    paper = colours.shade(share, RAMP)
    # A share near 0 keeps the terminal's background.
    style = f"{colours.css(colours.ink(paper))} on {colours.css(paper)}" if share > 0.03 else "dim"
    return Text(text, style=style)


def shaded_line(cells: Iterable[Cell]) -> Text:
    """A line of a grid of percentages, each on its shade."""
    line = Text()
    for cell in cells:
        if cell.share is None:
            line.append(cell.text, style="dim" if cell.is_title else "")
        else:
            line.append_text(shaded(cell.text, cell.share))
    return line

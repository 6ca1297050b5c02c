"""Shares from 0 to 1 as shades, on the terminal's light or dark background."""

import os
from collections.abc import Iterable

from rich.text import Text

from pellucid.common import colours
from pellucid.common.grid import Cell

# Some terminals give their background here; most are dark.
IS_LIGHT = os.environ.get("COLORFGBG", "").endswith((";7", ";15"))
RAMP = colours.LIGHT if IS_LIGHT else colours.DARK
AGAINST = colours.LIGHT_AGAINST if IS_LIGHT else colours.DARK_AGAINST


def shaded(text: str, share: float) -> Text:
    """Text on the shade of a share, from 0 to 1; or from -1, on that of the other hue."""
    paper = colours.shade(abs(share), RAMP if share >= 0 else AGAINST)
    # A share near 0 keeps the terminal's background.
    is_near = abs(share) <= 0.03
    style = "dim" if is_near else f"{colours.css(colours.ink(paper))} on {colours.css(paper)}"
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

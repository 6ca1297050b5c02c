"""A grid of percentages as lines of text, in bands of as many columns as fit."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from pellucid.common.files import printable

NARROWEST, WIDEST = 3, 14
"""Least width of a column, for 100, and greatest, for a word, in characters."""


class Cell(NamedTuple):
    """A piece of a line."""

    text: str
    share: float | None = None
    """The share that the cell shows, from 0 to 1; None for a name."""
    is_title: bool = False
    """Whether it is the title of a column."""


def bands(
    rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]], width: int
) -> Iterator[list[list[Cell]]]:
    """The lines of a grid, one band of columns after the other.

    Args:
        rows: the names of the rows; long names are cut.
        columns: the names of the columns; likewise.
        shares: (rows, columns), from 0 to 1.
        width: of a line, in characters.
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
        titles = [_padded(columns[column], widths[column]) for column in range(start, stop)]
        band = [[Cell("  ".join([" " * side, *titles]), is_title=True)]]
        for name, numbers in zip(rows, shares, strict=True):
            line = [Cell(_padded(name, side))]
            for column in range(start, stop):
                share = numbers[column]
                percentage = f"{100 * share:.0f}" if share >= 0.005 else "·"
                line += [Cell("  "), Cell(_padded(percentage, widths[column]), share)]
            band.append(line)
        yield band
        start = stop


def _cut(name: str, most: int) -> str:
    name = " ".join(printable(name).split())
    return name if cell_len(name) <= most else set_cell_size(name, most - 1).rstrip() + "…"


def _padded(name: str, width: int) -> str:
    return " " * (width - cell_len(name)) + name

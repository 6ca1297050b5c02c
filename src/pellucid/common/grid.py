"""A grid of percents as lines of text, as many columns at a time as there is room for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from pellucid.common.files import printable

NARROWEST, WIDEST = 3, 14
"""Letters that a column of shares takes: what 100 does at least, and a word at most."""


class Cell(NamedTuple):
    """A piece of a line."""

    text: str
    share: float | None = None
    """What it says, from 0 to 1; None of a name."""
    is_title: bool = False
    """Whether it stands above a column."""


def bands(
    rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]], width: int
) -> Iterator[list[list[Cell]]]:
    """The lines of a grid, a band of columns after the other.

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
        titles = [_padded(columns[place], widths[place]) for place in range(start, stop)]
        part = [[Cell("  ".join([" " * side, *titles]), is_title=True)]]
        for name, numbers in zip(rows, shares, strict=True):
            line = [Cell(_padded(name, side))]
            for place in range(start, stop):
                share = numbers[place]
                told = f"{100 * share:.0f}" if share >= 0.005 else "·"
                line += [Cell("  "), Cell(_padded(told, widths[place]), share)]
            part.append(line)
        yield part
        start = stop


def _cut(name: str, most: int) -> str:
    name = " ".join(printable(name).split())
    return name if cell_len(name) <= most else set_cell_size(name, most - 1).rstrip() + "…"


def _padded(name: str, width: int) -> str:
    return " " * (width - cell_len(name)) + name

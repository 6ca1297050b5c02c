"""The steps of a lesson, as wide as the terminal and readable without colour."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pellucid.commands.printing.console import plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.wording import short
from pellucid.lessons.walk import Matrix, Step, Walk

_MOST = 16
"""Rows of a matrix that are shown."""
_MOST_HEAT = 32
"""Rows and columns of the heat map that are shown."""
_LABEL, _SHORT = 12, 5
"""How far the label of a row and of a column may be cut, in characters, where room is short."""


def show(walk: Walk, console: Console, *, steps: bool = True) -> None:
    """Print the weights in percent and what they say; with `steps` every step on the way."""
    say(short(walk.title, 400), console, style="bold")
    for line in walk.about:
        say(line, console, style="dim")
    console.print()
    if steps:
        for number, step in enumerate(walk.steps, start=1):
            _show_step(f"{number} ", step, console)
            console.print()
    else:
        show_picture(walk, console)
        console.print()
        say(
            f"--steps shows all {len(walk.steps)} steps, number by number.",
            console,
            style="dim",
        )
    if len(walk.heat[1].row_labels) > _MOST_HEAT:
        say("Too long to show in full: --query WORD shows one word.", console, style="dim")


def show_picture(walk: Walk, console: Console) -> None:
    """Print the weights in percent, what is worked out beside them, and what they say."""
    step, _ = walk.heat
    console.print(_beside(step.matrices, console, console.width))
    say(step.sentence, console)


def show_step(walk: Walk, name: str, console: Console) -> None:
    """Print one step, without its number."""
    _show_step("", next(step for step in walk.steps if step.name == name), console)


def _show_step(number: str, step: Step, console: Console) -> None:
    indent = 2 if console.width >= 60 else 0
    heading = Text.assemble((number + step.name, "bold"), "   ", (step.formula, "cyan"))
    if len(heading) <= console.width:
        console.print(heading)
    else:
        say(number + step.name, console, style="bold")
        say(step.formula, console, indent=indent, style="cyan")
    room = console.width - indent
    say(step.sentence, console, indent=indent)
    if step.matrices:
        drawn = _beside(step.matrices, console, room)
        console.print(Padding(drawn, (0, 0, 0, indent), expand=False))


def _beside(matrices: Sequence[Matrix], console: Console, room: int) -> RenderableType:
    """The matrices side by side if they fit, else below each other."""
    parts = [_draw(matrix, room) for matrix in matrices]
    if len(parts) == 1:
        return parts[0]
    gap = 3
    widths = [console.measure(part).maximum for part in parts]
    if sum(widths) + gap * (len(parts) - 1) > room:
        return Group(*parts)
    grid = Table.grid(padding=(0, gap, 0, 0))
    grid.add_row(*parts)
    return grid


def _draw(matrix: Matrix, room: int) -> RenderableType:
    if matrix.kind != "percent":
        return _table(matrix, room)
    rows, columns = len(matrix.row_labels), len(matrix.column_labels)
    if rows <= 6 and columns > 2 * rows:
        return _bars(matrix, room)
    if max(rows, columns) > _MOST_HEAT:
        return _table(matrix, room)
    # All columns of the heat map are shown, in several bands if necessary.
    starts = [0]
    while starts[-1] < columns:
        starts.append(starts[-1] + _fitting(_columns(matrix, starts[-1], columns), room))
    return Group(*(_table(_columns(matrix, *ends), room) for ends in pairwise(starts)))


def _table(matrix: Matrix, room: int) -> Table:
    columns = len(matrix.column_labels)
    fitting = _fitting(matrix, room)
    of_all = f"of {columns}"
    shown = columns
    if columns > fitting:  # leave room for the column that says how many there are
        most = max(map(sum, _column_widths(matrix)[1:])) + 1
        shown = max(1, fitting - math.ceil((len(of_all) + 1) / most))
    first, *widths = _widths(matrix, room if shown == columns else room - len(of_all) - 1, shown)
    side: JustifyMethod = "center" if matrix.kind == "percent" else "right"
    table = plain_table()
    table.add_column(matrix.name, no_wrap=True, header_style="bold", max_width=first)
    for label, width in zip(matrix.column_labels, widths, strict=False):
        table.add_column(Text(label), justify=side, no_wrap=True, max_width=width, min_width=width)
    if shown < columns:
        table.add_column(of_all, no_wrap=True)
    rest = _rest_label(matrix)
    listed = _row_limit(matrix) - 1 if rest else len(matrix.row_labels)
    rows = zip(matrix.row_labels, matrix.values, matrix.texts(), strict=True)
    for label, numbers, texts in list(rows)[:listed]:
        cells = [
            shaded(text.center(width), number) if side == "center" else Text(text)
            for width, number, text in zip(widths, numbers, texts, strict=False)
        ]
        table.add_row(Text(label), *cells, *(["…"] if shown < columns else []))
    if rest:
        table.add_row(Text(rest, style="dim"))
    return table


def _bars(matrix: Matrix, room: int) -> RenderableType:
    """Each row as a column of bars, one per key; of many keys, the strongest."""
    most = _MOST if len(matrix.row_labels) == 1 else 6
    label = min(_LABEL, max(map(cell_len, matrix.column_labels)))
    longest = max(4, min(40, room - label - 7))
    parts: list[RenderableType] = []
    for name, numbers, texts in zip(matrix.row_labels, matrix.values, matrix.texts(), strict=True):
        room_for = len(numbers) if len(numbers) <= most + 1 else most  # "1 more" is a line as well
        strongest = sorted(range(len(numbers)), key=lambda key: -numbers[key])[:room_for]
        left = len(numbers) - len(strongest)
        table = plain_table()
        table.add_column(Text(name), no_wrap=True, header_style="bold", max_width=_LABEL)
        table.add_column("", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for key in sorted(strongest):
            bar = Text("█" * round(numbers[key] * longest), style="blue")
            table.add_row(Text(matrix.column_labels[key]), texts[key], bar)
        if left:
            table.add_row(Text(f"… {left} more", style="dim"))
        parts.append(table)
    return Group(*parts)


def _columns(matrix: Matrix, start: int, stop: int) -> Matrix:
    """Some columns; without the rows that see none of them, unless these are the first."""

    def cut(rows: Any) -> Any:
        return tuple(rows[row][start:stop] for row in kept)

    hidden = matrix.hidden or ((False,) * len(matrix.column_labels),) * len(matrix.values)
    kept = [row for row, off in enumerate(hidden) if start == 0 or not all(off[start:stop])]
    return replace(
        matrix,
        values=cut(matrix.values),
        row_labels=tuple(matrix.row_labels[row] for row in kept),
        column_labels=matrix.column_labels[start:stop],
        hidden=matrix.hidden and cut(matrix.hidden),
    )


def _row_limit(matrix: Matrix) -> int:
    return _MOST_HEAT if matrix.kind == "percent" else _MOST


def _rest_label(matrix: Matrix) -> str:
    """The label for the rows that are not shown, if any."""
    rows = len(matrix.row_labels)
    return f"… {rows} rows" if rows > _row_limit(matrix) else ""


def _fitting(matrix: Matrix, room: int) -> int:
    """How many columns fit beside the labels, cut as far as may be."""
    first, *least = (sum(widths) for widths in _column_widths(matrix))
    used = accumulate((width + 1 for width in least), initial=first)
    return max(1, sum(end <= room for end in used) - 1)


def _widths(matrix: Matrix, room: int, shown: int) -> list[int]:
    """The widths of the labels and of the columns shown; labels are cut, the longest first."""
    labels = [max((matrix.name, _rest_label(matrix), *matrix.row_labels), key=cell_len)]
    labels += matrix.column_labels[:shown]
    least = _column_widths(matrix)[: shown + 1]
    widths = [max(number, cell_len(text)) for text, (number, _) in zip(labels, least, strict=True)]
    while sum(widths) + shown > room:
        over = [width - sum(end) for width, end in zip(widths, least, strict=True)]
        if max(over) <= 0:
            break
        widths[max(range(shown + 1), key=lambda i: (over[i] > 0, widths[i]))] -= 1
    return widths


def _column_widths(matrix: Matrix) -> list[tuple[int, int]]:
    """How narrow the labels and each column may be: its widest number, and more for its label."""
    names = max(map(cell_len, (matrix.name, _rest_label(matrix), *matrix.row_labels)))
    least = [(min(_LABEL, names), 0)]
    for label, texts in zip(matrix.column_labels, zip(*matrix.texts(), strict=True), strict=True):
        number = max(map(len, texts))
        least.append((number, max(0, min(_SHORT, cell_len(label)) - number)))
    return least

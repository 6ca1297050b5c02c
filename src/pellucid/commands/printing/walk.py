"""The steps of a lesson, as wide as the terminal and readable without colour."""

import math
from dataclasses import replace
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
_LABEL = 12
"""The widest label, in characters."""


def show(walk: Walk, console: Console, *, steps: bool = True) -> None:
    """Print the weights in percent and what they say; with `steps` every step on the way."""
    say(short(walk.title, 400), console, style="bold")
    for line in walk.about:
        say(line, console, style="dim")
    console.print()
    if steps:
        for number, step in enumerate(walk.steps, start=1):
            _show_step(number, step, console)
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
    """Print the weights in percent, and what they say."""
    step, weights = walk.heat
    console.print(_draw(weights, console.width))
    say(step.sentence, console)


def show_step(walk: Walk, name: str, console: Console) -> None:
    """Print one step."""
    number, step = next(
        (number, step) for number, step in enumerate(walk.steps, start=1) if step.name == name
    )
    _show_step(number, step, console)


def _show_step(number: int, step: Step, console: Console) -> None:
    indent = 2 if console.width >= 60 else 0
    heading = Text.assemble((f"{number} {step.name}", "bold"), "   ", (step.formula, "cyan"))
    if len(heading) <= console.width:
        console.print(heading)
    else:
        say(f"{number} {step.name}", console, style="bold")
        say(step.formula, console, indent=indent, style="cyan")
    room = console.width - indent
    say(step.sentence, console, indent=indent)
    parts = [_draw(matrix, room) for matrix in step.matrices]
    console.print(Padding(_beside(parts, console, room), (0, 0, 0, indent), expand=False))


def _beside(parts: list[RenderableType], console: Console, room: int) -> RenderableType:
    """The parts side by side if they fit, else below each other."""
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
    fitting = _fitting(matrix, room)
    starts = range(0, columns, fitting)
    return Group(*(_table(_columns(matrix, start, start + fitting), room) for start in starts))


def _table(matrix: Matrix, room: int) -> Table:
    columns = len(matrix.column_labels)
    fitting = _fitting(matrix, room)
    width = _width(matrix)
    of_all = f"of {columns}"
    shown = columns
    if columns > fitting:  # leave room for the column that says how many there are
        shown = max(1, fitting - math.ceil((len(of_all) + 1) / (width + 1)))
    side: JustifyMethod = "center" if matrix.kind == "percent" else "right"
    table = plain_table()
    table.add_column(matrix.name, no_wrap=True, header_style="bold", max_width=_LABEL)
    for label in matrix.column_labels[:shown]:
        table.add_column(Text(label), justify=side, no_wrap=True, max_width=width, min_width=width)
    if shown < columns:
        table.add_column(of_all, no_wrap=True)
    rest = _rest(matrix)
    listed = _most(matrix) - 1 if rest else len(matrix.row_labels)
    rows = zip(matrix.row_labels, matrix.values, matrix.texts(), strict=True)
    for label, numbers, texts in list(rows)[:listed]:
        cells = [
            shaded(text.center(_width(matrix)), number) if side == "center" else Text(text)
            for number, text in zip(numbers[:shown], texts[:shown], strict=True)
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
    def cut(rows: Any) -> Any:
        return tuple(row[start:stop] for row in rows)

    return replace(
        matrix,
        values=cut(matrix.values),
        column_labels=matrix.column_labels[start:stop],
        hidden=matrix.hidden and cut(matrix.hidden),
    )


def _most(matrix: Matrix) -> int:
    return _MOST_HEAT if matrix.kind == "percent" else _MOST


def _rest(matrix: Matrix) -> str:
    """The label for the rows that are not shown, if any."""
    rows = len(matrix.row_labels)
    return f"… {rows} rows" if rows > _most(matrix) else ""


def _fitting(matrix: Matrix, room: int) -> int:
    """How many columns fit beside the labels."""
    label = min(_LABEL, max(map(cell_len, (matrix.name, _rest(matrix), *matrix.row_labels))))
    return max(1, (room - label) // (_width(matrix) + 1))


def _width(matrix: Matrix) -> int:
    """The width of the columns: that of the widest number, or of the labels up to 7."""
    needed = max(len(text) for row in matrix.texts() for text in row)
    return max(needed, min(7, max(map(cell_len, matrix.column_labels))))

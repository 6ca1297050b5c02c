"""A walk as one self-contained HTML page: the picture, and every step below it."""

from itertools import repeat

from pellucid.common.drawing import level, page, safe
from pellucid.lessons.picture import to_svg
from pellucid.lessons.walk import Kind, Matrix, Step, Walk

_MOST_ROWS = 48
_MOST_COLUMNS = 64
"""What is beyond is counted, not shown; the JSON has everything."""


def to_html(walk: Walk) -> str:
    """The page."""
    steps = "\n".join(_section(number, step) for number, step in enumerate(walk.steps, start=1))
    body = f'<div class="scroll">{to_svg(walk, styled=False)}</div>\n<h1>Step by step</h1>\n{steps}'
    return page(walk.title, body)


def tables(step: Step) -> str:
    """The matrices of a step, side by side."""
    matrices = "".join(f'<div class="scroll">{_table(matrix)}</div>' for matrix in step.matrices)
    return f'<div class="matrices">{matrices}</div>'


def _section(number: int, step: Step) -> str:
    return (
        f"<section><h2><span>{number}</span>{safe(step.name)}</h2>"
        f'<code class="mono">{safe(step.formula)}</code><p>{safe(step.sentence)}</p>'
        f"{tables(step)}</section>"
    )


def _table(matrix: Matrix) -> str:
    rows, columns = len(matrix.row_labels), len(matrix.column_labels)
    head = "".join(f"<th>{safe(label)}</th>" for label in matrix.column_labels[:_MOST_COLUMNS])
    more = f"<th>… of {columns}</th>" if columns > _MOST_COLUMNS else ""
    body = "".join(
        f"<tr><th>{safe(label)}</th>{''.join(map(_cell, *row, repeat(matrix.kind)))}</tr>"
        for label, *row in zip(
            matrix.row_labels[:_MOST_ROWS],
            (row[:_MOST_COLUMNS] for row in matrix.values),
            (row[:_MOST_COLUMNS] for row in matrix.texts()),
            strict=False,
        )
    )
    rest = f"<tr><th>… of {rows}</th></tr>" if rows > _MOST_ROWS else ""
    return (
        f"<table><caption>{safe(matrix.name)}</caption>"
        f"<thead><tr><th></th>{head}{more}</tr></thead><tbody>{body}{rest}</tbody></table>"
    )


def _cell(number: float, text: str, kind: Kind) -> str:
    if kind != "percent":
        return f"<td>{safe(text)}</td>"
    shade = level(number)
    return f'<td class="p w{shade} t{shade}">{safe(text)}</td>'

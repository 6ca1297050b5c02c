"""What is said of whole matrices: heads side by side, and steps that are shown as tables."""

from pellucid.common.wording import listing
from pellucid.film.attention_narration import RowNarration
from pellucid.film.numbers import Figures, Number
from pellucid.film.phrases import spoken
from pellucid.film.script import Line, Scene
from pellucid.film.token_text import clean
from pellucid.lessons.walk import Step, Walk

MOST_ROWS, MOST_COLUMNS = 8, 8
"""Of a matrix that is shown as a table."""


def joined_heads(figures: Figures, row: RowNarration) -> list[Scene]:
    """How several heads become one vector, where the walk has them."""
    if "concat" not in figures:
        return []
    heads = figures.number("columns(concat) / columns(context)", "count")
    side = spoken(
        "said",
        "That was one of {n} heads. Each has looked in its own way, and what they found for "
        "{word} stands side by side.",
        n=heads,
        word=row.word,
    )
    scenes = [_joining(figures, row, "Heads", "concat(head 0, head 1, …)", [side], ["concat"])]
    if "W_output" in figures:
        line = spoken(
            "said", "One more learned matrix mixes it into one vector for the next layer."
        )
        names = ["W_output", "output"]
        formula = "output = concat · W_output"
        scenes.append(_joining(figures, row, "Heads, mixed", formula, [line], names))
    return scenes


def _joining(
    figures: Figures,
    row: RowNarration,
    title: str,
    formula: str,
    lines: list[Line],
    names: list[str],
) -> Scene:
    """Matrices of all heads: of what has a row for each token, the one that the film is about."""
    numbers, tables, cut = {}, [], []
    most = MOST_COLUMNS // len(names)
    for name in names:
        matrix = figures.matrices[name]
        is_own = name != "W_output"
        rows = [row.row] if is_own else list(range(min(len(matrix.values), MOST_ROWS)))
        wide = len(matrix.column_labels)
        if wide > most or (not is_own and len(matrix.values) > MOST_ROWS):
            high = "" if is_own else f"{len(matrix.values)} × "
            cut.append(f"of {name}, a part of {high}{wide}")
        labels = tuple(clean(matrix.row_labels[index]) for index in rows)
        tables.append((name, labels, matrix.column_labels[:most]))
        for place, index in enumerate(rows):
            numbers[f"{name}.{place}"] = figures.row(name, index, range(min(wide, most)))
    return Scene(
        name="table",
        title=title,
        formula=formula,
        lines=tuple(lines),
        query=row.row,
        text=f"Shown is {listing(cut)}." if cut else "",
        numbers=numbers,
        tables=tuple(tables),
    )


def opening(walk: Walk) -> Scene:
    return Scene(
        name="opening",
        title=walk.title,
        lines=(spoken("about", "This is a lesson in small steps."),),
    )


def table(walk: Walk, step: Step) -> Scene:
    """A step as it is: its matrices, and its own sentence, whose numbers are the lesson's."""
    figures = Figures(walk)
    numbers: dict[str, tuple[Number, ...]] = {}
    tables, cut = [], []
    for matrix in step.matrices:
        rows, columns = len(matrix.row_labels), len(matrix.column_labels)
        if rows > MOST_ROWS or columns > MOST_COLUMNS:
            cut.append(f"of {matrix.name}, a part of {rows} × {columns}")
        tables.append(
            (matrix.name, matrix.row_labels[:MOST_ROWS], matrix.column_labels[:MOST_COLUMNS])
        )
        for row in range(min(rows, MOST_ROWS)):
            numbers[f"{matrix.name}.{row}"] = figures.row(
                matrix.name, row, range(min(columns, MOST_COLUMNS))
            )
    return Scene(
        name="table",
        title=step.name.capitalize(),
        formula=step.formula,
        lines=(Line(name="said", text=step.sentence, names=(step.sentence,)),),
        text=step.sentence if not tables else f"Shown is {listing(cut)}." if cut else "",
        numbers=numbers,
        tables=tuple(tables),
    )

"""Confusion matrices: which labels a classifier takes for which others."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import isolated, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.files import printable
from pellucid.common.wording import short

FEW = 8
"""Up to how many labels the whole matrix is shown."""
MOST = 10
"""Mistakes that are listed if there are more labels."""


def show(labels: Sequence[str], confusion: Sequence[Sequence[int]], console: Console) -> None:
    """Print the matrix or, if there are many labels, the most frequent mistakes.

    Args:
        labels: of the rows and columns.
        confusion: (true labels, predicted labels) counts.
        console: where to print.
    """
    labels = [isolated(short(printable(label), 24)) for label in labels]
    if len(labels) <= FEW:
        say("Confusion matrix: true labels in rows, predicted in columns", console, style="bold")
        grid = plain_table()
        grid.add_column(justify="right", style="dim")
        grid.add_column("label", no_wrap=True, overflow="ellipsis")
        for number in range(1, len(labels) + 1):
            grid.add_column(str(number), justify="right", no_wrap=True, min_width=4)
        for number, (label, row) in enumerate(zip(labels, confusion, strict=True), start=1):
            cells = [shaded(f"{examples:4}", examples / max(1, sum(row))) for examples in row]
            grid.add_row(str(number), Text(label), *cells)
        console.print(grid)
        return
    mistakes = [
        (-examples, labels[true], labels[predicted])
        for true, row in enumerate(confusion)
        for predicted, examples in enumerate(row)
        if examples and true != predicted
    ]
    if mistakes:
        say("The most frequent mistakes", console, style="bold")
    for examples, true, predicted in sorted(mistakes)[:MOST]:
        say(f"{-examples:4}  {true} taken for {predicted}", console)

"""What was measured of a model that is trained, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import plain_table, say, shaded
from pellucid.common.files import printable
from pellucid.common.wording import short

FEW = 8
"""Labels whose confusions are a table."""
MOST = 10
"""Confusions that are listed, where there are more labels."""


def show(measures: Mapping[str, Any], console: Console) -> None:
    """A line for each measure, and for a classifier what it takes for what."""
    for name, value in measures.items():
        if name in ("labels", "confusion"):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, list):
            shown = "; ".join(value)
        say(f"{name.replace('_', ' ')}: {shown}", console)
    if "confusion" in measures:
        labels = [short(printable(label), 24) for label in measures["labels"]]
        console.print()
        (_table if len(labels) <= FEW else _list)(labels, measures["confusion"], console)


def _table(labels: Sequence[str], confusion: Sequence[Sequence[int]], console: Console) -> None:
    say("What the label is (rows), and what was said (columns)", console, style="bold")
    grid = plain_table()
    grid.add_column(justify="right", style="dim")
    grid.add_column("label", no_wrap=True, overflow="ellipsis")
    for number in range(1, len(labels) + 1):
        grid.add_column(str(number), justify="right", no_wrap=True, min_width=4)
    for number, (label, row) in enumerate(zip(labels, confusion, strict=True), start=1):
        cells = [shaded(f"{said:4}", said / max(1, sum(row))) for said in row]
        grid.add_row(str(number), Text(label), *cells)
    console.print(grid)


def _list(labels: Sequence[str], confusion: Sequence[Sequence[int]], console: Console) -> None:
    wrong = [
        (-said, labels[true], labels[given])
        for true, row in enumerate(confusion)
        for given, said in enumerate(row)
        if said and true != given
    ]
    if wrong:
        say("What was mistaken most", console, style="bold")
    for said, true, given in sorted(wrong)[:MOST]:
        say(f"{-said:4}  {true} taken for {given}", console)

"""Labels that a classifier gives to texts, and how right it is on examples that it has not seen."""

from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import add_texts, one_line, plain_table, say, shaded
from pellucid.common.files import printable
from pellucid.common.wording import count, listing, percent, short
from pellucid.tasks.classify import Evaluation, Head
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

FEW = 8
"""Labels whose confusions are a table."""
MOST_ROWS = 40
"""Lines of a table; more are for --json or a file."""


def evaluation_said(found: Evaluation | None) -> dict[str, Any] | None:
    """How right it is, for scripts; None where nothing could be held out."""
    if found is None:
        return None
    return {
        "examples": found.examples,
        "folds": found.folds,
        "accuracy": found.accuracy,
        "interval": list(found.interval),
        "baseline": found.baseline,
        "labels": list(found.labels),
        "confusion": [list(row) for row in found.confusion],
    }


def show_evaluation(found: Evaluation | None, examples: Items, console: Console) -> None:
    """Print how right it is, and what it takes for what."""
    labels = sorted(set(examples.labels))
    told = f"{examples.source}: {count(len(examples.texts), 'example')} of {len(labels)} labels"
    say(told, console, style="bold")
    if found is None:
        alone = [label for label in labels if examples.labels.count(label) == 1]
        said = listing([f"'{short(printable(label), 30)}'" for label in alone[:5]])
        say(
            f"No held-out accuracy: one example alone cannot be both learnt and tried, of {said}.",
            console,
        )
        return
    low, high = (percent(bound) for bound in found.interval)
    say(
        f"Held out: {percent(found.accuracy)} right, {low} to {high} with 95% confidence; "
        f"always saying the most frequent label, {percent(found.baseline)}.",
        console,
    )
    say(
        f"Each example was judged by a head fitted without it, in {found.folds} rounds.",
        console,
        style="dim",
    )
    console.print()
    if len(labels) <= FEW:
        _show_confusion(found, console)
    else:
        _list_confusions(found, console)


def _show_confusion(found: Evaluation, console: Console) -> None:
    say("What the label is, and what was said", console, style="bold")
    grid = plain_table()
    grid.add_column(justify="right", style="dim")
    grid.add_column("label", no_wrap=True, overflow="ellipsis", max_width=24)
    for number in range(1, len(found.labels) + 1):
        grid.add_column(str(number), justify="right", no_wrap=True, min_width=4)
    for number, (label, row) in enumerate(zip(found.labels, found.confusion, strict=True), start=1):
        cells = [shaded(f"{said:4}", said / sum(row)) for said in row]
        grid.add_row(str(number), Text(printable(label)), *cells)
    console.print(grid)


def _list_confusions(found: Evaluation, console: Console) -> None:
    wrong = [
        (said, found.labels[true], found.labels[given])
        for true, row in enumerate(found.confusion)
        for given, said in enumerate(row)
        if said and true != given
    ]
    if not wrong:
        return
    say("What was mistaken most", console, style="bold")
    for said, true, given in sorted(wrong, key=lambda one: (-one[0], one[1:]))[:10]:
        told = f"{said:4}  {short(printable(true), 30)} taken for {short(printable(given), 30)}"
        console.print(Text(told))


def columns(found: Items, head: Head, likely: torch.Tensor) -> dict[str, table_writing.Column]:
    """What a table has of each text."""
    best, which = likely.max(-1)
    return {
        "line": found.lines,
        "text": found.texts,
        "label": [head.labels[number] for number in which.tolist()],
        "probability": best.tolist(),
    }


def said(found: Items, head: Head, likely: torch.Tensor) -> list[dict[str, Any]]:
    """All of it, for scripts."""
    rows = table_writing.rows_of(columns(found, head, likely))
    for row, shares in zip(rows, likely.tolist(), strict=True):
        row["probabilities"] = dict(zip(head.labels, shares, strict=True))
    return rows


def show(found: Items, head: Head, likely: torch.Tensor, console: Console) -> None:
    """Print the likeliest label of each text, and how sure it is."""
    grid = plain_table()
    grid.add_column("label", overflow="fold")
    grid.add_column("sure", justify="right", no_wrap=True, min_width=4)
    add_texts(grid, "text")
    made = columns(found, head, likely)
    rows = zip(made["label"], made["probability"], found.texts, strict=True)
    for number, (label, share, text) in enumerate(rows):
        if number == MOST_ROWS:
            break
        sure = shaded(f"{percent(share):>4}", share)
        grid.add_row(Text(printable(label)), sure, one_line(text))
    console.print(grid)
    if len(found.texts) > MOST_ROWS:
        left = len(found.texts) - MOST_ROWS
        say(f"and {left:,} more; -o FILE.csv writes all.", console, style="dim")

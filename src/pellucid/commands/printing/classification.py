"""Labels that a classifier gives to texts, and its accuracy on held-out examples."""

from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from pellucid.commands.printing import confusion
from pellucid.commands.printing.console import add_texts, one_line, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.files import printable
from pellucid.common.wording import count, listing, percent, short
from pellucid.tasks.classify import Evaluation, Head
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

MOST_ROWS = 40
"""Rows of a table on the terminal; --json and files have all."""


def evaluation_data(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """The evaluation for --json; None if nothing could be held out."""
    if evaluation is None:
        return None
    return {
        "examples": evaluation.examples,
        "folds": evaluation.folds,
        "accuracy": evaluation.accuracy,
        "interval": list(evaluation.interval),
        "baseline": evaluation.baseline,
        "labels": list(evaluation.labels),
        "confusion": [list(row) for row in evaluation.confusion],
    }


def show_evaluation(evaluation: Evaluation | None, examples: Items, console: Console) -> None:
    """Print the held-out accuracy and the confusion matrix."""
    labels = sorted(set(examples.labels))
    size = f"{count(len(examples.texts), 'example')} of {len(labels)} labels"
    say(f"{examples.source}: {size}", console, style="bold")
    if evaluation is None:
        single = [label for label in labels if examples.labels.count(label) == 1]
        names = listing([f"'{short(printable(label), 30)}'" for label in single[:5]])
        say(
            f"No held-out accuracy: it needs two examples of each label, and there is one of "
            f"{names}.",
            console,
        )
        return
    low, high = (percent(bound) for bound in evaluation.interval)
    say(
        f"Held-out accuracy: {percent(evaluation.accuracy)}, 95% confidence interval {low} to "
        f"{high}; always predicting the most frequent label gives {percent(evaluation.baseline)}.",
        console,
    )
    say(
        f"Cross-validation in {evaluation.folds} folds: each example was classified by a head "
        "that was fitted without it.",
        console,
        style="dim",
    )
    console.print()
    confusion.show(evaluation.labels, evaluation.confusion, console)


def columns(
    items: Items, head: Head, probabilities: torch.Tensor
) -> dict[str, table_writing.Column]:
    """The columns of a table with a row for each text.

    Args:
        items: the texts.
        head: the classifier.
        probabilities: (texts, labels).
    """
    best, labels = probabilities.max(-1)
    return {
        "line": items.lines,
        "text": items.texts,
        "label": [head.labels[number] for number in labels.tolist()],
        "probability": best.tolist(),
    }


def data(items: Items, head: Head, probabilities: torch.Tensor) -> list[dict[str, Any]]:
    """The predictions for --json, with the probability of every label."""
    rows = table_writing.rows_of(columns(items, head, probabilities))
    for row, shares in zip(rows, probabilities.tolist(), strict=True):
        row["probabilities"] = dict(zip(head.labels, shares, strict=True))
    return rows


def show(items: Items, head: Head, probabilities: torch.Tensor, console: Console) -> None:
    """Print the likeliest label of each text with its probability."""
    grid = plain_table()
    grid.add_column("label", overflow="fold")
    grid.add_column("sure", justify="right", no_wrap=True, min_width=4)
    add_texts(grid, "text")
    table = columns(items, head, probabilities)
    rows = list(zip(table["label"], table["probability"], items.texts, strict=True))
    for label, probability, text in rows[:MOST_ROWS]:
        sure = shaded(f"{percent(probability):>4}", probability)
        grid.add_row(Text(printable(label)), sure, one_line(text))
    console.print(grid)
    if len(rows) > MOST_ROWS:
        say(f"and {len(rows) - MOST_ROWS:,} more; -o FILE.csv writes all.", console, style="dim")

"""Labels that a classifier gives to texts, and its accuracy on held-out examples."""

from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from pellucid.commands.printing import evaluations
from pellucid.commands.printing.console import add_texts, isolated, one_line, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.files import printable
from pellucid.common.wording import count, listing, percent, short
from pellucid.tasks.classify import Head, OwnClassifier, columns_of, likely
from pellucid.tasks.evaluation import Evaluation
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

MOST_ROWS = 40
"""Rows of a table on the terminal; --json and files have all."""


def show_evaluation(evaluation: Evaluation | None, examples: Items, console: Console) -> None:
    """Print the figures on held-out examples, and what they are worth."""
    labels = sorted(set(examples.labels))
    what = f"{len(labels)} labels" if evaluation is None else _target_description(evaluation)
    size = count(len(examples.texts), "example")
    say(f"{examples.source}: {size} of {what}", console, style="bold")
    if evaluation is None:
        single = [label for label in labels if examples.labels.count(label) == 1]
        names = listing(
            [f"'{isolated(short(printable(label), 30))}'" for label in single[:5]] or ["each"]
        )
        say(
            "No held-out figure: it needs two different texts of each of two labels, and there is "
            f"one of {names}.",
            console,
        )
        return
    evaluations.show(evaluation, console)
    repeated = ""
    if evaluation.texts < evaluation.examples:
        repeated = f" {evaluation.texts:,} texts of {evaluation.examples:,} differ."
    say(
        f"Cross-validation in {evaluation.folds} folds: each example was classified by a head "
        f"that was fitted without it, and without equal texts.{repeated}",
        console,
        style="dim",
    )
    evaluations.show_tables(evaluation, console)


def _target_description(evaluation: Evaluation) -> str:
    if evaluation.kind == "number":
        return "a number"
    several = ", several a text" if evaluation.kind == "labels" else ""
    return f"{count(len(evaluation.labels), 'label')}{several}"


def columns(
    items: Items, head: Head | OwnClassifier, predictions: torch.Tensor
) -> dict[str, table_writing.Column]:
    """The columns of a table with a row for each text.

    Args:
        items: the texts.
        head: the classifier.
        said: (texts, labels) probabilities; or (texts, 1) numbers.
    """
    return {**items.location_columns, "text": items.texts, **columns_of(head, predictions)}


def data(
    items: Items, head: Head | OwnClassifier, predictions: torch.Tensor
) -> list[dict[str, Any]]:
    """The predictions for --json, with the probability of every label."""
    rows = table_writing.rows_of(columns(items, head, predictions))
    for row, shares in zip(rows, predictions.tolist(), strict=True):
        if head.kind == "number":
            row["margin"] = head.margin
            continue
        if head.kind == "labels":
            row["labels"] = likely(head.labels, shares)
        row["probabilities"] = dict(zip(head.labels, shares, strict=True))
    return rows


def show(
    items: Items, head: Head | OwnClassifier, predictions: torch.Tensor, console: Console
) -> None:
    """Print the likeliest label of each text with its probability, its labels, or its number."""
    grid = plain_table()
    table = columns(items, head, predictions)
    rows: list[list[Text]] = []
    if head.kind == "number":
        grid.add_column("number", justify="right", no_wrap=True)
        rows = [[Text(f"{number:.4g}")] for number in table["number"]]
    else:
        name = "label" if head.kind == "label" else "labels"
        grid.add_column(name, overflow="fold")
        grid.add_column("sure", justify="right", no_wrap=True, min_width=4)
        rows = [
            [Text(isolated(printable(label)) or "none"), shaded(f"{percent(share):>4}", share)]
            for label, share in zip(table[name], table["probability"], strict=True)
        ]
    add_texts(grid, "text")
    for cells, text in list(zip(rows, items.texts, strict=True))[:MOST_ROWS]:
        grid.add_row(*cells, one_line(text))
    console.print(grid)
    if head.kind == "number" and head.margin is not None:
        say(f"9 of 10 held-out numbers were within {head.margin:.4g}.", console, style="dim")
    if len(rows) > MOST_ROWS:
        say(f"and {len(rows) - MOST_ROWS:,} more; -o FILE.csv writes all.", console, style="dim")

"""`pellucid embed`, `similar`, `cluster` and `classify`: read, embed, say it in the terminal."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.common.files import printable
from pellucid.common.terminal import say, shaded, steps
from pellucid.common.wording import count, listing, percent, short
from pellucid.errors import ArgumentError
from pellucid.models import Encoder
from pellucid.tasks.classify import Evaluation, Head
from pellucid.tasks.cluster_map import title_of
from pellucid.tasks.clustering import Clustering
from pellucid.tasks.embedding import embed
from pellucid.tasks.similarity import Match, similar
from pellucid.text import items, tables
from pellucid.text.items import Items

Name = TypeVar("Name")
Model = TypeVar("Model")

DEFAULT = "all-MiniLM-L6-v2"
FEW = 8
"""Texts whose similarities are shown, and labels whose confusions are a table."""
MOST_ROWS = 40
"""Lines of a table; more are for --json or a file."""
CLEAR, VAGUE = 0.25, 0.1
"""Silhouettes above which groups stand apart, and below which they run into each other."""


def read(
    texts: Sequence[str] | None,
    file: Path | None,
    column: str | None = None,
    label: str | None = None,
    *,
    strict: bool = False,
) -> Items:
    """Texts of the command line, of a file, or else of standard input; says what was left out.

    Raises:
        ArgumentError, FileError: as `text.items`; with `strict`, of blank texts too.
    """
    if texts and file is not None:
        raise ArgumentError("give either texts or --file, not both")
    if texts:
        if len(texts) == 1 and len(texts[0]) < 256 and Path(texts[0]).is_file():
            name = printable(texts[0])
            note(f"reading the name '{name}'; the file is --file '{name}'")
        return items.from_arguments(texts)
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        raise ArgumentError('give texts, like "Write a poem", or a file, or pipe one in')
    found = items.from_file(items.STDIN if file is None else file, column, label)
    if found.blank:
        which = listing([str(line) for line in found.blank[:5]])
        if len(found.blank) > 5:
            which = f"{', '.join(map(str, found.blank[:5]))} and more"
        lines = count(len(found.blank), "empty line")
        if strict:
            raise ArgumentError(f"'{found.source}' has {lines}: {which}")
        note(f"left out {lines} of '{found.source}': {which}")
    return found


def opened(model: Name, reader: Callable[[Name], Model]) -> Model:
    """What the reader makes of the model's name, with a word on the terminal meanwhile."""
    with steps() as step:
        step("opening the model", 0, 1)
        return reader(model)


def embedded(model: Encoder, found: Items, *, strict: bool = False) -> torch.Tensor:
    """(texts, width), with a bar on a terminal, and what was cut said on stderr."""
    with noted(), steps() as step:
        return embed(
            model,
            found.texts,
            strict=strict,
            names=found.names,
            progress=lambda done, of: step(f"embedding {count(of, 'text')}", done, of),
        )


def name_of(model: str | None) -> str:
    """For people."""
    return DEFAULT if model is None else printable(Path(model).name or model)


# Embeddings


def embedding_columns(found: Items, vectors: torch.Tensor) -> dict[str, tables.Column]:
    return {"line": found.lines, "text": found.texts, "embedding": vectors.numpy()}


def embeddings_said(found: Items, vectors: torch.Tensor, model: str | None) -> dict[str, Any]:
    rows = zip(found.lines, found.texts, vectors.tolist(), strict=True)
    return {
        "model": name_of(model),
        "items": [{"line": n, "text": text, "embedding": row} for n, text, row in rows],
    }


def show_embeddings(
    found: Items, vectors: torch.Tensor, model: str | None, console: Console
) -> None:
    """What there is, and how similar the texts are where they are few."""
    texts, width = vectors.shape
    say(f"{name_of(model)}: {count(texts, 'text')}, {width} numbers each", console, style="bold")
    if 2 <= texts <= FEW:
        console.print()
        say("How similar they are: the cosine of each two", console, style="bold")
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        cosines = (unit @ unit.T).clamp(-1, 1).tolist()
        grid = _grid()
        grid.add_column(justify="right", style="dim")
        for number in range(texts):
            grid.add_column(str(number + 1), justify="right", no_wrap=True, min_width=5)
        _add_texts(grid, "")
        for number, row in enumerate(cosines, start=1):
            cells = [shaded(f"{cosine:5.2f}", cosine) for cosine in row]
            grid.add_row(str(number), *cells, _one_line(found.texts[number - 1]))
        console.print(grid)
    console.print()
    say("-o FILE.npy or FILE.parquet writes them, --json prints them.", console, style="dim")


# Similarity


def asked(query: str, top: int) -> Items:
    """The query, where it and how many texts are wanted make sense."""
    if top < 1:
        raise ArgumentError(f"--top must be 1 or more, not {top}")
    return items.from_arguments([query])


def matches(model: Encoder, asked: Items, found: Items, top: int, strict: bool) -> list[Match]:
    """The texts that are nearest to the query."""
    vectors = embedded(model, found, strict=strict)
    return similar(embedded(model, asked, strict=strict)[0], vectors, top)


def match_columns(found: Items, ranked: Sequence[Match]) -> dict[str, tables.Column]:
    return {
        "rank": list(range(1, len(ranked) + 1)),
        "score": [match.score for match in ranked],
        "line": [found.lines[match.index] for match in ranked],
        "text": [found.texts[match.index] for match in ranked],
    }


def matches_said(
    query: str, found: Items, ranked: Sequence[Match], model: str | None
) -> dict[str, Any]:
    return {
        "model": name_of(model),
        "query": query,
        "texts": len(found.texts),
        "matches": rows_of(match_columns(found, ranked)),
    }


def show_matches(query: str, found: Items, ranked: Sequence[Match], console: Console) -> None:
    of = f"of {count(len(found.texts), 'text')}" if len(ranked) < len(found.texts) else ""
    say(
        f"Nearest to “{short(printable(query), 200)}”: {len(ranked)} {of}".strip(),
        console,
        style="bold",
    )
    grid = _grid()
    grid.add_column("score", justify="right", no_wrap=True, min_width=5)
    grid.add_column("line", justify="right", no_wrap=True, style="dim")
    grid.add_column("text")
    for match in ranked:
        text = Text(" ".join(printable(found.texts[match.index]).split()))
        score = shaded(f"{match.score:5.2f}", match.score)
        grid.add_row(score, str(found.lines[match.index]), text)
    console.print(grid)


# Groups


def group_columns(found: Items, made: Clustering) -> dict[str, tables.Column]:
    labels = {group.number: title_of(group, found.texts) for group in made.groups}
    return {
        "line": found.lines,
        "text": found.texts,
        "group": list(made.group_of),
        "label": [labels[number] for number in made.group_of],
    }


def groups_said(found: Items, made: Clustering, model: str | None) -> dict[str, Any]:
    return {
        "model": name_of(model),
        "texts": len(found.texts),
        "silhouette": made.silhouette,
        "groups": [
            {
                "group": group.number,
                "size": len(group.members),
                "words": list(group.words),
                "central": found.texts[group.central],
                "lines": [found.lines[number] for number in group.members],
            }
            for group in made.groups
        ],
        "items": rows_of(group_columns(found, made)),
    }


def show_groups(found: Items, made: Clustering, console: Console) -> None:
    told = f"{found.source}: {count(len(found.texts), 'text')} in "
    say(f"{told}{count(len(made.groups), 'group')}", console, style="bold")
    for group in made.groups:
        console.print()
        line = Text(f"{group.number:>3}  ", style="dim")
        line.append(printable(title_of(group, found.texts)), style="bold")
        line.append(f"  {count(len(group.members), 'text')}", style="dim")
        console.print(line)
        central = " ".join(printable(found.texts[group.central]).split())
        say(short(central, 220), console, indent=5)
    console.print()
    if made.silhouette is not None:
        how = (
            "groups that stand clear of each other"
            if made.silhouette >= CLEAR
            else "groups that run into each other"
            if made.silhouette < VAGUE
            else "groups that can be told apart"
        )
        say(f"Silhouette {made.silhouette:.2f}, of -1 to 1: {how}.", console, style="dim")
    say(
        "Each has its telling words and its most central text. --svg FILE or --html FILE draws "
        "the map, -o FILE.csv lists every text with its group.",
        console,
        style="dim",
    )


# Labels


def evaluation_said(found: Evaluation | None) -> dict[str, Any] | None:
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
    grid = _grid()
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


def label_columns(found: Items, head: Head, likely: torch.Tensor) -> dict[str, tables.Column]:
    best, which = likely.max(-1)
    return {
        "line": found.lines,
        "text": found.texts,
        "label": [head.labels[number] for number in which.tolist()],
        "probability": best.tolist(),
    }


def labels_said(found: Items, head: Head, likely: torch.Tensor) -> list[dict[str, Any]]:
    rows = rows_of(label_columns(found, head, likely))
    for row, shares in zip(rows, likely.tolist(), strict=True):
        row["probabilities"] = dict(zip(head.labels, shares, strict=True))
    return rows


def show_labels(found: Items, head: Head, likely: torch.Tensor, console: Console) -> None:
    grid = _grid()
    grid.add_column("label", overflow="fold")
    grid.add_column("sure", justify="right", no_wrap=True, min_width=4)
    _add_texts(grid, "text")
    columns = label_columns(found, head, likely)
    rows = zip(columns["label"], columns["probability"], found.texts, strict=True)
    for number, (label, share, text) in enumerate(rows):
        if number == MOST_ROWS:
            break
        sure = shaded(f"{percent(share):>4}", share)
        grid.add_row(Text(printable(label)), sure, _one_line(text))
    console.print(grid)
    if len(found.texts) > MOST_ROWS:
        left = len(found.texts) - MOST_ROWS
        say(f"and {left:,} more; -o FILE.csv writes all.", console, style="dim")


def check_head(head: Head, probe: torch.Tensor, model: str | None) -> None:
    """Refuse a head that was fitted on the embeddings of another encoder.

    Raises:
        ArgumentError: it was.
    """
    if head.probe is None:
        return
    same = head.probe.shape == probe.shape
    if not same or not np.allclose(head.probe, probe, atol=1e-3):
        fitted = name_of(head.model)
        raise ArgumentError(
            f"the head was fitted on embeddings of {fitted}, and {name_of(model)} gives others"
        )


def rows_of(columns: Mapping[str, tables.Column]) -> list[dict[str, Any]]:
    """What --json says of each text."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _grid() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def _add_texts(grid: Table, name: str) -> None:
    """A column that has what room the others leave: texts are cut, and nothing beside them is."""
    grid.expand = True
    grid.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)


def _one_line(text: str) -> Text:
    return Text(" ".join(printable(text).split()))


@contextmanager
def noted() -> Iterator[None]:
    """Warnings are notes, once the block is over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        note(str(warning.message))


def note(text: str) -> None:
    """Say on stderr what is no part of the answer."""
    print(f"pellucid: {printable(text)}", file=sys.stderr)

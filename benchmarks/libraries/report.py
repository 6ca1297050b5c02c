"""Outcomes as a table, for the terminal and for docs/libraries.md."""

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.libraries.verdict import VERDICTS, Outcome

COLOURS = {"exact": "green", "said": "yellow", "silent": "red", "different": "red bold"}
HEAD = ("model", "verdict", "calls", "largest error", "largest weight", "what is said")
INTRODUCTION = """\
# Models of other libraries

What `pellucid.watch` records of models that were written elsewhere, beside the weights they used.
The models are small, with random parameters, sharpened; `make libraries` writes this page anew.

Each attention call is one of these, and a model is as good as its worst call:

| verdict | what it means |
| --- | --- |
| exact | recorded, and no weight is off by more than 2e-5 |
| said | not recorded, and `seen.unseen` names the module, a part of it, or what it is a part of |
| silent | neither recorded nor said |
| different | recorded, and a weight, or another thing that was asked, is wrong |

The truth comes from PyTorch's operators alone
([benchmarks/libraries/truth.py](../benchmarks/libraries/truth.py)): whatever comes out of a softmax
and is then summed along it in a product with something that is no parameter. The largest weight is
that of a query in the mean: 1 where each looks at one key.
"""


def show(library: str, outcomes: list[Outcome], console: Console) -> None:
    table = Table(title=library, box=box.SIMPLE, title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="right" if name.startswith("largest") else "left")
    for outcome in outcomes:
        model, verdict, *rest = map(escape, _cells(outcome))
        colour = COLOURS.get(verdict, "dim")
        table.add_row(model, f"[{colour}]{verdict}[/]", *rest)
    console.print(table)


def summary(outcomes: Iterable[Outcome]) -> str:
    """How many models have each verdict."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    order = (*VERDICTS, "no attention", "not run")
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])


def markdown(outcomes: list[Outcome], versions: list[str]) -> str:
    """The page."""
    by_library: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_library.setdefault(outcome.library, []).append(outcome)
    lines = [INTRODUCTION, f"With {', '.join(versions)}: {summary(outcomes)}.", ""]
    lines += ["| library | models | verdicts |", "| --- | --- | --- |"]
    lines += [f"| {name} | {len(some)} | {summary(some)} |" for name, some in by_library.items()]
    for library, some in by_library.items():
        lines += ["", f"## {library}", "", *_rows([HEAD, ["---"] * len(HEAD)])]
        lines += _rows(_cells(outcome) for outcome in some)
    return "\n".join(lines) + "\n"


def versions_of(distributions: Iterable[str]) -> list[str]:
    """The Python, and the libraries that are installed."""
    found = [f"Python {platform.python_version()}"]
    for name in dict.fromkeys(("torch", "transformers", *distributions)):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


def _rows(rows: Iterable[Iterable[str]]) -> Iterator[str]:
    return (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _cells(outcome: Outcome) -> list[str]:
    recorded = any(outcome.counts.get(verdict) for verdict in ("exact", "different"))
    calls = ", ".join(
        f"{outcome.counts[verdict]} {verdict}"
        for verdict in VERDICTS
        if outcome.counts.get(verdict)
    )
    return [
        outcome.model,
        outcome.verdict,
        calls,
        f"{outcome.error:.1e}" if recorded else "",
        f"{outcome.peak:.2f}" if outcome.peak else "",
        outcome.failure or "; ".join(outcome.notes),
    ]

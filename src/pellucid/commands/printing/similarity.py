"""The texts that are nearest to a query, the nearest first."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pellucid.commands.printing.console import one_line, plain_table, say, shaded
from pellucid.common.files import printable
from pellucid.common.wording import count, short
from pellucid.tasks.embedding import name_of
from pellucid.tasks.similarity import Match
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items


def columns(found: Items, ranked: Sequence[Match]) -> dict[str, table_writing.Column]:
    """What a table has of each match."""
    return {
        "rank": list(range(1, len(ranked) + 1)),
        "score": [match.score for match in ranked],
        "line": [found.lines[match.index] for match in ranked],
        "text": [found.texts[match.index] for match in ranked],
    }


def said(query: str, found: Items, ranked: Sequence[Match], model: str | None) -> dict[str, Any]:
    """All of it, for scripts."""
    return {
        "model": name_of(model),
        "query": query,
        "texts": len(found.texts),
        "matches": table_writing.rows_of(columns(found, ranked)),
    }


def show(query: str, found: Items, ranked: Sequence[Match], console: Console) -> None:
    """Print each match with its score and the line it is from."""
    of = f"of {count(len(found.texts), 'text')}" if len(ranked) < len(found.texts) else ""
    say(
        f"Nearest to “{short(printable(query), 200)}”: {len(ranked)} {of}".strip(),
        console,
        style="bold",
    )
    grid = plain_table()
    grid.add_column("score", justify="right", no_wrap=True, min_width=5)
    grid.add_column("line", justify="right", no_wrap=True, style="dim")
    grid.add_column("text")
    for match in ranked:
        text = one_line(found.texts[match.index])
        score = shaded(f"{match.score:5.2f}", match.score)
        grid.add_row(score, str(found.lines[match.index]), text)
    console.print(grid)

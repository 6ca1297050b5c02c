"""The texts nearest to a query, the nearest first."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pellucid.commands.printing.console import isolated, one_line, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.files import printable
from pellucid.common.wording import count, short
from pellucid.tasks.embedding import name_of
from pellucid.tasks.similarity import Match
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items


def columns(items: Items, matches: Sequence[Match]) -> dict[str, table_writing.Column]:
    """The columns of a table with a row for each match."""
    return {
        "rank": list(range(1, len(matches) + 1)),
        "score": [match.score for match in matches],
        **{
            name: [column[match.index] for match in matches]
            for name, column in items.location_columns.items()
        },
        "text": [items.texts[match.index] for match in matches],
    }


def data(
    query: str, items: Items, matches: Sequence[Match], model: str | None, total: int
) -> dict[str, Any]:
    """The matches for --json, of a total of texts."""
    return {
        "model": name_of(model),
        "query": query,
        "texts": total,
        "notes": items.notes,
        "matches": table_writing.rows_of(columns(items, matches)),
    }


def show(query: str, items: Items, matches: Sequence[Match], console: Console, total: int) -> None:
    """Print each match, of a total of texts, with its score and the number of its line."""
    of = f"of {count(total, 'text')}" if len(matches) < total else ""
    say(
        f"Nearest to “{isolated(short(printable(query), 200))}”: {len(matches)} {of}".strip(),
        console,
        style="bold",
    )
    grid = plain_table()
    grid.add_column("score", justify="right", no_wrap=True, min_width=5)
    grid.add_column("line", justify="right", no_wrap=True, style="dim")
    grid.add_column("text")
    for match in matches:
        text = one_line(items.texts[match.index])
        score = shaded(f"{match.score:5.2f}", match.score)
        grid.add_row(score, str(items.lines[match.index]), text)
    console.print(grid)

"""Groups of similar texts: the telling words of each, and its most central text."""

from typing import Any

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import say
from pellucid.common.files import printable
from pellucid.common.wording import count, short
from pellucid.tasks.cluster_map import title_of
from pellucid.tasks.clustering import Clustering
from pellucid.tasks.embedding import name_of
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

CLEAR, VAGUE = 0.25, 0.1
"""Silhouettes above which groups stand apart, and below which they run into each other."""


def columns(found: Items, made: Clustering) -> dict[str, table_writing.Column]:
    """What a table has of each text."""
    labels = {group.number: title_of(group, found.texts) for group in made.groups}
    return {
        "line": found.lines,
        "text": found.texts,
        "group": list(made.group_of),
        "label": [labels[number] for number in made.group_of],
    }


def said(found: Items, made: Clustering, model: str | None) -> dict[str, Any]:
    """All of it, for scripts."""
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
        "items": table_writing.rows_of(columns(found, made)),
    }


def show(found: Items, made: Clustering, console: Console) -> None:
    """Print each group: its telling words, its size, its most central text."""
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

"""Groups of similar texts: the keywords of each, and its most central text."""

from typing import Any

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import isolated, say
from pellucid.common.files import printable
from pellucid.common.wording import count, short
from pellucid.tasks.cluster_map import title_of
from pellucid.tasks.clustering import Clustering
from pellucid.tasks.embedding import name_of
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

CLEAR, VAGUE = 0.25, 0.1
"""Silhouettes from which groups are well separated, and below which they overlap."""


def columns(items: Items, clustering: Clustering) -> dict[str, table_writing.Column]:
    """The columns of a table with a row for each text."""
    labels = {group.number: title_of(group, items.texts) for group in clustering.groups}
    return {
        **items.location_columns,
        "text": items.texts,
        "group": list(clustering.group_of),
        "label": [labels[number] for number in clustering.group_of],
    }


def data(items: Items, clustering: Clustering, model: str | None) -> dict[str, Any]:
    """The groups for --json."""
    return {
        "model": name_of(model),
        "texts": len(items.texts),
        "notes": items.notes,
        "silhouette": clustering.silhouette,
        "groups": [
            {
                "group": group.number,
                "size": len(group.members),
                "words": list(group.words),
                "central": items.texts[group.central],
                "lines": [items.lines[number] for number in group.members],
            }
            for group in clustering.groups
        ],
        "items": table_writing.rows_of(columns(items, clustering)),
    }


def show(items: Items, clustering: Clustering, console: Console) -> None:
    """Print the keywords, the size and the most central text of each group."""
    size = f"{count(len(items.texts), 'text')} in {count(len(clustering.groups), 'group')}"
    say(f"{items.source}: {size}", console, style="bold")
    for group in clustering.groups:
        console.print()
        line = Text(f"{group.number:>3}  ", style="dim")
        line.append(isolated(printable(title_of(group, items.texts))), style="bold")
        line.append(f"  {count(len(group.members), 'text')}", style="dim")
        console.print(line)
        central = " ".join(printable(items.texts[group.central]).split())
        say(isolated(short(central, 220)), console, indent=5)
    console.print()
    if clustering.silhouette is not None:
        separation = (
            "the groups are well separated"
            if clustering.silhouette >= CLEAR
            else "the groups overlap"
            if clustering.silhouette < VAGUE
            else "the groups are distinct but close"
        )
        silhouette = f"Silhouette {clustering.silhouette:.2f}, from -1 to 1"
        say(f"{silhouette}: {separation}.", console, style="dim")
    say(
        "Each group is shown by its keywords and its most central text. --svg FILE or --html FILE "
        "draws a map, -o FILE.csv lists every text with its group.",
        console,
        style="dim",
    )

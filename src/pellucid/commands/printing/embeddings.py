"""Embeddings: their number and size, and the similarities of a few texts."""

from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console

from pellucid.commands.printing.console import add_texts, one_line, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.wording import count
from pellucid.tasks.embedding import DigitsLost, name_of
from pellucid.text import table_writing
from pellucid.text.text_inputs import Items

FEW = 8
"""Up to how many texts their similarities are shown."""


def columns(items: Items, vectors: torch.Tensor) -> dict[str, table_writing.Column]:
    """The columns of a table with a row for each text; `vectors` are (texts, width)."""
    return {**items.location_columns, "text": items.texts, "embedding": vectors.numpy()}


def data(
    items: Items, vectors: torch.Tensor, model: str | None, lost: DigitsLost | None
) -> dict[str, Any]:
    """The embeddings for --json; `lost` is what they lost in bfloat16."""
    rows = {**items.location_columns, "text": items.texts, "embedding": vectors.tolist()}
    return {
        "model": name_of(model),
        "precision": "float32" if lost is None else "bfloat16",
        **({} if lost is None else asdict(lost)),
        "notes": items.notes,
        "items": table_writing.rows_of(rows),
    }


def show(items: Items, vectors: torch.Tensor, model: str | None, console: Console) -> None:
    """Print the number of embeddings, and the cosine similarities of a few texts."""
    texts, width = vectors.shape
    say(f"{name_of(model)}: {count(texts, 'text')}, {width} dimensions", console, style="bold")
    if 2 <= texts <= FEW:
        console.print()
        say("Cosine similarity of each pair", console, style="bold")
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        cosines = (unit @ unit.T).clamp(-1, 1).tolist()
        grid = plain_table()
        grid.add_column(justify="right", style="dim")
        for number in range(texts):
            grid.add_column(str(number + 1), justify="right", no_wrap=True, min_width=5)
        add_texts(grid, "")
        for number, row in enumerate(cosines, start=1):
            cells = [shaded(f"{cosine:5.2f}", cosine) for cosine in row]
            grid.add_row(str(number), *cells, one_line(items.texts[number - 1]))
        console.print(grid)
    console.print()
    say(
        "-o FILE.npy or FILE.parquet writes the embeddings, --json prints them.",
        console,
        style="dim",
    )

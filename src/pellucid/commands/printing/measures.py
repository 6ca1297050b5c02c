"""The measures of a trained model."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pellucid.commands.printing import confusion
from pellucid.commands.printing.console import say


def show(measures: Mapping[str, Any], console: Console) -> None:
    """Print a line for each measure, and the confusion matrix of a classifier."""
    for name, value in measures.items():
        if name in ("labels", "confusion"):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, list):
            shown = "; ".join(value)
        say(f"{name.replace('_', ' ')}: {shown}", console)
    if "confusion" in measures:
        console.print()
        confusion.show(measures["labels"], measures["confusion"], console)

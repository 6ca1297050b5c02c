"""The measures of a trained model."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from pellucid.commands.printing import confusion, evaluations
from pellucid.commands.printing.console import say
from pellucid.common.wording import percent
from pellucid.tasks.evaluation import Evaluation


def show(measures: Mapping[str, Any], console: Console) -> None:
    """Print the measures: those that `evaluations` prints, else a line for each."""
    if "figure" in measures:
        evaluation = Evaluation.of_data(measures)
        evaluations.show(evaluation, console)
        _show_each(measures, ("loss", "left_out"), console)
        evaluations.show_tables(evaluation, console)
        return
    printed = {"labels", "confusion"}
    if "candidates" in measures:
        low, high = map(percent, measures["interval"])
        say(
            f"Found first: {percent(measures['found_first'])} of {measures['pairs']:,} held-out "
            f"pairs among {measures['candidates']:,} different texts, 95% confidence interval "
            f"{low} to {high}; chance gives {percent(measures['chance'])}.",
            console,
        )
        printed |= {"found_first", "interval", "chance", "pairs", "candidates"}
    _show_each(measures, [name for name in measures if name not in printed], console)
    if "confusion" in measures:
        console.print()
        confusion.show(measures["labels"], measures["confusion"], console)


def _show_each(measures: Mapping[str, Any], names: Iterable[str], console: Console) -> None:
    for name in names:
        if name not in measures:
            continue
        value = measures[name]
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, list):
            shown = "; ".join(value)
        say(f"{name.replace('_', ' ')}: {shown}", console)

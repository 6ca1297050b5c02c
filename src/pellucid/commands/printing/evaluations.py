"""Figures on held-out texts: with their interval, what chance would give, and what was left out."""

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing import confusion
from pellucid.commands.printing.console import isolated, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common.files import printable
from pellucid.common.wording import listing, percent, short
from pellucid.tasks.evaluation import Evaluation

MOST_NAMES = 5
"""Labels that one line names."""
MOST_LABELS = 20
"""Labels of the table of several."""
UNEVEN = 5.0
"""How many times as many examples as the rarest label the most frequent one has, so that it is
said."""


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the figure, its interval, chance, what was left out, and the other figures."""

    def formatted(value: float) -> str:
        return f"{value:.4g}" if evaluation.kind == "number" else percent(value)

    low, high = map(formatted, evaluation.interval)
    say(
        f"Held-out {evaluation.figure}: {formatted(evaluation.value)}, 95% confidence interval "
        f"{low} to {high}; {_constant(evaluation)} gives {formatted(evaluation.baseline)}.",
        console,
    )
    chance = evaluation.chance
    low, high = map(formatted, chance.interval)
    drawn = "numbers" if evaluation.kind == "number" else "labels"
    better = "better" if chance.is_beaten else "no better"
    say(
        f"With {drawn} at random it is {low} to {high} ({chance.permutations:,} permutations): "
        f"this is {better} than chance, p = {chance.p:.2g}.",
        console,
        style="" if chance.is_beaten else "bold",
    )
    if evaluation.labels_left_out:
        say(
            f"Left out of the figures: {_names(evaluation.labels_left_out)}, with too few texts to "
            "learn from some and be judged on others.",
            console,
        )
    say(f"{_others(evaluation)}.", console, style="dim")
    if uneven := _uneven(evaluation):
        say(uneven, console)


def show_tables(evaluation: Evaluation, console: Console) -> None:
    """Print the confusion matrix, or a line for each of several labels."""
    if evaluation.confusion:
        console.print()
        confusion.show(evaluation.labels, evaluation.confusion, console)
    if evaluation.each:
        console.print()
        grid = plain_table()
        grid.add_column("label", overflow="fold")
        for name in ("examples", "precision", "recall", "F1"):
            grid.add_column(name, justify="right", no_wrap=True)
        for row in sorted(evaluation.each, key=lambda row: -row["examples"])[:MOST_LABELS]:
            shares = [shaded(percent(row[key]), row[key]) for key in ("precision", "recall", "f1")]
            grid.add_row(Text(isolated(printable(row["label"]))), str(row["examples"]), *shares)
        console.print(grid)
        if len(evaluation.each) > MOST_LABELS:
            say(f"and {len(evaluation.each) - MOST_LABELS:,} more; --json has all.", console)


def _constant(evaluation: Evaluation) -> str:
    return {
        "label": "always predicting the most frequent label",
        "labels": "always predicting the most frequent labels",
        "number": "always predicting the median",
    }[evaluation.kind]


def _others(evaluation: Evaluation) -> str:
    names = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro F1",
        "all_labels_right": "all labels of a text right",
        "r2": "R²",
        "rank_correlation": "rank correlation",
    }
    parts = []
    for key, value in evaluation.others.items():
        if key in names:
            shown = f"{value:.2f}" if evaluation.kind == "number" else percent(value)
            parts.append(f"{names[key]} {shown}")
    summary = ", ".join(parts)
    summary = summary[:1].upper() + summary[1:]
    if "calibration_error" in evaluation.others:
        summary += (
            f"; probabilities are off by {percent(evaluation.others['calibration_error'])} on "
            f"average (ECE), Brier score {evaluation.others['brier_score']:.3f}, at temperature "
            f"{evaluation.temperature:.3g}"
        )
    if evaluation.margin is not None:
        summary += f"; 90% of the numbers are within {evaluation.margin:.4g}"
    return summary


def _uneven(evaluation: Evaluation) -> str:
    """A remark on labels of very different frequency; "" if they are not, or weigh the same."""
    if not evaluation.confusion or evaluation.figure == "balanced accuracy":
        return ""
    counts = dict(zip(evaluation.labels, map(sum, evaluation.confusion), strict=True))
    judged = {name: number for name, number in counts.items() if number}
    most, least = max(judged, key=judged.__getitem__), min(judged, key=judged.__getitem__)
    if judged[most] < UNEVEN * judged[least]:
        return ""
    return (
        f"Labels are uneven: {_names((most,))} has {judged[most]:,} examples, {_names((least,))} "
        f"{judged[least]:,}. With --balanced each label weighs the same."
    )


def _names(labels: tuple[str, ...]) -> str:
    named = [f"'{isolated(short(printable(label), 30))}'" for label in labels[:MOST_NAMES]]
    more = len(labels) - MOST_NAMES
    return listing([*named, f"{more:,} more"] if more > 0 else named)

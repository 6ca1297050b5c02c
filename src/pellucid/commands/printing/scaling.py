"""The scaling measurement: a table with the theory, and a plot."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pellucid.commands.printing.console import say
from pellucid.common.wording import percent
from pellucid.lessons.scaling import HARDLY_ANY, Measures, Row, Scaling, Theory
from pellucid.lessons.scaling_training import TrainingComparison, TrainingStep, status

_COLUMNS = ("variance", "entropy", "largest", "gradient", "lost")
_DRAWN = {
    "normal": "from a standard normal",
    "uniform": "uniform from -√3 to √3",
    "signs": "-1 or 1",
}
_SOURCE = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1, footnote 4"


def show(scaling: Scaling, console: Console) -> None:
    """Print the whole measurement."""
    say("Why divide the scores by √d_k?", console, style="bold")
    say(
        f"{scaling.samples} random queries, each with {scaling.keys} random keys, all components "
        f"{_DRAWN[scaling.distribution]}; seed {scaling.seed}.",
        console,
        style="dim",
    )
    say(_SOURCE, console, style="dim")
    for title, pick in (
        ("undivided: softmax(q · k)", lambda row: (row.unscaled, row.unscaled_theory)),
        ("divided: softmax(q · k / √d_k)", lambda row: (row.scaled, row.scaled_theory)),
    ):
        console.print()
        say(title, console, style="bold")
        console.print(_table(scaling, pick, console.width >= 72))
    say(
        "≈ theory: variance d_k, or 1 if divided; entropy ln n − variance/2 and "
        "gradient √(exp(variance)/n), approximations for many keys, and – where the variance is "
        "too large for them. "
        f"lost: queries whose gradient is below {HARDLY_ANY}.",
        console,
        style="dim",
    )
    console.print()
    _plot(scaling, console)
    console.print()
    say(scaling.sentence(), console)


def _table(scaling: Scaling, pick: Callable[[Row], tuple[Measures, Theory]], wide: bool) -> Table:
    """The table of one scale; a narrow terminal leaves out the theory."""
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), pad_edge=False)
    table.header_style = "dim"
    for heading in ("d_k", *_COLUMNS):
        name = heading if wide else heading.replace("variance", "var").replace("gradient", "grad")
        table.add_column(name, justify="right", no_wrap=True)
        if wide and heading in Theory.__slots__:
            table.add_column("≈", justify="right", no_wrap=True, style="dim")
    for row in scaling.rows:
        measures, theory = pick(row)
        cells = [str(row.d_k)]
        for heading in _COLUMNS:
            number = getattr(measures, heading)
            cells.append(percent(number) if heading in ("largest", "lost") else _short(number))
            if wide and heading in Theory.__slots__:
                cells.append(_short(getattr(theory, heading)))
        table.add_row(*cells)
    return table


def _short(number: float | None) -> str:
    """A number in about five characters."""
    if number is None:
        return "–"
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def _plot(scaling: Scaling, console: Console) -> None:
    """The largest weight as bars, in two textures that differ without colour."""
    say("the largest weight of a query", console, style="bold")
    room = max(10, min(60, console.width - 24))
    for row in scaling.rows:
        for name, mark, style, measures in (
            ("undivided", "█", "red", row.unscaled),
            ("divided", "▒", "blue", row.scaled),
        ):
            label = f"{row.d_k:>5} " if name == "undivided" else " " * 6
            bar = mark * max(1, round(measures.largest * room))
            line = Text.assemble(
                f"{label}{name:<10}", (bar, style), f" {percent(measures.largest)}"
            )
            console.print(line, no_wrap=True)


_BARS = " ▁▂▃▄▅▆▇█"


@contextmanager
def training(console: Console) -> Iterator[Callable[[TrainingStep, TrainingStep], None]]:
    """What to call after each step of both models: a terminal draws their curves as they grow."""
    steps: tuple[list[TrainingStep], list[TrainingStep]] = ([], [])
    with Live(console=console, transient=True, refresh_per_second=8) as live:

        def progress(scaled: TrainingStep, unscaled: TrainingStep) -> None:
            steps[0].append(scaled)
            steps[1].append(unscaled)
            if console.is_terminal:
                live.update(_curves(*steps, console.width))

        yield progress


def show_training(comparison: TrainingComparison, console: Console) -> None:
    """Print both models' curves, and what they say."""
    say("Train two models: softmax(q · k / √d_k) and softmax(q · k)", console, style="bold")
    say(
        f"Associative recall, d_k = {comparison.d_k}, {len(comparison.scaled)} steps of Adam at "
        f"{comparison.learning_rate:g}; the same start and the same data, seed {comparison.seed}.",
        console,
        style="dim",
    )
    console.print()
    console.print(_curves(list(comparison.scaled), list(comparison.unscaled), console.width))
    console.print()
    say(comparison.sentence(), console)


def _curves(scaled: list[TrainingStep], unscaled: list[TrainingStep], width: int) -> Group:
    """A line each for loss, right answers, entropy and the largest logit, on one scale for both."""
    room = max(10, min(60, width - 24))
    lines: list[Text] = []
    for name, steps in (("divided", scaled), ("undivided", unscaled)):
        lines.append(Text(f"{name}: {status(steps[-1])}", style="bold"))
        for measure in ("loss", "accuracy", "entropy", "max_logit"):
            most = max(getattr(step, measure) for step in (*scaled, *unscaled)) or 1.0
            bars = "".join(
                _BARS[round(8 * getattr(steps[len(steps) * i // room], measure) / most)]
                for i in range(room)
            )
            label = {"accuracy": "right answers", "max_logit": "max logit"}.get(measure, measure)
            lines.append(Text.assemble(f"  {label:<14}", (bars, "cyan")))
    return Group(*lines)

"""What heads do on texts made for the purpose: a table for each probe, and what the checks say."""

from statistics import fmean, stdev

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common import files
from pellucid.common.wording import count, percent
from pellucid.lens.probes import Check, ProbeRow, ProbeTable
from pellucid.lens.probes.probe_table import EARNED, ONLY_LOOKS
from pellucid.lens.probes.registry import PROBES

NARROW = 60
"""The width of a terminal from which baselines are shown."""
MOST = 5
"""Heads per probe in the table, besides those with a verdict."""
STYLES = {EARNED: "bold green", ONLY_LOOKS: "yellow"}


def show(model: str, table: ProbeTable, console: Console) -> None:
    """Print a table for each probe, and what was not run."""
    say(f"{model}: heads on texts made for the purpose", console, style="bold")
    for check in table.checks:
        console.print()
        _show_probe(check, table.of(check.probe), console)
    if table.skipped:
        console.print()
        say("Not run", console, style="bold")
        for probe, reason in table.skipped.items():
            say(f"{probe}: {reason}", console)
    console.print()
    say("Names that are earned", console, style="bold")
    say(_earned(table), console)
    console.print()
    say(
        "Score: the mean weight on what such a head looks at; for retrieval, how often it is the "
        "largest. Baseline: the same where the text does not ask for it, or if all were looked at "
        "alike. Effect: how much of the behaviour goes without the head. Beats: without how many "
        "of the random heads less goes. A name is earned by a high score and by beating 95% of "
        "them, as in a permutation test.",
        console,
        style="dim",
    )


def _earned(table: ProbeTable) -> str:
    """The names and the heads that have earned them."""
    heads: dict[str, list[str]] = {}
    for row in table.sort("score"):
        if row.verdict == EARNED:
            heads.setdefault(row.probe, []).append(f"{row.label}.{row.head}")
    named = [f"{probe}: {', '.join(heads[probe])}" for probe in PROBES if probe in heads]
    return "; ".join(named) or "none"


def _show_probe(check: Check, rows: ProbeTable, console: Console) -> None:
    probe = PROBES[check.probe]
    say(
        f"{probe.name[0].upper()}{probe.name[1:]}: looks at {probe.looks} ({probe.source})",
        console,
        style="bold",
    )
    tried = any(row.effect == row.effect for row in rows)
    shown = [row for place, row in enumerate(rows) if place < MOST or row.effect == row.effect]
    grid = plain_table()
    titles = ["head", "score"]
    titles += ["baseline"] if console.width >= NARROW else []
    titles += ["effect", "beats"] if tried else []
    for title in titles:
        grid.add_column(title, justify="right", no_wrap=True, min_width=4)
    grid.add_column("verdict", no_wrap=True)
    for row in shown:
        cells: dict[str, str | Text] = {
            "head": f"{row.label}.{row.head}",
            "score": shaded(percent(row.score).rjust(5), row.score),
            "baseline": percent(row.baseline),
            "effect": _number(row.effect),
            "beats": _draws_beaten(row),
        }
        verdict = Text(row.verdict, style=STYLES.get(row.verdict, ""))
        grid.add_row(*(cells[title] for title in titles), verdict)
    console.print(grid)
    for line in _summary(check, rows):
        say(line, console)


def _summary(check: Check, rows: ProbeTable) -> list[str]:
    """What the check says, in sentences."""
    looking = sum(bool(row.verdict) for row in rows)
    also = "" if check.absent != check.absent else f"; {_number(check.absent)} where it cannot"
    sentences = [
        f"{count(looking, 'head')} of {len(rows)} {'looks' if looking == 1 else 'look'} so. "
        f"{check.behaviour[0].upper()}{check.behaviour[1:]}: {_number(check.value)}{also}."
    ]
    if not check.is_there:
        sentences.append("The model does not do this, so there is nothing that could go.")
    elif check.heads:
        some = f"Without {_head_names(check)}: {_number(check.without)}"
        if check.random:
            spread = f" ± {_number(stdev(check.random))}" if len(check.random) > 1 else ""
            beaten = round(check.beats * len(check.random))
            some += (
                f", less than in {beaten} of {count(len(check.random), 'draw')} without as many "
                f"random heads of the same layers ({_number(fmean(check.random))}{spread})"
            )
        sentences.append(f"{some}.")
    return sentences


def _head_names(check: Check) -> str:
    names = [f"{layer}.{head}" for layer, head in check.heads]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def to_json(model: str, table: ProbeTable) -> str:
    """The heads and checks for --json."""
    return files.to_json(
        {
            "model": model,
            "heads": table.to_dicts(),
            "checks": [check.to_dict() for check in table.checks],
            "skipped": table.skipped,
        },
        indent=2,
    )


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"


def _draws_beaten(row: ProbeRow) -> str:
    return "-" if row.beats != row.beats else f"{round(row.beats * row.random)} of {row.random}"

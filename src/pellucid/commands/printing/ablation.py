"""What heads matter: a map with a letter and a bar per head, and a table of the largest."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pellucid.ablation.controls import SURE, chance
from pellucid.ablation.effects import Ablation, About, HeadEffect
from pellucid.ablation.picture import by_layer, sizes
from pellucid.ablation.together import SetEffect
from pellucid.commands.printing.console import plain_table, say
from pellucid.commands.printing.heads import LETTERS, MEANING
from pellucid.common.files import printable
from pellucid.common.wording import count, listing, percent, short

BARS = " ▁▂▃▄▅▆▇█"
"""From no effect to the largest."""
TITLES = {"kl": "KL", "loss": "loss", "logprob": "log-prob", "logit": "logit", "cosine": "cosine"}
WIDE = 90
"""The width of a terminal from which the table has all columns."""


def letters() -> dict[str, str]:
    """What stands for each role."""
    return {role: letter for role, (letter, _) in LETTERS.items()}


def show(ablation: Ablation, model: str, most: int, console: Console) -> None:
    """Print the map, and the heads whose effects are largest."""
    size = count(ablation.about.tokens, "token")
    facts = ablation.about.facts
    say(f"{model} reads {size}, each head knocked out in turn", console, style="bold")
    if "label" in facts:
        say(f"It says: {printable(facts['label'])}", console)
    if "target" in facts:
        say(f"It says: {short(printable(facts['target']), 300)}", console)
    console.print()
    _show_map(ablation, console)
    console.print()
    _show_table(ablation, most, console)


def _show_map(ablation: Ablation, console: Console) -> None:
    layers = by_layer(ablation)
    side = max(map(len, layers))
    widest = max(map(len, layers.values()))
    gap = " " if side + 1 + 3 * widest <= console.width else ""
    size = dict(zip((row.place for row in ablation), sizes(ablation), strict=True))
    say("What the heads do, and how much that matters", console, style="bold")
    for label, rows in layers.items():
        line = Text(f"{label:>{side}} ", style="dim")
        for row in rows:
            letter, style = LETTERS.get(row.role, ("?", ""))
            bar = BARS[max(1, math.ceil(size[row.place] * (len(BARS) - 1)))]
            line.append(gap + letter, style=style)
            line.append(bar, style="bold" if row.matters else "dim")
        line.truncate(console.width)
        console.print(line)
    present = {row.role for row in ablation}
    legend = ", ".join(
        f"{letter} {MEANING.get(role, role)}"
        for role, (letter, _) in LETTERS.items()
        if role in present
    )
    say(f"{legend}; bars: the root of the effect", console, style="dim")


def _show_table(ablation: Ablation, most: int, console: Console) -> None:
    rows = ablation.ranked()[:most]
    if not rows:
        return
    most_of = "head that matters" if len(rows) == 1 else f"{len(rows)} heads that matter"
    say(f"The {most_of} most", console, style="bold")
    is_wide = console.width >= WIDE
    with_last = not math.isnan(rows[0].kl_last)
    with_controls = bool(ablation.controls)
    grid = plain_table()
    grid.add_column("head", justify="right", no_wrap=True)
    grid.add_column(
        TITLES.get(ablation.about.measure, ablation.about.measure), justify="right", no_wrap=True
    )
    if with_last and is_wide:
        for title in ("KL at the end", "loss"):
            grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column("above", justify="right", no_wrap=True)
    if with_controls:
        grid.add_column("random heads", justify="right", no_wrap=True)
        grid.add_column("beaten", justify="right", no_wrap=True)
    grid.add_column("role", no_wrap=True)
    for row in rows:
        cells = [row.place, _number(row.effect)]
        if with_last and is_wide:
            cells += [_number(row.kl_last), _signed(row.loss)]
        cells.append("-" if math.isnan(row.above) else percent(row.above))
        if with_controls:
            cells += [_random(row), _controls_beaten(row, ablation.about.controls)]
        role = Text(row.role, style=LETTERS.get(row.role, ("", ""))[1])
        grid.add_row(*cells, role, style="dim" if row.matters is False else "")
    console.print(grid)
    console.print()
    say(_legend(ablation, with_last and is_wide, with_controls), console, style="dim")


def _legend(ablation: Ablation, with_last: bool, with_controls: bool) -> str:
    """The meaning of the columns."""
    place = "zeros" if ablation.about.by == "zero" else "means over the text"
    text = (
        f"{TITLES[ablation.about.measure]}: {ablation.about.description}, if {place} take the "
        "place of the head's output. Above: the share of the other heads whose effect is smaller."
    )
    if with_last:
        text += (
            " KL at the end: of the token after the text. Loss: by how much the cross-entropy of "
            "the text rises, in nats a token."
        )
    if with_controls:
        text += (
            " Random heads: the same of heads in its place that write as much in random "
            "directions, mean and standard deviation; beaten: how many of these do less. A head "
            "that beats all but 5% of them matters; others are dim."
        )
        if _too_few(ablation.about.controls):
            text += f" {ablation.about.controls} are too few to tell: --controls 19 or more can."
    return text


def show_together(set_effect: SetEffect, model: str, console: Console) -> None:
    """Print what some heads do together, beside random sets."""
    about = set_effect.about
    number, title = len(set_effect.heads), TITLES[about.measure]
    size = count(about.tokens, "token")
    say(f"{model} reads {size} without {_listed(set_effect.heads)}", console, style="bold")
    console.print()
    more = [f"{TITLES[name]} {value:.3g}" for name, value in set_effect.figures.items()
            if name in TITLES and name != about.measure]  # fmt: skip
    beside = f" ({', '.join(more)})" if more else ""
    say(f"{title} {set_effect.effect:.3g}{beside}: {about.description}.", console)
    if set_effect.controls:
        low, high = min(set_effect.controls.values()), max(set_effect.controls.values())
        what = count(number, "other head")
        say(
            f"{count(len(set_effect.controls), 'random set')} of {what}: "
            f"{set_effect.random:.3g} ± {set_effect.deviation:.2g}, from {low:.3g} to {high:.3g}; "
            f"{set_effect.beaten} do less, p = {set_effect.chance:.2g}.",
            console,
        )
        verdict = "That is more" if set_effect.matters else "That is not more"
        sentence = f"{verdict} than 95% of such sets do."
        if _too_few(len(set_effect.controls)):
            sentence = f"{count(len(set_effect.controls), 'set')} are too few to tell more."
        say(sentence, console, style="bold" if set_effect.matters else "")


def _too_few(controls: int) -> bool:
    """Whether none could be beaten by so much that it matters."""
    return chance(1.0, [0.0] * controls) > 1 - SURE + 1e-12


def _listed(names: Sequence[str]) -> str:
    named = listing([*names[:12], *([f"{len(names) - 12} more"] if len(names) > 12 else [])])
    return f"{'head' if len(names) == 1 else 'heads'} {named}"


def data_together(set_effect: SetEffect, model: str) -> dict[str, Any]:
    """The set for --json."""
    return {
        **_run_facts(set_effect.about, model),
        "heads": list(set_effect.heads),
        "effect": set_effect.effect,
        "figures": set_effect.figures,
        "random": set_effect.random,
        "deviation": set_effect.deviation,
        "beaten": set_effect.beaten,
        "chance": set_effect.chance,
        "matters": set_effect.matters,
        "controls": [
            {"heads": list(heads), "effect": effect}
            for heads, effect in set_effect.controls.items()
        ],
    }


def _run_facts(about: About, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "tokens": about.tokens,
        "measure": about.measure,
        "about": about.description,
        "by": about.by,
        "seed": about.seed,
        **about.facts,
    }


def data(ablation: Ablation, model: str) -> dict[str, Any]:
    """The heads for --json."""
    return {
        **_run_facts(ablation.about, model),
        "heads": [
            {
                **row.to_dict(),
                "matters": row.matters,
                "controls": ablation.controls.get(row.place, []),
            }
            for row in ablation
        ],
    }


def columns(ablation: Ablation) -> dict[str, list[Any]]:
    """The columns of a table with a row for each head."""
    rows = ablation.to_dicts()
    return {name: [row[name] for row in rows] for name in ablation.columns()}


def _random(row: HeadEffect) -> str:
    return "-" if row.matters is None else f"{_number(row.random)} ± {row.deviation:.2g}"


def _controls_beaten(row: HeadEffect, controls: int) -> str:
    return "-" if row.matters is None else f"{row.beaten * controls:.0f} of {controls}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3g}"

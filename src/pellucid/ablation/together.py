"""Several heads knocked out together, beside random sets of as many other heads.

A claim about heads of one kind ("previous-token heads matter here") is about all of them: one may
stand in for another, so that none matters alone.
"""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from statistics import fmean, stdev

from pellucid.ablation.controls import SURE, chance
from pellucid.ablation.effects import About
from pellucid.ablation.every_head import CONTROLS, Step, about_of, batches, check, heads_of
from pellucid.ablation.knock_outs import By, Edit
from pellucid.ablation.trial import Figures, Subject, Trial
from pellucid.common.wording import count, listing
from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lens.head_table import HeadRow, HeadTable
from pellucid.lens.layer_selection import Layers

PLACE = re.compile(r"[edx]?\d+\.\d+")
"""A head, like "5.3" or "x0.1"; anything else is the name of a role."""


@dataclass(frozen=True, kw_only=True)
class SetEffect:
    """What a model loses without some heads together."""

    about: About
    heads: tuple[str, ...]
    """Like "5.3", by layer."""
    effect: float
    """The measure."""
    figures: Figures
    """All that was measured."""
    controls: dict[tuple[str, ...], float]
    """The effect of each random set of as many other heads."""

    @property
    def random(self) -> float:
        """The mean effect of random sets."""
        return fmean(self.controls.values()) if self.controls else math.nan

    @property
    def deviation(self) -> float:
        """The standard deviation of these effects."""
        return stdev(self.controls.values()) if len(self.controls) > 1 else math.nan

    @property
    def beaten(self) -> int:
        """How many random sets do less, whatever the sign."""
        return sum(abs(effect) < abs(self.effect) for effect in self.controls.values())

    @property
    def chance(self) -> float:
        """The p-value: how likely a random set would do as much."""
        return chance(self.effect, list(self.controls.values()))

    @property
    def matters(self) -> bool | None:
        """Whether it does more than 95% of random sets; None if that was not tried."""
        return self.chance <= 1 - SURE + 1e-12 if self.controls else None


def knock_out_together(
    subject: Subject,
    wanted: Sequence[str],
    *,
    by: By = "zero",
    layers: Layers | None = None,
    controls: int = CONTROLS,
    seed: int = 0,
    step: Step = lambda name, done, of: None,
) -> SetEffect:
    """Knock out heads together.

    Args:
        subject: the model, its input and the measure.
        wanted: heads, like "5.3", or roles that heads have on this text, like "previous token".
        by, seed: as of `ablate`.
        layers: those whose heads are meant, and from which random sets are drawn.
        controls: how many random sets to try; fewer where there are not as many.
        step: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: an option does not fit, or there are too few other heads.
        UnknownNameError: there is no such head, or none of such a role.
    """
    check(subject, by, controls)
    step("reading the text", 0, 1)
    table = heads_of(subject, layers)
    chosen = _choose_heads(table, wanted)
    others = [row for row in table if row not in chosen]
    if controls and len(others) < len(chosen):
        raise ArgumentError(
            f"{count(len(chosen), 'head')} of {len(table)} cannot be compared with as many others: "
            "ask for 0 controls"
        )
    trial = Trial(subject, list(dict.fromkeys(row.name for row in table)))
    sets = [chosen, *_random_sets(others, len(chosen), controls, seed)]
    what = f"knocking out {count(len(chosen), 'head')} and {len(sets) - 1} random sets"
    done, all_figures = 0, list[Figures]()
    for batch in batches(sets, trial.at_once):
        step(what, done, len(sets))
        all_figures += trial.figures(
            [[Edit(row.name, row.head, by) for row in group] for group in batch]
        )
        done += len(batch)
    measure = trial.measure.name
    return SetEffect(
        about=about_of(trial, by, seed, len(sets) - 1),
        heads=_head_names(chosen),
        effect=all_figures[0][measure],
        figures=all_figures[0],
        controls={
            _head_names(group): figures[measure]
            for group, figures in zip(sets, all_figures, strict=True)
            if group is not chosen
        },
    )  # fmt: skip


def _choose_heads(table: HeadTable, wanted: Sequence[str]) -> list[HeadRow]:
    wanted = [name.strip() for name in wanted]
    if not wanted or not all(wanted):
        raise ArgumentError('heads must be like "2.2" or "previous token", and at least one')
    chosen: set[str] = set()
    for name in wanted:
        is_place = PLACE.fullmatch(name) is not None
        matches = [row.place for row in table if name == (row.place if is_place else row.role)]
        if not matches and is_place:
            first, last = table[0].place, table[-1].place
            raise UnknownNameError(f"there is no head '{name}'; the heads are {first} to {last}")
        if not matches:
            roles = listing(sorted({f"'{row.role}'" for row in table if row.role}) or ["none"])
            raise UnknownNameError(
                f"no head has the role '{name}' on this text; the roles are {roles}"
            )
        chosen.update(matches)
    return [row for row in table if row.place in chosen]


def _random_sets(
    others: Sequence[HeadRow], size: int, number: int, seed: int
) -> list[list[HeadRow]]:
    """Different sets of heads, all if there are no more."""
    if comb(len(others), size) <= number:
        return [list(heads) for heads in combinations(others, size)]
    generator = random.Random(seed)
    sets: dict[tuple[int, ...], list[HeadRow]] = {}
    while len(sets) < number:
        indices = tuple(sorted(generator.sample(range(len(others)), size)))
        sets[indices] = [others[index] for index in indices]
    return list(sets.values())


def _head_names(rows: Sequence[HeadRow]) -> tuple[str, ...]:
    return tuple(row.place for row in rows)

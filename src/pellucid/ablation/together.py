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
        return sum(abs(one) < abs(self.effect) for one in self.controls.values())

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
    chosen = _chosen(table, wanted)
    others = [row for row in table if row not in chosen]
    if controls and len(others) < len(chosen):
        raise ArgumentError(
            f"{count(len(chosen), 'head')} of {len(table)} cannot be compared with as many others: "
            "ask for 0 controls"
        )
    trial = Trial(subject, list(dict.fromkeys(row.name for row in table)))
    sets = [chosen, *_random_sets(others, len(chosen), controls, seed)]
    what = f"knocking out {count(len(chosen), 'head')} and {len(sets) - 1} random sets"
    done, found = 0, list[Figures]()
    for batch in batches(sets, trial.at_once):
        step(what, done, len(sets))
        found += trial.figures([[Edit(row.name, row.head, by) for row in one] for one in batch])
        done += len(batch)
    measure = trial.measure.name
    return SetEffect(
        about=about_of(trial, by, seed, len(sets) - 1),
        heads=_places(chosen),
        effect=found[0][measure],
        figures=found[0],
        controls={
            _places(one): figures[measure] for one, figures in zip(sets, found, strict=True)
            if one is not chosen
        },
    )  # fmt: skip


def _chosen(table: HeadTable, wanted: Sequence[str]) -> list[HeadRow]:
    wanted = [one.strip() for one in wanted]
    if not wanted or not all(wanted):
        raise ArgumentError('heads must be like "2.2" or "previous token", and at least one')
    found: set[str] = set()
    for one in wanted:
        is_place = PLACE.fullmatch(one) is not None
        places = [row.place for row in table if one == (row.place if is_place else row.role)]
        if not places and is_place:
            first, last = table[0].place, table[-1].place
            raise UnknownNameError(f"there is no head '{one}'; the heads are {first} to {last}")
        if not places:
            roles = listing(sorted({f"'{row.role}'" for row in table if row.role}) or ["none"])
            raise UnknownNameError(
                f"no head has the role '{one}' on this text; the roles are {roles}"
            )
        found.update(places)
    return [row for row in table if row.place in found]


def _random_sets(
    others: Sequence[HeadRow], size: int, number: int, seed: int
) -> list[list[HeadRow]]:
    """Different sets of heads, all if there are no more."""
    if comb(len(others), size) <= number:
        return [list(one) for one in combinations(others, size)]
    generator = random.Random(seed)
    found: dict[tuple[int, ...], list[HeadRow]] = {}
    while len(found) < number:
        places = tuple(sorted(generator.sample(range(len(others)), size)))
        found[places] = [others[place] for place in places]
    return list(found.values())


def _places(rows: Sequence[HeadRow]) -> tuple[str, ...]:
    return tuple(row.place for row in rows)

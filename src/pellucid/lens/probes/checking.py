"""Whether heads that look like it matter: each alone, and all together, beside random heads."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import torch
from torch import nn

from pellucid.lens.probes.experiments import Experiment
from pellucid.lens.probes.knock_outs import alike, behaviours_without
from pellucid.lens.probes.probe_table import EARNED, LOOKS, ONLY_LOOKS, Check
from pellucid.lens.probes.scores import Place, Scored

BEATEN = 0.95
"""The share of random heads that a head must beat to earn its name."""
LEAST = 19
"""Of fewer random heads, beating all is not beating 95 %: chance would do it in one of 20."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a knock-out of one head says."""

    amount: float
    """How much of the behaviour goes, in its unit."""
    beats: float
    """The share of random heads without which less goes."""
    random: int
    """The number of random heads."""
    verdict: str


class Checker:
    """Knocks heads out in one experiment; what random heads do is measured once for all probes."""

    def __init__(
        self,
        model: nn.Module,
        experiment: Experiment,
        scored: Scored,
        knocked_out: str,
        by: Literal["mean", "zero"],
        device: torch.device,
        seed: int,
    ) -> None:
        self._experiment, self._scored = experiment, scored
        self._random = Random(seed)
        self._heads = list(next(iter(scored.scores.values())))
        self._order = self._random.sample(self._heads, len(self._heads))
        self._without: dict[frozenset[Place], float] = {}

        def measured(groups: Sequence[Sequence[Place]], done: Callable[[int], None]) -> list[float]:
            return behaviours_without(
                model,
                experiment,
                groups,
                knocked_out=knocked_out,
                by=by,
                device=device,
                progress=done,
            )

        self._measured = measured

    def check(
        self,
        probe: str,
        heads: list[Place],
        similar: set[Place],
        controls: int,
        step: Progress,
    ) -> tuple[dict[Place, Effect], Check]:
        """For each head the effect, what it beats of how many, and the verdict; and for all.

        Args:
            probe: its name.
            heads: those that are knocked out.
            similar: heads that look like another probe, which are no random heads.
            controls: how many of these there are to be.
            step: called with the progress.
        """
        scored = self._scored
        check = Check(
            probe=probe,
            behaviour=self._experiment.behaviour,
            value=scored.behaviour,
            absent=scored.absent,
            is_there=scored.is_there,
            without=math.nan,
            beats=math.nan,
        )
        if not heads or not scored.is_there:
            return {}, check
        free = [place for place in self._order if place not in heads and place not in similar]
        singles = free[:controls]
        drawn = [frozenset(alike(heads, free, self._random)) for _ in range(controls)]
        draws = [group for group in dict.fromkeys(drawn) if group]
        own = [*([place] for place in heads), heads]
        groups = [frozenset(group) for group in (*own, *([single] for single in singles), *draws)]
        self._measure(groups, f"knocking out heads: {probe}", step)
        random = [scored.behaviour - self._without[frozenset([single])] for single in singles]
        effects = {}
        for place in heads:
            effect = scored.behaviour - self._without[frozenset([place])]
            beats, earned = _beats(effect, random)
            few = len(singles) < LEAST
            verdict = EARNED if earned else LOOKS if few else ONLY_LOOKS
            effects[place] = Effect(effect, beats, len(singles), verdict)
        without, *others = (self._without[group] for group in (frozenset(heads), *draws))
        return effects, replace(
            check,
            heads=tuple((f"{place.stack}{place.layer}", place.head) for place in heads),
            without=without,
            random=tuple(others),
            beats=_beats(-without, [-other for other in others])[0],
        )

    def _measure(self, groups: list[frozenset[Place]], name: str, step: Progress) -> None:
        new = [group for group in dict.fromkeys(groups) if group not in self._without]
        step(name, 0, len(new))
        values = self._measured(
            [list(group) for group in new], lambda done: step(name, done, len(new))
        )
        self._without |= dict(zip(new, values, strict=True))


def _beats(effect: float, random: Sequence[float]) -> tuple[float, bool]:
    """The share of random effects that are smaller, and whether chance gives this in 5 % or less.

    The chance is (1 + those not beaten) / (1 + all), as in a permutation test.
    """
    if not random:
        return math.nan, False
    beaten = sum(effect > other for other in random)
    chance = (1 + len(random) - beaten) / (1 + len(random))
    return beaten / len(random), effect > 0 and chance <= 1 - BEATEN + 1e-9

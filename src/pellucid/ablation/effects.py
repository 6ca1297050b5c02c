"""What `ablate` returns: a row for each head."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, ClassVar, Self

from pellucid.ablation.controls import SURE, chance
from pellucid.ablation.knock_outs import By
from pellucid.lens.row_table import OfHead, RowTable


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadEffect(OfHead):
    """What a model loses without one head. NaN means unknown, or not tried."""

    layer: int
    head: int
    name: str
    """The module."""
    role: str = ""
    """What the head does on this text, "" if no role is clear; see `pellucid.lens.heads`."""
    stack: str = ""
    """As in `pellucid.lens.heads`."""
    effect: float
    """The measure."""
    above: float = math.nan
    """The share of the other heads whose effect is smaller, whatever its sign."""
    random: float = math.nan
    """The mean effect of random heads of the same size."""
    deviation: float = math.nan
    """The standard deviation of these effects."""
    beaten: float = math.nan
    """The share of random heads that do less, whatever the sign."""
    chance: float = math.nan
    """The p-value: how likely a random head of the same size would do as much."""
    kl: float = math.nan
    """KL(plain || knocked out) of the next token, the mean over positions, in nats."""
    kl_last: float = math.nan
    """The same at the last position."""
    loss: float = math.nan
    """By how much the cross-entropy of the next token rises, the mean over positions, in nats."""

    @property
    def matters(self) -> bool | None:
        """Whether it does more than 95% of random heads; None if that was not tried."""
        return None if math.isnan(self.chance) else self.chance <= 1 - SURE + 1e-12


def compared(row: HeadEffect, controls: Sequence[float]) -> HeadEffect:
    """The row beside the effects of random heads, if there are any."""
    if not controls:
        return row
    return replace(
        row,
        random=fmean(controls),
        deviation=stdev(controls) if len(controls) > 1 else math.nan,
        beaten=sum(abs(control) < abs(row.effect) for control in controls) / len(controls),
        chance=chance(row.effect, controls),
    )


@dataclass(frozen=True, kw_only=True)
class About:
    """How heads were knocked out."""

    measure: str
    """The name of what is in the column `effect`."""
    description: str
    """What that is."""
    by: By
    """What took the head's place."""
    tokens: int
    seed: int
    controls: int
    """How many random heads were tried for each head that was compared."""
    facts: Mapping[str, Any]
    """What else is known, such as the label that a classifier gave."""


class Ablation(RowTable[HeadEffect]):
    """Every head of a model, knocked out in turn: a sequence of `HeadEffect`, by layer and head."""

    row = HeadEffect
    shown: ClassVar[dict[str, str]] = {
        "head": "text",
        "effect": "figure",
        "above": "share",
        "random": "figure",
        "deviation": "figure",
        "beaten": "share",
        "role": "text",
    }

    def __init__(
        self,
        rows: Sequence[HeadEffect],
        about: About,
        controls: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(rows)
        self.about = about
        self.controls = {} if controls is None else dict(controls)
        """The effect of each random head, by the place of the head that it stands for."""

    def _with(self, rows: Sequence[HeadEffect]) -> Self:
        return type(self)(rows, self.about, self.controls)

    def ranked(self) -> Self:
        """The table with the largest effect first, whatever its sign."""
        return self._with(sorted(self, key=lambda row: -abs(row.effect)))


def shares_below(effects: Sequence[float]) -> list[float]:
    """For each number, the share of the others that are smaller, whatever the sign; ties half."""
    sizes = [abs(other) for other in effects]
    others = len(sizes) - 1
    if not others:
        return [math.nan] * len(sizes)
    return [
        (sum(other < size for other in sizes) + 0.5 * (sum(other == size for other in sizes) - 1))
        / others
        for size in sizes
    ]

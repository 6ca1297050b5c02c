"""What `ablate` returns: a row for each head."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from statistics import fmean, stdev
from typing import Any

from pellucid.ablation.controls import SURE, chance
from pellucid.errors import MissingExtraError


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadEffect:
    """What the model loses without one head."""

    layer: int
    head: int
    name: str
    """The module."""
    stack: str = ""
    """As in `pellucid.lens.heads`."""
    role: str = ""
    """What the head does on this text, "" if no role is clear; see `pellucid.lens.heads`."""
    effect: float
    """The measure."""
    figures: dict[str, float]
    """All that was measured, the measure included."""
    above: float
    """The share of the other heads whose effect is smaller, whatever its sign."""
    controls: tuple[float, ...] = ()
    """The effects of random heads of the same size, if they were tried."""

    @property
    def label(self) -> str:
        """Like "5.3", or "e5.3"."""
        return f"{self.stack}{self.layer}.{self.head}"

    @property
    def control_mean(self) -> float:
        return fmean(self.controls) if self.controls else math.nan

    @property
    def control_deviation(self) -> float:
        """The standard deviation of the controls."""
        return stdev(self.controls) if len(self.controls) > 1 else math.nan

    @property
    def chance(self) -> float:
        """The p-value: how likely a random head of the same size would do as much."""
        return chance(self.effect, self.controls)

    @property
    def matters(self) -> bool | None:
        """Whether it does more than 95% of random heads; None if that was not tried."""
        return self.chance <= 1 - SURE + 1e-12 if self.controls else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON and tables, None for unknown."""
        numbers = {
            "control_mean": self.control_mean,
            "control_deviation": self.control_deviation,
            "chance": self.chance,
        }
        return {
            "layer": self.layer,
            "head": self.head,
            "name": self.name,
            "stack": self.stack,
            "role": self.role,
            "effect": self.effect,
            "above": self.above,
            **{name: None if math.isnan(one) else one for name, one in numbers.items()},
            "matters": self.matters,
            "controls": list(self.controls),
            **{f"change_{name}": one for name, one in self.figures.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Every head of a model, knocked out in turn."""

    measure: str
    """The name of the figure in `effect`."""
    about: str
    """What that is."""
    by: str
    """What took the head's place: "zero" or "mean"."""
    tokens: int
    rows: list[HeadEffect]
    """By layer and head."""
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is known, such as the label that a classifier gave."""

    def __len__(self) -> int:
        return len(self.rows)

    def ranked(self) -> list[HeadEffect]:
        """The rows, the largest effect first, whatever its sign."""
        return ranked(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self.rows]

    def to_pandas(self) -> Any:
        """A pandas DataFrame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise MissingExtraError("this needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.to_dicts())

    def __repr__(self) -> str:
        lines = [f"{len(self)} heads by {self.measure}, the largest first:"]
        for row in self.ranked()[:10]:
            lines.append(f"  {row.label:>6} {row.effect:10.3g}  {row.role}".rstrip())
        return "\n".join(lines)


def ranked(rows: Sequence[HeadEffect]) -> list[HeadEffect]:
    return sorted(rows, key=lambda row: -abs(row.effect))


def shares_below(effects: Sequence[float]) -> list[float]:
    """For each number, the share of the others that are smaller, whatever the sign; ties half."""
    sizes = [abs(one) for one in effects]
    others = len(sizes) - 1
    if not others:
        return [math.nan] * len(sizes)
    return [
        (sum(one < size for one in sizes) + 0.5 * (sum(one == size for one in sizes) - 1)) / others
        for size in sizes
    ]

"""One edit: which links or heads of which modules, and what becomes of them."""

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

from pellucid.lens.interventions.selection import Selection

AXES = ("heads", "queries", "items")


class Stage(IntEnum):
    """What an edit changes, in the order in which edits are applied."""

    INPUT = 0
    """The query, key or value of heads."""
    SCORES = 1
    """The weights before they are normalised: exp(score) times a factor, 0 = hidden."""
    GIVEN = 2
    """The weights are replaced by given ones."""
    WEIGHTS = 3
    """The weights after they were normalised, times a factor."""
    OUTPUT = 4
    """The output of a head, times a factor or replaced."""


@dataclass(eq=False, kw_only=True)
class Edit:
    """One edit."""

    text: str
    """The call that made it, for messages."""
    stage: Stage
    entries: list[tuple[int | str, frozenset[str]]]
    """Each entry of `layer` with the modules that it means; none = all that attend."""
    heads: Selection
    queries: Selection
    items: Selection
    keys: Selection | None = None
    """None for edits that are not about keys."""
    factor: float = 0.0
    is_mean: bool = False
    """Whether the output becomes the mean over the queries."""
    source: Any = None  # a Source, which reads regions
    """Where replacements come from."""
    part: str = "output"
    """Of Stage.INPUT, what is replaced: "query", "key" or "value"."""
    done: set[str] = field(default_factory=set)
    """The modules in which it has taken effect."""

    def is_of(self, name: str) -> bool:
        return not self.entries or any(name in names for _, names in self.entries)

    @property
    def hides(self) -> bool:
        """Whether a mask does the same: what is left is normalised again."""
        return self.stage == Stage.SCORES and self.factor == 0.0

    @property
    def zeroes(self) -> bool:
        """Whether it sets the output of heads to zero, as hiding every key does."""
        return (
            self.stage == Stage.OUTPUT
            and self.factor == 0.0
            and not self.is_mean
            and self.source is None
        )

    @cached_property
    def names(self) -> frozenset[str]:
        """The modules that its entries mean."""
        return frozenset().union(*(names for _, names in self.entries))

    def overlaps(self, other: "Edit", *, surely: bool = True) -> bool:
        """Whether both surely change the same heads of the same rows, or may do so."""
        of_both = not self.entries or not other.entries or bool(self.names & other.names)
        pairs = ((getattr(self, axis), getattr(other, axis)) for axis in AXES)
        return of_both and all(ours.overlaps(theirs, surely=surely) for ours, theirs in pairs)

    def covers(self, other: "Edit") -> bool:
        """Whether it surely changes every row of every head that another one changes."""
        of_all = not self.entries or (bool(other.entries) and other.names <= self.names)
        return of_all and all(getattr(self, axis).covers(getattr(other, axis)) for axis in AXES)

    def contradicts(self, other: "Edit", *, surely: bool = True) -> bool:
        """Whether only one of them can be had; or may be, as positions depend on sizes."""
        if not self.overlaps(other, surely=surely):
            return False
        early, late = sorted((self, other), key=lambda edit: edit.stage)
        if late.stage == Stage.OUTPUT:
            if early.stage == Stage.OUTPUT:
                same = early.zeroes and late.zeroes
                both_scale = bool(early.factor and late.factor)
                return not (same or both_scale)
            return not late.factor and late.covers(early)  # then it is changed for nothing
        if Stage.GIVEN in (early.stage, late.stage):
            return early.stage != Stage.INPUT or early.part != "value"
        if early.stage == late.stage == Stage.INPUT:
            return early.part == late.part
        if early.stage == Stage.INPUT:
            return False
        assert early.keys is not None
        assert late.keys is not None
        if not early.keys.overlaps(late.keys, surely=surely):
            return False
        return early.stage != late.stage or (early.factor == 0) != (late.factor == 0)

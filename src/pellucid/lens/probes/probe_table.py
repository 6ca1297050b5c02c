"""The table that `probe_heads` returns: a row for each head and probe, and what checks found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from pellucid.errors import UnknownNameError
from pellucid.lens.row_table import OfHead, RowTable

LOOKS, EARNED, ONLY_LOOKS = "looks so", "earned", "only looks so"
"""Verdicts on a head: its score is high; and if it was knocked out, whether that mattered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow(OfHead):
    """What one probe found about one head. NaN means not measured."""

    probe: str
    """The name of what the head may be."""
    layer: int
    """The layer's number, as in `HeadRow`."""
    head: int
    name: str
    """The name of the module."""
    stack: str = ""
    """The letter of the stack, as in `HeadRow`."""
    score: float
    """The mean weight of the probe's links; for retrieval, how often they have the largest."""
    baseline: float
    """The same where the text does not ask for it, or if all were looked at alike."""
    effect: float
    """How much of the behaviour goes without this head, in its unit."""
    beats: float
    """The share of random heads without which less goes."""
    random: int
    """The number of random heads."""
    verdict: str
    """"earned" if the score is high and the head beats 95 % of random heads; "only looks so" if it
    does not beat them; "looks so" if it was not knocked out; "" if the score is low."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a model does for which a probe's heads should matter, with them and without."""

    probe: str
    behaviour: str
    """What is measured, and its unit."""
    value: float
    """With all heads."""
    absent: float
    """With all heads, where the text does not ask for it; NaN if every text does."""
    is_there: bool
    """Whether the first is clearly above the second: by two standard errors."""
    heads: tuple[tuple[str, int], ...] = ()
    """The label of the layer and the number of each head that was knocked out, all together."""
    without: float
    """Without these; NaN if there are none."""
    random: tuple[float, ...] = ()
    """Without random heads instead, as many of each layer, once for each draw."""
    beats: float
    """The share of these draws that leave more of the behaviour."""

    def to_dict(self) -> dict[str, Any]:
        """The check as a dict that JSON can hold, None for NaN."""
        return {
            name: None if isinstance(value, float) and value != value else value
            for name, value in asdict(self).items()
        }


class ProbeTable(RowTable[ProbeRow]):
    """A sequence of `ProbeRow`, which prints as a table."""

    row = ProbeRow
    shown: ClassVar[dict[str, str]] = {
        "head": "text",
        "probe": "text",
        "score": "share",
        "baseline": "share",
        "effect": "number",
        "beats": "share",
        "verdict": "text",
    }

    def __init__(
        self,
        rows: Sequence[ProbeRow],
        checks: Sequence[Check] = (),
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(rows)
        self.checks = tuple(checks)
        """One for each probe that was run."""
        self.skipped = dict(skipped or {})
        """The probes that were not run, each with the reason."""

    def _with(self, rows: Sequence[ProbeRow]) -> Self:
        return type(self)(rows, self.checks, self.skipped)

    def of(self, probe: str) -> Self:
        """The rows of one probe, from the highest score.

        Raises:
            UnknownNameError: there are none; the message lists the probes that were run.
        """
        rows = [row for row in self if row.probe == probe]
        if not rows:
            run = ", ".join(dict.fromkeys(row.probe for row in self))
            raise UnknownNameError(f"no probe is called '{probe}': {run or 'none was run'}")
        return self._with(rows).sort("score")

"""The table that `eviction_recall` returns: a row per policy, step, budget and key head."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from pellucid.errors import UnknownNameError
from pellucid.lens.row_table import OfHead, RowTable

__all__ = ["RecallRow", "RecallTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallRow(OfHead):
    """What one policy keeps of one head's future attention, averaged over the batch."""

    policy: str
    step: int
    """Tokens that had been read."""
    budget: float
    """As it was given: a number of keys, or a share of those that there were."""
    kept: int
    """Keys that were kept."""
    layer: int
    """As `HeadRow.layer`."""
    head: int
    """The key head: what a cache keeps is shared by a group of query heads."""
    name: str
    """The name of the module."""
    stack: str = ""
    """As `HeadRow.stack`."""
    recall: float
    """The share of the future attention to the keys so far that the kept ones will receive."""


class RecallTable(RowTable[RecallRow]):
    """A sequence of `RecallRow`, which prints as a table."""

    row = RecallRow
    shown: ClassVar[dict[str, str]] = {
        "head": "text",
        "step": "text",
        "budget": "text",
        "recall": "share",
        "policy": "text",
    }

    def mean(self, **where: Any) -> float:
        """The mean recall of the rows with these values, such as policy="SnapKV", budget=0.1.

        NaN if there are none.

        Raises:
            UnknownNameError: there is no such column; the message lists the columns.
        """
        for name in where:
            if name not in self.columns():
                known = ", ".join(self.columns())
                raise UnknownNameError(f"no column is called '{name}': {known}")
        recalls = [
            row.recall
            for row in self
            if not math.isnan(row.recall)
            and all(getattr(row, name) == value for name, value in where.items())
        ]
        return sum(recalls) / len(recalls) if recalls else math.nan

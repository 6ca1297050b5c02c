"""The table that `heads` returns: a row of measurements per head, as text, HTML, or columns."""

from dataclasses import dataclass, fields
from typing import ClassVar

from pellucid.lens.row_table import OfHead, RowTable

__all__ = ["COLUMNS", "SHARES", "HeadRow", "HeadTable"]

SHARES = (
    "first",
    "itself",
    "previous",
    "next",
    "duplicates",
    "induction",
    "punctuation",
    "special",
)
"""The columns that are shares of a head's attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRow(OfHead):
    """The measurements of one head, averaged over its queries. NaN means undefined or unknown."""

    layer: int
    """The first number in the module's name, if that (with `stack`) is unique; otherwise the
    attention's position in call order."""
    head: int
    name: str
    """The name of the module."""
    role: str
    """The head's role, "" if none is clear; see `heads`."""
    stack: str = ""
    """"e" for an encoder, "d" for a decoder, "x" for cross-attention, if layers of several stacks
    share numbers; otherwise ""."""
    entropy: float
    """Entropy of the weights, in nats."""
    distance: float
    """Mean distance between a query and the keys it attends to, in positions."""
    first: float
    """Share of attention on the first token that is not padding: an attention sink."""
    itself: float
    """Share on the query's own position."""
    previous: float
    """Share on the previous position."""
    next: float
    """Share on the next position; NaN if no query sees its next position."""
    duplicates: float
    """Share on other positions with the query's token."""
    induction: float
    """Share on the position after the last earlier occurrence of the query's token."""
    punctuation: float
    """Share on punctuation and line breaks."""
    special: float
    """Share on special tokens, such as [SEP]."""


COLUMNS = tuple(field.name for field in fields(HeadRow))


class HeadTable(RowTable[HeadRow]):
    """A sequence of `HeadRow`, which prints as a table."""

    row = HeadRow
    shown: ClassVar[dict[str, str]] = {
        "head": "text",
        "entropy": "number",
        "distance": "number",
        **dict.fromkeys(SHARES, "share"),
        "role": "text",
    }

"""The table that `link_effects` returns: a row per link."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.lens.row_table import OfHead, RowTable

__all__ = ["LinkRow", "LinkTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow(OfHead):
    """One link, and what is lost without it."""

    layer: int
    """As `HeadRow.layer`."""
    head: int
    name: str
    """The name of the module."""
    stack: str = ""
    """As `HeadRow.stack`."""
    item: int
    """Of the batch; batch dimensions are flattened."""
    query: int
    """The position of the query."""
    key: int
    """The position of the key."""
    query_token: str
    """"" if it is not known, as `key_token`."""
    key_token: str
    weight: float
    """As the model used it."""
    lost: float
    """What the residual, or the direction, loses without the link; see `link_effects`."""


class LinkTable(RowTable[LinkRow]):
    """A sequence of `LinkRow`, which prints as a table."""

    row = LinkRow
    shown: ClassVar[dict[str, str]] = {
        "head": "text",
        "item": "text",
        "query": "text",
        "key": "text",
        "query_token": "text",
        "key_token": "text",
        "weight": "share",
        "lost": "figure",
    }

"""What an edit changes in one call: items, heads, rows and columns of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.lens.interventions.edits import Edit, Stage
from pellucid.lens.interventions.places import Place


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """What an edit changes in one call."""

    edit: Edit
    name: str
    """The module."""
    items: Tensor
    heads: Tensor
    """(n,) int64, ascending."""
    rows: Tensor | None
    cols: Tensor | None
    """(n,) int64, ascending: queries and keys of the call; None = all."""
    first_query: int
    """The position in the text of the first query of the call."""
    query_total: int
    """The length of the queries' text so far."""
    first_key: int

    def flags(self, items: Tensor, heads: Tensor) -> Tensor:
        """(pairs,) bool: which pairs of an item and a head it changes."""
        return torch.isin(items, self.items) & torch.isin(heads, self.heads)

    def meets(self, other: "Region") -> bool:
        """Whether both change the same link of the same call, or the same row."""
        axes = ("items", "heads", "rows", "cols")
        pairs = ((getattr(self, axis), getattr(other, axis)) for axis in axes)
        return all(
            ours is None or theirs is None or bool(torch.isin(ours, theirs).any())
            for ours, theirs in pairs
        )

    def of_heads(self, batch: int, heads: int) -> Tensor:
        """(batch, heads) bool."""
        flags = torch.zeros(batch, heads, dtype=torch.bool, device=self.items.device)
        flags[self.items[:, None], self.heads] = True
        return flags


def region_of(
    edit: Edit, name: str, size: tuple[int, ...], place: Place, device: torch.device
) -> Region | None:
    """What an edit changes in a call of a module; None if none of its positions are in it.

    Args:
        edit: the edit.
        name: the module.
        size: (batch, heads, queries, keys).
        place: where the call is in the text.
        device: that of the call.

    Raises:
        OutOfRangeError: there is no such head or item.
        ArgumentError: positions of queries differ among the items.
    """
    batch, heads, queries, _ = size
    if place.is_uneven and not edit.queries.is_all:
        raise ArgumentError(
            f"{edit.text}: the texts of this batch differ in length, and so do the positions of "
            "their queries; generate one text at a time, or leave queries out"
        )
    items = edit.items.among(batch, f"the batch of '{name}'")
    numbers = edit.heads.among(heads, f"'{name}'")
    cols, rows = None, None
    of_keys = edit.keys
    if edit.stage == Stage.INPUT and edit.part != "query":
        of_keys = edit.queries
    else:
        rows = edit.queries.within(
            place.first_query, place.first_query + queries, place.query_total
        )
    if of_keys is not None:
        cols = of_keys.within(place.first_key, place.key_total, place.key_total)
    if not items or not numbers or any(x is not None and not len(x) for x in (rows, cols)):
        return None
    return Region(
        edit=edit,
        name=name,
        items=torch.tensor(items, device=device),
        heads=torch.tensor(numbers, device=device),
        rows=None if rows is None else rows.to(device),
        cols=None if cols is None else cols.to(device),
        first_query=place.first_query,
        query_total=place.query_total,
        first_key=place.first_key,
    )


def flagged(positions: Tensor | None, size: int, device: torch.device) -> Tensor:
    """(size,) bool: flags of some positions, None = all."""
    if positions is None:
        return torch.ones(size, dtype=torch.bool, device=device)
    flags = torch.zeros(size, dtype=torch.bool, device=device)
    flags[positions.to(device)] = True
    return flags

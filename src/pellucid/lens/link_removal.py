"""without(): contexts without some of their links, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid.attention import indexing
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.lens.mixing import Mixing
from pellucid.lens.record import Record

__all__ = ["Without", "without"]

Integers = Tensor | Sequence[Any]
"""Or an array of NumPy."""

LEAST_REST = 0.5
"""The least share of a row that is left for the closed form, which multiplies the error of the
recorded context by one over it; rows with less are mixed again from their other keys."""
LINK_NUMBERS = 2**22
"""Numbers of values that are gathered at once."""


@dataclass(frozen=True, eq=False, repr=False)
class Without:
    """Rows that lost links. Each row of a group is an entry; without groups, each link is."""

    places: Tensor
    """(entries, 3) int64: item of the flattened batch, head, query."""
    group: Tensor
    """(entries,) int64: the number of the group, or of the link."""
    removed: Tensor
    """(entries,) the sum of the weights that were removed."""
    context: Tensor
    """(entries, value_dim) the row's context without them."""
    change: Tensor
    """(entries, value_dim) that context less the row's context with them."""
    recomputed: Tensor
    """(entries,) bool: rows that were mixed again, since little of them was left."""

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        again = int(self.recomputed.sum())
        return f"Without({len(self):,} rows, {again:,} of them mixed again)"


class Entries(NamedTuple):
    """Links by the row that they are removed from."""

    places: Tensor
    """(entries, 3) item, head, query."""
    group: Tensor
    """(entries,)"""
    entry: Tensor
    """(links,) the entry of each link."""
    keys: Tensor
    """(links,)"""


def without(
    record: Record,
    links: Integers,
    groups: Integers | None = None,
    *,
    renormalize: bool = True,
) -> Without:
    """The contexts of rows without some of their links, without running the layer again.

        context' = (context - sum of w v) / (1 - sum of w)      sums over the removed links
        context' =  context - sum of w v                        with renormalize=False

    The first is what a mask on these links would give: the other weights of the row, and what a
    sink takes, grow until they sum to one again. It costs a few vectors per link, so that tens of
    thousands of candidates take one call. Where less than half of a row is left, the closed
    form would cancel: such a row is mixed again from its other keys, exactly. A row that loses all
    keys that it sees has a context of 0, as a fully masked row has (a sink has no value). A link
    that the mask hides changes nothing.

    The record's own contexts are used if they are float32 or better and proven. Otherwise (16 bits,
    dropout, a context that the model does not return, heads whose outputs were edited) they are
    computed from query, key and value, which costs each row once. The result is that of float32:
    its error is that of the row's softmax in float32, about twice at most. No gradients.

    Args:
        record: a record of `pellucid.watch(model, values=True)`.
        links: (links, 4) integers: item, head, query, key; or (links, 3) without the item, if
            there is only one. Negative ones count from the end. Batch dimensions are flattened.
        groups: (links,) integers: links with one number are removed together. Each link alone
            unless given.
        renormalize: whether the other weights grow to sum to one.

    Returns:
        One entry for each link, in order. With groups, one for each group and row, sorted by these.

    Raises:
        ArgumentError: the record has no values, or links do not say the item of several.
        ShapeError, TypeMismatchError, OutOfRangeError: links or groups of another shape or type, or
            past the end.
    """
    if not isinstance(record, Record):
        raise TypeMismatchError(f"record must be a Record, got {type(record).__name__}")
    with torch.no_grad():
        mixing = Mixing(record)
        checked = checked_links(links, mixing.operands.shape).to(mixing.value.device)
        entries = _entries(checked, groups, mixing.operands.shape)
        return removed_from(mixing, entries, renormalize)


def removed_from(mixing: Mixing, entries: Entries, renormalize: bool) -> Without:
    """As `without`."""
    places, group, entry, keys = entries
    means, total = mixing.means(places), mixing.total_at(places)
    shares = mixing.shares(places[entry], keys)
    removed = means.new_zeros(len(places)).index_add_(0, entry, shares)
    change = torch.zeros_like(means)
    for part in torch.arange(len(entry), device=entry.device).split(
        max(1, LINK_NUMBERS // means.shape[-1])
    ):
        value, of = mixing.values_at(places[entry[part]], keys[part]), entry[part]
        pull = means[of] - value if renormalize else -value
        share = shares[part].unsqueeze(-1)
        change.index_add_(0, of, (share * pull).masked_fill(share == 0, 0))
    recomputed = torch.zeros_like(removed, dtype=torch.bool)
    if renormalize:
        rest = 1 - removed
        recomputed = rest < LEAST_REST
        change /= rest.masked_fill(recomputed, 1).unsqueeze(-1)
        for at, mixed in _mixed_again(mixing, entries, recomputed):
            change[at] = mixed - means[at]
    return Without(
        places=places,
        group=group,
        removed=removed * total[:, 0],
        context=(means + change) * total,
        change=change * total,
        recomputed=recomputed,
    )


def _mixed_again(mixing: Mixing, entries: Entries, chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Some entries with context / total of their rows without the links."""
    entry_of = chosen.nonzero().flatten()
    if not len(entry_of):
        return []
    links = chosen[entries.entry].nonzero().flatten()
    links = links[entries.entry[links].argsort(stable=True)]
    counts = entries.entry[links].unique_consecutive(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    mixed = []
    for at, item, head in mixing.by_head(entries.places[entry_of]):
        logs, sink = mixing.logs(item, head, entries.places[entry_of[at], 2])
        row = torch.repeat_interleave(counts[at])
        within = torch.arange(len(row), device=row.device)
        within -= (counts[at].cumsum(0) - counts[at])[row]
        logs[row, entries.keys[links[starts[at][row] + within]]] = -torch.inf
        mixed.append((entry_of[at], mixing.mix(item, head, logs, sink)[0]))
    return mixed


def checked_links(links: Integers, shape: torch.Size) -> Tensor:
    """(links, 4) int64: item, head, query, key, none negative; errors as for `without`.

    Args:
        links: as for `without`.
        shape: (batch, heads, queries, keys)
    """
    indices = indexing.as_positions("links", links)
    if indices.ndim != 2 or indices.shape[1] not in (3, 4):
        raise ShapeError(
            "links must be (links, 4), item, head, query and key, or (links, 3) without the item; "
            f"got shape {tuple(indices.shape)}"
        )
    if indices.shape[1] == 3:
        if shape[0] != 1:
            raise ArgumentError(
                f"links must say the item, since the batch has {shape[0]}: (links, 4) integers, "
                "item, head, query and key"
            )
        indices = torch.nn.functional.pad(indices, (1, 0))
    sizes = torch.tensor(shape, device=indices.device)
    outside = ((indices < -sizes) | (indices >= sizes)).nonzero()
    if len(outside):
        row, column = outside[0].tolist()
        name = ("item", "head", "query", "key")[column]
        raise OutOfRangeError(
            f"link {row} has {name} {int(indices[row, column])}, which is out of range for size "
            f"{shape[column]}"
        )
    return indices % sizes


def _entries(links: Tensor, groups: Integers | None, shape: torch.Size) -> Entries:
    places, keys = links[:, :3], links[:, 3]
    if groups is None:
        number = torch.arange(len(links), device=links.device)
        return Entries(places, number, number, keys)
    given = indexing.as_positions("groups", groups).to(links.device)
    if given.shape != links.shape[:1]:
        raise ShapeError(
            f"groups must be one number per link, ({len(links)},), got shape {tuple(given.shape)}"
        )
    numbers, group = given.unique(return_inverse=True)
    _, heads, queries, count = shape
    rows = (places[:, 0] * heads + places[:, 1]) * queries + places[:, 2]
    of_all = shape[:3].numel()
    codes, entry = (group * of_all + rows).unique(return_inverse=True)
    pairs = (entry * count + keys).unique()  # a link that is named twice is removed once
    row = codes % of_all
    places = torch.stack([row // (heads * queries), row // queries % heads, row % queries], -1)
    return Entries(places, numbers[codes // of_all], pairs // count, pairs % count)

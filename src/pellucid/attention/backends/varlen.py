"""Documents that lie end to end, in as few calls of a kernel as their lengths allow.

Those of like lengths are read into one call, (documents, heads, tokens, d), in which the shorter
ones end in nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.attention.masks import And, Documents, Mask, is_causal
from pellucid.attention.scores import Scores

CALL = 2**15
"""Scores that are worked out in the time that one more call takes."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Where the queries of some documents are, or their keys."""

    items: Tensor
    """(documents, 1)"""
    places: Tensor
    """(documents, tokens of the longest)"""
    real: Tensor | None
    """(documents, tokens of the longest), False past a document's end; None where all are real."""

    stretch: slice | None
    """All the places of the one item, where they are one after the other: nothing is copied."""

    @classmethod
    def of(cls, runs: "Runs", device: torch.device) -> "Side":
        items, starts, lengths, _ = (torch.from_numpy(part).to(device) for part in runs)
        longest = int(runs.lengths.max())
        within = torch.arange(longest, device=device)
        real = within < lengths[:, None]
        places = starts[:, None] + within * real
        is_even = bool((runs.lengths == longest).all())
        first, last = runs.starts[0], runs.starts[-1]
        is_one = (runs.items == runs.items[0]).all() and (np.diff(runs.starts) == longest).all()
        stretch = slice(int(first), int(last) + longest) if is_even and is_one else None
        return cls(items[:, None], places, None if is_even else real, stretch)

    def read(self, tensor: Tensor) -> Tensor:
        """(documents, heads, tokens, ...) of a (batch, heads, tokens, ...) tensor, 0 past ends."""
        if self.stretch is not None:
            return self._view(tensor)
        found = tensor.transpose(1, 2)[self.items, self.places]
        if self.real is not None:
            found[~self.real] = 0
        return found.transpose(1, 2)

    def write(self, total: Tensor, found: Tensor) -> None:
        """What `read` took, back in its place."""
        if self.stretch is not None:
            self._view(total).copy_(found)
            return
        items, places, found = self.items, self.places, found.transpose(1, 2)
        if self.real is not None:
            real = self.real
            items, places, found = items.expand_as(places)[real], places[real], found[real]
        total.transpose(1, 2)[items, places] = found

    def _view(self, tensor: Tensor) -> Tensor:
        part: Tensor = tensor[int(self.items[0]), :, self.stretch]
        part = part.unflatten(1, self.places.shape)
        return part.transpose(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Bunch:
    """Documents of like lengths, which one call can do."""

    queries: Side
    keys: Side
    causal: bool

    @property
    def items(self) -> Tensor:
        return self.queries.items

    @property
    def rows(self) -> Tensor:
        return self.queries.places

    def queries_of(self, tensor: Tensor) -> Tensor:
        return self.queries.read(tensor)

    def keys_of(self, tensor: Tensor) -> Tensor:
        return self.keys.read(tensor)

    def add_to_queries(self, total: Tensor, found: Tensor) -> None:
        """No other call has anything for them."""
        self.queries.write(total, found)

    put = add_to_queries

    def add_to_keys(self, total: Tensor, found: Tensor) -> None:
        self.keys.write(total, found)

    def bias(self, scores: Scores) -> Tensor | None:
        """-inf past the end of a document, where causality does not hide it anyway."""
        if self.causal or self.keys.real is None:
            return None
        blank = scores.query.new_zeros(())
        return torch.where(self.keys.real, blank, -torch.inf)[:, None, None]


class Runs(NamedTuple):
    """Stretches of one id each, (stretches,) all."""

    items: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    ids: np.ndarray

    def take(self, which: np.ndarray) -> "Runs":
        return Runs(*(part[which] for part in self))


def bunches(scores: Scores) -> list[Bunch] | None:
    """The calls, if the mask is of documents that lie in one stretch each, causal or not."""
    documents, causal = _documents(scores.mask)
    if documents is None or scores.bias is not None or 0 in scores.shape:
        return None
    batch = len(scores.query)
    queries, keys = (_runs(ids, batch) for ids in (documents.query_ids, documents.key_ids))
    named = _named(queries, keys)
    if named is None:
        return None
    _, ours, theirs = np.intersect1d(*named, assume_unique=True, return_indices=True)
    queries, keys = queries.take(ours), keys.take(theirs)
    is_same = np.array_equal(queries.starts, keys.starts)
    if causal and not (is_same and np.array_equal(queries.lengths, keys.lengths)):
        return None
    device, most = scores.query.device, CALL // scores.shape[1]
    return [
        Bunch(Side.of(queries.take(some), device), Side.of(keys.take(some), device), causal)
        for some in _alike(queries.lengths, keys.lengths, most)
    ]


def _documents(mask: Mask | None) -> tuple[Documents | None, bool]:
    """The documents of a mask that has nothing else but causality, and whether it has that."""
    if isinstance(mask, Documents):
        return mask, False
    if isinstance(mask, And):
        for one, other in ((mask.left, mask.right), (mask.right, mask.left)):
            if isinstance(one, Documents) and is_causal(other) and other.offset == 0:
                return one, True
    return None, False


def _runs(ids: Tensor, batch: int) -> Runs:
    """Those of ids, (tokens,) or (batch, tokens)."""
    table = ids.cpu().numpy()
    table = np.broadcast_to(table, (batch, table.shape[-1]))
    begins = np.ones(table.shape, bool)
    begins[:, 1:] = table[:, 1:] != table[:, :-1]
    items, starts = begins.nonzero()
    ends = np.append(starts[1:], 0)
    ends[ends == 0] = table.shape[1]  # the next begins in another item
    return Runs(items, starts, ends - starts, table[items, starts])


def _named(queries: Runs, keys: Runs) -> tuple[np.ndarray, np.ndarray] | None:
    """Item and id of each as one number; None if an id comes back later on."""
    unique, numbers = np.unique(np.append(queries.ids, keys.ids), return_inverse=True)
    count = len(queries.ids)
    ours = queries.items * len(unique) + numbers[:count]
    theirs = keys.items * len(unique) + numbers[count:]
    is_clear = all(len(np.unique(some)) == len(some) for some in (ours, theirs))
    return (ours, theirs) if is_clear else None


def _alike(queries: np.ndarray, keys: np.ndarray, most: int) -> list[np.ndarray]:
    """Documents by their lengths, (documents,): longer ones first, until to fill up one kind more
    would take longer than a call of its own.
    """
    by_length = np.lexsort((-keys, -queries))
    kinds = np.stack([queries, keys])[:, by_length]
    changes = (np.diff(kinds) != 0).any(0).nonzero()[0] + 1
    found: list[np.ndarray] = []
    filled = 0
    for some in np.split(by_length, changes) if len(queries) else ():
        joined = np.append(found[-1], some) if found else some
        sizes = queries[joined], keys[joined]
        now = len(joined) * sizes[0].max() * sizes[1].max() - (sizes[0] * sizes[1]).sum()
        if found and now <= filled + most:
            found[-1], filled = joined, now
        else:
            found.append(some)
            filled = 0
    return found

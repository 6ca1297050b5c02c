"""Packed documents, in as few kernel calls as their lengths allow.

Documents of similar lengths share a call, (documents, heads, tokens, d), padded to the longest.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.attention.masks import And, Documents, Mask, is_causal
from pellucid.attention.scores import Scores

CALL = 2**15
"""Scores that are computed in the time that one more call costs."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The positions of the queries of some documents, or of their keys."""

    items: Tensor
    """(documents, 1)"""
    positions: Tensor
    """(documents, tokens of the longest)"""
    real: Tensor | None
    """(documents, tokens of the longest), False past a document's end; None where all are real."""
    stretch: slice | None
    """All positions, where they are consecutive in one item: nothing is copied then."""

    @classmethod
    def of(cls, runs: "Runs", device: torch.device) -> "Side":
        items, starts, lengths, _ = (torch.from_numpy(part).to(device) for part in runs)
        longest = int(runs.lengths.max())
        within = torch.arange(longest, device=device)
        real = within < lengths[:, None]
        positions = starts[:, None] + within * real
        is_even = bool((runs.lengths == longest).all())
        first, last = runs.starts[0], runs.starts[-1]
        is_one = (runs.items == runs.items[0]).all() and (np.diff(runs.starts) == longest).all()
        stretch = slice(int(first), int(last) + longest) if is_even and is_one else None
        return cls(items[:, None], positions, None if is_even else real, stretch)

    def read(self, tensor: Tensor) -> Tensor:
        """(documents, heads, tokens, ...) of a (batch, heads, tokens, ...) tensor, 0 in padding."""
        if self.stretch is not None:
            return self._view(tensor)
        tokens = tensor.transpose(1, 2)[self.items, self.positions]
        if self.real is not None:
            tokens[~self.real] = 0
        return tokens.transpose(1, 2)

    def write(self, total: Tensor, result: Tensor) -> None:
        """The inverse of `read`."""
        if self.stretch is not None:
            self._view(total).copy_(result)
            return
        items, positions, tokens = self.items, self.positions, result.transpose(1, 2)
        if self.real is not None:
            items = items.expand_as(positions)
            items, positions, tokens = (x[self.real] for x in (items, positions, tokens))
        total.transpose(1, 2)[items, positions] = tokens.to(total.dtype)

    def _view(self, tensor: Tensor) -> Tensor:
        part: Tensor = tensor[int(self.items[0]), :, self.stretch]
        part = part.unflatten(1, self.positions.shape)
        return part.transpose(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class DocumentBatch:
    """Documents of similar lengths, for one call."""

    queries: Side
    keys: Side
    causal: bool

    def queries_of(self, tensor: Tensor) -> Tensor:
        return self.queries.read(tensor)

    def keys_of(self, tensor: Tensor) -> Tensor:
        return self.keys.read(tensor)

    def add_to_queries(self, total: Tensor, result: Tensor) -> None:
        """Write, since no other call has these queries."""
        self.queries.write(total, result)

    put = add_to_queries

    def add_to_keys(self, total: Tensor, result: Tensor) -> None:
        self.keys.write(total, result)

    def bias(self, scores: Scores) -> Tensor | None:
        """-inf in padding, where causality does not hide it anyway."""
        if self.causal or self.keys.real is None:
            return None
        blank = scores.query.new_zeros(())
        return torch.where(self.keys.real, blank, -torch.inf)[:, None, None]


class Runs(NamedTuple):
    """Consecutive tokens of one id, an entry per run."""

    items: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    ids: np.ndarray

    def take(self, which: np.ndarray) -> "Runs":
        return Runs(*(part[which] for part in self))


def document_batches(scores: Scores) -> list[DocumentBatch] | None:
    """The calls, if the mask is of contiguous documents, causal or not; else None."""
    documents, causal = _documents(scores.mask)
    if documents is None or scores.bias is not None or 0 in scores.shape:
        return None
    batch = len(scores.query)
    queries, keys = (_runs(ids, batch) for ids in (documents.query_ids, documents.key_ids))
    names = _names(queries, keys)
    if names is None:
        return None
    _, of_queries, of_keys = np.intersect1d(*names, assume_unique=True, return_indices=True)
    queries, keys = queries.take(of_queries), keys.take(of_keys)
    is_same = np.array_equal(queries.starts, keys.starts)
    if causal and not (is_same and np.array_equal(queries.lengths, keys.lengths)):
        return None
    device, most = scores.query.device, CALL // scores.shape[1]
    return [
        DocumentBatch(
            Side.of(queries.take(which), device), Side.of(keys.take(which), device), causal
        )
        for which in _by_length(queries.lengths, keys.lengths, most)
    ]


def _documents(mask: Mask | None) -> tuple[Documents | None, bool]:
    """The documents of a mask of these alone, or of causal ones; and whether they are causal."""
    if isinstance(mask, Documents):
        return mask, False
    if isinstance(mask, And):
        for documents, other in ((mask.left, mask.right), (mask.right, mask.left)):
            if isinstance(documents, Documents) and is_causal(other) and other.offset == 0:
                return documents, True
    return None, False


def _runs(ids: Tensor, batch: int) -> Runs:
    """The runs of ids, (tokens,) or (batch, tokens)."""
    table = ids.cpu().numpy()
    table = np.broadcast_to(table, (batch, table.shape[-1]))
    begins = np.ones(table.shape, bool)
    begins[:, 1:] = table[:, 1:] != table[:, :-1]
    items, starts = begins.nonzero()
    ends = np.append(starts[1:], 0)
    ends[ends == 0] = table.shape[1]  # the next run begins in another item
    return Runs(items, starts, ends - starts, table[items, starts])


def _names(queries: Runs, keys: Runs) -> tuple[np.ndarray, np.ndarray] | None:
    """Item and id of each run as one number; None if an id has several runs in an item."""
    unique, numbers = np.unique(np.append(queries.ids, keys.ids), return_inverse=True)
    count = len(queries.ids)
    of_queries = queries.items * len(unique) + numbers[:count]
    of_keys = keys.items * len(unique) + numbers[count:]
    is_unique = all(len(np.unique(names)) == len(names) for names in (of_queries, of_keys))
    return (of_queries, of_keys) if is_unique else None


def _by_length(queries: np.ndarray, keys: np.ndarray, most: int) -> list[np.ndarray]:
    """Indices of documents in groups of similar lengths, longest first.

    A group takes in the next length while that adds at most `most` scores of padding.
    """
    order = np.lexsort((-keys, -queries))
    lengths = np.stack([queries, keys])[:, order]
    changes = (np.diff(lengths) != 0).any(0).nonzero()[0] + 1
    groups: list[np.ndarray] = []
    padding = 0
    for equal in np.split(order, changes) if len(queries) else ():
        joined = np.append(groups[-1], equal) if groups else equal
        sizes = queries[joined], keys[joined]
        padded = len(joined) * sizes[0].max() * sizes[1].max() - (sizes[0] * sizes[1]).sum()
        if groups and padded <= padding + most:
            groups[-1], padding = joined, padded
        else:
            groups.append(equal)
            padding = 0
    return groups

"""Which query sees which key, for an attention that may grow one step at a time.

The steps of a generation are joined into one rule if that is exact: a band (causal, or a window)
over keys of which some may be padding. Such a rule covers later keys too, so that each step is only
checked against it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from pellucid.attention import masks
from pellucid.attention.energies import mapped
from pellucid.attention.masks import (
    And,
    Band,
    Below,
    Documents,
    Extent,
    Mask,
    Not,
    Or,
    Present,
    Rows,
)
from pellucid.lens.mask_inference import InferredMask

ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Visibility:
    """The rule of one attention."""

    fixed: Mask | None
    """The rule for the queries and keys of the first call."""
    uniform: Tensor | None
    """(batch or 1, queries) bool: rows in which every key is hidden by a finite number, so that the
    softmax is uniform, as for padding in Hugging Face's eager attention."""
    first: tuple[int, int]
    """The numbers of queries and keys of the first call."""
    device: torch.device
    grows: bool = False
    band: Band | None = None
    present: Tensor | None = None
    """(batch or 1, keys of the first call) bool: the keys that are not padding; None = all."""
    looks_ahead: bool = False
    """Whether the queries of the first call see all its keys, and later queries are causal."""
    chunk: int | None = None
    """The length of chunks, if a query sees only the keys of its own chunk (Llama 4)."""

    @classmethod
    def of(
        cls, inferred: InferredMask, queries: int, keys: int, device: torch.device
    ) -> "Visibility":
        """The visibility of a first call, which can grow if its rule is a band and padding."""
        plain = cls(inferred.mask, inferred.uniform, (queries, keys), device)
        rule = hidden(inferred.mask, inferred.uniform)
        parts = _conjunction(rule)
        bands = [part for part in parts if isinstance(part, Band)]
        chunk = _chunk(parts)
        others = [
            part
            for part in parts
            if not isinstance(part, Band) and not (chunk and isinstance(part, Documents))
        ]
        if len(bands) > 1 or not all(map(_depends_on_keys_alone, others)):
            return plain
        band = bands[0] if bands else None
        if band is not None and (isinstance(band.offset, Tensor) or band.right != 0):
            return plain
        if band is None and queries == 1:  # later queries may see more
            band = Band(None, 0, keys - 1)
        present = None
        for part in others:
            flags = _tile(part, 1, keys, slice(0, 1), device)[:, 0, 0]
            present = flags if present is None else present & flags
        return replace(plain, grows=True, band=band, present=present, chunk=chunk)

    def mask(self, queries: int, keys: int) -> Mask | None:
        """The rule for these numbers of queries and keys."""
        if (queries, keys) == self.first:
            return self.fixed
        rule: Mask | None = self.band
        if rule is not None and self.looks_ahead:
            rule = rule | self._first_block(queries)
        if self.chunk is not None and self.band is not None:
            rule = self.band & self._chunks(self.chunk, queries, keys)
        if self.present is not None:
            padding = masks.padding(_longer(self.present, keys))
            rule = padding if rule is None else rule & padding
        rows = self.uniform_rows(queries)
        if rows is not None and rule is not None:
            rule = rule | (Rows(rows) & masks.prefix(self.first[1]))
        return rule

    def _chunks(self, chunk: int, queries: int, keys: int) -> Mask:
        """The rule that a query sees the keys of its own chunk."""
        assert self.band is not None
        rows, columns = (torch.arange(n, device=self.device) for n in (queries, keys))
        return masks.documents((rows + int(self.band.offset)) // chunk, columns // chunk)

    def _first_block(self, queries: int) -> Mask:
        """The rule that the queries of the first call see all its keys."""
        flags = torch.arange(queries, device=self.device) < self.first[0]
        return Rows(flags.unsqueeze(0)) & masks.prefix(self.first[1])

    def to(self, device: torch.device) -> "Visibility":
        """The same rule on another device."""
        return replace(mapped(self, lambda tensor: tensor.to(device)), device=device)

    def can_forget(self, keys: int) -> bool:
        """Whether no query of the first call sees a key at position `keys` or later."""
        sees_ahead = self.looks_ahead or self.band is None
        return not sees_ahead or keys >= self.first[1]

    def is_alike(self, items: Tensor) -> bool:
        """Whether the rule stays the same if the texts are reordered by items, (batch,)."""
        if not self.grows:
            return self.fixed is None or self.fixed.batch in (None, 1)
        flags = [x for x in (self.present, self.uniform) if x is not None and len(x) > 1]
        return all(torch.equal(x[items.to(x.device)], x) for x in flags)

    def uniform_rows(self, queries: int) -> Tensor | None:
        """(batch or 1, queries) bool: the uniform rows; None if there are none."""
        if self.uniform is None:
            return None
        return nn.functional.pad(self.uniform, (0, queries - self.first[0]))

    def grown(
        self, row: int, rows: int, low: int, keys: int, seen: Tensor | Mask | None
    ) -> "Visibility | None":
        """The rule with `rows` more queries; None if no such rule holds.

        Args:
            row: the number of queries before this step.
            rows: the number of queries of this step.
            low: the first key of this step; a sliding cache drops earlier ones.
            keys: the number of all keys, including those of this step.
            seen: which keys from `low` on the step saw, (batch or 1, 1, rows, keys - low) bool, or
                a mask of that size; None = all of them.
        """
        if not self.grows:
            return None
        if seen is None and rows == 1 and self._sees_all(row, low, keys):
            return self  # nearly every step of nearly every generation
        if self.band is None and keys > self.first[1]:
            band = Band(None, 0, self.first[1] - self.first[0])
            causal = replace(self, band=band, looks_ahead=True)
            return causal.grown(row, rows, low, keys, seen)
        if self.band is None:
            return self if self._agrees(None, row, rows, low, keys, seen) else None
        for left in dict.fromkeys((self.band.left, self._new_left(row, rows, low, keys, seen))):
            band = replace(self.band, left=left)
            if self._agrees(band, row, rows, low, keys, seen, self.chunk):
                return self if left == self.band.left else replace(self, band=band)
        for chunk in self._new_chunks(row, rows, low, seen):
            if self._agrees(self.band, row, rows, low, keys, seen, chunk):
                return replace(self, chunk=chunk)
        return None

    def _new_chunks(
        self, row: int, rows: int, low: int, seen: Tensor | Mask | None
    ) -> Iterator[int]:
        """Candidates for the length of chunks, if this step is the first to show chunks."""
        assert self.band is not None
        if self.chunk is None and self.band.left is None and not isinstance(seen, Mask):
            place = row + rows - 1 + int(self.band.offset)  # of the last query among the keys
            first = (
                low if seen is None else low + int(seen[:, :, -1].any(0).flatten().int().argmax())
            )
            # All earlier queries are in the first chunk, and this step is in the second.
            if 0 < first <= place < 2 * first and row + int(self.band.offset) <= first:
                yield first

    def _sees_all(self, row: int, low: int, keys: int) -> bool:
        """Whether by the rule the query at `row` sees exactly the keys from `low` on."""
        band = self.band
        if band is None:
            return low == 0 == self._clear_from and keys == self.first[1]
        place = row + int(band.offset)
        first = 0 if band.left is None else max(0, place - band.left)
        if self.chunk is not None:
            first = max(first, place // self.chunk * self.chunk)
        return place >= keys - 1 and first == low >= self._clear_from

    def _new_left(
        self, row: int, rows: int, low: int, keys: int, seen: Tensor | Mask | None
    ) -> int | None:
        """How far back queries see, if this step is the first to show it."""
        assert self.band is not None
        place = row + int(self.band.offset)  # of this step's first query among the keys
        if self.band.left is not None:
            return self.band.left
        if isinstance(seen, Mask):
            bands = [part for part in _conjunction(seen) if isinstance(part, Band)]
            left = bands[0].left if bands else None
        elif seen is None:
            left = place - low if rows == 1 else None
        else:  # a window hides most keys from the last row
            first = seen[:, :, -1].any(0).flatten().int().argmax()
            left = place + rows - 1 - low - int(first)
        hid_nothing = left is None or place - 1 <= left
        return left if hid_nothing else None

    def _agrees(
        self,
        band: Band | None,
        row: int,
        rows: int,
        low: int,
        keys: int,
        seen: Tensor | Mask | None,
        chunk: int | None = None,
    ) -> bool:
        """Whether these queries see by the rule, with this band and chunk, what they saw."""
        if low:
            place = None if band is None else row + int(band.offset)
            starts = [0]
            if band is not None and place is not None:
                starts.append(0 if band.left is None else place - band.left)
                starts.append(0 if chunk is None else place // chunk * chunk)
            if max(starts) < low:
                return False  # the rule shows keys that the step did not have
        present = None if self.present is None else _longer(self.present, keys)[:, low:]
        device = self.device
        col = torch.arange(low, keys, device=device)
        for start in range(0, rows, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, rows))
            query = torch.arange(row + part.start, row + part.stop, device=device)[:, None]
            expected = torch.ones(1, 1, len(query), keys - low, dtype=torch.bool, device=device)
            if band is not None:
                expected = expected & band.sees(col, col, query, col)
                if chunk is not None:
                    expected = expected & ((query + int(band.offset)) // chunk == col // chunk)
            if present is not None:
                expected = expected & present[:, None, None]
            if seen is None:
                actual = torch.ones_like(expected)
            elif isinstance(seen, Tensor):
                actual = seen[:, :, part]
            else:
                actual = _tile(seen, rows, keys - low, part, device)
            if not bool((expected == actual).all()):
                return False
        return True

    @cached_property
    def _clear_from(self) -> int:
        """The first position from which no key is padding."""
        if self.present is None:
            return 0
        hidden = (~self.present).any(0).nonzero()
        return int(hidden[-1]) + 1 if len(hidden) else 0


def _chunk(parts: list[Mask]) -> int | None:
    """The length of the chunks, if documents are chunks of one length."""
    documents = [part for part in parts if isinstance(part, Documents)]
    if len(documents) != 1 or documents[0].batch is not None:
        return None
    ids, own = documents[0].key_ids, documents[0].query_ids
    if ids.shape != own.shape or not torch.equal(ids, own):
        return None
    ends = (ids.diff() != 0).nonzero().flatten() + 1
    if not len(ends):
        return None
    chunk = int(ends[0])
    chunks = torch.arange(len(ids), device=ids.device) // chunk
    same = torch.equal(chunks.diff() != 0, ids.diff() != 0)
    return chunk if same else None


def _conjunction(rule: Mask | None) -> list[Mask]:
    if isinstance(rule, And):
        return _conjunction(rule.left) + _conjunction(rule.right)
    return [] if rule is None else [rule]


def _depends_on_keys_alone(part: Mask) -> bool:
    """Whether every query sees the same keys."""
    return isinstance(part.hidden if isinstance(part, Not) else part, Below | Present)


def hidden(rule: Mask | None, uniform: Tensor | None) -> Mask | None:
    """The rule with uniform rows hidden, where it shows them every key."""
    if uniform is None or rule is None:
        return rule
    shown = isinstance(rule, Or) and isinstance(rule.right, Rows)
    return rule.left if isinstance(rule, Or) and shown else rule & ~Rows(uniform)


def bands(rule: Mask | None) -> list[Band]:
    """The bands (causal, windows) that a rule consists of."""
    return [part for part in _parts(rule) if isinstance(part, Band)]


def tensors(rule: Mask | None) -> list[Tensor]:
    """The tensors that a rule holds."""
    return [
        value for part in _parts(rule) for value in vars(part).values() if isinstance(value, Tensor)
    ]


def _parts(rule: Mask | None) -> list[Mask]:
    if rule is None:
        return []
    inner = [value for value in vars(rule).values() if isinstance(value, Mask)]
    return [rule, *(part for mask in inner for part in _parts(mask))]


def _tile(mask: Mask, queries: int, keys: int, rows: slice, device: torch.device) -> Tensor:
    """(batch or 1, 1, rows, keys) bool."""
    bound = mask.bind(Extent(torch.Size((mask.batch or 1,)), 1, queries, keys, device))
    items = [bound] if bound.batch is None else [bound.at(item) for item in range(bound.batch)]
    return torch.stack([item.tile(slice(0, 1), rows, slice(0, keys), device) for item in items])


def _longer(flags: Tensor, length: int) -> Tensor:
    """Flags with True for new keys."""
    return nn.functional.pad(flags, (0, length - flags.shape[-1]), value=True)

"""Which query saw which key, for an attention that may grow a step at a time.

The steps of a generation are joined into one rule where that is exact: a band (causal, or a
window) over keys of which some may be padding. Such a rule covers keys that are still to come, so
all there is to do at a step is to check that it saw what the rule says.
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
from pellucid.lens.mask_inference import Recognised

ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Visibility:
    """The rule of one attention."""

    fixed: Mask | None
    """As it was recognised, for the queries and keys of the first call."""
    uniform: Tensor | None
    """(batch or 1, queries) bool: rows hidden by a finite number everywhere, whose softmax is
    uniform over all keys, as padding has in Hugging Face's eager attention."""
    first: tuple[int, int]
    """Queries and keys of the first call."""
    device: torch.device
    grows: bool = False
    band: Band | None = None
    present: Tensor | None = None
    """(batch or 1, keys of the first call) bool: those that are no padding; None = all."""
    looks_ahead: bool = False
    """Whether the queries of the first call saw all its keys, and those that follow are causal."""
    chunk: int | None = None
    """Where a query sees only keys of its own chunk (Llama 4): how many positions that has."""

    @classmethod
    def of(cls, found: Recognised, queries: int, keys: int, device: torch.device) -> "Visibility":
        """Of a first call. It can grow where the rule is a band over keys that are present."""
        plain = cls(found.mask, found.uniform, (queries, keys), device)
        rule = hidden(found.mask, found.uniform)
        parts = _conjunction(rule)
        bands = [part for part in parts if isinstance(part, Band)]
        chunk = _chunk(parts)
        others = [
            part
            for part in parts
            if not isinstance(part, Band) and not (chunk and isinstance(part, Documents))
        ]
        if len(bands) > 1 or not all(map(_is_about_keys, others)):
            return plain
        band = bands[0] if bands else None
        if band is not None and (isinstance(band.offset, Tensor) or band.right != 0):
            return plain
        if band is None and queries == 1:  # one row, and what comes after may see more
            band = Band(None, 0, keys - 1)
        present = None
        for part in others:
            flags = _tile(part, 1, keys, slice(0, 1), device)[:, 0, 0]
            present = flags if present is None else present & flags
        return replace(plain, grows=True, band=band, present=present, chunk=chunk)

    def mask(self, queries: int, keys: int) -> Mask | None:
        """The rule for so many queries and keys."""
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
        """A query sees the keys of its own chunk."""
        assert self.band is not None
        rows, columns = (torch.arange(n, device=self.device) for n in (queries, keys))
        return masks.documents((rows + int(self.band.offset)) // chunk, columns // chunk)

    def _first_block(self, queries: int) -> Mask:
        """All keys of the first call, for its queries."""
        flags = torch.arange(queries, device=self.device) < self.first[0]
        return Rows(flags.unsqueeze(0)) & masks.prefix(self.first[1])

    def to(self, device: torch.device) -> "Visibility":
        """The same rule on another device."""
        return replace(mapped(self, lambda tensor: tensor.to(device)), device=device)

    def can_forget(self, keys: int) -> bool:
        """Whether no query of the first call saw keys beyond so many."""
        sees_ahead = self.looks_ahead or self.band is None
        return not sees_ahead or keys >= self.first[1]

    def is_alike(self, items: Tensor) -> bool:
        """Whether texts in another order, (batch,), see the same."""
        if not self.grows:
            return self.fixed is None or self.fixed.batch in (None, 1)
        flags = [x for x in (self.present, self.uniform) if x is not None and len(x) > 1]
        return all(torch.equal(x[items.to(x.device)], x) for x in flags)

    def uniform_rows(self, queries: int) -> Tensor | None:
        """(batch or 1, queries) bool; None where there is none."""
        if self.uniform is None:
            return None
        return nn.functional.pad(self.uniform, (0, queries - self.first[0]))

    def grown(
        self, row: int, rows: int, low: int, keys: int, seen: Tensor | Mask | None
    ) -> "Visibility | None":
        """The rule with `rows` more queries; None where no such rule holds.

        Args:
            row: queries so far.
            rows: queries of this step.
            low: the first key that this step was given; a sliding cache forgets those before.
            keys: all keys, with those of this step.
            seen: what the step saw of the keys from `low` on, (batch or 1, 1, rows, keys - low)
                bool, or a mask of that rectangle; None = all of it.
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
            return self if self._says(None, row, rows, low, keys, seen) else None
        for left in dict.fromkeys((self.band.left, self._new_left(row, rows, low, keys, seen))):
            band = replace(self.band, left=left)
            if self._says(band, row, rows, low, keys, seen, self.chunk):
                return self if left == self.band.left else replace(self, band=band)
        for chunk in self._new_chunks(row, rows, low, seen):
            if self._says(self.band, row, rows, low, keys, seen, chunk):
                return replace(self, chunk=chunk)
        return None

    def _new_chunks(
        self, row: int, rows: int, low: int, seen: Tensor | Mask | None
    ) -> Iterator[int]:
        """How long chunks may be, if it shows at this step that there are chunks."""
        assert self.band is not None
        if self.chunk is None and self.band.left is None and not isinstance(seen, Mask):
            place = row + rows - 1 + int(self.band.offset)  # of the last query among the keys
            first = (
                low if seen is None else low + int(seen[:, :, -1].any(0).flatten().int().argmax())
            )
            # The first chunk ends before its second begins, and rows so far were all in the first.
            if 0 < first <= place < 2 * first and row + int(self.band.offset) <= first:
                yield first

    def _sees_all(self, row: int, low: int, keys: int) -> bool:
        """Whether the rule shows a query exactly the keys from `low` on."""
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
        """How far back queries see, if it shows at this step and did not before."""
        assert self.band is not None
        place = row + int(self.band.offset)  # of this step's first query among the keys
        if self.band.left is not None:
            return self.band.left
        if isinstance(seen, Mask):
            bands = [part for part in _conjunction(seen) if isinstance(part, Band)]
            left = bands[0].left if bands else None
        elif seen is None:
            left = place - low if rows == 1 else None
        else:  # the last row is the one from which a window hides most
            first = seen[:, :, -1].any(0).flatten().int().argmax()
            left = place + rows - 1 - low - int(first)
        hid_nothing = left is None or place - 1 <= left
        return left if hid_nothing else None

    def _says(
        self,
        band: Band | None,
        row: int,
        rows: int,
        low: int,
        keys: int,
        seen: Tensor | Mask | None,
        chunk: int | None = None,
    ) -> bool:
        """Whether the rule with this band, and chunks, shows these queries what they saw."""
        if low:
            place = None if band is None else row + int(band.offset)
            starts = [0]
            if band is not None and place is not None:
                starts.append(0 if band.left is None else place - band.left)
                starts.append(0 if chunk is None else place // chunk * chunk)
            if max(starts) < low:
                return False  # it would see keys that the step was not given
        present = None if self.present is None else _longer(self.present, keys)[:, low:]
        device = self.device
        col = torch.arange(low, keys, device=device)
        for start in range(0, rows, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, rows))
            query = torch.arange(row + part.start, row + part.stop, device=device)[:, None]
            said = torch.ones(1, 1, len(query), keys - low, dtype=torch.bool, device=device)
            if band is not None:
                said = said & band.sees(col, col, query, col)
                if chunk is not None:
                    said = said & ((query + int(band.offset)) // chunk == col // chunk)
            if present is not None:
                said = said & present[:, None, None]
            if seen is None:
                was = torch.ones_like(said)
            elif isinstance(seen, Tensor):
                was = seen[:, :, part]
            else:
                was = _tile(seen, rows, keys - low, part, device)
            if not bool((said == was).all()):
                return False
        return True

    @cached_property
    def _clear_from(self) -> int:
        """The first key from which on all are present."""
        if self.present is None:
            return 0
        hidden = (~self.present).any(0).nonzero()
        return int(hidden[-1]) + 1 if len(hidden) else 0


def _chunk(parts: list[Mask]) -> int | None:
    """How long the chunks are, where documents are chunks of one length."""
    found = [part for part in parts if isinstance(part, Documents)]
    if len(found) != 1 or found[0].batch is not None:
        return None
    ids, own = found[0].key_ids, found[0].query_ids
    if ids.shape != own.shape or not torch.equal(ids, own):
        return None
    ends = (ids.diff() != 0).nonzero().flatten() + 1
    if not len(ends):
        return None
    chunk = int(ends[0])
    places = torch.arange(len(ids), device=ids.device) // chunk
    same = torch.equal(places.diff() != 0, ids.diff() != 0)
    return chunk if same else None


def _conjunction(rule: Mask | None) -> list[Mask]:
    if isinstance(rule, And):
        return _conjunction(rule.left) + _conjunction(rule.right)
    return [] if rule is None else [rule]


def _is_about_keys(part: Mask) -> bool:
    """Whether every query sees the same keys."""
    return isinstance(part.hidden if isinstance(part, Not) else part, Below | Present)


def hidden(rule: Mask | None, uniform: Tensor | None) -> Mask | None:
    """The rule without the rows that are shown everything for being uniform."""
    if uniform is None or rule is None:
        return rule
    shown = isinstance(rule, Or) and isinstance(rule.right, Rows)
    return rule.left if isinstance(rule, Or) and shown else rule & ~Rows(uniform)


def bands(rule: Mask | None) -> list[Band]:
    """The bands (causal, windows) that a rule is made of."""
    return [part for part in _parts(rule) if isinstance(part, Band)]


def tensors(rule: Mask | None) -> list[Tensor]:
    """The tensors that a rule keeps."""
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
    """With True for what is new."""
    return nn.functional.pad(flags, (0, length - flags.shape[-1]), value=True)

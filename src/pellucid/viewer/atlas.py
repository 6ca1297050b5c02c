"""Recordings as the page sees them: sheets of heads, each with its map, and words beside them."""

from collections.abc import Iterator
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.heads import HeadRow, by_record, layers_of
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.words import running
from pellucid.viewer.maps import Kept, Map, thumbnails

THUMBNAIL = 64
"""Cells of a thumbnail, each way."""

Side = Literal["queries", "keys"]


class Volume(NamedTuple):
    """A recording, and what to call it."""

    seen: Recording
    title: str
    prompt: int | None = None
    """How many tokens a generation was given; None where nothing was generated, or not known."""


class Place(NamedTuple):
    """One head: which attention, which text of the batch, and which of its heads."""

    sheet: int
    item: int
    head: int


class Sheet(NamedTuple):
    """One attention."""

    recording: int
    name: str
    stack: str
    layer: int
    is_cross: bool
    items: int
    heads: int
    queries: int
    keys: int


class Atlas:
    """The latest call of each module of some recordings, for several threads."""

    def __init__(self, *volumes: Volume) -> None:
        """Of recordings that are complete.

        Raises:
            ArgumentError: one of them holds no attention.
        """
        self.volumes = volumes
        self._records: list[Record] = []
        self.sheets: list[Sheet] = []
        for number, volume in enumerate(volumes):
            records = volume.seen.latest()
            if not records:
                raise ArgumentError("the recording holds no attention")
            self._records += records
            self.sheets += [
                Sheet(number, record.name, *place, record.is_cross, *_sizes(record))
                for place, record in zip(layers_of(records), records, strict=True)
            ]
        self._maps: dict[Place, Map] = {}
        self._kept = Kept()
        self._lock = Lock()

    def map(self, place: Place) -> Map:
        """The map of one head.

        Raises:
            OutOfRangeError: there is no such head.
        """
        sheet = self._check(place.sheet, place.item)
        if not 0 <= place.head < sheet.heads:
            raise OutOfRangeError(f"there is no head {place.head}; there are {sheet.heads}")
        with self._lock:
            found = self._maps.get(place)
            if found is None:
                record = self._records[place.sheet]
                outer = np.unravel_index(place.item, (1, *record.shape[:-3]))[1:]
                weights = record.weights.one(*map(int, outer), place.head)
                found = Map(weights, record.logsumexps is not None, self._kept)
                self._maps[place] = found
        return found

    def record(self, sheet: int) -> tuple[Recording, Record]:
        """A sheet as it was recorded.

        Raises:
            OutOfRangeError: there is no such sheet.
        """
        self._check(sheet, 0)
        return self.volumes[self.sheets[sheet].recording].seen, self._records[sheet]

    def thumbnails(self, sheet: int, item: int) -> Tensor:
        """(heads, THUMBNAIL, THUMBNAIL) or less: the strongest weights of sampled rows.

        Raises:
            OutOfRangeError: there is no such sheet or text.
        """
        self._check(sheet, item)
        return thumbnails(self._records[sheet].weights, item, THUMBNAIL)

    def words(self, sheet: int, item: int, side: Side) -> list[str] | None:
        """Each token as it stands in the text, (queries or keys,), the space before it included;
        None where the tokens are not known.

        Raises:
            OutOfRangeError: there is no such sheet or text.
        """
        self._check(sheet, item)
        record = self._records[sheet]
        ids = record.query_ids if side == "queries" else record.key_ids
        if ids is None:
            return None
        with self._lock:
            seen = self.volumes[self.sheets[sheet].recording].seen
            return running(seen.strings(ids[item if len(ids) > 1 else 0]))

    def rows(self) -> Iterator[list[HeadRow]]:
        """What each head does, in numbers, sheet by sheet; it takes a pass over all weights."""
        for volume in self.volumes:
            yield from by_record(volume.seen)

    def _check(self, sheet: int, item: int) -> Sheet:
        if not 0 <= sheet < len(self.sheets):
            raise OutOfRangeError(f"there is no sheet {sheet}; there are {len(self.sheets)}")
        items = self.sheets[sheet].items
        if not 0 <= item < items:
            raise OutOfRangeError(f"there is no text {item}; there are {items}")
        return self.sheets[sheet]


def _sizes(record: Record) -> tuple[int, int, int, int]:
    """Texts, heads, queries and keys."""
    *outer, heads, queries, keys = record.shape
    return torch.Size(outer).numel(), heads, queries, keys

"""Recordings as the page sees them: sheets of heads, each with its map, and words beside them."""

from collections.abc import Iterator
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.head_table import HeadRow, by_record, layers_of
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import running
from pellucid.lens.visibility import bands
from pellucid.viewer.tile_pyramid import Kept, Map, thumbnails

MOST_VALUES = 1024
"""Tokens up to which values are kept beside queries and keys, for the last step of a lesson."""
MOST_WEIGHTS = 2**22
"""Of one answer: 16 MB."""
TEXTS = 8
"""Whose words are kept."""
THUMBNAIL = 64
"""Cells of a thumbnail, each way."""

Side = Literal["queries", "keys"]


class Written(NamedTuple):
    """What a model wrote while it was watched, and what else it could have written."""

    prompt: int
    """Tokens that were there before: those of a prompt, or the one that a translation starts by."""
    ids: list[int]
    """Of all tokens, the last one too, which nothing was written after."""
    steps: list[list[tuple[int, float]]]
    """Of each new token, the likeliest ids and their probabilities; the one that was written comes
    last where it is none of them."""
    how: str
    """How tokens were chosen, and why there came no more, in sentences."""
    aligning: tuple[tuple[str, int], ...] = ()
    """Modules and heads that the model itself names for alignment."""


class Volume(NamedTuple):
    """A recording, and what to call it."""

    seen: Recording
    title: str
    written: Written | None = None
    """None where nothing was generated, or that is not known."""


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
    is_causal: bool
    """Whether no token sees what comes after it, so that the next one can be told."""
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
                Sheet(
                    number, record.name, *place, record.is_cross, is_causal(record), *_sizes(record)
                )
                for place, record in zip(layers_of(records), records, strict=True)
            ]
        self._maps: dict[Place, Map] = {}
        self._kept = Kept()
        self._read: dict[tuple[int, bytes], list[str]] = {}
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
                weights = record.weights.head(*_outer(record, place.item), place.head)
                found = Map(weights, record.logsumexps is not None, self._kept)
                self._maps[place] = found
        return found

    def part(self, sheet: int, item: int, head: int | None, queries: slice, keys: slice) -> Tensor:
        """Single weights of some queries and keys, (queries, keys).

        Args:
            sheet: which attention.
            item: which text of the batch.
            head: one of its heads; the mean of all where None.
            queries: some at least.
            keys: some at least.

        Raises:
            OutOfRangeError: there is no such sheet, text or head, or no such query or key.
            ArgumentError: these are too many weights for one answer.
        """
        of = self._check(sheet, item)
        for name, wanted, size in (("query", queries, of.queries), ("key", keys, of.keys)):
            if wanted.start >= size:
                raise OutOfRangeError(f"there is no {name} {wanted.start}; there are {size}")
        high = min(queries.stop, of.queries) - queries.start
        wide = min(keys.stop, of.keys) - keys.start
        if high * wide > MOST_WEIGHTS:
            raise ArgumentError(f"{high * wide:,} weights; {MOST_WEIGHTS:,} are the most at once")
        heads = range(of.heads) if head is None else [head]
        total = torch.zeros(high, wide)
        with torch.no_grad():
            for one in heads:
                weights = self.map(Place(sheet, item, one)).weights
                total += weights.rows(queries)[0, :, keys].to(total)
        return total / len(heads)

    def layer(self, sheet: int, item: int, *, known: bool) -> AttentionWeights:
        """All heads of one attention over one text, (heads, queries, keys).

        Args:
            sheet: which attention.
            item: which text of the batch.
            known: whether the logsumexp of all rows is to be there; once found it is kept.

        Raises:
            OutOfRangeError: there is no such sheet or text.
        """
        self._check(sheet, item)
        record, name = self._records[sheet], ("layer", sheet, item)
        weights = record.weights.batch_item(*_outer(record, item))
        found = self._kept.get(name)
        with torch.no_grad():
            if weights.is_known:
                pass
            elif found is not None:
                weights.set_logsumexp(*found)
            elif known:
                self._kept.put(name, (weights.logsumexp,))
        return weights

    def record(self, sheet: int) -> tuple[Recording, Record]:
        """A sheet as it was recorded.

        Raises:
            OutOfRangeError: there is no such sheet.
        """
        self._check(sheet, 0)
        return self.volumes[self.sheets[sheet].recording].seen, self._records[sheet]

    def thumbnails(self, sheet: int, item: int, size: int = THUMBNAIL) -> Tensor:
        """(heads, size, size) or less: the strongest weights of sampled rows.

        Raises:
            OutOfRangeError: there is no such sheet or text.
        """
        self._check(sheet, item)
        record = self._records[sheet]
        return thumbnails(record.weights.batch_item(*_outer(record, item)), size)

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
        return self._running(self.sheets[sheet].recording, ids[item if len(ids) > 1 else 0])

    def _running(self, recording: int, ids: Tensor) -> list[str]:
        """The words of a text, which all layers share, and pages ask for in parts."""
        name = recording, ids.cpu().numpy().tobytes()
        with self._lock:
            if name not in self._read:
                if len(self._read) >= TEXTS:
                    self._read.pop(next(iter(self._read)))
                self._read[name] = running(self.volumes[recording].seen.strings(ids))
            return self._read[name]

    def volume(self, recording: int) -> Volume:
        """One of what is shown.

        Raises:
            OutOfRangeError: there is no such recording.
        """
        if not 0 <= recording < len(self.volumes):
            raise OutOfRangeError(
                f"there is no recording {recording}; there are {len(self.volumes)}"
            )
        return self.volumes[recording]

    def written(self, recording: int) -> dict[str, Any]:
        """What was written, for JSON; `words` is None where nothing is known of that.

        Raises:
            OutOfRangeError: there is no such recording.
        """
        volume = self.volume(recording)
        if volume.written is None:
            return {"prompt": None, "words": None, "how": "", "steps": []}
        prompt, ids, steps, how, _ = volume.written
        other = [number for step in steps for number, _ in step]
        with self._lock:  # one convention of spelling for all
            words = running(volume.seen.strings(torch.tensor([*ids, *other])))
        spelt = iter(words[len(ids) :])
        told = [
            [
                {"word": next(spelt), "probability": probability, "is_written": number == new}
                for number, probability in step
            ]
            for step, new in zip(steps, ids[prompt:], strict=True)
        ]
        return {"prompt": prompt, "words": words[: len(ids)], "how": how, "steps": told}

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


def is_causal(record: Record) -> bool:
    """Whether it is attention within one text in which nothing sees what comes after it."""
    looks_back = any(band.right == 0 for band in bands(record.mask))
    return looks_back and not record.is_cross and record.shape[-1] == record.shape[-2]


def _outer(record: Record, item: int) -> list[int]:
    """A text of the batch by its number along each batch dimension."""
    return [int(place) for place in np.unravel_index(item, (1, *record.shape[:-3]))[1:]]


def _sizes(record: Record) -> tuple[int, int, int, int]:
    """Texts, heads, queries and keys."""
    *outer, heads, queries, keys = record.shape
    return torch.Size(outer).numel(), heads, queries, keys

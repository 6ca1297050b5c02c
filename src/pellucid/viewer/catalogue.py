"""The recordings that a page shows: layers of heads, their maps, and the tokens beside them."""

from collections.abc import Iterator
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.head_measures import heads_by_module
from pellucid.lens.head_table import HeadRow
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import running
from pellucid.lens.visibility import bands
from pellucid.viewer.tile_pyramid import Map, TensorCache, thumbnails

MOST_VALUES = 1024
"""Tokens up to which values are recorded too, for the last step of a lesson."""
MOST_WEIGHTS = 2**22
"""Of one answer: 16 MB."""
MOST_TEXT = 20_000
"""Letters of a text that a page is told, or tells."""
TEXTS = 8
"""Texts whose tokens are cached as strings."""
THUMBNAIL = 64
"""Cells of a thumbnail, each way."""

Side = Literal["queries", "keys"]


class Generation(NamedTuple):
    """What a model generated while it was watched, and the alternatives."""

    prompt: int
    """Tokens of the prompt, or the one that a translation starts with."""
    ids: list[int]
    """Of all tokens, including the last one, which the model never read."""
    steps: list[list[tuple[int, float]]]
    """For each new token, the most likely ids and their probabilities; the generated one comes
    last if it is not among them."""
    how: str
    """How tokens were chosen and why generation stopped, in sentences."""


class Rerun(NamedTuple):
    """What a model has read, for another run of it."""

    model: str | None
    """As for `open_checkpoint`."""
    inputs: dict[str, Tensor]
    """(1, tokens) each: `input_ids`, and `decoder_input_ids` of an encoder-decoder."""


class Volume(NamedTuple):
    """A recording, and what to call it."""

    seen: Recording
    title: str
    written: Generation | None = None
    """None where nothing was generated, or where that is unknown."""
    text: str = ""
    """What was read; empty where that is unknown or long."""
    model: str = ""
    """What the model was called by who asked for it; empty where that is unknown."""
    rerun: Rerun | None = None
    """How to run the model once more; None where it is not at hand."""


class Place(NamedTuple):
    """One head: the index of its layer, of the text in the batch, and of the head."""

    layer: int
    item: int
    head: int


class Layer(NamedTuple):
    """A layer of a recording: the latest call of one attention module."""

    recording: int
    name: str
    stack: str
    number: int
    is_cross: bool
    is_causal: bool
    """Whether no token attends to later ones, so that the next token can be predicted."""
    items: int
    heads: int
    queries: int
    keys: int


class Catalogue:
    """The latest call of each module of some recordings; thread-safe."""

    def __init__(self, *volumes: Volume) -> None:
        """Of recordings that are complete.

        Raises:
            ArgumentError: one of them holds no attention.
        """
        self.volumes = volumes
        self._records: list[Record] = []
        self.layers: list[Layer] = []
        for number, volume in enumerate(volumes):
            records = volume.seen.latest()
            if not records:
                raise ArgumentError("the recording contains no attention")
            self._records += records
            self.layers += [
                Layer(
                    number, record.name, *place, record.is_cross, is_causal(record), *_sizes(record)
                )
                for place, record in zip(label_layers(records), records, strict=True)
            ]
        self._maps: dict[Place, Map] = {}
        self._cache = TensorCache()
        self._read: dict[tuple[int, bytes], list[str]] = {}
        self._lock = Lock()

    def map(self, place: Place) -> Map:
        """The map of one head.

        Raises:
            OutOfRangeError: there is no such head.
        """
        layer = self._check(place.layer, place.item)
        if not 0 <= place.head < layer.heads:
            raise OutOfRangeError(f"there is no head {place.head}; there are {layer.heads}")
        with self._lock:
            head_map = self._maps.get(place)
            if head_map is None:
                record = self._records[place.layer]
                weights = record.weights.head(*_outer(record, place.item), place.head)
                head_map = Map(weights, record.logsumexps is not None, self._cache)
                self._maps[place] = head_map
        return head_map

    def part(self, layer: int, item: int, head: int | None, queries: slice, keys: slice) -> Tensor:
        """Single weights of some queries and keys, (queries, keys).

        Args:
            layer: its index.
            item: which text of the batch.
            head: one of its heads; the mean of all where None.
            queries: some at least.
            keys: some at least.

        Raises:
            OutOfRangeError: there is no such layer, text or head, or no such query or key.
            ArgumentError: there are too many weights for one answer.
        """
        of = self._check(layer, item)
        for name, wanted, size in (("query", queries, of.queries), ("key", keys, of.keys)):
            if wanted.start >= size:
                raise OutOfRangeError(f"there is no {name} {wanted.start}; there are {size}")
        high = min(queries.stop, of.queries) - queries.start
        wide = min(keys.stop, of.keys) - keys.start
        if high * wide > MOST_WEIGHTS:
            raise ArgumentError(
                f"one answer holds at most {MOST_WEIGHTS:,} weights, not {high * wide:,}"
            )
        heads = range(of.heads) if head is None else [head]
        total = torch.zeros(high, wide)
        with torch.no_grad():
            for index in heads:
                weights = self.map(Place(layer, item, index)).weights
                total += weights.rows(queries)[0, :, keys].to(total)
        return total / len(heads)

    def layer(self, layer: int, item: int, *, known: bool) -> AttentionWeights:
        """All heads of one attention over one text, (heads, queries, keys).

        Args:
            layer: its index.
            item: which text of the batch.
            known: whether to compute the logsumexp of all rows, which is then cached.

        Raises:
            OutOfRangeError: there is no such layer or text.
        """
        self._check(layer, item)
        record, name = self._records[layer], ("layer", layer, item)
        weights = record.weights.batch_item(*_outer(record, item))
        cached = self._cache.get(name)
        with torch.no_grad():
            if weights.is_known:
                pass
            elif cached is not None:
                weights.set_logsumexp(*cached)
            elif known:
                self._cache.put(name, (weights.logsumexp,))
        return weights

    def record(self, layer: int) -> tuple[Recording, Record]:
        """A layer as it was recorded.

        Raises:
            OutOfRangeError: there is no such layer.
        """
        self._check(layer, 0)
        return self.volumes[self.layers[layer].recording].seen, self._records[layer]

    def sharing_keys(self, layer: int) -> list[int]:
        """The layers of the same recording that attend to the same tokens, this one included.

        Raises:
            OutOfRangeError: there is no such layer.
        """
        own = self._check(layer, 0)
        ids = self._records[layer].key_ids

        def is_same(other: int) -> bool:
            there = self._records[other].key_ids
            if ids is None or there is None:
                return other == layer
            return ids.shape == there.shape and bool((ids == there).all())

        return [
            other
            for other, candidate in enumerate(self.layers)
            if candidate.recording == own.recording and is_same(other)
        ]

    def thumbnails(self, layer: int, item: int, size: int = THUMBNAIL) -> Tensor:
        """(heads, size, size) or less: the strongest weights of sampled rows.

        Raises:
            OutOfRangeError: there is no such layer or text.
        """
        self._check(layer, item)
        record = self._records[layer]
        return thumbnails(record.weights.batch_item(*_outer(record, item)), size)

    def words(self, layer: int, item: int, side: Side) -> list[str] | None:
        """Each token as it stands in the text, (queries or keys,), the space before it included;
        None where the tokens are not known.

        Raises:
            OutOfRangeError: there is no such layer or text.
        """
        self._check(layer, item)
        record = self._records[layer]
        ids = record.query_ids if side == "queries" else record.key_ids
        if ids is None:
            return None
        return self._running(self.layers[layer].recording, ids[item if len(ids) > 1 else 0])

    def _running(self, recording: int, ids: Tensor) -> list[str]:
        """The words of a text, which all layers share, and pages ask for in parts."""
        name = recording, ids.cpu().numpy().tobytes()
        with self._lock:
            if name not in self._read:
                if len(self._read) >= TEXTS:
                    self._read.pop(next(iter(self._read)))
                strings = self.volumes[recording].seen.strings(ids)
                self._read[name] = running(strings, whole=len(strings))
            return self._read[name]

    def volume(self, recording: int) -> Volume:
        """One of the recordings.

        Raises:
            OutOfRangeError: there is no such recording.
        """
        if not 0 <= recording < len(self.volumes):
            raise OutOfRangeError(
                f"there is no recording {recording}; there are {len(self.volumes)}"
            )
        return self.volumes[recording]

    def written(self, recording: int) -> dict[str, Any]:
        """The generated text, for JSON; `words` is None where it is unknown.

        Raises:
            OutOfRangeError: there is no such recording.
        """
        volume = self.volume(recording)
        if volume.written is None:
            return {"prompt": None, "words": None, "how": "", "steps": []}
        prompt, ids, steps, how = volume.written
        other = [number for step in steps for number, _ in step]
        with self._lock:  # one convention of spelling for all
            words = running(volume.seen.strings(torch.tensor([*ids, *other])), whole=len(ids))
        spelt = iter(words[len(ids) :])
        steps_as_json = [
            [
                {"word": next(spelt), "probability": probability, "is_written": number == new}
                for number, probability in step
            ]
            for step, new in zip(steps, ids[prompt:], strict=True)
        ]
        return {"prompt": prompt, "words": words[: len(ids)], "how": how, "steps": steps_as_json}

    def rows(self) -> Iterator[list[HeadRow]]:
        """The measures of all heads, layer by layer; this takes a pass over all weights."""
        for volume in self.volumes:
            yield from heads_by_module(volume.seen)

    def _check(self, layer: int, item: int) -> Layer:
        if not 0 <= layer < len(self.layers):
            raise OutOfRangeError(f"there is no layer {layer}; there are {len(self.layers)}")
        items = self.layers[layer].items
        if not 0 <= item < items:
            raise OutOfRangeError(f"there is no text {item}; there are {items}")
        return self.layers[layer]


def is_causal(record: Record) -> bool:
    """Whether it is self-attention in which no token attends to later ones."""
    looks_back = any(band.right == 0 for band in bands(record.mask))
    return looks_back and not record.is_cross and record.shape[-1] == record.shape[-2]


def _outer(record: Record, item: int) -> list[int]:
    """A text of the batch by its number along each batch dimension."""
    return [int(place) for place in np.unravel_index(item, (1, *record.shape[:-3]))[1:]]


def _sizes(record: Record) -> tuple[int, int, int, int]:
    """Texts, heads, queries and keys."""
    *outer, heads, queries, keys = record.shape
    return torch.Size(outer).numel(), heads, queries, keys

"""Generations: the steps of each are joined into one record per layer.

Keys are taken where they enter a cache, each once. Steps are proven a few dozen at a time, and
whenever the records are read.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.interception.calls import CacheUpdate, Call
from pellucid.lens.layer_generation import LayerGeneration
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.pieces import Keeper, Part, Pieces
from pellucid.lens.proof import Contradiction
from pellucid.lens.record import Record

__all__ = ["Generations", "Origin", "logsumexp_of"]

STEPS_TOGETHER = 64
"""Rows that are proven together."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The keys and values that a call reads, and where they come from."""

    keys: Part
    values: Part
    before: int = 0
    """The number of keys in the cache before the call."""
    source: LayerGeneration | None = None
    """The layer that put the keys into the cache, if it is another."""
    is_joined: bool = False
    """Whether some of the keys are not in this cache."""


class Generations:
    """The generations that an open watch records."""

    def __init__(
        self,
        keeper: Keeper,
        masks: MaskReader,
        *,
        keeps_values: bool,
        every_row: bool,
        ids: Callable[[str, int, int], Tensor | None],
        withdraw: Callable[[Record, str, bool], None],
    ) -> None:
        """Start without any generation.

        Args:
            keeper: keeps tensors.
            masks: reads the masks of steps.
            keeps_values: whether records have values and contexts.
            every_row: whether to prove every row.
            ids: returns the (batch, length) ids of a module's queries, by its name.
            withdraw: removes a record, given the reason, and whether it is wrong (True) or cannot
                be joined (False).
        """
        self._keeper, self._masks, self._ids, self._withdraw = keeper, masks, ids, withdraw
        self._keeps_values, self._every_row = keeps_values, every_row
        self._layers: dict[tuple[str, int, int], LayerGeneration] = {}

    # Which generation a call belongs to.

    def origin(self, call: Call) -> Origin:
        """Where the keys of a call come from, if it begins a record."""
        key, value, update = call.key, call.value, call.update
        if update is not None:
            before = update.before() if callable(update.before) else update.before
            if before == 0 and _is_as_returned(update, key, value):
                return Origin(update.keys, update.values, before)
            returned = update.returned()
            if returned is not None and returned.shape[-2] < key.shape[-2]:
                return Origin(key, value, is_joined=True)  # joined with keys of another cache
            return Origin(*_cut(key, value, before + update.length), before)
        source = self._source(key)
        if source is None or key.shape[-2] < source.record.keys.length:  # a window dropped some
            return Origin(key, value)
        return Origin(*_cut(key, value, source.record.keys.length), source=source)

    def begin(self, record: Record, call: Call, origin: Origin) -> None:
        """Start a generation with a record that later calls may extend."""
        update, source = call.update, origin.source
        if not isinstance(call.key, Tensor) or (update is None and source is None):
            return
        if origin.is_joined:
            return
        if update is not None:
            cache, layer = update.cache, update.layer
            first = origin.before + update.length - record.keys.length
        else:
            assert source is not None
            cache, layer, first = source.cache, source.layer, source.first
        self._layers[record.name, layer, cache] = LayerGeneration(
            record,
            cache,
            layer,
            first,
            weakref.ref(call.key),
            is_reader=source is not None,
            every_row=self._every_row or not call.is_known,
        )

    def has(self, name: str, call: Call) -> bool:
        """Whether a generation exists that a call continues."""
        update = call.update
        return update is not None and (name, update.layer, update.cache) in self._layers

    def extend(self, name: str, call: Call) -> bool:
        """Add a step to the generation that it continues; False if there is none."""
        query, key, value, update = call.query, call.key, call.value, call.update
        if update is None:
            generation = self._reader_of(name, key)
        else:
            generation = self._layers.get((name, update.layer, update.cache))
        if generation is None or not isinstance(query, Tensor) or not isinstance(value, Tensor):
            return False
        record, rows, new_key, new_value = generation.record, query.shape[-2], None, None
        if update is not None:
            total = generation.first + record.keys.length
            before = total if callable(update.before) else update.before
            if before < total and not self._is_settled(generation):
                return False
            if not max(generation.first, 1) <= before <= total or not record.forget(total - before):
                return False
        elif generation.is_reader:  # the other layer has added its keys, or dropped them, already
            offset = record.visibility.first[1] - record.visibility.first[0]
            surplus = record.queries.length + rows + offset - record.keys.length
            if surplus and not self._is_settled(generation):
                return False
            if surplus < 0 or not record.forget(surplus, keys_too=False):
                return False
        row, keys = record.queries.length, record.keys.length
        is_own = update is not None and _is_as_returned(update, key, value)
        if update is not None:
            keys += update.length
            if is_own:
                new_key, new_value = update.keys, update.values
            elif isinstance(key, Tensor):
                # Attention reads something made of the cache, of which the last rows are new.
                end = min(key.shape[-2], before + update.length)
                new_key, new_value = (x[..., end - update.length : end, :] for x in (key, value))
                new_key, new_value = new_key.clone(), new_value.clone()
        low = max(0, generation.first + keys - key.shape[-2]) - generation.first
        if low < 0 or (low and not self._is_settled(generation)):
            return False
        visibility = self._masks.grown(record.visibility, call, row, rows, low, keys)
        if visibility is None:
            return False
        bias, keep = call.bias, self._keeper.keep
        if bias is not None:
            bias = nn.functional.pad(bias[..., : keys - low], (low, 0))
        record.add(
            visibility,
            keep(query),
            None if new_key is None else keep(new_key),
            value=None if new_value is None or not self._keeps_values else keep(new_value),
            context=keep(call.context) if self._keeps_values and call.context is not None else None,
            bias=None if bias is None else Pieces(keep(bias)),
            logsumexp=logsumexp_of(call, self._keeper),
            ids=None if record.query_tokens is None else self._ids(name, query.shape[0], rows),
        )
        if isinstance(key, Tensor):
            generation.key = weakref.ref(key)
        record.has_edited_outputs |= call.attended is not None
        attended = call.context if call.attended is None else call.attended
        if attended is not None and not call.dropout and call.projection is None:
            # A sliding cache drops keys that earlier rows have seen.
            seen = nn.functional.pad(value, (0, 0, low, 0)) if low else value
            read = key if is_own and not low and isinstance(key, Tensor) else None
            pending = generation.add_pending(attended, seen, read)
            if low or generation.every_row or pending >= STEPS_TOGETHER:
                self._is_settled(generation)
        return True

    def _reader_of(self, name: str, key: Part) -> LayerGeneration | None:
        """The generation that a call continues which puts no keys into a cache.

        It reads the same keys of an encoder at every step, or the keys of another layer.
        """
        for generation in self._layers.values():
            if generation.record.name == name and generation.key() is key:
                return generation
        source = self._source(key)
        return None if source is None else self._layers.get((name, source.layer, source.cache))

    def _source(self, key: Part) -> LayerGeneration | None:
        """The layer that put these keys into a cache."""
        for generation in self._layers.values():
            if not generation.is_reader and generation.key() is key:
                return generation
        return None

    # Changes of caches.

    def settle(self, cache: int | None = None, layer: int | None = None) -> None:
        """Prove the pending steps of one cache, or of all."""
        for generation in self._matching(cache, layer):
            self._is_settled(generation)

    def crop(self, cache: int, length: Callable[[int], int]) -> None:
        """A cache has dropped its latest keys, and now has length(layer) of them."""
        self.settle(cache)
        for generation in sorted(self._matching(cache), key=lambda x: x.is_reader):
            count = generation.first + generation.record.keys.length - length(generation.layer)
            if not generation.record.forget(count, keys_too=not generation.is_reader):
                self._drop(generation)  # the next call begins another record

    def reorder(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        """The texts in a cache were reordered by items, (batch,); keys(layer) are its keys now."""
        done: set[int] = set()
        for generation in self._matching(cache):
            if not generation.record.reorder(items, done):
                self._is_settled(generation)
                self._break(generation, "its beams see different keys")
                continue
            for pieces in (generation.contexts, generation.value, generation.read):
                if pieces is not None:
                    pieces.reorder(items)
            generation.key = weakref.ref(keys(generation.layer))

    def disturb(self, cache: int, what: str, layer: int | None = None) -> None:
        """A cache, or one layer of it, was changed by an operation, `what`."""
        for generation in self._matching(cache, layer):
            if what == "edit":  # what the model used is no longer there to compare with
                generation.contexts = None
            self._is_settled(generation)
        for generation in self._matching(cache, layer):
            if what in ("reset", "edit"):  # later calls begin another record
                self._drop(generation)
            else:
                self._break(generation, f"'{what}' changed its cache, as beam search does")

    def _matching(self, cache: int | None, layer: int | None = None) -> list[LayerGeneration]:
        return [
            generation
            for generation in self._layers.values()
            if cache in (None, generation.cache) and layer in (None, generation.layer)
        ]

    def _is_settled(self, generation: LayerGeneration) -> bool:
        """Prove the pending steps; if they contradict the record, withdraw it and return False."""
        try:
            generation.prove()
        except Contradiction as contradiction:
            self._drop(generation)
            self._withdraw(generation.record, str(contradiction), True)
            return False
        except ArgumentError as error:  # the record was written to
            self._drop(generation)
            self._withdraw(generation.record, f"cannot be proven: {error}", True)
            return False
        return True

    def _break(self, generation: LayerGeneration, why: str) -> None:
        """Withdraw a generation that cannot be one record."""
        self._drop(generation)
        self._withdraw(
            generation.record,
            f"cannot be joined, since {why}; generate one text at a time or with num_beams=1, or "
            "watch one forward pass over what was generated",
            False,
        )

    def _drop(self, generation: LayerGeneration) -> None:
        self._layers = {key: x for key, x in self._layers.items() if x is not generation}


def _is_as_returned(update: CacheUpdate, key: Part, value: Part) -> bool:
    """Whether attention reads the tensors that the cache returned."""
    return update.returned() is key and update.returned_values() is value


def logsumexp_of(call: Call, keeper: Keeper) -> Tensor | None:
    """(batch, heads, queries): the kernel's logsumexp, if it is also that of the record."""
    logsumexp = call.logsumexp
    if logsumexp is None or logsumexp.shape != call.query.shape[:-1]:
        return None
    changes = (*call.masks, call.bias, call.softcap, call.sinks, keeper.dtype)
    return None if any(x is not None for x in changes) else keeper.keep(logsumexp)


def _cut(key: Part, value: Part, length: int) -> tuple[Tensor, Tensor]:
    """The keys and values without the empty slots of a static cache."""
    assert isinstance(key, Tensor)
    assert isinstance(value, Tensor)
    return key[..., :length, :], value[..., :length, :]

"""Generations: the steps of each are joined to one record a layer, one growing triangle.

Keys come from where they enter a cache, each once. Steps are proven together, some dozens at a
time, and whenever somebody asks.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens import interception
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.proof import Contradiction, Evidence, prove
from pellucid.lens.record import Keeper, Part, Pieces, Record

__all__ = ["Generations", "Origin", "logsumexp_of"]

STEPS_TOGETHER = 64
"""Steps that are proven together."""


@dataclass(frozen=True, slots=True)
class Origin:
    """All keys and values that a call reads, and where they come from."""

    keys: Part
    values: Part
    before: int = 0
    """How many keys the cache had before."""
    source: "Growing | None" = None
    """The layer that the keys were taken from, where it is another."""
    is_joined: bool = False
    """Whether there are keys among them that were not put into this cache."""


@dataclass(eq=False)
class Growing:
    """A generation in progress."""

    record: Record
    cache: int
    layer: int
    first: int
    """Which of all keys is the record's first; others were forgotten before the watch began."""
    key: "weakref.ref[Tensor]"
    """What the latest call was given as keys."""
    is_reader: bool
    """Whether its keys are another layer's, as those of the last layers of Gemma 3n are."""
    every_row: bool
    """Whether each row is to be proven."""
    contexts: Pieces | None = None
    """What the latest steps got, and is yet to be proven: (batch, heads, queries, value_dim)."""
    value: Pieces | None = None
    """All values up to the latest step."""
    read: Pieces | None = None
    """All keys that the latest step read, where they are the cache's own."""

    def add(self, context: Tensor, value: Tensor, read: Tensor | None) -> int:
        """What a step got, and what it could see; returns how many rows are to be proven."""
        if self.contexts is None:
            self.contexts = Pieces(context)
        else:
            self.contexts.append(context)
        self.value = Pieces(value)
        self.read = None if read is None else Pieces(read)
        return self.contexts.length

    def prove(self) -> None:
        """Prove the latest steps.

        Raises:
            Contradiction: the record gives something else.
        """
        contexts, self.contexts, values, self.value = self.contexts, None, self.value, None
        if contexts is None or values is None or not contexts.is_as_added:
            return
        record, context, value = self.record, contexts.tensor, values.tensor
        read, self.read = self.read, None
        if read is not None and not _is_same(read.tensor, record.keys.tensor):
            raise Contradiction("reads keys that were written over in its cache")
        # Keys that another layer has added since are behind these rows.
        missing = record.keys.length - value.shape[-2]
        value = nn.functional.pad(value, (0, 0, 0, missing)) if missing > 0 else value
        evidence = Evidence(
            record=record,
            value=value[..., : record.keys.length, :],
            context=context,
            first=record.queries.length - context.shape[-2],
            every_row=self.every_row,
        )
        with interception.deaf():
            found = prove(evidence)
        record.proof = found if record.proof is None else record.proof.joined(found)


class Generations:
    """Those that an open watch hears."""

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
        """Nothing grows yet.

        Args:
            keeper: how tensors are kept.
            masks: what reads the masks of steps.
            keeps_values: whether records have values and contexts.
            every_row: whether each row is proven.
            ids: the (batch, length) ids of the queries of a module's step, by its name.
            withdraw: takes a record back that is wrong (True) or cannot be joined (False), and why.
        """
        self._keeper, self._masks, self._ids, self._withdraw = keeper, masks, ids, withdraw
        self._keeps_values, self._every_row = keeps_values, every_row
        self._growing: dict[tuple[str, int, int], Growing] = {}

    # What a call belongs to.

    def origin(self, call: interception.Call) -> Origin:
        """Where the keys of a call come from that begins a record."""
        key, value, update = call.key, call.value, call.update
        if update is not None:
            before = update.before() if callable(update.before) else update.before
            if before == 0 and _is_as_returned(update, key, value):
                return Origin(update.keys, update.values, before)
            returned = update.returned()
            if returned is not None and returned.shape[-2] < key.shape[-2]:
                return Origin(key, value, is_joined=True)  # with keys of another cache
            return Origin(*_cut(key, value, before + update.length), before)
        source = self._source(key)
        if source is None or key.shape[-2] < source.record.keys.length:  # a window left some behind
            return Origin(key, value)
        return Origin(*_cut(key, value, source.record.keys.length), source=source)

    def begin(self, record: Record, call: interception.Call, origin: Origin) -> None:
        """A record that later calls may go on with."""
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
        self._growing[record.name, layer, cache] = Growing(
            record,
            cache,
            layer,
            first,
            weakref.ref(call.key),
            is_reader=source is not None,
            every_row=self._every_row or not call.is_known,
        )

    def has(self, name: str, call: interception.Call) -> bool:
        """Whether a call goes on with a generation that it could not be joined to."""
        update = call.update
        return update is not None and (name, update.layer, update.cache) in self._growing

    def grow(self, name: str, call: interception.Call) -> bool:
        """Add a step to the generation that it belongs to; False where it belongs to none."""
        query, key, value, update = call.query, call.key, call.value, call.update
        if update is None:
            growing = self._reader_of(name, key)
        else:
            growing = self._growing.get((name, update.layer, update.cache))
        if growing is None or not isinstance(query, Tensor) or not isinstance(value, Tensor):
            return False
        record, rows, new_key, new_value = growing.record, query.shape[-2], None, None
        if update is not None:
            total = growing.first + record.keys.length
            before = total if callable(update.before) else update.before
            if before < total and not self._is_settled(growing):
                return False
            if not max(growing.first, 1) <= before <= total or not record.forget(total - before):
                return False
        elif growing.is_reader:  # its keys have grown already; queries taken back are behind them
            offset = record.visibility.first[1] - record.visibility.first[0]
            surplus = record.queries.length + rows + offset - record.keys.length
            if surplus and not self._is_settled(growing):
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
                # Attention reads what was made of the cache; the last rows of that are new.
                end = min(key.shape[-2], before + update.length)
                new_key, new_value = (x[..., end - update.length : end, :] for x in (key, value))
                new_key, new_value = new_key.clone(), new_value.clone()
        low = max(0, growing.first + keys - key.shape[-2]) - growing.first
        if low < 0 or (low and not self._is_settled(growing)):
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
            growing.key = weakref.ref(key)
        if call.context is not None and not call.dropout and call.projection is None:
            # A window forgets the keys that earlier rows have seen.
            seen = nn.functional.pad(value, (0, 0, low, 0)) if low else value
            read = key if is_own and not low and isinstance(key, Tensor) else None
            waiting = growing.add(call.context, seen, read)
            if low or growing.every_row or waiting >= STEPS_TOGETHER:
                self._is_settled(growing)
        return True

    def _reader_of(self, name: str, key: Part) -> Growing | None:
        """What a call goes on with that puts no keys into a cache.

        It reads those of an encoder, the same step after step, or those of another layer.
        """
        for growing in self._growing.values():
            if growing.record.name == name and growing.key() is key:
                return growing
        source = self._source(key)
        return None if source is None else self._growing.get((name, source.layer, source.cache))

    def _source(self, key: Part) -> Growing | None:
        """The layer that has put these keys into a cache."""
        for growing in self._growing.values():
            if not growing.is_reader and growing.key() is key:
                return growing
        return None

    # What happens to caches.

    def settle(self, cache: int | None = None, layer: int | None = None) -> None:
        """Prove what is yet to be proven, of one cache or of all."""
        for growing in self._of(cache, layer):
            self._is_settled(growing)

    def crop(self, cache: int, length: Callable[[int], int]) -> None:
        """A cache has forgotten its latest keys, and now holds so many in each layer."""
        self.settle(cache)
        for growing in sorted(self._of(cache), key=lambda one: one.is_reader):
            count = growing.first + growing.record.keys.length - length(growing.layer)
            if not growing.record.forget(count, keys_too=not growing.is_reader):
                self._let_go(growing)  # the next call begins a record of its own

    def reorder(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        """The texts in a cache were put in another order, (batch,); and the keys of its layers."""
        done: set[int] = set()
        for growing in self._of(cache):
            if not growing.record.reorder(items, done):
                self._is_settled(growing)
                self._break(growing, "its beams see different keys")
                continue
            for pieces in (growing.contexts, growing.value, growing.read):
                if pieces is not None:
                    pieces.reorder(items)
            growing.key = weakref.ref(keys(growing.layer))

    def disturb(self, cache: int, what: str, layer: int | None = None) -> None:
        """A cache, or one layer of it, was changed in another way."""
        for growing in self._of(cache, layer):
            if what == "edit":  # what was used is no longer there to be compared with
                growing.contexts = None
            self._is_settled(growing)
        for growing in self._of(cache, layer):
            if what in ("reset", "edit"):  # after these, what comes is a record of its own
                self._let_go(growing)
            else:
                self._break(growing, f"'{what}' changed its cache, as beam search does")

    def _of(self, cache: int | None, layer: int | None = None) -> list[Growing]:
        return [
            growing
            for growing in self._growing.values()
            if cache in (None, growing.cache) and layer in (None, growing.layer)
        ]

    def _is_settled(self, growing: Growing) -> bool:
        """Prove the latest steps; False where they contradict the record, which is taken back."""
        try:
            growing.prove()
        except Contradiction as contradiction:
            self._let_go(growing)
            self._withdraw(growing.record, str(contradiction), True)
            return False
        except ArgumentError as error:  # what was recorded has been written to since
            self._let_go(growing)
            self._withdraw(growing.record, f"cannot be proven: {error}", True)
            return False
        return True

    def _break(self, growing: Growing, why: str) -> None:
        """A generation that cannot be one record."""
        self._let_go(growing)
        self._withdraw(
            growing.record,
            f"cannot be joined, since {why}; generate one text at a time or with num_beams=1, or "
            "watch one forward pass over what was generated",
            False,
        )

    def _let_go(self, growing: Growing) -> None:
        self._growing = {at: some for at, some in self._growing.items() if some is not growing}


def _is_same(read: Tensor, kept: Tensor) -> bool:
    """Whether the keys of a cache are those that were kept, which may be elsewhere or shorter."""
    if (read.dtype, read.device) != (kept.dtype, kept.device) or kept.shape[-2] > read.shape[-2]:
        return True
    return torch.equal(read[..., : kept.shape[-2], :], kept)


def _is_as_returned(update: interception.CacheUpdate, key: Part, value: Part) -> bool:
    """Whether attention reads what the cache gave back, and nothing that was made of it."""
    return update.returned() is key and update.returned_values() is value


def logsumexp_of(call: interception.Call, keeper: Keeper) -> Tensor | None:
    """(batch, heads, queries): what the kernel found, if that is the logsumexp of the record."""
    found = call.logsumexp
    if found is None or found.shape != call.query.shape[:-1]:
        return None
    added = (*call.given, call.bias, call.softcap, call.sinks, keeper.dtype)
    return None if any(x is not None for x in added) else keeper.keep(found)


def _cut(key: Part, value: Part, length: int) -> tuple[Tensor, Tensor]:
    """Without the slots of a static cache that hold nothing yet."""
    assert isinstance(key, Tensor)
    assert isinstance(value, Tensor)
    return key[..., :length, :], value[..., :length, :]

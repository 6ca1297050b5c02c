"""watch(): record every attention of a model that someone else wrote.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

While a watch is open, the functions that compute attention are wrapped (see `taps`). They run as
ever; what they were given is referred to, not copied, and weights are computed when somebody asks.
"""

import math
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import selection, taps
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.record import Part, Pieces, Record
from pellucid.lens.recording import Recording
from pellucid.lens.replay import Prover

READ_KEPT = 4
"""Rows of token ids that are kept to tell which tokens a later call is about."""


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


class Watch(Recording):
    """What `watch` gives: a recording that grows while it is open."""

    def __init__(
        self,
        model: nn.Module,
        layers: selection.Layers | None,
        values: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        tokenizer: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeMismatchError(
                f"model must be a torch.nn.Module, not {type(model).__module__}."
                f"{type(model).__qualname__}"
            )
        if dtype is not None and not dtype.is_floating_point:
            raise TypeMismatchError(f"dtype must be a float dtype, got {dtype}")
        super().__init__(type(model).__name__, tokenizer=tokenizer)
        self._model: nn.Module | None = model
        self._parts = selection.parts(model)
        self._modules = dict(self._parts)
        self._chosen = None if layers is None else selection.names(self._parts, layers)
        self._values = values
        self._device = None if device is None else torch.device(device)
        self._dtype = dtype
        self._lost: dict[str, str] = {}
        self._forget()

    def _forget(self) -> None:
        """All that only an open watch needs."""
        self._names: dict[int, str] = {}
        self._embedding: Tensor | None = None
        self._growing: dict[tuple[str, int, int], Growing] = {}
        self._broken: dict[str, str] = {}
        self._refused: set[str] = set()
        self._read: list[Tensor] = []
        self._masks = MaskReader(self._device)
        self._prover = Prover()

    def __enter__(self) -> "Watch":
        if self._model is None:
            raise ArgumentError("this watch is over; call pellucid.watch(model) for another")
        self._names = {id(part): name for name, part in self._parts}
        self._embedding = selection.token_embedding(self._model)
        taps.add(self, eagerly=selection.is_compiled(self._parts))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        taps.remove(self)
        self._unseen = self.unseen
        # What was recorded outlives the model, and does not keep it alive.
        self._model, self._parts, self._modules = None, [], {}
        self._forget()

    @property
    def unseen(self) -> dict[str, str]:
        """Modules that look like attention and made no recordable call, each with the reason."""
        if self._model is None:
            return self._unseen
        recorded = {record.name for record in self._records}
        silent = selection.silent(self._parts, recorded | self._lost.keys(), self._chosen)
        if self._names:
            reason = "made no attention call that is known here"
        else:
            reason = "was not watched: say `with pellucid.watch(model) as seen:`"
        return dict.fromkeys(silent, reason) | self._lost

    # What the taps tell.

    def name_of(self, module: nn.Module) -> str | None:
        return self._names.get(id(module))

    def files(self) -> Iterable[ModuleType]:
        names = {type(part).__module__ for _, part in self._parts}
        return [sys.modules[name] for name in names if name in sys.modules]

    def missed(self, name: str, reason: str) -> None:
        if self._chosen is None or name in self._chosen:
            self._lost[name] = reason

    def read(self, ids: Tensor, weight: Tensor) -> None:
        if weight is self._embedding and ids.ndim:
            self._read = [ids.reshape(-1, ids.shape[-1]), *self._read[: READ_KEPT - 1]]

    def cropped(self, cache: int, length: Callable[[int], int]) -> None:
        counts = {
            place: growing.first + growing.record.keys.length - length(growing.layer)
            for place, growing in self._growing.items()
            if growing.cache == cache
        }
        for place, count in sorted(
            counts.items(), key=lambda item: self._growing[item[0]].is_reader
        ):
            growing = self._growing[place]
            if not growing.record.forget(count, keys_too=not growing.is_reader):
                del self._growing[place]  # what comes is a record of its own

    def disturbed(self, cache: int, what: str, layer: int | None = None) -> None:
        for place, growing in list(self._growing.items()):
            if growing.cache != cache or layer not in (None, growing.layer):
                continue
            record = self._growing.pop(place).record
            if what not in ("reset", "edit"):  # after these, what comes is a record of its own
                alone = "one text at a time" if what == "select" else "with num_beams=1"
                self._broken[record.name] = (
                    f"cannot be joined, since '{what}' changed its cache, as beam search does; "
                    f"generate {alone}, or watch one forward pass over what was generated"
                )
                self._records = [some for some in self._records if some is not record]

    def heard(self, name: str, call: taps.Call) -> None:
        update = call.update
        if name in self._refused or (self._chosen is not None and name not in self._chosen):
            return
        if update is not None and update.before == 0:
            self._broken.pop(name, None)
        if name in self._broken:
            self.missed(name, self._broken[name])
        elif update is not None and update.lossy:
            self.missed(name, "reads a quantized cache, which is not recorded")
        elif not self._grow(name, call):
            self._begin(name, call)

    # What is made of it.

    def _begin(self, name: str, call: taps.Call) -> None:
        """Record a call by itself, or the first of a generation."""
        key, value, before, source = self._whole(call)
        queries, keys = call.query.shape[-2], key.shape[-2]
        visibility, bias = self._masks.rule_of(call, queries, keys)
        cross = selection.is_cross(name) or (before == 0 and queries != keys and source is None)
        context, logsumexp = self._context(call), self._logsumexp(call)
        ids = self._ids(call, queries)
        key_ids = self._ids(call, keys, unlike=ids if cross else None)
        record = Record(
            name=name,
            queries=self._kept(call.query),
            keys=self._kept(key) if source is None else source.record.keys,
            visibility=visibility,
            biases=[] if bias is None else [self._moved(bias)],
            scale=call.scale,
            softcap=call.softcap,
            sinks=None if call.sinks is None else self._moved(call.sinks.view_as(call.sinks)),
            logsumexps=None if logsumexp is None else Pieces(logsumexp, -1),
            values=self._kept(value) if self._values else None,
            contexts=None if context is None else self._kept(context),
            query_tokens=None if ids is None else Pieces(ids, -1),
            key_tokens=None if key_ids is None else Pieces(key_ids, -1),
            is_cross=cross,
            latest_queries=queries,
            output_weight=None if call.projection is None else call.projection[0].detach(),
        )
        if source is not None:  # what is read by two layers grows once
            record.values, record.key_tokens = source.record.values, source.record.key_tokens
        wrong = self._prover.contradiction(self._modules[name], record, call, value)
        if wrong is not None:
            self._refused.add(name)
            self.missed(name, wrong)
            return
        self._records.append(record)
        origin = call.update or source
        if origin is None or not isinstance(call.key, Tensor):
            return
        first = origin.first if isinstance(origin, Growing) else before + origin.length - keys
        self._growing[name, origin.layer, origin.cache] = Growing(
            record, origin.cache, origin.layer, first, weakref.ref(call.key), source is not None
        )

    def _whole(self, call: taps.Call) -> tuple[Part, Part, int, Growing | None]:
        """All keys and values that a call reads, and where they come from.

        Returns:
            keys, values, how many keys the cache had before, and the layer that the keys were taken
            from where it is another.
        """
        key, value, update = call.key, call.value, call.update
        if update is not None:
            before = update.before() if callable(update.before) else update.before
            if before == 0 and update.returned() is key:
                return update.keys, update.values, before, None
            return *_cut(key, value, before + update.length), before, None
        source = self._source(key)
        if source is None or key.shape[-2] < source.record.keys.length:  # a window left some behind
            return key, value, 0, None
        return *_cut(key, value, source.record.keys.length), 0, source

    def _grow(self, name: str, call: taps.Call) -> bool:
        """Add a step to the generation that it belongs to; False where it belongs to none."""
        query, key, value, update = call.query, call.key, call.value, call.update
        if update is None:
            growing = self._reader_of(name, key)
        else:
            growing = self._growing.get((name, update.layer, update.cache))
        if growing is None or not isinstance(query, Tensor):
            return False
        record, rows, new_key, new_value = growing.record, query.shape[-2], None, None
        if update is not None:
            total = growing.first + record.keys.length
            before = total if callable(update.before) else update.before
            if not max(growing.first, 1) <= before <= total or not record.forget(total - before):
                return False
        elif growing.is_reader:  # its keys have grown already; queries taken back are behind them
            offset = record.visibility.first[1] - record.visibility.first[0]
            surplus = record.queries.length + rows + offset - record.keys.length
            if surplus < 0 or not record.forget(surplus, keys_too=False):
                return False
        row, keys = record.queries.length, record.keys.length
        if update is not None:
            keys += update.length
            if update.returned() is key:
                new_key, new_value = update.keys, update.values
            elif isinstance(key, Tensor) and isinstance(value, Tensor):
                # Attention reads what was made of the cache; the last rows of that are new.
                end = min(key.shape[-2], before + update.length)
                new_key, new_value = (
                    x[..., end - update.length : end, :].clone() for x in (key, value)
                )
        low = max(0, growing.first + keys - key.shape[-2]) - growing.first
        if low < 0:
            return False
        visibility = self._masks.grown(record.visibility, call, row, rows, low, keys)
        if visibility is None:
            return False
        bias = call.bias
        if bias is not None:
            bias = nn.functional.pad(bias[..., : keys - low], (low, 0))
        context = self._context(call)
        record.add(
            visibility,
            self._moved(query),
            None if new_key is None else self._moved(new_key),
            value=None if new_value is None or not self._values else self._moved(new_value),
            context=None if context is None else self._moved(context),
            bias=None if bias is None else self._moved(bias),
            logsumexp=self._logsumexp(call),
            ids=self._ids(call, rows),
        )
        if isinstance(key, Tensor):
            growing.key = weakref.ref(key)
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

    def _ids(self, call: taps.Call, length: int, unlike: Tensor | None = None) -> Tensor | None:
        """(batch, length) ids of the tokens that were read last and are so many."""
        outer = call.query.shape[:-3]
        batch = outer[0] if len(outer) == 1 else math.prod(outer)
        for ids in self._read:
            if ids.shape == (batch, length) and ids is not unlike:
                return ids
        return None

    def _context(self, call: taps.Call) -> Tensor | None:
        """What to keep of what a call returned."""
        return call.context if self._values and call.projection is None else None

    def _logsumexp(self, call: taps.Call) -> Tensor | None:
        """What the kernel found, if that is the logsumexp of what is recorded."""
        found = call.logsumexp
        if found is None or found.shape != call.query.shape[:-1]:
            return None
        added = (*call.given, call.bias, call.softcap, call.sinks, self._dtype)
        return None if any(x is not None for x in added) else self._moved(found)

    def _kept(self, part: Part) -> Pieces:
        if self._device is None and self._dtype is None:
            return Pieces(_own(part) if isinstance(part, Tensor) else part)
        return Pieces(self._moved(Pieces(part).tensor))

    def _moved(self, tensor: Tensor) -> Tensor:
        if self._device is None and self._dtype is None:
            return tensor
        return tensor.to(device=self._device, dtype=self._dtype)


def watch(
    model: nn.Module,
    layers: selection.Layers | None = None,
    *,
    values: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
) -> Watch:
    """Record the attention of `model` while the context is open.

        with pellucid.watch(model) as seen:
            model(**inputs)

    The model is not changed, and nothing is left behind on exit or on an exception. Watches may
    nest and overlap, and see the calls of every thread. It sees Hugging Face models through the
    attention interface, whatever the implementation; whoever calls
    `F.scaled_dot_product_attention`; `nn.MultiheadAttention` and `nn.TransformerEncoder`, on their
    fast path too. What looks like attention and made no call that could be recorded stands in
    `seen.unseen`. What is recorded is proven, once for all modules of a class that are configured
    and called alike: a few rows are computed again from the record, and a module whose output is
    something else is unseen, with the reason.

    The steps of a generation are joined to one record a layer, each key held once.

    Args:
        model: any `torch.nn.Module`. A compiled one runs eagerly while it is watched, as do all
            other compiled functions of the program: their outputs differ by rounding.
        layers: what to keep: layer numbers, from the end where negative (the first number in a
            module's name), names of modules, or patterns of names such as "decoder.*.self_attn".
        values: keep what attention moves, values and contexts, as `lens.attribution` needs; that
            is as much again as queries and keys.
        device: where to keep queries and keys, "cpu" to spare an accelerator's memory.
        dtype: what to keep them in; a shorter one saves memory and costs digits.
        tokenizer: of Hugging Face, to show tokens as it writes them.

    Raises:
        TypeMismatchError: model is no module, or dtype no float type.
        UnknownNameError: no module has what `layers` asks for; the message lists near names.
    """
    return Watch(model, layers, values, device, dtype, tokenizer)


def _cut(key: Part, value: Part, length: int) -> tuple[Tensor, Tensor]:
    """Without the slots of a static cache that hold nothing yet."""
    assert isinstance(key, Tensor)
    assert isinstance(value, Tensor)
    return key[..., :length, :], value[..., :length, :]


def _own(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that is written in place, as a static cache is.

    In inference mode nobody counts what is written, and so all is copied.
    """
    return tensor.clone() if tensor.is_inference() or tensor._version else tensor

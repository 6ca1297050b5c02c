"""watch(): record every attention of a model that someone else wrote.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

While a watch is open, the functions that compute attention are wrapped (see `taps`). They run as
ever; what they were given is referred to, not copied, and weights are computed when somebody asks.
"""

import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.attention.weights import readable_bytes
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import selection, taps
from pellucid.lens.calls import RunningCall, running
from pellucid.lens.labels import Labels
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.proof import Contradiction, Evidence, Proof, prove
from pellucid.lens.recognise import Recognised
from pellucid.lens.record import Keeper, Part, Pieces, Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility

STEPS_TOGETHER = 64
"""Steps of a generation that are proven together."""
WEIGHTS_LIMIT = 2**32
"""Bytes of weights that are kept where they cannot be had from query and key: 4 GiB."""
GENERATING = re.compile("generate", re.IGNORECASE)
"""What methods are called in which several passes make one text."""
PROOFS = ("some rows", "every row")


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
    unproven: list[Tensor] = field(default_factory=list)
    """Contexts of the latest steps, (batch, heads, queries, value_dim)."""
    value: Tensor | None = None
    """All values up to the latest step."""
    every_row: bool = False

    def settle(self) -> str | None:
        """Prove the latest steps; how they contradict the record, if they do."""
        contexts, self.unproven, value, self.value = self.unproven, [], self.value, None
        if not contexts or value is None:
            return None
        record, context = self.record, torch.cat(contexts, -2)
        # Keys that another layer has added since are behind these rows.
        missing = record.keys.length - value.shape[-2]
        value = nn.functional.pad(value, (0, 0, 0, missing)) if missing > 0 else value
        first = record.queries.length - context.shape[-2]
        evidence = Evidence(
            record=record,
            value=value[..., : record.keys.length, :],
            context=context,
            first=first,
            every_row=self.every_row,
        )
        try:
            with taps.unheard():
                found = prove(evidence)
        except Contradiction as contradiction:
            return str(contradiction)
        record.proof = found if record.proof is None else record.proof.joined(found)
        return None


class Watch(Recording):
    """What `watch` gives: a recording that grows while it is open."""

    def __init__(
        self,
        model: nn.Module,
        layers: selection.Layers | None,
        values: bool,
        keeper: Keeper,
        tokenizer: Any,
        *,
        proof: str,
        everyone: bool,
        weights_limit: int | None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeMismatchError(
                f"model must be a torch.nn.Module, not {type(model).__module__}."
                f"{type(model).__qualname__}"
            )
        if keeper.dtype is not None and not keeper.dtype.is_floating_point:
            raise TypeMismatchError(f"dtype must be a float dtype, got {keeper.dtype}")
        if proof not in PROOFS:
            raise ArgumentError(f"proof must be one of {', '.join(PROOFS)}; got {proof!r}")
        super().__init__(type(model).__name__, tokenizer=tokenizer)
        self._model: nn.Module | None = model
        self._parts = selection.parts(model)
        self._modules = dict(self._parts)
        self._chosen = None if layers is None else selection.names(self._parts, layers)
        self._values = values
        self._keeper = keeper
        self._every_row = proof == "every row"
        self._everyone = everyone
        self._weights_limit = weights_limit
        self._lost: dict[str, str] = {}
        self._placeholders = selection.placeholders(model)
        self._forget()

    def _forget(self) -> None:
        """All that only an open watch needs."""
        self._names: dict[int, str] = {}
        self._labels: Labels | None = None
        self._growing: dict[tuple[str, int, int], Growing] = {}
        self._broken: dict[str, str] = {}
        self._refused: set[str] = set()
        self._run: RunningCall | None = None
        self._turns: dict[str, list[Record]] = {}
        self._masks = MaskReader(self._keeper)
        self._memory: frozenset[int] | None = None
        self._widths: frozenset[int] | None = None
        self._kept_weights = 0

    def __enter__(self) -> "Watch":
        if self._model is None:
            raise ArgumentError("this watch is over; call pellucid.watch(model) for another")
        self._names = {id(part): name for name, part in self._parts}
        self._labels = Labels(self._model, self._parts)
        taps.add(self, everywhere=self._everyone)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        taps.remove(self)
        self._settle()
        self._unseen = self.unseen
        # What was recorded outlives the model, and does not keep it alive.
        self._model, self._parts, self._modules = None, [], {}
        self._forget()

    @property
    def unseen(self) -> dict[str, str]:
        """Modules that attend, or look like it, and could not be recorded, each with the reason."""
        if self._model is None:
            return self._unseen
        recorded = {record.name for record in self._records}
        silent = selection.silent(self._parts, recorded | self._lost.keys(), self._chosen)
        if self._names:
            reason = "has made no attention call and no softmax: it was not run, or has no n x n weights"
        else:
            reason = "was not watched: say `with pellucid.watch(model) as seen:`"
        return dict.fromkeys(silent, reason) | self._lost

    # What the taps ask.

    def name_of(self, module: nn.Module) -> str | None:
        return self._names.get(id(module))

    def module_of(self, name: str) -> nn.Module:
        return self._modules[name]

    def files(self) -> Iterable[ModuleType]:
        names = {type(part).__module__ for _, part in self._parts}
        return [sys.modules[name] for name in names if name in sys.modules]

    def wants(self, name: str) -> bool:
        return name not in self._refused and (self._chosen is None or name in self._chosen)

    def is_parameter(self, tensor: Tensor) -> bool:
        if self._memory is None:
            assert self._model is not None
            memory = (x.untyped_storage()._cdata for x in self._model.parameters())
            self._memory = frozenset(memory)
        return tensor.untyped_storage()._cdata in self._memory

    def widths(self) -> frozenset[int]:
        if self._widths is None:
            assert self._model is not None
            self._widths = frozenset(n for x in self._model.parameters() for n in x.shape)
        return self._widths

    # What the taps tell.

    def missed(self, name: str, reason: str) -> None:
        if self._chosen is None or name in self._chosen:
            self._lost[name] = reason

    def read(self, ids: Tensor, weight: Tensor) -> None:
        if self._labels is not None:
            self._labels.read(ids, weight)

    def cropped(self, cache: int, length: Callable[[int], int]) -> None:
        self._settle(cache)
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

    def rewound(self, cache: int, layer: int | None = None) -> None:
        for growing in list(self._growing.values()):
            if growing.cache == cache and layer in (None, growing.layer):
                self._settled(growing)

    def disturbed(self, cache: int, what: str, layer: int | None = None) -> None:
        if what == "edit":  # done already: what was used is no longer there to be compared with
            for growing in self._growing.values():
                if growing.cache == cache:
                    growing.unproven.clear()
        self._settle(cache)
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
                self._drop(record)

    def heard(self, name: str, call: taps.Call | taps.Made) -> None:
        if not self.wants(name):
            return
        if self._labels is not None:
            self._labels.attended(name)
        if isinstance(call, taps.Made):
            self._keep_weights(name, call)
            return
        update = call.update
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
        keep = self._keeper
        context = call.context if self._values and call.projection is None else None
        logsumexp = self._logsumexp(call)
        ids, key_ids = self._ids(name, call.query.shape[0], queries, keys, cross)
        record = Record(
            name=name,
            queries=keep.pieces(call.query),
            keys=keep.pieces(key) if source is None else source.record.keys,
            visibility=visibility,
            biases=[] if bias is None else [bias],
            scale=call.scale,
            softcap=call.softcap,
            sinks=None if call.sinks is None else call.sinks.to(keep.device).clone(),
            logsumexps=None if logsumexp is None else Pieces(logsumexp, -1),
            values=keep.pieces(value) if self._values else None,
            contexts=None if context is None else keep.pieces(context),
            query_tokens=None if ids is None else Pieces(ids, -1),
            key_tokens=None if key_ids is None else Pieces(key_ids, -1),
            is_cross=cross,
            latest_queries=queries,
            output_weights=None if call.projection is None else Pieces(call.projection[0].detach()),
        )
        if source is not None:  # what is read by two layers grows once
            record.values, record.key_tokens = source.record.values, source.record.key_tokens
        if not self._is_proven(record, call, value):
            return
        self._add(record, has_cache=call.update is not None)
        origin = call.update or source
        if origin is None or not isinstance(call.key, Tensor):
            return
        first = origin.first if isinstance(origin, Growing) else before + origin.length - keys
        self._growing[name, origin.layer, origin.cache] = Growing(
            record,
            origin.cache,
            origin.layer,
            first,
            weakref.ref(call.key),
            source is not None,
            every_row=self._every_row or not call.is_known,
        )

    def _is_proven(self, record: Record, call: taps.Call, value: Part) -> bool:
        """Prove a record, keep the weights where the model has made others, or say so."""
        if call.made is None and (call.context is None or call.dropout):
            why = "dropout is drawn anew" if call.dropout else "the call returns no context of its own"
            record.proof = Proof(0, record.shape[0] * record.shape[-2], reason=why)
            return True
        # An empty slot of a static cache has a share of a padding row; it is not kept.
        is_cut = record.keys.length < call.key.shape[-2]
        made = call.made if call.made is not None and call.made.shape == record.shape else None
        try:
            record.proof = prove(
                Evidence(
                    record=record,
                    value=value,
                    context=call.context,
                    weights=made,
                    projection=call.projection,
                    without=record.visibility.uniform if is_cut else None,
                    every_row=self._every_row or not call.is_known,
                )
            )
        except Contradiction as contradiction:
            if call.made is None:
                self._refused.add(record.name)
                self.missed(record.name, str(contradiction))
            else:
                context = call.context if call.projection is None else None
                given = value if isinstance(value, Tensor) else None
                made = taps.Made(weights=call.made, value=given, context=context)
                self._keep_weights(record.name, made)
            return False
        return True

    def _keep_weights(self, name: str, made: taps.Made) -> None:
        """Record weights themselves."""
        weights = made.weights
        size = weights.numel() * weights.itemsize
        if self._weights_limit is not None and self._kept_weights + size > self._weights_limit:
            self.missed(
                name,
                f"makes weights that no query and key give, {readable_bytes(size)} of them, which "
                f"is beyond the {readable_bytes(self._weights_limit)} of weights_limit",
            )
            return
        if not made.is_plain and weights.numel() and bool(weights.amin() < 0):
            self.missed(name, "mixes its weights so that some are negative, which is not recorded")
            return
        batch, _, queries, keys = weights.shape
        cross = selection.is_cross(name)
        ids, key_ids = self._ids(name, batch, queries, keys, cross)
        given = self._values and made.value is not None and made.context is not None
        self._kept_weights += size
        record = Record(
            name=name,
            kept="weights",
            queries=self._keeper.pieces(weights),
            keys=Pieces(torch.arange(keys, device=weights.device)[None, None, :, None]),
            visibility=Visibility.of(
                Recognised(None, None, None), queries, keys, self._keeper.device or weights.device
            ),
            values=self._keeper.pieces(made.value) if given and made.value is not None else None,
            contexts=self._keeper.pieces(made.context) if given and made.context is not None else None,
            query_tokens=None if ids is None else Pieces(ids, -1),
            key_tokens=None if key_ids is None else Pieces(key_ids, -1),
            is_cross=cross,
            latest_queries=queries,
            proof=Proof(batch * queries, batch * queries),
        )
        self._add(record)

    def _add(self, record: Record, has_cache: bool = False) -> None:
        """Put a record with the others, and tell which stream it is."""
        if has_cache:
            if self._run is None or not self._run.is_among(running()):
                self._run, self._turns = self._generation(), {}
            turns = self._turns.setdefault(record.name, [])
            record.stream = len(turns)
            turns.append(record)
        self._records.append(record)

    def _drop(self, record: Record) -> None:
        self._records = [some for some in self._records if some is not record]

    def _generation(self) -> RunningCall | None:
        """The call that generates, if one does: passes within it may take turns."""
        for frame, module in taps.running_modules(sys._getframe(2)):
            if module is self._model and GENERATING.search(frame.f_code.co_name):
                return RunningCall.of(frame)
        return None

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
        if growing is None or not isinstance(query, Tensor) or not isinstance(value, Tensor):
            return False
        record, rows, new_key, new_value = growing.record, query.shape[-2], None, None
        if update is not None:
            total = growing.first + record.keys.length
            before = total if callable(update.before) else update.before
            if before < total and not self._settled(growing):
                return False
            if not max(growing.first, 1) <= before <= total or not record.forget(total - before):
                return False
        elif growing.is_reader:  # its keys have grown already; queries taken back are behind them
            offset = record.visibility.first[1] - record.visibility.first[0]
            surplus = record.queries.length + rows + offset - record.keys.length
            if surplus and not self._settled(growing):
                return False
            if surplus < 0 or not record.forget(surplus, keys_too=False):
                return False
        row, keys = record.queries.length, record.keys.length
        if update is not None:
            keys += update.length
            if update.returned() is key:
                new_key, new_value = update.keys, update.values
            elif isinstance(key, Tensor):
                # Attention reads what was made of the cache; the last rows of that are new.
                end = min(key.shape[-2], before + update.length)
                new_key, new_value = (
                    x[..., end - update.length : end, :].clone() for x in (key, value)
                )
        low = max(0, growing.first + keys - key.shape[-2]) - growing.first
        if low < 0 or (low and not self._settled(growing)):
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
            value=None if new_value is None or not self._values else keep(new_value),
            context=keep(call.context) if self._values and call.context is not None else None,
            bias=None if bias is None else Pieces(keep(bias)),
            logsumexp=self._logsumexp(call),
            ids=None if record.query_tokens is None else self._step_ids(name, query.shape[0], rows),
        )
        if isinstance(key, Tensor):
            growing.key = weakref.ref(key)
        if call.context is not None and not call.dropout and call.projection is None:
            growing.unproven.append(call.context)
            # A window forgets the keys that earlier rows have seen.
            growing.value = nn.functional.pad(value, (0, 0, low, 0)) if low else value
            if low or self._every_row or len(growing.unproven) >= STEPS_TOGETHER:
                self._settled(growing)
        return True

    def _settled(self, growing: Growing) -> bool:
        """Prove the latest steps of a generation; False, and said, where they contradict it."""
        wrong = growing.settle()
        if wrong is None:
            return True
        record = growing.record
        self._refused.add(record.name)
        self.missed(record.name, wrong)
        self._growing = {at: some for at, some in self._growing.items() if some is not growing}
        self._drop(record)
        return False

    def _settle(self, cache: int | None = None) -> None:
        for growing in list(self._growing.values()):
            if cache in (None, growing.cache):
                self._settled(growing)

    def _all(self) -> list[Record]:
        self._settle()
        return self._records

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

    def _ids(
        self, name: str, batch: int, queries: int, keys: int, cross: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """(batch, queries) and (batch, keys) ids of the tokens that are queries and keys."""
        if self._labels is None:
            return None, None
        ids = self._labels.of_queries(name, batch, queries)
        if cross:
            return ids, self._labels.of_other_keys(name, batch, keys)
        return ids, ids if queries == keys else None

    def _step_ids(self, name: str, batch: int, rows: int) -> Tensor | None:
        return None if self._labels is None else self._labels.of_queries(name, batch, rows)

    def _logsumexp(self, call: taps.Call) -> Tensor | None:
        """What the kernel found, if that is the logsumexp of what is recorded."""
        found = call.logsumexp
        if found is None or found.shape != call.query.shape[:-1]:
            return None
        added = (*call.given, call.bias, call.softcap, call.sinks, self._keeper.dtype)
        return None if any(x is not None for x in added) else self._keeper.keep(found)


def watch(
    model: nn.Module,
    layers: selection.Layers | None = None,
    *,
    values: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
    proof: Literal["some rows", "every row"] = "some rows",
    everyone: bool = False,
    weights_limit: int | None = WEIGHTS_LIMIT,
) -> Watch:
    """Record the attention of `model` while the context is open.

        with pellucid.watch(model) as seen:
            model(**inputs)

    The model is not changed, and nothing is left behind on exit or on an exception. Watches may
    nest and overlap. It sees Hugging Face models through the attention interface, whatever the
    implementation; whoever calls `F.scaled_dot_product_attention`, by whatever name;
    `nn.MultiheadAttention` and `nn.TransformerEncoder`, on their fast path too; and whoever writes
    softmax(query @ key.T) @ value by hand. What attends and could not be recorded stands in
    `seen.unseen`, with the reason. Every call is proven: rows drawn at random are computed again
    from the record (`seen.proof` says to what error), and where they are not what the model got,
    the weights that it has made are kept, or the module is unseen.

    The steps of a generation are joined to one record a layer, each key held once.

    Args:
        model: any `torch.nn.Module`. While a watch is open, compiled code of this program runs
            eagerly: its outputs differ by rounding.
        layers: what to keep: layer numbers, from the end where negative (the first number in a
            module's name), names of modules, or patterns of names such as "decoder.*.self_attn".
        values: keep what attention moves, values and contexts, as `lens.attribution` needs; that
            is as much again as queries and keys.
        device: where to keep queries and keys, "cpu" to spare an accelerator's memory. With device
            or dtype, what is kept is a copy.
        dtype: what to keep them in; a shorter one saves memory and costs digits.
        tokenizer: of Hugging Face, to show tokens as it writes them.
        proof: "some rows", a few of each call, and every one where the function that computes
            attention is neither torch's nor transformers'; or "every row", which costs the scores
            once more.
        everyone: hear every thread and task that calls the model, and not only this one and those
            that are begun in it.
        weights_limit: bytes of weights to keep of models that make their weights by hand, where
            query, key and mask do not give them again; None = no limit.

    Raises:
        TypeMismatchError: model is no module, or dtype no float type.
        ArgumentError: another `proof`.
        UnknownNameError: no module has what `layers` asks for; the message lists near names.
    """
    return Watch(
        model,
        layers,
        values,
        Keeper(None if device is None else torch.device(device), dtype),
        tokenizer,
        proof=proof,
        everyone=everyone,
        weights_limit=weights_limit,
    )


def _cut(key: Part, value: Part, length: int) -> tuple[Tensor, Tensor]:
    """Without the slots of a static cache that hold nothing yet."""
    assert isinstance(key, Tensor)
    assert isinstance(value, Tensor)
    return key[..., :length, :], value[..., :length, :]

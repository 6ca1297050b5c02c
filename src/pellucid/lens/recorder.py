"""watch(): record every attention of a model that someone else wrote.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

While a watch is open, the functions that compute attention are wrapped (see `interception`). They
run as ever; what they were given is referred to, not copied, and weights are computed when somebody
asks.
"""

import re
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.attention.limits import readable_bytes
from pellucid.common.interrupts import held_back
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import interception, module_names
from pellucid.lens.generations import Generations, logsumexp_of
from pellucid.lens.interception import call_stack
from pellucid.lens.interception.audit import Audit
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.pieces import Keeper, Part, Pieces
from pellucid.lens.proof import Contradiction, Evidence, prove
from pellucid.lens.record import Proof, Record
from pellucid.lens.recording import Recording
from pellucid.lens.running_calls import RunningCall, innermost
from pellucid.lens.token_ids import TokenIds
from pellucid.lens.unseen import unseen
from pellucid.lens.visibility import Visibility

WEIGHTS_LIMIT = 2**32
"""Bytes of weights that are kept where they cannot be had from query and key: 4 GiB."""
MOST_REASONS = 2
"""More reasons why a module is unseen than this and one are not listed."""
GENERATING = re.compile("generate", re.IGNORECASE)
"""What methods are called in which several passes make one text."""
PROOFS = ("some rows", "every row")


class _Exit:
    """`Watch.__exit__`, which closes the watch even if Ctrl-C comes just before it is called.

    A `with` looks it up before it calls `__enter__`, holds it, and drops it at the end: then a
    finalizer closes the watch.
    """

    def __get__(self, watch: "Watch | None", owner: "type[Watch]") -> Callable[..., None]:
        if watch is None:
            return owner.leave
        leave = partial(watch.leave)
        if not watch.is_open:
            watch.held_by_with = weakref.ref(leave)
        return leave


class Watch(Recording):
    """A recording that grows while it is open, as `watch` returns it."""

    def __init__(
        self,
        model: nn.Module,
        layers: Layers | None,
        values: bool,
        keeper: Keeper,
        tokenizer: Any,
        *,
        proof: str,
        everyone: bool,
        weights_limit: int | None,
        audit: bool,
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
        self._modules = module_names.modules_of(model)
        self._by_name = dict(self._modules)
        self._selected = None if layers is None else select_names(list(self._by_name), layers)
        self._values = values
        self._keeper = keeper
        self._every_row = proof == "every row"
        self._everyone = everyone
        self._weights_limit = weights_limit
        self.audits = audit
        """Whether every softmax is said of which there is no record, a router's too."""
        self.runs_eagerly = True
        """Whether compiled code runs eagerly while the watch is open; False only where it is known
        that nothing compiled is to be recorded."""
        self._audit: Audit | None = None
        self.held_by_with: weakref.ref[Callable[..., None]] | None = None
        """The `__exit__` that a `with` holds, before the watch is open."""
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._lost: dict[str, str] = {}
        self._softmaxed: set[str] = set()
        self._placeholders = module_names.placeholders(self._modules)
        self._clear()

    @property
    def is_open(self) -> bool:
        """Whether the watch has been entered and not left."""
        return bool(self._names)

    def _clear(self) -> None:
        """Set what only an open watch needs to its initial state."""
        self._names: dict[int, str] = {}
        self._token_ids: TokenIds | None = None
        self._broken: dict[str, str] = {}
        self._refused: set[str] = set()
        self._run: RunningCall | None = None
        self._turns: dict[str, list[int]] = {}
        self._masks = MaskReader(self._keeper)
        self._generations: Generations | None = None
        self._memory: frozenset[int] | None = None
        self._kept_weights = 0

    def __enter__(self) -> "Watch":
        if self._model is None:
            raise ArgumentError("this watch is over; call pellucid.watch(model) for another")
        self._names = {id(module): name for name, module in self._modules}
        self._token_ids = TokenIds(self._modules)
        self._generations = Generations(
            self._keeper,
            self._masks,
            keeps_values=self._values,
            every_row=self._every_row,
            ids=self._query_ids,
            withdraw=self._withdraw,
        )
        held = None if self.held_by_with is None else self.held_by_with()
        if held is not None:
            self._finalizer = weakref.finalize(held, self._close)
            self._finalizer.atexit = False
        try:
            interception.add(self, everywhere=self._everyone, eagerly=self.runs_eagerly)
            if self.audits:
                with held_back():
                    audit = Audit(self)
                    audit.__enter__()  # type: ignore[no-untyped-call]
                    self._audit = audit
            return self
        except BaseException:  # such as an interruption after all is in place
            self._close()
            raise

    __exit__ = _Exit()

    def leave(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Close the watch, as the end of a `with` does."""
        try:
            self._close()
        except BaseException:  # an interruption, which may have come before it began
            self._close()
            raise
        self._all()
        self._unseen = self.unseen
        # Records outlive the model, and do not keep it alive.
        self._model, self._modules, self._by_name = None, [], {}
        self._clear()

    def _close(self) -> None:
        """Undo what `__enter__` has done."""
        with held_back():
            if self._finalizer is not None:
                self._finalizer.detach()
            if self._audit is not None:
                self._audit.__exit__(None, None, None)  # type: ignore[no-untyped-call]
                self._audit = None
            interception.remove(self)

    @property
    def unseen(self) -> dict[str, str]:
        """Modules that attend, or look like it, and could not be recorded, each with the reason."""
        if self._model is None:
            return self._unseen
        recorded = {record.name for record in self._records}
        return unseen(
            self._modules, recorded, self._lost, self._selected, self._softmaxed, self.is_open
        )

    # What the interception asks.

    def name_of(self, module: nn.Module) -> str | None:
        name = self._names.get(id(module))
        if name is None and "_is_replica" in vars(module):
            name = self._names.get(id(call_stack.original_of(module)))
        return name

    def module_of(self, name: str) -> nn.Module:
        return self._by_name[name]

    def files(self) -> Iterable[ModuleType]:
        names = {type(part).__module__ for _, part in self._modules}
        return [sys.modules[name] for name in names if name in sys.modules]

    def wants(self, name: str) -> bool:
        return name not in self._refused and (self._selected is None or name in self._selected)

    def is_parameter(self, tensor: Tensor) -> bool:
        if self._memory is None:
            assert self._model is not None
            memory = (x.untyped_storage()._cdata for x in self._model.parameters())
            self._memory = frozenset(memory)
        return tensor.untyped_storage()._cdata in self._memory

    def is_lasting(self, name: str, part: Part) -> bool:
        if not isinstance(part, Tensor):
            return False
        if self.is_parameter(part):
            return True
        memory = part.untyped_storage()._cdata
        for outer in module_names.ancestors(name):
            of = vars(self._by_name[outer]) if outer in self._by_name else {}
            for held in (*of.values(), *of.get("_buffers", {}).values()):
                if isinstance(held, Tensor) and held.untyped_storage()._cdata == memory:
                    return True
        return False

    # What the interception tells.

    def on_softmax(self, name: str) -> None:
        self._softmaxed.add(name)

    def on_missed(self, name: str, reason: str) -> None:
        if self._selected is None or name in self._selected:
            known = self._lost.get(name)
            if known is None or known.count("; it ") >= MOST_REASONS:
                self._lost[name] = reason
            elif reason not in known:
                self._lost[name] = f"{known}; it {reason}"

    def on_lookup(self, ids: Tensor, weight: Tensor) -> None:
        if self._token_ids is not None:
            self._token_ids.note_lookup(ids, weight)

    def on_crop(self, cache: int, length: Callable[[int], int]) -> None:
        self._open_generations().crop(cache, length)

    def on_rewind(self, cache: int, layer: int | None = None) -> None:
        self._open_generations().settle(cache, layer)

    def on_reorder(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        self._open_generations().reorder(cache, items, keys)

    def on_change(self, cache: int, operation: str, layer: int | None = None) -> None:
        self._open_generations().disturb(cache, operation, layer)

    def on_call(self, name: str, call: Call | ModelWeights) -> None:
        if not self.wants(name):
            return
        if self._token_ids is not None:
            self._token_ids.note_attention(name)
        if isinstance(call, ModelWeights):
            self._keep_weights(name, call)
            return
        update = call.update
        if update is not None and update.before == 0:
            self._broken.pop(name, None)
        if name in self._broken:
            self.on_missed(name, self._broken[name])
        elif update is not None and update.lossy:
            self.on_missed(name, "reads a quantized cache, which is not recorded")
        elif not self._open_generations().extend(name, call):
            self._begin(name, call)

    # What is made of it.

    def _begin(self, name: str, call: Call) -> None:
        """Record a call by itself, or the first of a generation."""
        generations = self._open_generations()
        origin = generations.origin(call)
        key, value, source = origin.keys, origin.values, origin.source
        queries, keys = call.query.shape[-2], key.shape[-2]
        visibility, bias = self._masks.rule_of(call, queries, keys)
        is_plain = origin.before == 0 and source is None
        cross = module_names.is_cross(name) or (is_plain and queries != keys)
        keep = self._keeper
        context = call.context if self._values and call.projection is None else None
        logsumexp = logsumexp_of(call, keep)
        ids, key_ids = self._ids(name, call.query.shape[0], queries, keys, cross)
        tokens = None if ids is None else Pieces(ids, -1)
        record = Record(
            name=name,
            queries=keep.pieces(call.query, is_lasting=self.is_lasting(name, call.query)),
            keys=(
                keep.pieces(key, is_lasting=self.is_lasting(name, key))
                if source is None
                else source.record.keys
            ),
            visibility=visibility,
            biases=[] if bias is None else [bias],
            scale=call.scale,
            softcap=call.softcap,
            sinks=None if call.sinks is None else call.sinks.to(keep.device).clone(),
            logsumexps=None if logsumexp is None else Pieces(logsumexp, -1),
            values=(
                keep.pieces(value, is_lasting=self.is_lasting(name, value))
                if self._values
                else None
            ),
            contexts=None if context is None else keep.pieces(context),
            query_tokens=tokens,
            key_tokens=tokens,
            is_cross=cross,
            latest_queries=queries,
            output_weights=None if call.projection is None else Pieces(call.projection[0].detach()),
        )
        if key_ids is not ids:
            record.key_tokens = None if key_ids is None else Pieces(key_ids, -1)
        if source is not None:  # what is read by two layers grows once
            record.values, record.key_tokens = source.record.values, source.record.key_tokens
        if not self._is_proven(record, call, value):
            return
        self._add(record, None if call.update is None else call.update.cache)
        if generations.has(record.name, call):
            self._in_pieces[record.name] = (
                "the steps of its generation are records of their own: what they see follows no "
                "rule that grows, such as a triangle or a window"
            )
        generations.begin(record, call, origin)

    def _is_proven(self, record: Record, call: Call, value: Part) -> bool:
        """Prove a record, keep the weights where the model has made others, or say so."""
        if call.model_weights is None and (call.context is None or call.dropout):
            why = (
                "dropout is drawn anew"
                if call.dropout
                else "the call returns no context of its own"
            )
            record.proof = Proof(0, record.shape[0] * record.shape[-2], reason=why)
            return True
        # An empty slot of a static cache has a share of a padding row; it is not kept.
        is_cut = record.keys.length < call.key.shape[-2]
        weights = None if call.model_weights is None else call.model_weights.weights
        try:
            record.proof = prove(
                Evidence(
                    record=record,
                    value=value,
                    context=call.context,
                    weights=(
                        weights if weights is not None and weights.shape == record.shape else None
                    ),
                    projection=call.projection,
                    without=record.visibility.uniform if is_cut else None,
                    every_row=self._every_row or (not call.is_known and call.proof is None),
                )
            )
        except Contradiction as contradiction:
            if call.model_weights is None:
                self._refused.add(record.name)
                self.on_missed(record.name, str(contradiction))
            else:
                self._keep_weights(record.name, call.model_weights)
            return False
        if call.proof is not None and not self._every_row:
            record.proof = call.proof
        return True

    def _keep_weights(self, name: str, model_weights: ModelWeights) -> None:
        """Record weights themselves."""
        weights = model_weights.weights
        size = weights.numel() * weights.itemsize
        if self._weights_limit is not None and self._kept_weights + size > self._weights_limit:
            self.on_missed(
                name,
                f"makes weights that no query and key give, {readable_bytes(size)} of them, which "
                f"is beyond the {readable_bytes(self._weights_limit)} of weights_limit",
            )
            return
        if not model_weights.is_plain and weights.numel() and bool(weights.amin() < 0):
            self.on_missed(
                name, "mixes its weights so that some are negative, which is not recorded"
            )
            return
        batch, _, queries, keys = weights.shape
        cross = module_names.is_cross(name)
        ids, key_ids = self._ids(name, batch, queries, keys, cross)
        value, context = model_weights.value, model_weights.context
        if not self._values or value is None or context is None:
            value = context = None
        record = Record(
            name=name,
            kept="weights",
            queries=self._keeper.pieces(weights),
            keys=Pieces(torch.arange(keys, device=weights.device)[None, None, :, None]),
            visibility=Visibility.of(
                InferredMask(None, None, None), queries, keys, self._keeper.device or weights.device
            ),
            sink_weights=None
            if model_weights.sink is None
            else Pieces(self._keeper.keep(model_weights.sink), -1),
            values=None if value is None else self._keeper.pieces(value),
            contexts=None if context is None else self._keeper.pieces(context),
            query_tokens=None if ids is None else Pieces(ids, -1),
            key_tokens=None if key_ids is None else Pieces(key_ids, -1),
            is_cross=cross,
            latest_queries=queries,
        )
        if self._is_kept_right(record, model_weights):
            self._kept_weights += size
            if queries == 1 and any(one.name == name for one in self._records):
                self._in_pieces[name] = (
                    "each step of its generation is a record of its own: its weights are kept"
                )
            self._add(record)

    def _is_kept_right(self, record: Record, model_weights: ModelWeights) -> bool:
        """Prove that weights times values are the context that the model got."""
        if model_weights.value is None or model_weights.context is None:
            total = record.shape[0] * record.shape[-2]
            record.proof = Proof(
                0, total, reason="the weights are the model's own, their use is not seen"
            )
            return True
        every_row = self._every_row or not model_weights.is_known
        evidence = Evidence(
            record=record,
            value=model_weights.value,
            context=model_weights.context,
            every_row=every_row,
        )
        try:
            record.proof = prove(evidence)
        except Contradiction:
            self.on_missed(
                record.name, "multiplies its weights with values in an order that is not known"
            )
            return False
        return True

    def _add(self, record: Record, cache: int | None = None) -> None:
        """Put a record with the others, and tell which stream it is, by its cache."""
        if cache is not None:
            if self._run is None or innermost([self._run]) is None:
                self._run, self._turns = self._generation(), {}
            turns = self._turns.setdefault(record.name, [])
            if cache not in turns:
                turns.append(cache)
            record.stream = turns.index(cache)
        self._records.append(record)

    def _withdraw(self, record: Record, why: str, is_wrong: bool) -> None:
        """A record that was found to be wrong, or a generation that cannot be joined."""
        self._records = [some for some in self._records if some is not record]
        if is_wrong:
            self._refused.add(record.name)
            self.on_missed(record.name, why)
        else:
            self._broken[record.name] = why

    def _all(self) -> list[Record]:
        if self._generations is not None:
            self._generations.settle()
        return self._records

    def _open_generations(self) -> Generations:
        assert self._generations is not None, "only an open watch is told"
        return self._generations

    def _generation(self) -> RunningCall | None:
        """The call that generates, if one does: passes within it may take turns."""
        for frame, module in call_stack.running_modules(sys._getframe(2)):
            if module is self._model and GENERATING.search(frame.f_code.co_name):
                return RunningCall.of(frame)
        return None

    def _ids(
        self, name: str, batch: int, queries: int, keys: int, cross: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """(batch, queries) and (batch, keys) ids of the tokens that are queries and keys."""
        ids = self._query_ids(name, batch, queries)
        if cross:
            reader = self._token_ids
            return ids, None if reader is None else reader.of_other_keys(name, batch, keys, ids)
        return ids, ids if queries == keys else None

    def _query_ids(self, name: str, batch: int, length: int) -> Tensor | None:
        return None if self._token_ids is None else self._token_ids.of_queries(name, batch, length)


def watch(
    model: nn.Module,
    layers: Layers | None = None,
    *,
    values: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
    proof: Literal["some rows", "every row"] = "some rows",
    everyone: bool = False,
    weights_limit: int | None = WEIGHTS_LIMIT,
    audit: bool = False,
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
        tokenizer: of Hugging Face, or that of a model of ours, to show tokens as it writes them.
        proof: "some rows", a few of each call, and every one where the function that computes
            attention is neither torch's nor transformers'; or "every row", which costs the scores
            once more.
        everyone: hear every thread and task that calls the model, and not only this one and those
            that are begun in it.
        weights_limit: bytes of weights to keep of models that make their weights by hand, where
            query, key and mask do not give them again; None = no limit.
        audit: look at every operator that runs, and say in `seen.unseen` of each softmax and each
            kernel of attention that no record accounts for, those of routers and of classes too.
            All that runs takes longer.

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
        audit=audit,
    )

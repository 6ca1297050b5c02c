"""watch(): record every attention of any PyTorch model.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

While a watch is open, the functions that compute attention are wrapped (see `interception`). Their
arguments are kept by reference, and weights are computed lazily.
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
from pellucid.lens.generations import Generations
from pellucid.lens.interception import call_stack
from pellucid.lens.interception.audit import Audit
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.pieces import Keeper, Part
from pellucid.lens.proof import Contradiction
from pellucid.lens.record import Record
from pellucid.lens.record_building import (
    Ids,
    prove_call,
    prove_weights,
    record_of_call,
    record_of_weights,
)
from pellucid.lens.recording import Recording
from pellucid.lens.running_calls import RunningCall, innermost
from pellucid.lens.token_ids import TokenIds
from pellucid.lens.unseen import unseen

WEIGHTS_LIMIT = 2**32
"""Bytes of weights that are kept if query and key do not give them: 4 GiB."""
MOST_REASONS = 2
"""Reasons that are listed besides the first one why a module is unseen."""
GENERATING = re.compile("generate", re.IGNORECASE)
"""Matches the names of methods in which several passes generate one text."""
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
        """Whether every softmax without a record is reported, even a router's."""
        self.runs_eagerly = True
        """Whether compiled code runs eagerly in an open watch; False only if nothing compiled
        is to be recorded."""
        self._audit: Audit | None = None
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
        self.held_by_with: weakref.ref[Callable[..., None]] | None = None
        """The `__exit__` that a `with` holds."""
        self._finalizer: weakref.finalize[..., Any] | None = None
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
        """Modules that attend, or look so, and were not recorded, each with the reason."""
        if self._model is None:
            return self._unseen
        recorded = {record.name for record in self._records}
        return unseen(
            self._modules, recorded, self._lost, self._selected, self._softmaxed, self.is_open
        )

    # Questions of the interception.

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

    # Events of the interception.

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
            self._record_weights(name, call)
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

    # Records.

    def _begin(self, name: str, call: Call) -> None:
        """Record a call that stands alone or begins a generation."""
        generations = self._open_generations()
        origin = generations.origin(call)
        queries, keys = call.query.shape[-2], origin.keys.shape[-2]
        is_alone = origin.before == 0 and origin.source is None
        is_cross = module_names.is_cross(name) or (is_alone and queries != keys)
        record = record_of_call(
            name,
            call,
            origin,
            self._masks.rule_of(call, queries, keys),
            self._ids(name, call.query.shape[0], queries, keys, is_cross),
            is_cross=is_cross,
            keep=self._keeper,
            keeps_values=self._values,
            is_lasting=partial(self.is_lasting, name),
        )
        try:
            record.proof = prove_call(record, call, origin.values, every_row=self._every_row)
        except Contradiction as contradiction:
            if call.model_weights is None:
                self._refused.add(name)
                self.on_missed(name, str(contradiction))
            else:
                self._record_weights(name, call.model_weights)
            return
        self._add(record, None if call.update is None else call.update.cache)
        if generations.has(name, call):
            self._in_pieces[name] = (
                "each step of its generation has its own record, since what the steps see follows "
                "no rule that grows, such as a triangle or a window"
            )
        generations.begin(record, call, origin)

    def _record_weights(self, name: str, source: ModelWeights) -> None:
        """Record the model's own weights."""
        weights = source.weights
        size = weights.numel() * weights.itemsize
        if self._weights_limit is not None and self._kept_weights + size > self._weights_limit:
            self.on_missed(
                name,
                f"computes weights that no query and key give, {readable_bytes(size)} of them, "
                f"beyond the {readable_bytes(self._weights_limit)} of weights_limit",
            )
            return
        if not source.is_plain and weights.numel() and bool(weights.amin() < 0):
            self.on_missed(
                name, "mixes its weights so that some are negative, which is not recorded"
            )
            return
        batch, _, queries, keys = weights.shape
        is_cross = module_names.is_cross(name)
        ids = self._ids(name, batch, queries, keys, is_cross)
        record = record_of_weights(
            name, source, ids, is_cross=is_cross, keep=self._keeper, keeps_values=self._values
        )
        try:
            record.proof = prove_weights(record, source, every_row=self._every_row)
        except Contradiction:
            self.on_missed(name, "multiplies its weights with values in an unknown order")
            return
        self._kept_weights += size
        if queries == 1 and any(other.name == name for other in self._records):
            self._in_pieces[name] = "each step of its generation has its own record of weights"
        self._add(record)

    def _add(self, record: Record, cache: int | None = None) -> None:
        """Add a record; its cache tells its stream."""
        if cache is not None:
            if self._run is None or innermost([self._run]) is None:
                self._run, self._turns = self._generation(), {}
            turns = self._turns.setdefault(record.name, [])
            if cache not in turns:
                turns.append(cache)
            record.stream = turns.index(cache)
        self._records.append(record)

    def _withdraw(self, record: Record, why: str, is_wrong: bool) -> None:
        """Remove a record that is wrong, or a generation that cannot be joined."""
        self._records = [other for other in self._records if other is not record]
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
        assert self._generations is not None, "the watch is not open"
        return self._generations

    def _generation(self) -> RunningCall | None:
        """The running call of the model's `generate`, if any: texts may take turns within it."""
        for frame, module in call_stack.running_modules(sys._getframe(2)):
            if module is self._model and GENERATING.search(frame.f_code.co_name):
                return RunningCall.of(frame)
        return None

    def _ids(self, name: str, batch: int, queries: int, keys: int, cross: bool) -> Ids:
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
    nest and overlap. A watch records Hugging Face models with any attention implementation; direct
    calls of `F.scaled_dot_product_attention`, under any name; `nn.MultiheadAttention` and
    `nn.TransformerEncoder`, on their fast path too; and softmax(query @ key.T) @ value written by
    hand. `seen.unseen` lists modules that attend and could not be recorded, with the reason. Every
    call is proven: random rows are recomputed from the record (`seen.proof` has the errors). If
    they differ from the model's, the weights that the model has computed are kept instead, or else
    the module is unseen.

    The steps of a generation are joined into one record per layer, which holds each key once.

    Args:
        model: any `torch.nn.Module`. While a watch is open, all compiled code of this program runs
            eagerly: its outputs differ by rounding.
        layers: the layers to record: layer numbers (the first number in a module's name; negative
            numbers count from the last layer), module names, or patterns of names such as
            "decoder.*.self_attn"; all if None.
        values: whether to keep values and contexts too, which `lens.attribution` needs; they take
            as much memory as queries and keys.
        device: the device to keep tensors on, such as "cpu" to save an accelerator's memory. With
            device or dtype, copies are kept.
        dtype: the dtype to keep tensors in; a shorter one saves memory and loses precision.
        tokenizer: a Hugging Face tokenizer, or that of a Pellucid model, to convert ids to tokens.
        proof: "some rows" of each call, and every row if the function that computes attention
            belongs to neither torch nor transformers; or "every row", which costs the scores once
            more.
        everyone: record calls on every thread and in every task, and not only in this context and
            in what is started in it.
        weights_limit: the most bytes of weights to keep, for models whose weights do not follow
            from query, key and mask; None = no limit.
        audit: inspect every operator that runs, and list in `seen.unseen` each softmax and each
            attention kernel without a record, even those of routers and classifiers. The model runs
            more slowly.

    Raises:
        TypeMismatchError: model is not a module, or dtype is not a float dtype.
        ArgumentError: `proof` is unknown.
        UnknownNameError: an entry of `layers` matches no module; the message lists similar names.
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

"""watch(): record every attention of any PyTorch model.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

While a watch is open, the functions that compute attention are wrapped (see `interception`). Their
arguments are kept by reference, and weights are computed lazily.
"""

import sys
import weakref
from collections.abc import Callable, Collection, Iterable
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.attention.weight_statistics import check_collected
from pellucid.common.interrupts import held_back
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import interception, module_names
from pellucid.lens.call_collector import CallCollector
from pellucid.lens.call_recorder import CallRecorder
from pellucid.lens.head_totals import HeadTotals
from pellucid.lens.interception import call_stack
from pellucid.lens.interception.audit import Audit
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.pieces import Keeper, Part
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.unseen import unseen

WEIGHTS_LIMIT = 2**32
"""Bytes of weights that are kept if query and key do not give them: 4 GiB."""
MOST_REASONS = 2
"""Reasons that are listed besides the first one why a module is unseen."""
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
        collect: Collection[str],
    ) -> None:
        check_collected(collect)
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
        self._collect = tuple(collect)
        self.collected: dict[str, HeadTotals] = {}
        """The statistics of each module that attended, by its name, with `collect`."""
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
        self._calls: CallRecorder | None = None
        self._memory: frozenset[int] | None = None

    def __enter__(self) -> "Watch":
        if self._model is None:
            raise ArgumentError("this watch is over; call pellucid.watch(model) for another")
        self._names = {id(module): name for name, module in self._modules}
        recorder: Callable[..., CallRecorder] = CallRecorder
        if self._collect:
            recorder = partial(CallCollector, names=self._collect, collected=self.collected)
        self._calls = recorder(
            self._model,
            self._modules,
            self._records,
            self._in_pieces,
            self._keeper,
            keeps_values=self._values,
            every_row=self._every_row,
            weights_limit=self._weights_limit,
            on_missed=self.on_missed,
            is_lasting=self.is_lasting,
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
        recorded = {record.name for record in self._records} | self.collected.keys()
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
        is_refused = self._calls is not None and name in self._calls.refused
        return not is_refused and (self._selected is None or name in self._selected)

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
        if self._calls is not None:
            self._calls.token_ids.note_lookup(ids, weight)

    def on_crop(self, cache: int, length: Callable[[int], int]) -> None:
        self._open_calls().generations.crop(cache, length)

    def on_rewind(self, cache: int, layer: int | None = None) -> None:
        self._open_calls().generations.settle(cache, layer)

    def on_reorder(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        self._open_calls().generations.reorder(cache, items, keys)

    def on_change(self, cache: int, operation: str, layer: int | None = None) -> None:
        self._open_calls().generations.disturb(cache, operation, layer)

    def on_call(self, name: str, call: Call | ModelWeights) -> None:
        if self.wants(name):
            self._open_calls().record(name, call)

    def _all(self) -> list[Record]:
        if self._calls is not None:
            self._calls.generations.settle()
        return self._records

    def _open_calls(self) -> CallRecorder:
        assert self._calls is not None, "the watch is not open"
        return self._calls


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
    collect: Collection[str] = (),
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

        collect: statistics to add up instead of keeping records, for training and for long runs:
            of "received", "entropy" and "max_logit". `seen.collected` has them by module, and no
            call stays in memory. The first call of each module is proven.

    Raises:
        TypeMismatchError: model is not a module, or dtype is not a float dtype.
        ArgumentError: `proof` or an entry of `collect` is unknown.
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
        collect=collect,
    )

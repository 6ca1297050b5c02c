"""watch(): record every attention of any PyTorch model.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

While a watch is open, the functions that compute attention are wrapped (see `interception`). Their
arguments are kept by reference, and weights are computed lazily.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.attention.weight_statistics import check_collected
from pellucid.common.interrupts import held_back
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import module_names
from pellucid.lens.call_collector import CallCollector
from pellucid.lens.call_recorder import CallRecorder
from pellucid.lens.head_totals import HeadTotals
from pellucid.lens.interception.audit import Audit
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.open_listener import OpenListener
from pellucid.lens.pieces import Keeper
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.unseen import unseen

WEIGHTS_LIMIT = 2**32
"""Bytes of weights that are kept if query and key do not give them: 4 GiB."""
MOST_REASONS = 2
"""Reasons that are listed besides the first one why a module is unseen."""
PROOFS = ("some rows", "every row")


class Watch(Recording, OpenListener):
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
        self._calls: CallRecorder | None = None
        self._listen_to(model, everyone)
        if keeper.dtype is not None and not keeper.dtype.is_floating_point:
            raise TypeMismatchError(f"dtype must be a float dtype, got {keeper.dtype}")
        if proof not in PROOFS:
            raise ArgumentError(f"proof must be one of {', '.join(PROOFS)}; got {proof!r}")
        super().__init__(type(model).__name__, tokenizer=tokenizer)
        self._selected = None if layers is None else select_names(list(self._by_name), layers)
        self._values = values
        self._keeper = keeper
        self._every_row = proof == "every row"
        self._weights_limit = weights_limit
        self._collect = tuple(collect)
        self.collected: dict[str, HeadTotals] = {}
        """The statistics of each module that attended, by its name, with `collect`."""
        self.audits = audit
        """Whether every softmax without a record is reported, even a router's."""
        self._audit: Audit | None = None
        self._lost: dict[str, str] = {}
        self._softmaxed: set[str] = set()
        self._placeholders = module_names.placeholders(self._modules)

    _maker = "watch(model)"

    def _clear(self) -> None:
        super()._clear()
        self._calls = None

    def _begin(self) -> None:
        assert self._model is not None
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

    def _listening(self) -> None:
        if self.audits:
            with held_back():
                audit = Audit(self)
                audit.__enter__()  # type: ignore[no-untyped-call]
                self._audit = audit

    def _end(self) -> None:
        if self._audit is not None:
            self._audit.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._audit = None

    def _finish(self, error: BaseException | None) -> None:
        self._all()
        self._unseen = self.unseen

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

    def wants(self, name: str) -> bool:
        is_refused = self._calls is not None and name in self._calls.refused
        return not is_refused and (self._selected is None or name in self._selected)

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

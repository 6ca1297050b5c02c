"""watch(): record every attention call of a model that someone else wrote.

    with pellucid.watch(model) as seen:
        model(**inputs)
    seen["encoder.layer.0.attention.self"][0, 3]  # the weights of head 3

Models of Hugging Face's transformers ask `AttentionInterface.get_interface` for the function that
computes their attention. While a watch is open that answer is wrapped: the wrapper keeps references
to what the function was given and calls it unchanged. Recording costs nothing but those references;
masks are read and weights computed when somebody asks.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attention import AttentionWeights, attention_weights, masks
from pellucid.errors import TypeMismatchError, UnknownNameError

_READABLE = ("eager", "sdpa")
"""The implementations whose masks this file can read."""


@dataclass(frozen=True, eq=False)
class Record:
    """One attention call. The tensors are the model's own, still in its graph, not copies."""

    name: str
    """The qualified name of the module that made the call, as in `model.named_modules()`."""
    query: Tensor
    """(batch, heads, queries, key_dim), after any rotary embedding."""
    key: Tensor
    """(batch, kv_heads, keys, key_dim), after any cache."""
    value: Tensor
    """(batch, kv_heads, keys, value_dim)."""
    scale: float | None
    softcap: float | None
    sinks: Tensor | None
    """(heads,) or None."""
    given_mask: Tensor | None
    """The mask as the model passed it: bool (True = may be seen), or float and additive."""
    given_bias: Tensor | None
    """A position bias, (batch or 1, heads, queries, keys), as T5 has."""
    is_causal: bool
    """Whether the call asked for a causal mask without passing one."""

    @cached_property
    def mask(self) -> masks.Mask | None:
        """Which query may see which key; None where every query sees every key."""
        if self.given_mask is None:
            return masks.causal() if self.is_causal else None
        visible = self._visible(self.given_mask)
        if visible.all():
            return None
        queries, keys = visible.shape[-2:]
        offset = keys - queries
        if (visible == torch.ones_like(visible).tril(offset)).all():
            return masks.causal(offset)
        return masks.dense(visible)

    @cached_property
    def bias(self) -> Tensor | None:
        """What is added to the scaled scores, apart from the mask; None where that is nothing."""
        added = self.given_bias
        mask = self.given_mask
        if mask is not None and mask.dtype != torch.bool:
            rest = mask.masked_fill(~self._visible(mask), 0)
            if rest.any():
                added = rest if added is None else added + rest
        return added

    @cached_property
    def weights(self) -> AttentionWeights:
        """(batch, heads, queries, keys), computed only where asked."""
        return attention_weights(
            self.query,
            self.key,
            self.mask,
            bias=self.bias,
            scale=self.scale,
            softcap=self.softcap,
            sinks=self.sinks,
        )

    @staticmethod
    def _visible(mask: Tensor) -> Tensor:
        # An additive mask hides with the dtype's lowest number, or near it where a bias was added.
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


class Watch:
    """What `watch` gives: iterate over it for the records, index it by a module's name."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeMismatchError(
                f"model must be a torch.nn.Module, not {type(model).__module__}."
                f"{type(model).__qualname__}"
            )
        self._model = model
        self._names = {id(module): name for name, module in model.named_modules()}
        self._records: list[Record] = []
        self._unreadable: dict[str, str] = {}

    def __enter__(self) -> "Watch":
        _open.append(self)
        _tap()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _open.remove(self)
        if not _open:
            _untap()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """The records, in the order of the calls."""
        return iter(self._records)

    def __getitem__(self, name: str) -> AttentionWeights:
        """The weights of a module's latest call."""
        for record in reversed(self._records):
            if record.name == name:
                return record.weights
        names = ", ".join(dict.fromkeys(record.name for record in self._records)) or "none"
        raise UnknownNameError(f"no attention of a module '{name}' was recorded; recorded: {names}")

    @property
    def unseen(self) -> dict[str, str]:
        """Modules that look like attention and made no recordable call, each with the reason."""
        recorded = {record.name for record in self._records}
        alike = {
            name
            for name, module in self._model.named_modules()
            if "attention" in type(module).__name__.lower()
        }
        # A wrapper around a module that was recorded (BertAttention) is seen through it. Of nested
        # ones that were not, the innermost is the one to look at.
        lost = {name for name in alike if not any(_within(inner, name) for inner in recorded)}
        silent = (name for name in lost if not any(_within(other, name) for other in lost - {name}))
        reasons = dict.fromkeys(sorted(silent), "made no call through transformers' interface")
        return reasons | self._unreadable

    def __repr__(self) -> str:
        head = ("name", "heads", "queries", "keys", "mask")
        rows = [head, *(_row(record) for record in self._records)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        title = f"{type(self._model).__name__}: {len(self)} attention calls recorded"
        missed = [f"unseen: {name} ({reason})" for name, reason in self.unseen.items()]
        return "\n".join([title, *(lines if self._records else []), *missed])

    def _observe(
        self, implementation: str, module: nn.Module, tensors: tuple[Any, ...], options: Any
    ) -> None:
        name = self._names.get(id(module))
        if name is None:  # a call of some other model
            return
        query, key, value, mask, *rest = tensors
        if implementation not in _READABLE or rest:
            how = "with positional options" if rest else f"with the '{implementation}' attention"
            self._unreadable[name] = f"called {how}, which is not recorded yet; use 'sdpa'"
            return
        is_causal = False  # eager attention knows no mask but the one it is given
        if implementation == "sdpa" and mask is None and query.shape[-2] > 1:
            wanted = options.get("is_causal")
            is_causal = bool(getattr(module, "is_causal", True) if wanted is None else wanted)
        bias = options.get("position_bias")
        if is_causal:  # a static cache is longer than what it holds; sdpa cuts it here as well
            filled = query.shape[-2]
            key, value = key[..., :filled, :], value[..., :filled, :]
            bias = bias if bias is None else bias[..., :filled]
        self._records.append(
            Record(
                name,
                query,
                key,
                value,
                scale=options.get("scaling"),
                softcap=options.get("softcap"),
                sinks=options.get("s_aux"),
                given_mask=mask,
                given_bias=bias,
                is_causal=is_causal,
            )
        )


def watch(model: nn.Module) -> Watch:
    """Record the attention of `model` while the context is open.

    The model is not changed, and nothing is left behind on exit or on an exception. Watches may
    nest or overlap. This first version sees models of Hugging Face's transformers that use its
    attention interface with the sdpa or eager implementation; what it cannot see it lists in
    `unseen`.
    """
    return Watch(model)


def _within(inner: str, outer: str) -> bool:
    """Whether the module called `inner` is `outer` or a part of it."""
    return inner == outer or outer == "" or inner.startswith(outer + ".")


def _row(record: Record) -> tuple[str, ...]:
    heads, kv_heads = record.query.shape[-3], record.key.shape[-3]
    mask = "none" if record.mask is None else str(record.mask)
    return (
        record.name,
        str(heads) if heads == kv_heads else f"{heads}/{kv_heads}",
        str(record.query.shape[-2]),
        str(record.key.shape[-2]),
        mask if record.bias is None else f"{mask} + bias",
    )


_open: list[Watch] = []
_original: list[tuple[type[Any], Callable[..., Any]]] = []
"""The interface and its own get_interface while it is wrapped; empty otherwise."""


def _tap() -> None:
    # A model of transformers exists only once this module is loaded: no need to load it for others.
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None or _original:
        return
    interface = modeling.AttentionInterface
    original = interface.get_interface
    _original.append((interface, original))

    @wraps(original)
    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Any:
        function = original(self, attn_implementation, default)

        @wraps(function)
        def tapped(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Any = None,
            *rest: Any,
            **options: Any,
        ) -> Any:
            tensors = (query, key, value, attention_mask, *rest)
            for opened in _open:
                opened._observe(attn_implementation or "eager", module, tensors, options)
            return function(module, *tensors, **options)

        return tapped

    interface.get_interface = get_interface


def _untap() -> None:
    while _original:
        interface, original = _original.pop()
        interface.get_interface = original

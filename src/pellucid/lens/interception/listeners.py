"""The listeners that are told of attention calls: on every thread, or in one context."""

import threading
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

from pellucid.lens.interception.calls import CacheUpdate, Call, ModelWeights, SoftmaxEdit
from pellucid.lens.pieces import Part


class Listener(Protocol):
    """Watches one model."""

    edits: bool
    """Whether it changes calls, before those that record them are told."""
    audits: bool
    """Whether it is told of every softmax that met no values, whatever its purpose."""

    def name_of(self, module: nn.Module) -> str | None:
        """The name of a module of the watched model; None for other modules."""

    def files(self) -> Iterable[ModuleType]:
        """The Python modules that define the classes of the watched model."""

    def module_of(self, name: str) -> nn.Module:
        """The module with this name."""

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in the memory of a parameter of the watched model."""

    def is_lasting(self, name: str, part: Part) -> bool:
        """Whether a tensor lies in memory that a module holds, or one that contains it."""

    def wants(self, name: str) -> bool:
        """Whether the calls of this module are to be recorded."""

    def on_edit(self, name: str, call: Call | str) -> Call | None:
        """A module attended, which may be changed: the call as it shall be, None = unchanged.

        Of a call that is not known as one, the reason is given instead. Errors reach the user.
        """

    def on_softmax_edit(
        self, name: str, scores: Tensor, weights: Tensor, key: Tensor, update: CacheUpdate | None
    ) -> SoftmaxEdit | None:
        """A module computed weights of scores, both (batch, heads, queries, keys), that may be
        changed; None = unchanged. The key is (..., keys, dim), as the module has it.
        """

    def on_partly_edited(self, name: str, reason: str) -> None:
        """Edits of a softmax that have begun cannot reach all that a module made of it."""

    def on_call(self, name: str, call: Call | ModelWeights) -> None:
        """A module attended."""

    def on_softmax(self, name: str) -> None:
        """A module computed a softmax, for whatever purpose."""

    def on_missed(self, name: str, reason: str) -> None:
        """A module made a call that cannot be recorded."""

    def on_lookup(self, ids: Tensor, weight: Tensor) -> None:
        """Ids were looked up in an embedding."""

    def on_update(self, name: str, update: CacheUpdate) -> None:
        """A module put new keys into a cache."""

    def on_crop(self, cache: int, length: Callable[[int], int]) -> None:
        """A cache dropped its latest keys, and now has length(layer) of them."""

    def on_rewind(self, cache: int, layer: int | None = None) -> None:
        """Keys of a cache, or of one of its layers, are about to be overwritten or dropped."""

    def on_reorder(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        """The texts in a cache were reordered by items, (batch,); keys(layer) are its keys now."""

    def on_change(self, cache: int, operation: str, layer: int | None = None) -> None:
        """A cache, or one of its layers, was changed by another operation."""


Callers = list[tuple[Listener, str]]
"""The listeners that watch a call, each with its name of the module that makes the call."""
Context = tuple["weakref.ref[Listener]", ...]

active: tuple[Listener, ...] = ()
"""All listeners."""
_everywhere: tuple[Listener, ...] = ()
"""Those that listen on every thread and in every task."""
context: "ContextVar[Context]" = ContextVar("listeners", default=())
"""Those that were added in this context, or in one that it was copied from."""
_latest: tuple[object, object, tuple[Listener, ...]] = ((), (), ())
"""The latest result of `here`, after the context and the listeners for which it holds."""
lock = threading.RLock()
"""Held while listeners or patches change."""


def add(listener: Listener, *, everywhere: bool) -> None:
    global active, _everywhere
    if everywhere:
        _everywhere = (*_everywhere, listener)
    else:
        context.set((*map(weakref.ref, _of_context()), weakref.ref(listener)))
    active = (*active, listener)


def remove(listener: Listener) -> None:
    global active, _everywhere, _latest
    _everywhere = tuple(other for other in _everywhere if other is not listener)
    active = tuple(other for other in active if other is not listener)
    _latest = ((), (), ())
    context.set(tuple(map(weakref.ref, _of_context())))


def is_any_everywhere() -> bool:
    """Whether any listener listens on every thread."""
    return bool(_everywhere)


def here() -> tuple[Listener, ...]:
    """The listeners of what happens in this context."""
    if torch.compiler.is_compiling():  # nothing runs yet, and nothing here can be traced
        return ()
    own = context.get()
    if not own:
        return _everywhere
    # Every product of a model comes by here, and the result is nearly always the latest one.
    of, among, result = _latest
    return result if of is own and among is active else _find(own)


def in_backward() -> list[Listener]:
    """Those that hear what a backward pass recomputes, as gradient checkpointing does.

    It must be edited again, on whatever thread it runs, but it is recorded already.
    """
    return [listener for listener in active if listener.edits]


def _find(own: Context) -> tuple[Listener, ...]:
    global _latest
    # `active` changes after all else that is read here: if it has changed, the result is outdated.
    among = active
    result = tuple(x for x in _of_context() if x not in _everywhere) + _everywhere
    _latest = own, among, result
    if active is not among:  # and a removed listener must not be kept alive
        _latest = ((), (), ())
    return result


def _of_context() -> tuple[Listener, ...]:
    listeners = (reference() for reference in context.get())
    return tuple(x for x in listeners if x is not None and x in active)

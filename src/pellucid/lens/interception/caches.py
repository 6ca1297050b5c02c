"""The caches of Hugging Face transformers, and our own.

New keys are taken where they enter a cache, so that the steps of a generation can be joined without
comparing earlier keys: a module puts its new keys into the cache, and then attends.
"""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

from torch import Tensor, nn

from pellucid.lens.interception import call_stack, listeners, reporting
from pellucid.lens.interception.calls import CacheUpdate
from pellucid.lens.interception.listeners import Callers
from pellucid.lens.interception.patches import PatchPoint
from pellucid.lens.pieces import version_of

_latest = threading.local()
"""The latest update of a cache on this thread that no call has read yet, and its callers."""
_serials: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next = count()
_layers: "weakref.WeakKeyDictionary[Any, _Layer]" = weakref.WeakKeyDictionary()


@dataclass(eq=False, slots=True)
class _Layer:
    """A layer of a cache into which a watched module has put keys."""

    cache: int
    is_lossy: bool
    keys: "weakref.ref[Tensor] | None" = None
    """The keys as its latest update or crop left them."""
    version: int = 0
    length: int = 0
    """The number of keys after its latest update, for our own caches."""
    reader: "weakref.ref[nn.Module] | None" = None
    """The module that updated it last, if it also read the keys, as it will again. Searching the
    stack for it costs more than everything else here."""

    def leave(self, layer: Any) -> None:
        keys = getattr(layer, "keys", None)
        self.keys = None
        if isinstance(keys, Tensor):
            self.keys, self.version = weakref.ref(keys), version_of(keys)

    def is_as_left(self, layer: Any) -> bool:
        """Whether the layer still has the same keys, and they were not overwritten."""
        keys = getattr(layer, "keys", None)
        if self.keys is None or not isinstance(keys, Tensor):
            return self.keys is None and not isinstance(keys, Tensor)
        return keys is self.keys() and self.version == version_of(keys)


def patch_points() -> Iterator[PatchPoint]:
    caches = sys.modules.get("transformers.cache_utils")
    if caches is not None:
        yield caches.Cache, "update", update
        yield caches.Cache, "crop", crop
        yield caches.Cache, "reorder_cache", reorder
        for name in CHANGES.keys() & vars(caches.Cache).keys():
            yield caches.Cache, name, CHANGES[name]
    own = sys.modules.get("pellucid.layers.cache")
    if own is not None:
        yield own.LayerCache, "add", add
        yield own.LayerCache, "remember", remember
        yield own.Cache, "select", select


def update(original: Callable[..., Any]) -> Callable[..., Any]:
    def update(
        self: Any,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **options: Any,
    ) -> Any:
        layer = self.layers[layer_idx] if layer_idx < len(self.layers) else None
        known = None if layer is None else _layers.get(layer)
        module, callers = _updater(known, sys._getframe(1))
        if not callers:
            return original(self, key_states, value_states, layer_idx, *args, **options)
        if known is not None and not known.is_as_left(layer):
            for listener, _ in callers:  # keys were evicted or overwritten
                listener.on_change(known.cache, "edit", layer_idx)
        returned = original(self, key_states, value_states, layer_idx, *args, **options)
        layer, length = self.layers[layer_idx], key_states.shape[-2]
        if known is None:
            known = _layers[layer] = _Layer(_serial(self), "Quantized" in type(layer).__name__)
        known.leave(layer)
        after = layer.get_seq_length()
        made = CacheUpdate(
            known.cache,
            layer_idx,
            key_states,
            value_states,
            length,
            # A static cache counts on its device, and reading that would wait.
            after - length if isinstance(after, int) else lambda: int(after) - length,
            weakref.ref(returned[0]),
            weakref.ref(returned[1]),
            known.is_lossy,
        )
        _note(module, callers, made, known)
        return returned

    return update


def add(original: Callable[..., Any]) -> Callable[..., Any]:
    """`LayerCache.add` of `pellucid.layers.cache`."""

    def add(self: Any, key: Tensor, value: Tensor) -> Any:
        known, before = _layers.get(self), self.cache.start
        module, callers = _updater(known, sys._getframe(1))
        if not callers:
            return original(self, key, value)
        # If the texts of a batch differ in length, each step is its own record, since its queries
        # have different positions in each.
        is_even = isinstance(before, int)
        if known is not None and not (is_even and known.is_as_left(self)):
            for listener, _ in callers:
                listener.on_change(known.cache, "edit", self.layer)
        if known is not None:
            if is_even and before < known.length:
                for listener, _ in callers:
                    listener.on_rewind(known.cache, self.layer)
            known.length = before + key.shape[-2] if is_even else 0
        returned = original(self, key, value)
        if known is None:
            known = _layers[self] = _Layer(_serial(self.cache), is_lossy=False)
        known.leave(self)
        if is_even:
            _note(module, callers, _of_layer(self, key, value, before, returned), known)
        return returned

    return add


def _note(module: nn.Module | None, callers: Callers, made: CacheUpdate, layer: _Layer) -> None:
    """Remember an update of a cache, until a call reads it."""
    _latest.update = module, callers, made, layer
    for listener, name in callers:
        listener.on_update(name, made)


def remember(original: Callable[..., Any]) -> Callable[..., Any]:
    """`LayerCache.remember`: the keys of a memory, which each step reads again."""

    def remember(self: Any, key: Tensor, value: Tensor) -> Any:
        module, callers = _updater(None, sys._getframe(1))
        returned = original(self, key, value)
        if callers:
            made = _of_layer(self, returned[0], returned[1], 0, returned, _serial(self))
            _latest.update = module, callers, made, _Layer(made.cache, is_lossy=False)
        return returned

    return remember


def select(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Cache.select`: texts are removed, or beams continue others."""

    def select(self: Any, items: Tensor, beams: int = 1) -> Any:
        reading = [layer for layer in self.layers if layer.memory is not None]
        for listener in listeners.active:
            for of in (self, *reading):
                listener.on_rewind(_serial(of))
        result = original(self, items, beams)
        if bool((items.diff() > 0).all()):  # a text was removed: later steps begin another record
            return result
        for layer in self.layers:
            if layer in _layers:
                _layers[layer].leave(layer)
        for listener in listeners.active:
            listener.on_reorder(_serial(self), items, lambda at: self.layers[at].keys)
            for layer in reading:
                if len(layer.memory[0]) == len(items):
                    listener.on_reorder(_serial(layer), items, lambda at: self.layers[at].memory[0])
                else:  # beams that share one memory are several queries to it
                    listener.on_change(_serial(layer), "select")
        return result

    return select


def _of_layer(
    layer: Any,
    key: Tensor,
    value: Tensor,
    before: int,
    returned: tuple[Tensor, Tensor],
    cache: int | None = None,
) -> CacheUpdate:
    """An update of a layer's keys; or of its memory, which counts as another cache."""
    return CacheUpdate(
        _serial(layer.cache) if cache is None else cache,
        layer.layer,
        key,
        value,
        key.shape[-2],
        before,
        weakref.ref(returned[0]),
        weakref.ref(returned[1]),
        lossy=False,
    )


def _updater(known: _Layer | None, frame: FrameType) -> tuple[nn.Module | None, Callers]:
    """The module that puts keys into a layer of a cache, and the callers."""
    module = None if known is None or known.reader is None else known.reader()
    if module is None:
        _, module = next(call_stack.running_modules(frame), (None, None))
    return module, [] if module is None else reporting.callers(module)


def claim(
    module: nn.Module | None = None,
) -> tuple[CacheUpdate | None, Callers]:
    """What a module that attends has put into a cache for this call, and the callers.

    Without a module, it is searched for on the stack (see `reporting.callers`).
    """
    latest = getattr(_latest, "update", None)
    _latest.update = None
    if latest is None:
        return None, reporting.callers(module)
    updater, updating, update, layer = latest
    callers = updating if updater is module else reporting.callers(module)
    is_its_own = callers == updating
    layer.reader = weakref.ref(updater) if is_its_own else None
    return update if is_its_own else None, callers


def claimed_by(callers: Callers, is_over: bool = True) -> CacheUpdate | None:
    """What the module of these callers has put into a cache for its call, which `is_over`."""
    latest = getattr(_latest, "update", None)
    if latest is None:
        return None
    updater, updating, update, layer = latest
    # Listeners that have no interest in this module are no callers here.
    if not callers or any(caller not in updating for caller in callers):
        return None
    if is_over:
        _latest.update = None
        layer.reader = weakref.ref(updater)
    made: CacheUpdate = update
    return made


def forget() -> None:
    """Forget the latest update, as no call will read it."""
    _latest.update = None


def crop(original: Callable[..., Any]) -> Callable[..., Any]:
    def crop(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        for layer in self.layers:
            if layer in _layers:
                _layers[layer].leave(layer)
        for listener in listeners.active:
            listener.on_crop(_serial(self), lambda at: int(self.layers[at].get_seq_length()))
        return result

    return crop


def reorder(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Cache.reorder_cache`: beams continue others."""

    def reorder_cache(self: Any, items: Tensor, *args: Any, **options: Any) -> Any:
        result = original(self, items, *args, **options)
        for layer in self.layers:
            if layer in _layers:
                _layers[layer].leave(layer)
        for listener in listeners.active:
            listener.on_reorder(_serial(self), items, lambda at: self.layers[at].keys)
        return result

    return reorder_cache


def change(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def change(self: Any, *args: Any, **options: Any) -> Any:
        for listener in listeners.active:
            listener.on_change(_serial(self), name)
        return original(self, *args, **options)

    return change


def _serial(cache: Any) -> int:
    """The number of a cache, which no other cache ever has."""
    number = _serials.get(cache)
    if number is None:
        number = _serials[cache] = next(_next)
    return number


CHANGES = {
    name: partial(change, name)
    for name in ("reset", "batch_repeat_interleave", "batch_select_indices")
}
"""Operations on a cache besides adding keys and dropping the latest."""

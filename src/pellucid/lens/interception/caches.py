"""The caches of Hugging Face's transformers, and our own.

New keys are taken where they enter a cache, so that the steps of a generation can be joined without
looking at the keys that came before: a module puts its new keys into the cache, and then attends.
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
from pellucid.lens.interception.patches import Place
from pellucid.lens.pieces import version_of

_latest = threading.local()
"""What went into a cache last on this thread and no call has read yet, and who heard of it."""
_serials: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next = count()
_layers: "weakref.WeakKeyDictionary[Any, _Layer]" = weakref.WeakKeyDictionary()


@dataclass(eq=False, slots=True)
class _Layer:
    """What is known of a layer of a cache that a watched module has put keys into."""

    cache: int
    is_lossy: bool
    keys: "weakref.ref[Tensor] | None" = None
    """As its last update or crop left them."""
    version: int = 0
    length: int = 0
    """Keys that it held after its last update, of our own caches."""
    reader: "weakref.ref[nn.Module] | None" = None
    """The module that updated it last, if it also read that: it will do so again. To look for it
    on the stack costs more than all else that happens here."""

    def leave(self, layer: Any) -> None:
        keys = getattr(layer, "keys", None)
        self.keys = None
        if isinstance(keys, Tensor):
            self.keys, self.version = weakref.ref(keys), version_of(keys)

    def is_as_left(self, layer: Any) -> bool:
        """Whether the layer has the same keys, and nobody has written over them."""
        keys = getattr(layer, "keys", None)
        if self.keys is None or not isinstance(keys, Tensor):
            return self.keys is None and not isinstance(keys, Tensor)
        return keys is self.keys() and self.version == version_of(keys)


def places() -> Iterator[Place]:
    caches = sys.modules.get("transformers.cache_utils")
    if caches is not None:
        yield caches.Cache, "update", update
        yield caches.Cache, "crop", crop
        yield caches.Cache, "reorder_cache", reorder
        for name in DISTURBING.keys() & vars(caches.Cache).keys():
            yield caches.Cache, name, DISTURBING[name]
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
        module, found = _updater(known, sys._getframe(1))
        if not found:
            return original(self, key_states, value_states, layer_idx, *args, **options)
        if known is not None and not known.is_as_left(layer):
            for listener, _ in found:  # somebody evicts keys, or writes over them
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
            # A static cache counts on its device, which we would wait for.
            after - length if isinstance(after, int) else lambda: int(after) - length,
            weakref.ref(returned[0]),
            weakref.ref(returned[1]),
            known.is_lossy,
        )
        _latest.update = module, found, made, known
        return returned

    return update


def add(original: Callable[..., Any]) -> Callable[..., Any]:
    """`LayerCache.add` of `pellucid.layers.cache`."""

    def add(self: Any, key: Tensor, value: Tensor) -> Any:
        known, before = _layers.get(self), self.cache.start
        module, found = _updater(known, sys._getframe(1))
        if not found:
            return original(self, key, value)
        # Where texts of a batch have several lengths, a step is a record of its own: its queries
        # stand at other places in each.
        is_even = isinstance(before, int)
        if known is not None and not (is_even and known.is_as_left(self)):
            for listener, _ in found:
                listener.on_change(known.cache, "edit", self.layer)
        if known is not None:
            if is_even and before < known.length:
                for listener, _ in found:
                    listener.on_rewind(known.cache, self.layer)
            known.length = before + key.shape[-2] if is_even else 0
        returned = original(self, key, value)
        if known is None:
            known = _layers[self] = _Layer(_serial(self.cache), is_lossy=False)
        known.leave(self)
        if is_even:
            _latest.update = module, found, _of_layer(self, key, value, before, returned), known
        return returned

    return add


def remember(original: Callable[..., Any]) -> Callable[..., Any]:
    """`LayerCache.remember`: the keys of a memory, which are read again at each step."""

    def remember(self: Any, key: Tensor, value: Tensor) -> Any:
        module, found = _updater(None, sys._getframe(1))
        returned = original(self, key, value)
        if found:
            made = _of_layer(self, returned[0], returned[1], 0, returned, _serial(self))
            _latest.update = module, found, made, _Layer(made.cache, is_lossy=False)
        return returned

    return remember


def select(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Cache.select`: texts that leave, or beams that go on from others."""

    def select(self: Any, items: Tensor, beams: int = 1) -> Any:
        reading = [layer for layer in self.layers if layer.memory is not None]
        for listener in listeners.active:
            for of in (self, *reading):
                listener.on_rewind(_serial(of))
        result = original(self, items, beams)
        if bool((items.diff() > 0).all()):  # what comes is a record of its own if a text has left
            return result
        for layer in self.layers:
            if layer in _layers:
                _layers[layer].leave(layer)
        for listener in listeners.active:
            listener.on_reorder(_serial(self), items, lambda at: self.layers[at].keys)
            for layer in reading:
                if len(layer.memory[0]) == len(items):
                    listener.on_reorder(_serial(layer), items, lambda at: self.layers[at].memory[0])
                else:  # beams that share one memory are so many queries to it
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
    """An update of a layer's keys; of its memory, which is a cache of its own."""
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
    """The module that puts keys into a layer of a cache, and who should hear of it."""
    module = None if known is None or known.reader is None else known.reader()
    if module is None:
        _, module = next(call_stack.running_modules(frame), (None, None))
    return module, [] if module is None else reporting.callers(module)


def claim(
    module: nn.Module | None = None,
) -> tuple[CacheUpdate | None, Callers]:
    """What a module that attends has put into a cache for this call, and who should hear of both.

    The module is found on the stack where it is not given (see `reporting.callers`).
    """
    latest = getattr(_latest, "update", None)
    _latest.update = None
    if latest is None:
        return None, reporting.callers(module)
    updater, heard, update, layer = latest
    found = heard if updater is module else reporting.callers(module)
    is_its_own = found == heard
    layer.reader = weakref.ref(updater) if is_its_own else None
    return update if is_its_own else None, found


def claimed_by(
    found: Callers,
) -> CacheUpdate | None:
    """What the module that these listeners were told of has put into a cache for its call."""
    latest = getattr(_latest, "update", None)
    if latest is None:
        return None
    updater, heard, update, layer = latest
    if heard != found:
        return None
    _latest.update = None
    layer.reader = weakref.ref(updater)
    made: CacheUpdate = update
    return made


def forget() -> None:
    """No call is to come that reads the latest update."""
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
    """`Cache.reorder_cache`: beams that go on from others."""

    def reorder_cache(self: Any, items: Tensor, *args: Any, **options: Any) -> Any:
        result = original(self, items, *args, **options)
        for layer in self.layers:
            if layer in _layers:
                _layers[layer].leave(layer)
        for listener in listeners.active:
            listener.on_reorder(_serial(self), items, lambda at: self.layers[at].keys)
        return result

    return reorder_cache


def disturbance(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def disturb(self: Any, *args: Any, **options: Any) -> Any:
        for listener in listeners.active:
            listener.on_change(_serial(self), name)
        return original(self, *args, **options)

    return disturb


def _serial(cache: Any) -> int:
    """A number for a cache, which no other ever has."""
    number = _serials.get(cache)
    if number is None:
        number = _serials[cache] = next(_next)
    return number


DISTURBING = {
    name: partial(disturbance, name)
    for name in ("reset", "batch_repeat_interleave", "batch_select_indices")
}
"""What can happen to a cache besides adding keys and forgetting the latest."""

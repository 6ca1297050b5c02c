"""The caches of Hugging Face's transformers.

New keys are taken where they enter a cache, so that the steps of a generation can be joined without
looking at the keys that came before: a module puts its new keys into the cache, and then attends.
"""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from torch import Tensor, nn

from pellucid.lens import taps

_latest = threading.local()
"""What went into a cache last on this thread, and no call has read yet."""
_left_as: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()
"""The state of each layer of a cache after it was last updated or cropped."""
_serials: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next = count()


def places() -> Iterator[taps.Place]:
    caches = sys.modules.get("transformers.cache_utils")
    if caches is not None:
        yield caches.Cache, "update", update
        yield caches.Cache, "crop", crop
        for name in DISTURBING.keys() & vars(caches.Cache).keys():
            yield caches.Cache, name, DISTURBING[name]


def update(original: Callable[..., Any]) -> Callable[..., Any]:
    def update(
        self: Any,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **options: Any,
    ) -> Any:
        module, _ = next(taps.running_modules(sys._getframe(1)), (None, ""))
        known = [
            one for one in taps.listeners if module is not None and one.name_of(module) is not None
        ]
        if not known:
            return original(self, key_states, value_states, layer_idx, *args, **options)
        if layer_idx < len(self.layers):
            layer = self.layers[layer_idx]
            if _state_of(layer) != _left_as.get(layer, _state_of(layer)):
                for listener in known:  # somebody evicts keys, or writes over them
                    listener.disturbed(_serial(self), "edit", layer_idx)
        returned = original(self, key_states, value_states, layer_idx, *args, **options)
        _left_as[self.layers[layer_idx]] = _state_of(self.layers[layer_idx])
        _latest.update = (module, self, layer_idx, key_states, value_states, returned[0])
        return returned

    return update


def claim(is_calling: Callable[[nn.Module], bool]) -> taps.CacheUpdate | None:
    """What the module that is calling has put into a cache for this call."""
    latest = getattr(_latest, "update", None)
    forget()
    if latest is None or not is_calling(latest[0]):
        return None
    _, cache, number, keys, values, returned = latest
    layer, length = cache.layers[number], keys.shape[-2]
    after = layer.get_seq_length()
    return taps.CacheUpdate(
        _serial(cache),
        number,
        keys,
        values,
        length,
        # A static cache counts on its device, which we would wait for.
        after - length if isinstance(after, int) else lambda: int(after) - length,
        weakref.ref(returned),
        "Quantized" in type(layer).__name__,
    )


def forget() -> None:
    """No call is to come that reads the latest update."""
    _latest.update = None


def _state_of(layer: Any) -> Any:
    """What tells whether the keys of a layer are as they were."""
    keys = getattr(layer, "keys", None)
    if not isinstance(keys, Tensor):
        return None
    return keys.data_ptr(), keys.shape, 0 if keys.is_inference() else keys._version


def crop(original: Callable[..., Any]) -> Callable[..., Any]:
    def crop(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        for layer in self.layers:
            if layer in _left_as:
                _left_as[layer] = _state_of(layer)
        for listener in taps.listeners:
            listener.cropped(_serial(self), lambda at: int(self.layers[at].get_seq_length()))
        return result

    return crop


def disturbance(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def disturb(self: Any, *args: Any, **options: Any) -> Any:
        for listener in taps.listeners:
            listener.disturbed(_serial(self), name)
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
    for name in ("reset", "reorder_cache", "batch_repeat_interleave", "batch_select_indices")
}
"""What can happen to a cache besides adding keys and forgetting the latest."""

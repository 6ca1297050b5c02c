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

DISTURBING = ("reset", "reorder_cache", "batch_repeat_interleave", "batch_select_indices")
"""What can happen to a cache besides adding keys and forgetting the latest."""

_latest = threading.local()
"""What went into a cache last on this thread, and no call has read yet."""
_serials: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next = count()


def places() -> Iterator[taps.Place]:
    caches = sys.modules.get("transformers.cache_utils")
    if caches is not None:
        yield caches.Cache, "update", update
        yield caches.Cache, "crop", crop
        for name in DISTURBING:
            if name in vars(caches.Cache):
                yield caches.Cache, name, partial(disturbance, name)


def update(original: Callable[..., Any]) -> Callable[..., Any]:
    def update(
        self: Any,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **options: Any,
    ) -> Any:
        returned = original(self, key_states, value_states, layer_idx, *args, **options)
        if taps.listeners:
            _latest.update = (self, layer_idx, key_states, value_states, returned[0])
        return returned

    return update


def claim(module: nn.Module | None = None) -> taps.CacheUpdate | None:
    """What went into a cache for the call that is being made, by this module if it is known."""
    latest = getattr(_latest, "update", None)
    if latest is None:
        return None
    _latest.update = None
    cache, number, keys, values, returned = latest
    if getattr(module, "layer_idx", number) != number:
        return None  # whoever put that in has not attended to it
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


def crop(original: Callable[..., Any]) -> Callable[..., Any]:
    def crop(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
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

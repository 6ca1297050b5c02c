"""Models of Hugging Face's transformers: its attention interface, and its caches.

Models ask `AttentionInterface.get_interface` for the function that computes their attention; what
they get is wrapped, so that sdpa, flash, flex, each model's own eager and whatever else is
registered are all seen in the same place. New keys are taken where they enter a cache, so that
steps of a generation can be joined without looking at the keys that came before.
"""

import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial, reduce
from itertools import count
from operator import and_
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attention import masks
from pellucid.attention.masks import Rows
from pellucid.lens import taps

DISTURBING = ("reset", "reorder_cache", "batch_repeat_interleave", "batch_select_indices")
"""What can happen to a cache besides adding keys and forgetting the latest."""


def places() -> Iterator[taps.Place]:
    # A model of transformers exists only once these are loaded: no need to load them for others.
    modeling = sys.modules.get("transformers.modeling_utils")
    caches = sys.modules.get("transformers.cache_utils")
    if modeling is not None and hasattr(modeling, "AttentionInterface"):
        yield modeling.AttentionInterface, "get_interface", interface
    if caches is not None:
        yield caches.Cache, "update", update
        yield caches.Cache, "crop", crop
        for name in DISTURBING:
            if name in vars(caches.Cache):
                yield caches.Cache, name, partial(disturbance, name)


def interface(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_interface(self: Any, implementation: str | None, default: Callable[..., Any]) -> Any:
        function = original(self, implementation, default)
        return partial(_attention, function, implementation or "eager")

    return get_interface


def _attention(
    function: Callable[..., Any],
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    *rest: Any,
    **options: Any,
) -> Any:
    tensors = (query, key, value, attention_mask, *rest)
    found = taps.callers(module)
    if not found:
        return function(module, *tensors, **options)
    result = taps.as_a_whole(function, module, *tensors, **options)
    taps.tell(found, _call, implementation, module, tensors, options, result[0])
    return result


def _call(
    implementation: str,
    module: nn.Module,
    tensors: tuple[Any, ...],
    options: dict[str, Any],
    output: Tensor,
) -> taps.Call | str:
    query, key, value, mask, *rest = tensors
    if rest:
        return "was called with positional options, which are not recorded"
    if "paged" in implementation or options.get("cache") is not None:
        return "reads a paged cache, which is not recorded; generate without continuous batching"
    queries, keys = query.shape[-2], key.shape[-2]
    bias = options.get("position_bias")
    given: tuple[Tensor, ...] = ()
    rule = None
    if "flash" in implementation:
        rule = _flash_rule(module, mask, options, query.shape[0], queries, keys)
    elif isinstance(mask, Tensor):
        given = (mask[..., :keys],)
    elif mask is not None:
        given = (_of_block_mask(mask, query.shape[0], queries, keys, query.device),)
    elif "sdpa" in implementation and queries > 1 and _is_causal(module, options):
        rule = masks.causal()
        if keys > queries:  # a static cache is longer than what it holds; sdpa cuts it here as well
            key, value = key[..., :queries, :], value[..., :queries, :]
            bias = bias if bias is None else bias[..., :queries]
    return taps.Call(
        query=query,
        key=key,
        value=value,
        given=given,
        hides_with_a_number="sdpa" in implementation and bias is not None,
        rule=rule,
        bias=None if bias is None else bias[..., : key.shape[-2]],
        scale=options.get("scaling"),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
        dropout=options.get("dropout", 0.0),
        context=output.transpose(1, 2),
    )


def _is_causal(module: nn.Module, options: dict[str, Any]) -> bool:
    wanted = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if wanted is None else wanted)


def _flash_rule(
    module: nn.Module,
    present: Tensor | None,
    options: dict[str, Any],
    batch: int,
    queries: int,
    keys: int,
) -> masks.Mask | None:
    """What flash attention hides, which is told in words and aligns last query and last key."""
    causal = _is_causal(module, options)
    window, packed = options.get("sliding_window"), options.get("cu_seq_lens_k")
    positions = options.get("position_ids")
    parts: list[masks.Mask] = []
    if window is not None and keys > window:
        right = 0 if causal else window - 1
        parts.append(masks.window(window - 1, right, offset=keys - queries))
    elif causal and queries > 1:
        parts.append(masks.causal(keys - queries))
    if present is not None:
        present = present[:, -keys:].bool()
        parts.append(masks.padding(present))
        if queries == keys and not (causal and bool(present[:, -1].all())):
            parts.append(Rows(present))  # queries that are padding are not computed at all
    elif batch == 1 and packed is not None:
        at = torch.arange(keys, device=packed.device)
        parts.append(masks.documents(torch.searchsorted(packed, at, right=True)))
    elif batch == 1 and positions is not None and queries == keys:
        starts = positions.flatten().diff(prepend=positions.flatten()[:1] - 1) != 1
        if bool(starts.any()):
            parts.append(masks.documents(starts.cumsum(0)))
    return reduce(and_, parts) if parts else None


def _of_block_mask(mask: Any, batch: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """(batch, 1, queries, keys) bool, of flex attention's rule."""
    item = torch.arange(batch, device=device)[:, None, None]
    row, col = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)
    seen: Tensor = mask.mask_mod(item, torch.zeros_like(item), row, col)
    return seen.expand(batch, queries, keys).unsqueeze(1)


_serials: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next = count()


def _serial(cache: Any) -> int:
    """A number for a cache, which no other ever has."""
    number = _serials.get(cache)
    if number is None:
        number = _serials[cache] = next(_next)
    return number


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
        found = taps.callers()
        if found:
            layer, length = self.layers[layer_idx], key_states.shape[-2]
            after = layer.get_seq_length()
            new = taps.CacheUpdate(
                _serial(self),
                layer_idx,
                key_states,
                value_states,
                length,
                # A static cache counts on its device, which we would wait for.
                after - length if isinstance(after, int) else lambda: int(after) - length,
                weakref.ref(returned[0]),
                "Quantized" in type(layer).__name__,
            )
            for listener, name in found:
                listener.cached(name, new)
        return returned

    return update


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

"""The attention interface of Hugging Face transformers.

Models get the function that computes their attention from `AttentionInterface.get_interface`. The
result is wrapped, so that sdpa, flash, flex, each model's own eager attention and all other
registered functions are intercepted in one place.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import and_
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attention import masks
from pellucid.attention.masks import Rows
from pellucid.lens.interception import caches, call_stack, dispatcher, reporting
from pellucid.lens.interception.calls import CacheUpdate, Call
from pellucid.lens.interception.patches import PatchPoint


def patch_points() -> Iterator[PatchPoint]:
    # Models of transformers exist only once this is loaded: it is not loaded for other models.
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is not None and hasattr(modeling, "AttentionInterface"):
        yield modeling.AttentionInterface, "get_interface", interface


def interface(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_interface(self: Any, *args: Any, **options: Any) -> Any:
        function = original(self, *args, **options)
        implementation = options.get("attn_implementation", args[0] if args else None)
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
    update, callers = caches.claim(module)
    if not callers:
        return function(module, *tensors, **options)
    is_shipped = call_stack.is_shipped(function)
    # Functions that are known to call a fused kernel compute no softmax of interest.
    call = dispatcher.past if is_shipped and implementation == "sdpa" else reporting.as_one_call
    result = call(function, module, *tensors, **options)
    arguments = (implementation, module, tensors, options, result[0], update, is_shipped)
    edited = reporting.report(callers, _call, *arguments)
    return result if edited is None else _as_edited(result, edited)


def _as_edited(result: Any, edited: Call) -> Any:
    """What a function returns, (context, weights or None, ...), with an edited context."""
    assert edited.context is not None
    weights, *rest = result[1:]
    if weights is not None and edited.edited_weights is not None:
        weights = edited.edited_weights().to(weights.dtype)
    return edited.context.transpose(1, 2), weights, *rest


def _call(
    implementation: str,
    module: nn.Module,
    tensors: tuple[Any, ...],
    options: dict[str, Any],
    output: Tensor,
    update: CacheUpdate | None,
    is_known: bool,
) -> Call | str:
    query, key, value, mask, *rest = tensors
    if rest:
        return "was called with positional options, which are not recorded"
    if "paged" in implementation or options.get("cache") is not None:
        return "reads a paged cache, which is not recorded; generate without continuous batching"
    sinks = options.get("s_aux", options.get("sinks"))
    if sinks is not None and sinks.ndim != 1:
        return "has sinks for each token, which no record can represent"
    queries, keys = query.shape[-2], key.shape[-2]
    bias = options.get("position_bias")
    mask_tensors: tuple[Tensor, ...] = ()
    rule = None
    if "flash" in implementation:
        rule = _flash_rule(module, mask, options, query.shape[0], queries, keys)
    elif isinstance(mask, Tensor):
        mask_tensors = (mask if mask.shape[-1] == keys else mask[..., :keys],)
    elif mask is not None:
        mask_tensors = (_of_block_mask(mask, query.shape[0], queries, keys, query.device),)
    elif "sdpa" in implementation and queries > 1 and _is_causal(module, options):
        rule = masks.causal()
        if keys > queries:  # a static cache has empty slots, which sdpa cuts off here too
            key, value = key[..., :queries, :], value[..., :queries, :]
            bias = bias if bias is None else bias[..., :queries]
    return Call(
        query=query,
        key=key,
        value=value,
        masks=mask_tensors,
        hides_with_a_number="sdpa" in implementation and bias is not None,
        rule=rule,
        bias=None if bias is None else bias[..., : key.shape[-2]],
        scale=options.get("scaling"),
        softcap=options.get("softcap"),
        sinks=sinks,
        dropout=options.get("dropout", 0.0),
        context=output.transpose(1, 2),
        update=update,
        is_known=is_known,
    )


def _is_causal(module: nn.Module, options: dict[str, Any]) -> bool:
    is_causal = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _flash_rule(
    module: nn.Module,
    present: Tensor | None,
    options: dict[str, Any],
    batch: int,
    queries: int,
    keys: int,
) -> masks.Mask | None:
    """What flash attention hides, by its options; the last query is aligned with the last key."""
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
            parts.append(Rows(present))  # padding queries are not computed
    elif batch == 1 and packed is not None:
        at = torch.arange(keys, device=packed.device)
        parts.append(masks.documents(torch.searchsorted(packed, at, right=True)))
    elif batch == 1 and positions is not None and queries == keys:
        starts = positions.flatten().diff(prepend=positions.flatten()[:1] - 1) != 1
        if bool(starts.any()):
            parts.append(masks.documents(starts.cumsum(0)))
    return reduce(and_, parts) if parts else None


def _of_block_mask(mask: Any, batch: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """(batch, 1, queries, keys) bool: the block mask of flex attention."""
    item = torch.arange(batch, device=device)[:, None, None]
    row, col = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)
    seen: Tensor = mask.mask_mod(item, torch.zeros_like(item), row, col)
    return seen.expand(batch, queries, keys).unsqueeze(1)

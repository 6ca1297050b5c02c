"""`F.scaled_dot_product_attention`, `pellucid.attention`, and `F.embedding`, which reads ids."""

import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from pellucid.attention import AttentionWeights, masks
from pellucid.attention import attention as pellucid_attention
from pellucid.attention.energies import as_energy
from pellucid.attention.functional import PLAIN
from pellucid.lens.interception import caches, listeners, reporting
from pellucid.lens.interception.calls import CacheUpdate, Call
from pellucid.lens.interception.listeners import Callers
from pellucid.lens.interception.patches import PatchPoint
from pellucid.lens.interception.shapes import Fold, as_four, as_it_was, fold_of, mask_as_four

KERNELS = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_flash_attention_forward",
    "_efficient_attention_forward",
)
"""Kernels of `scaled_dot_product_attention`, which may also be called directly."""
EXACT = (torch.float32, torch.float64)
"""Dtypes in which the kernel's logsumexp is as accurate as our own."""


def patch_points() -> Iterator[PatchPoint]:
    """What to wrap, in torch and in files of a watched model that have imported it by name."""
    functional, package = nn.functional, sys.modules["pellucid.attention"]
    wrappers = ((functional.scaled_dot_product_attention, attention), (pellucid_attention, own))
    yield functional, "scaled_dot_product_attention", attention
    yield functional, "embedding", embedding
    yield package, "attention", own
    for listener in listeners.active:
        for file in listener.files():
            if file is not functional:
                for name, value in list(vars(file).items()):
                    for function, wrapper in wrappers:
                        if value is function:
                            yield file, name, wrapper


def operators() -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Operators to intercept in the dispatcher, for functions that are called by other names."""
    aten = torch.ops.aten
    yield aten.scaled_dot_product_attention.default, attention
    for name in KERNELS:
        if hasattr(aten, name):
            yield getattr(aten, name).default, kernel


def attention(original: Callable[..., Any]) -> Callable[..., Any]:
    def scaled_dot_product_attention(*args: Any, **options: Any) -> Any:
        if reporting.is_inside_call():
            if reporting.is_traced() or (args and _is_one_row(args[0])):
                reporting.note_logsumexp(None)
                return original(*args, **options)
            return _attention(original, *args, **options)
        if reporting.is_transformed():
            reporting.report_transformed()
        update, callers = caches.claim()
        if not callers:
            return original(*args, **options)
        context = reporting.as_one_call(_attention, original, *args, **options)
        edited = reporting.report(
            callers, _call, callers, _is_torchs(original), context, update, *args, **options
        )
        if edited is None or edited.context is None:
            return context
        return edited.context if edited.as_given is None else edited.as_given(edited.context)

    return scaled_dot_product_attention


def kernel(original: Callable[..., Any]) -> Callable[..., Any]:
    """A fused kernel that is called directly."""

    def call(*args: Any, **options: Any) -> Any:
        if not reporting.is_inside_call():
            for listener, name in reporting.callers():
                listener.on_missed(
                    name, f"calls the kernel {original} directly, which is not recorded"
                )
        return original(*args, **options)

    return call


def _is_torchs(function: Any) -> bool:
    """Whether a function is torch's own, and not a replacement."""
    if isinstance(function, torch._ops.OpOverload):
        return True
    return type(function).__name__ == "builtin_function_or_method"


def _attention(original: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """The exact result of the original; the logsumexp that its kernel drops is noted."""
    kernel = _kernel(*args, **options)
    if kernel is None:
        reporting.note_logsumexp(None)
        return original(*args, **options)
    context, logsumexp = kernel()
    reporting.note_logsumexp(logsumexp)
    return context


def _kernel(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Callable[[], tuple[Tensor, Tensor]] | None:
    """The fused CPU kernel, if torch would choose it."""
    if reporting.is_traced() or _is_one_row(query):
        return None
    parts = (query, key, value)
    plain = all(type(x) is Tensor and x.device.type == "cpu" and x.numel() for x in parts)
    if not plain or query.dtype not in EXACT or attn_mask is not None or dropout_p:
        return None
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or reporting.is_transformed():
        return None
    chosen = torch._fused_sdp_choice(
        query, key, value, None, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    if chosen != SDPBackend.FLASH_ATTENTION.value:
        return None
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return partial(kernel, query, key, value, 0.0, is_causal, attn_mask=None, scale=scale)


def _is_one_row(query: Any) -> bool:
    """Whether this is a step of a generation, for which it would cost more than it saves."""
    return type(query) is Tensor and not query.is_nested and query.shape[-2] == 1


def _call(
    callers: Callers,
    is_known: bool,
    context: Tensor,
    update: CacheUpdate | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Call | str:
    if query.is_nested:
        return "was called with nested tensors, which are not recorded; pass a padding mask instead"
    listener, name = callers[0]
    fold, outer = fold_of(listener.module_of(name), query, key, value), query.shape[:-2]
    as_given = None
    if query.ndim != 4 or fold.is_heads_first:
        as_given = partial(as_it_was, shape=context.shape, fold=fold)
        query, key, value, context = (as_four(x, fold) for x in (query, key, value, context))
        attn_mask = None if attn_mask is None else mask_as_four(attn_mask, outer, fold)
    return Call(
        query=query,
        key=key,
        value=value,
        masks=() if attn_mask is None else (attn_mask,),
        rule=masks.causal() if is_causal else None,
        scale=scale,
        dropout=dropout_p,
        context=context,
        update=update,
        is_heads_first=fold.is_heads_first,
        as_given=as_given,
        is_known=is_known,
    )


def own(original: Callable[..., Any]) -> Callable[..., Any]:
    """`pellucid.attention.attention`, which our own layers call."""

    def attention(*args: Any, **options: Any) -> Any:
        if reporting.is_inside_call():
            return original(*args, **options)
        update, callers = caches.claim()
        if not callers:
            return original(*args, **options)
        context, weights = reporting.as_one_call(original, *args, **options)
        edited = reporting.report(callers, _own_call, context, weights, update, *args, **options)
        if edited is None or edited.context is None:
            return context, weights
        return edited.context.reshape(context.shape), edited.weights

    return attention


def _own_call(
    context: Tensor,
    weights: AttentionWeights,
    update: CacheUpdate | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: masks.Mask | Tensor | None = None,
    *,
    scale: float | None = None,
    score: Any = "scaled_dot_product",
    dropout: float = 0.0,
    backend: str = "auto",
    collect: Collection[str] = (),
    **options: Any,
) -> Call | str:
    exact = query.dtype in EXACT and not torch.is_grad_enabled()
    energy = as_energy(score)
    if type(energy) not in PLAIN:
        return f"scores by {type(energy).__name__}, which is not recorded; its weights are returned"
    logsumexp = weights.logsumexp if exact else None
    if query.ndim != 4:
        outer, bias = query.shape[:-2], options.get("bias")
        query, key, value, context = (
            x.reshape(-1, *x.shape[-3:]) for x in (query, key, value, context)
        )
        logsumexp = None if logsumexp is None else logsumexp.reshape(query.shape[:-1])
        mask = mask_as_four(mask, outer, Fold()) if isinstance(mask, Tensor) else mask
        if isinstance(bias, Tensor):
            options["bias"] = mask_as_four(bias, outer, Fold())
    return Call(
        query=query,
        key=key,
        value=value,
        masks=(mask,) if isinstance(mask, Tensor) else (),
        rule=mask if isinstance(mask, masks.Mask) else None,
        scale=energy.default_scale(query.shape[-1]) if scale is None else scale,
        dropout=dropout,
        context=context,
        update=update,
        logsumexp=logsumexp,
        weights=weights,
        **options,
    )


def embedding(original: Callable[..., Any]) -> Callable[..., Any]:
    def embed(input: Tensor, weight: Tensor, *args: Any, **options: Any) -> Any:
        for listener in listeners.here():
            listener.on_lookup(input, weight)
        return original(input, weight, *args, **options)

    return embed

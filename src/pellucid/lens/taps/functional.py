"""Direct callers of `F.scaled_dot_product_attention` and of `pellucid.attention`, by name.

And the embedding that reads the tokens.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from pellucid.attention import attention as pellucid_attention
from pellucid.attention import masks
from pellucid.attention.energies import as_energy
from pellucid.attention.functional import PLAIN
from pellucid.lens import taps
from pellucid.lens.taps import caches


def places() -> Iterator[taps.Place]:
    """What to wrap, in torch and where a watched model's own files have imported it by name."""
    functional = nn.functional
    wrappers = ((functional.scaled_dot_product_attention, attention), (pellucid_attention, own))
    yield functional, "scaled_dot_product_attention", attention
    yield functional, "embedding", embedding
    for listener in taps.listeners:
        for file in listener.files():
            if file is not functional:
                for name, value in list(vars(file).items()):
                    for function, wrapper in wrappers:
                        if value is function:
                            yield file, name, wrapper


def attention(original: Callable[..., Any]) -> Callable[..., Any]:
    def scaled_dot_product_attention(*args: Any, **options: Any) -> Any:
        found = taps.callers()
        if not found:
            return original(*args, **options)
        update = caches.claim()
        context = taps.as_a_whole(original, *args, **options)
        taps.tell(found, _call, context, update, *args, **options)
        return context

    return scaled_dot_product_attention


def _call(
    context: Tensor,
    update: taps.CacheUpdate | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> taps.Call | str:
    if query.is_nested:
        return "was called with nested tensors, which are not recorded; pass a padding mask instead"
    if query.ndim == 2:
        query, key, value, context = (x.unsqueeze(0) for x in (query, key, value, context))
    return taps.Call(
        query=query,
        key=key,
        value=value,
        given=() if attn_mask is None else (attn_mask,),
        rule=masks.causal() if is_causal else None,
        scale=scale,
        dropout=dropout_p,
        context=context,
        update=update,
    )


def own(original: Callable[..., Any]) -> Callable[..., Any]:
    """`pellucid.attention`, as our own layers and whoever imports it by name call it."""

    def attention(*args: Any, **options: Any) -> Any:
        found = taps.callers()
        if not found:
            return original(*args, **options)
        result = taps.as_a_whole(original, *args, **options)
        taps.tell(found, _own_call, result[0], *args, **options)
        return result

    return attention


def _own_call(
    context: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: masks.Mask | Tensor | None = None,
    *,
    scale: float | None = None,
    score: Any = "scaled_dot_product",
    dropout: float = 0.0,
    backend: str = "auto",
    **options: Any,
) -> taps.Call | str:
    energy = as_energy(score)
    if type(energy) not in PLAIN:
        return f"scores by {type(energy).__name__}, which is not recorded; its weights are returned"
    return taps.Call(
        query=query,
        key=key,
        value=value,
        given=(mask,) if isinstance(mask, Tensor) else (),
        rule=mask if isinstance(mask, masks.Mask) else None,
        scale=energy.default_scale(query.shape[-1]) if scale is None else scale,
        dropout=dropout,
        context=context,
        **options,
    )


def embedding(original: Callable[..., Any]) -> Callable[..., Any]:
    def embed(input: Tensor, weight: Tensor, *args: Any, **options: Any) -> Any:
        for listener in taps.listeners:
            listener.read(input, weight)
        return original(input, weight, *args, **options)

    return embed

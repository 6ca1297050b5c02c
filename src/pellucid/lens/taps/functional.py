"""Direct callers of `F.scaled_dot_product_attention`, and of the embedding that reads tokens."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from pellucid.attention import masks
from pellucid.lens import taps


def places() -> Iterator[taps.Place]:
    """What to wrap, in torch and where a watched model's own files have imported it by name."""
    functional = nn.functional
    original = functional.scaled_dot_product_attention
    yield functional, "scaled_dot_product_attention", attention
    for listener in taps.listeners:
        for file in listener.files():
            for name, value in list(vars(file).items()):
                if value is original and file is not functional:
                    yield file, name, attention
    yield functional, "embedding", embedding


def attention(original: Callable[..., Any]) -> Callable[..., Any]:
    def scaled_dot_product_attention(*args: Any, **options: Any) -> Any:
        found = taps.callers()
        if not found:
            return original(*args, **options)
        context = taps.as_a_whole(original, *args, **options)
        taps.tell(found, _call, context, *args, **options)
        return context

    return scaled_dot_product_attention


def _call(
    context: Tensor,
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
    )


def embedding(original: Callable[..., Any]) -> Callable[..., Any]:
    def embed(input: Tensor, weight: Tensor, *args: Any, **options: Any) -> Any:
        for listener in taps.listeners:
            listener.read(input, weight)
        return original(input, weight, *args, **options)

    return embed

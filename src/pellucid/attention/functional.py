"""`attention` and `attention_weights`, which check their arguments here, once."""

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from pellucid.attention import backends, forking
from pellucid.attention.energies import DotProduct, Energy, ScaledDotProduct, as_energy
from pellucid.attention.masks import Extent, Mask, as_mask
from pellucid.attention.masks.checks import broadcast_to_extent
from pellucid.attention.scores import Scores
from pellucid.attention.weights import AttentionWeights
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError

PLAIN = (DotProduct, ScaledDotProduct)
"""The energies that compare query and key as they are."""
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Mask | Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    score: str | Energy | Callable[[Tensor, Tensor], Tensor] = "scaled_dot_product",
    dropout: float = 0.0,
    backend: str = "auto",
    collect: Collection[str] = (),
) -> tuple[Tensor, AttentionWeights]:
    """Scaled dot-product attention with its weights, which are computed when asked for.

        scores  = query @ key.T
        masked  = softcap * tanh(scores * scale / softcap) + bias, -inf where the mask hides a key
        weights = softmax(masked) over the keys, and the sinks if given
        context = weights @ value

    The context comes from a fused kernel where one supports the options, and block by block
    otherwise; memory grows with n either way. Both results are differentiable. A row whose every
    key is hidden has zero weights and zero context. Keys and values hidden from every query never
    matter, NaN and inf included; a non-finite one hidden from only some queries behaves as in the
    kernel underneath, and a visible one spreads as in torch. Autocast is not applied: the context
    has the dtype of query.

    Args:
        query: (..., heads, queries, key_dim), float64, float32, bfloat16 or float16.
        key: (..., kv_heads, keys, key_dim); heads is a multiple of kv_heads, and query head h reads
            kv head h // (heads // kv_heads) (grouped heads, Ainslie et al. 2023).
        value: (..., kv_heads, keys, value_dim).
        mask: one of `pellucid.masks`, or a bool tensor that broadcasts to (..., heads, queries,
            keys), True = may be seen.
        bias: float, broadcasts likewise, added after scale and softcap.
        scale: 1/sqrt(key_dim) unless given, or the default of the energy.
        softcap: bounds the scaled scores by softcap * tanh(scaled / softcap) (Gemma 2, 2024).
        sinks: (heads,), an extra logit per head that takes part in the softmax and has no value.
        score: "scaled_dot_product", "dot_product", "cosine", one of `pellucid.energies`, or a
            function.
        dropout: drops weights in the context only; the weights returned are not dropped.
        backend: "auto", "sdpa", "blockwise" or "reference"; one that does not support the options
            raises an error.
        collect: statistics that are computed at once and stay in `weights.collected` by name,
            without gradients: "received", "entropy", "max_logit". In training they cost one pass
            and keep nothing alive.

    Returns:
        context (..., heads, queries, value_dim), and the weights (..., heads, queries, keys), lazy.

    Raises:
        ShapeError, TypeMismatchError, ArgumentError, BackendError: naming the argument, the
            expected value and the actual one.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, equation 1; the
    logsumexp that makes each weight exp(score - logsumexp): Dao 2023, "FlashAttention-2".
    """
    scores = attention_weights(
        query, key, mask, bias=bias, scale=scale, softcap=softcap, sinks=sinks, score=score
    ).operands
    check_tensor("value", value, query)
    if value.shape[-3:-1] != key.shape[-3:-1]:
        raise ShapeError(
            f"value must have the kv_heads and keys of key, {tuple(key.shape[-3:-1])}; got "
            f"{tuple(value.shape[-3:-1])} in value of shape {tuple(value.shape)}"
        )
    if not 0 <= _number("dropout", dropout) < 1:
        raise ArgumentError(f"dropout must be in [0, 1), got {dropout}")
    value = _flatten("value", value, scores.batch_shape)
    chosen = backends.choose(backend, scores, value, dropout)
    context, logsumexp, kernel = chosen.forward(scores, value, dropout)
    weights = AttentionWeights(scores, backend, logsumexp, kernel)
    if scores.sinks is not None:
        context = weights.share_with_sinks(context, logsumexp)
    if collect:
        weights.collected = weights.collect(collect)
    return context.reshape(*scores.batch_shape, *context.shape[1:]), weights


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Mask | Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    score: str | Energy | Callable[[Tensor, Tensor], Tensor] = "scaled_dot_product",
) -> AttentionWeights:
    """The weights alone, computed when asked for; arguments as for `attention`."""
    forking.go_alone()
    check_tensor("query", query)
    check_tensor("key", key, query)
    heads, kv_heads = query.shape[-3], key.shape[-3]
    if heads % kv_heads:
        raise ShapeError(f"query has {heads} heads, not a multiple of the {kv_heads} of key")
    batch_shape = query.shape[:-3]
    if key.shape[:-3] != batch_shape:
        try:
            batch_shape = torch.broadcast_shapes(batch_shape, key.shape[:-3])
        except RuntimeError:
            raise ShapeError(
                f"the batch shape of query {tuple(batch_shape)} does not broadcast with that of "
                f"key {tuple(key.shape[:-3])}"
            ) from None
    if softcap is not None and not _number("softcap", softcap) > 0:
        raise ArgumentError(f"softcap must be above 0, got {softcap}")
    if scale is not None:
        _number("scale", scale)
    energy = as_energy(score)
    queries, keys, key_dim = query.shape[-2], key.shape[-2], query.shape[-1]
    extent = Extent(batch_shape, heads, queries, keys, query.device)
    bound = None if mask is None else as_mask(mask).bind(extent)
    if type(energy) in PLAIN:
        query, key = energy.project(query, key)
    else:
        if bound is not None:  # padding may hold NaN, which the projection's gradient would spread
            unsafe = ~key.isfinite().all(-1) & ~_seen_keys(bound, extent)
            key = key.masked_fill(unsafe.unsqueeze(-1), 0)
        with torch.autocast(query.device.type, enabled=False):
            query, key = energy.project(query, key)
    if bias is not None:
        _check_float("bias", bias, query.device)
        bias = broadcast_to_extent("bias", bias, extent)
        dtype = torch.promote_types(query.dtype, torch.float32)
        if torch.promote_types(bias.dtype, dtype) != dtype:
            bias = bias.to(dtype)
    if sinks is not None:
        _check_float("sinks", sinks, query.device)
        if sinks.shape != (heads,):
            raise ShapeError(
                f"sinks must have shape (heads,) = ({heads},), got {tuple(sinks.shape)}"
            )
    scores = Scores(
        query=_flatten("query", query, batch_shape),
        key=_flatten("key", key, batch_shape),
        energy=energy,
        scale=energy.default_scale(key_dim) if scale is None else float(scale),
        softcap=softcap,
        bias=bias,
        mask=bound,
        sinks=sinks,
        batch_shape=batch_shape,
    )
    return AttentionWeights(scores)


def _seen_keys(mask: Mask, extent: Extent) -> Tensor:
    """(..., 1, keys) bool: the keys that some query may see."""
    items = [mask] if mask.batch is None else [mask.at(item) for item in range(mask.batch)]
    seen = torch.zeros(len(items), 1, extent.keys, dtype=torch.bool, device=extent.device)
    for flags, item in zip(seen, items, strict=True):
        for start, stop in item.spans(0, extent.queries, extent.keys).some:
            flags[:, start:stop] = True
    return seen[0] if mask.batch is None else seen.reshape(*extent.batch_shape, 1, extent.keys)


def _number(name: str, value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeMismatchError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ArgumentError(f"{name} must be finite, got {value}")
    return value


def _flatten(name: str, tensor: Tensor, batch_shape: torch.Size) -> Tensor:
    """(..., heads, n, dim) to (batch, heads, n, dim)."""
    if tensor.ndim == 4 and tensor.shape[:1] == batch_shape:
        return tensor
    try:
        tensor = tensor.expand(*batch_shape, *tensor.shape[-3:])
    except RuntimeError:
        raise ShapeError(
            f"{name} of shape {tuple(tensor.shape)} does not fit the batch shape "
            f"{tuple(batch_shape)}"
        ) from None
    return tensor.reshape(-1, *tensor.shape[-3:])


def check_tensor(name: str, tensor: Tensor, like: Tensor | None = None) -> None:
    _check_float(name, tensor, None if like is None else like.device)
    if like is not None and tensor.dtype != like.dtype:
        raise TypeMismatchError(f"query is {like.dtype} but {name} is {tensor.dtype}")
    if tensor.ndim < 3:
        raise ShapeError(f"{name} must be (..., heads, n, dim), got shape {tuple(tensor.shape)}")
    if 0 in tensor.shape[-3:]:
        axis = ("heads", "keys" if name != "query" else "queries", "dim")[
            tensor.shape[-3:].index(0)
        ]
        raise ShapeError(f"{name} has no {axis}: its shape is {tuple(tensor.shape)}")


def _check_float(name: str, tensor: Tensor, device: torch.device | None) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeMismatchError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in DTYPES:
        raise TypeMismatchError(
            f"{name} must be float64, float32, bfloat16 or float16, got {tensor.dtype}"
        )
    if device is not None and tensor.device != device:
        raise TypeMismatchError(f"query is on {device} but {name} is on {tensor.device}")

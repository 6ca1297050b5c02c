"""The formula, once: the oracle of every test. No fast path imports this file.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, equation 1, with the options
that later models added: softcap (Gemma 2), sinks (gpt-oss), grouped heads (Ainslie et al. 2023).
Plain eager tensors, any floating dtype, n x n numbers per head: written to be read, not to be fast.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Stages(NamedTuple):
    """Every step from scores to context; all but the last are (..., heads, queries, keys)."""

    scores: Tensor
    """Raw dot products, query @ key.T."""
    scaled: Tensor
    """scores * scale."""
    capped: Tensor
    """softcap * tanh(scaled / softcap), or scaled again where no softcap is given."""
    masked: Tensor
    """capped + bias, -inf where the mask hides a key."""
    weights: Tensor
    """softmax(masked) over the keys, and the sinks if given; a fully hidden row is zero."""
    context: Tensor
    """weights @ value, (..., heads, queries, value_dim)."""


def stages(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    score: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Stages:
    """Attention written out.

    Args:
        query: (..., heads, queries, key_dim).
        key: (..., kv_heads, keys, key_dim); query head h reads kv head h // (heads // kv_heads).
        value: (..., kv_heads, keys, value_dim).
        mask: bool, broadcasts to (..., heads, queries, keys); True = may be seen.
        bias: float, broadcasts likewise, added after scale and softcap.
        scale: a factor on the scores; 1/sqrt(key_dim) unless given.
        softcap: squashes the scaled scores into (-softcap, softcap).
        sinks: (heads,), one extra logit per head that takes part in the softmax and has no value.
        score: another energy, from query and key to scores; dot products unless given.
    """
    group = query.shape[-3] // key.shape[-3]
    key = key.repeat_interleave(group, dim=-3)
    value = value.repeat_interleave(group, dim=-3)

    scores = query @ key.mT if score is None else score(query, key)
    scaled = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    capped = scaled if softcap is None else softcap * torch.tanh(scaled / softcap)
    masked = capped if bias is None else capped + bias
    if mask is not None:
        masked = masked.masked_fill(~mask, -torch.inf)

    logits = masked
    if sinks is not None:
        logits = torch.cat([masked, sinks[:, None, None].expand(*masked.shape[:-1], 1)], dim=-1)
    hidden = (logits == -torch.inf).all(dim=-1, keepdim=True)
    weights = torch.softmax(logits.masked_fill(hidden, 0), dim=-1).masked_fill(hidden, 0)
    weights = weights[..., : key.shape[-2]]
    return Stages(scores, scaled, capped, masked, weights, weights @ value)

"""Shapes that models give to attention, and the one that records have: (batch, heads, n, dim)."""

import torch
from torch import Tensor, nn

__all__ = ["as_four", "heads_of", "mask_as_four"]

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
"""What modules call the number of their heads."""


def heads_of(module: nn.Module) -> int:
    """How many heads a module says that it has; 1 where it does not say."""
    for attribute in HEADS:
        heads = vars(module).get(attribute)
        if type(heads) is int and heads > 0:
            return heads
    return 1


def as_four(tensor: Tensor, heads: int) -> Tensor:
    """(batch, heads, n, m): what is folded into the batch is unfolded, and any more are folded.

    Args:
        tensor: (n, m), (batch, n, m), (batch * heads, n, m), or (..., heads, n, m).
        heads: how many are folded into the batch of three dimensions.
    """
    if tensor.ndim == 2:
        return tensor[None, None]
    if tensor.ndim == 3:
        folded = heads > 1 and len(tensor) % heads == 0
        return tensor.unflatten(0, (-1, heads)) if folded else tensor.unsqueeze(1)
    return tensor if tensor.ndim == 4 else tensor.reshape(-1, *tensor.shape[-3:])


def mask_as_four(mask: Tensor, outer: torch.Size, heads: int) -> Tensor:
    """The same of a mask that broadcasts to (*outer, queries, keys)."""
    if len(outer) == 2 or mask.ndim < 3:
        return mask
    if all(size == 1 for size in mask.shape[:-3]) and len(outer) > 2:
        return mask.reshape(mask.shape[-3:])
    if len(outer) == 1 and len(mask) == 1:
        return mask
    return as_four(mask.expand(*outer, *mask.shape[-2:]), heads)

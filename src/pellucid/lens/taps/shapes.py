"""Shapes that models give to attention, and the one that records have: (batch, heads, n, dim).

Where heads are folded into the batch, nothing in a shape tells in which order: items first, as most
models do, or heads first, as those that split the width and join the parts along the batch.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Fold", "as_four", "fold_of", "joined", "mask_as_four"]

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
"""What modules call the number of their heads."""
REMEMBERED = 4
"""Tensors that were joined last: query, key, value and one more."""


class Fold(NamedTuple):
    """How heads are folded into a batch."""

    heads: int = 1
    is_heads_first: bool = False


class _Joined(threading.local):
    """What was joined along the batch on this thread, of how many parts."""

    def __init__(self) -> None:
        self.latest: deque[tuple[weakref.ref[Tensor], int]] = deque(maxlen=REMEMBERED)


_joined = _Joined()


def joined(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.cat`, of which the taps remember what was joined along the batch."""

    def join(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        axis = args[1] if len(args) > 1 else options.get("dim", 0)
        parts: Any = args[0] if args else None
        is_batch = axis == 0 and isinstance(parts, list | tuple) and isinstance(result, Tensor)
        if is_batch and result.ndim == 3 and all(len(part) == len(parts[0]) for part in parts):
            _joined.latest.append((weakref.ref(result), len(parts)))
        return result

    return join


def fold_of(module: nn.Module, query: Tensor | None = None) -> Fold:
    """How a module folds its heads into the batch of its query, as far as it says.

    Args:
        module: one that may say how many heads it has.
        query: what it attends with.
    """
    for attribute in HEADS:
        heads = vars(module).get(attribute)
        if type(heads) is int and heads > 0:
            return Fold(heads, query is not None and _is_joined(query, heads))
    return Fold()


def _is_joined(tensor: Tensor, parts: int) -> bool:
    """Whether a tensor was joined of so many parts, one a head."""
    wholes = [reference() for reference, count in _joined.latest if count == parts]
    memory = tensor.untyped_storage()._cdata
    return any(x is not None and x.untyped_storage()._cdata == memory for x in wholes)


def as_four(tensor: Tensor, fold: Fold) -> Tensor:
    """(batch, heads, n, m): what is folded into the batch is unfolded, and any more are folded.

    Args:
        tensor: (n, m), (batch, n, m), (batch * heads, n, m), or (..., heads, n, m).
        fold: how heads are folded into the batch of three dimensions.
    """
    if tensor.ndim == 2:
        return tensor[None, None]
    if tensor.ndim == 3:
        if fold.heads == 1 or len(tensor) % fold.heads:
            return tensor.unsqueeze(1)
        sizes = (fold.heads, -1) if fold.is_heads_first else (-1, fold.heads)
        unfolded: Tensor = tensor.unflatten(0, sizes)
        return unfolded.transpose(0, 1) if fold.is_heads_first else unfolded
    return tensor if tensor.ndim == 4 else tensor.reshape(-1, *tensor.shape[-3:])


def mask_as_four(mask: Tensor, outer: torch.Size, fold: Fold) -> Tensor:
    """The same of a mask that broadcasts to (*outer, queries, keys)."""
    if len(outer) == 2 or mask.ndim < 3:
        return mask
    if all(size == 1 for size in mask.shape[:-3]) and len(outer) > 2:
        return mask.reshape(mask.shape[-3:])
    if len(outer) == 1 and len(mask) == 1:
        return mask
    return as_four(mask.expand(*outer, *mask.shape[-2:]), fold)

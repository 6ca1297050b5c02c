"""How masks are made: `causal`, `window`, `padding`, `prefix`, `documents`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.attention.masks import checks
from pellucid.attention.masks.mask import Mask, PerItem
from pellucid.attention.masks.rules import Band, Below, Documents, Present
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError


def causal(offset: PerItem | Sequence[int] = 0) -> Mask:
    """Query i sees key j iff j <= i + offset.

    Args:
        offset: how many keys come before the first query (those of a cache, say): an int, or a
            list or an int tensor with one per batch item.
    """
    return window(left=None, right=0, offset=offset)


def window(
    left: int | None = None, right: int | None = None, offset: PerItem | Sequence[int] = 0
) -> Mask:
    """Query i sees key j iff i + offset - left <= j <= i + offset + right.

    A model's "sliding window of W tokens" is `window(left=W - 1, right=0)`.

    Args:
        left: keys seen before the query's own position, which is always seen; None = all.
        right: keys seen after it; None = all.
        offset: the key position of query 0: an int, or one per batch item.

    Raises:
        ArgumentError: left or right is negative.
    """
    for name, reach in (("left", left), ("right", right)):
        if reach is not None and (type(reach) is not int or reach < 0):
            raise ArgumentError(f"window needs {name} to be None or an int >= 0, got {reach!r}")
    return Band(left, right, checks.per_item(offset, "offset", negative=True))


def padding(lengths: PerItem | Sequence[int]) -> Mask:
    """Every query sees the real keys; what padding holds never matters.

    Args:
        lengths: how many keys are real, counted from the first: an int, or a list or an int tensor
            with one per batch item. Or bool, (keys,) or (batch, keys), True = real, with padding on
            any side: a tokenizer's `attention_mask.bool()`.
    """
    if isinstance(lengths, Tensor) and lengths.dtype == torch.bool:
        if lengths.ndim == 0:
            raise ShapeError("padding needs flags of shape (..., keys), got a single one")
        return present(lengths)
    return Below(checks.per_item(lengths, "padding"), "padding")


def present(flags: Tensor) -> Mask:
    """Padding by one flag per key; kept as lengths where all padding is on the right."""
    keys, real = flags.shape[-1], flags.sum(-1)
    if torch.equal(flags, torch.arange(keys, device=flags.device) < real.unsqueeze(-1)):
        return Below(real if flags.ndim > 1 else int(real), "padding", flagged=keys)
    return Present(flags)


def prefix(n: PerItem | Sequence[int]) -> Mask:
    """Every query sees the first n keys: `causal() | prefix(n)` is a prefix language model."""
    return Below(checks.per_item(n, "prefix"), "prefix")


def documents(ids: Tensor, key_ids: Tensor | None = None) -> Mask:
    """A query sees the keys with its own id: several documents in one row, separate.

    Args:
        ids: int, (queries,) or (batch, queries).
        key_ids: int, (keys,) or (batch, keys); the same as ids unless given.
    """
    keys = ids if key_ids is None else key_ids
    for name, tensor in (("ids", ids), ("key_ids", keys)):
        if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.is_complex():
            raise TypeMismatchError(
                f"documents needs {name} to be an int tensor, got {checks.kind_of(tensor)}"
            )
        if tensor.ndim == 0:
            raise ShapeError(
                f"documents needs {name} of shape (..., positions), got a single number"
            )
    return Documents(ids, keys)

"""Context and logsumexp by tiles of our own, which compute no score that a triangle hides.

It needs Numba, which is optional; else PyTorch's kernel computes the same.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import forking
from pellucid.attention.block_pool import together

TILES, SHORT_TILES, SHORT = 8, 4, 512
"""Tiles of rows that meet some keys at a time; and for so few keys, of which few rows of a triangle
see fewer."""
WORTHWHILE, SHARED_WORTHWHILE = 2**19, 2**25
"""Scores below which calling the compiled code costs more than it saves: in one thread; and in
several, of which ours wait for a core while those of PyTorch, after its last operation, still spin.
"""
LEAST_ROWS = 32
"""Queries below which tiles are mostly empty."""
LEAST_KEYS = 1024
"""Keys below which it is no faster unless it skips those that a triangle hides."""


def is_best(query: Tensor, key: Tensor, causal: bool) -> bool:
    """Whether the compiled loop supports these and is faster than PyTorch's kernel."""
    batch, heads, rows, _ = query.shape
    keys = key.shape[2]
    least = WORTHWHILE if torch.get_num_threads() == 1 else SHARED_WORTHWHILE
    return (
        type(query) is type(key) is Tensor
        and query.dtype == key.dtype == torch.float32
        and rows >= LEAST_ROWS
        and (causal or keys >= LEAST_KEYS)
        and batch * heads * rows * keys >= least
        and not torch.compiler.is_compiling()
        and forking.may_compile()
        and _kernel() is not None
    )


def attend(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Context and logsumexp, as `fused_kernels.forward` gives them, without a graph."""
    batch, heads, rows, dim = query.shape
    kv_heads, keys, value_dim = value.shape[1:]
    # The layout of the kernels, in which joining the heads copies nothing.
    context = query.new_empty(batch, rows, heads, value_dim).transpose(1, 2)
    logsumexp = query.new_empty(batch, heads, rows)
    kernel, tensors = _kernel(), (query, key, value, context)
    addresses = np.array([tensor.data_ptr() for tensor in tensors])
    strides = np.array([tensor.stride()[:3] for tensor in tensors]) * 4
    sizes = np.array([batch, heads, rows, kv_heads, keys, dim, value_dim])
    height = kernel.TILE_ROWS * (SHORT_TILES if causal and keys <= SHORT else TILES)
    ends = np.arange(height, rows + height, height)
    work = np.tile(np.minimum(ends, keys) if causal else np.full_like(ends, keys), batch * heads)
    work = work.cumsum()

    def share(part: int) -> None:
        begin, end = np.searchsorted(
            work, work[-1] * np.array([part, part + 1]) // parts, side="right"
        )
        found = logsumexp.numpy()
        kernel.attend(addresses, strides, sizes, causal, scale, found, height, begin, end)

    parts = min(torch.get_num_threads(), len(work))
    together(share, parts)
    return context, logsumexp


@cache
def _kernel() -> Any:
    """The compiled loops; None without Numba or without a directory for its cache."""
    try:
        from pellucid.attention import fused_attention_kernel
    except (ImportError, RuntimeError):
        return None
    return fused_attention_kernel

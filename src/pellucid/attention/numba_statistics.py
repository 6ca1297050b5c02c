"""A compiled loop over a block of scores: received, entropy, distance and top-k together.

A block of scores is still in cache after its matrix product; torch would read and write it once per
operation, the loop reads it once. It needs Numba, which is optional (`pip install
'pellucid[fast]'`); `block_statistics.summarise_in_torch` is the same in torch.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import forking
from pellucid.attention.scores import Scores

WORTHWHILE = 2**20
"""Scores below which loading the compiled code costs more than it saves."""

Summarise = Callable[..., dict[str, Tensor]]


def best(scores: Scores, otherwise: Summarise) -> Summarise:
    """The compiled loop where it supports these scores and is faster; else the alternative."""
    fits = scores.query.device.type == "cpu" and scores.dtype == torch.float32
    fits = fits and scores.shape.numel() >= WORTHWHILE and forking.may_compile()
    return summarise if fits and _kernel() else otherwise


def summarise(
    masked: Tensor, logsumexp: Tensor, columns: Tensor, first: int, want: frozenset[str], top: int
) -> dict[str, Tensor]:
    """As `block_statistics.summarise_in_torch`, in one pass over the scores."""
    *outer, rows, cols = masked.shape
    count, top = masked.shape[:-2].numel(), min(top, cols)
    sizes = {
        "received": (count, cols),
        "entropy": (count, rows),
        "distance": (count, rows),
        "values": (count, rows, top),
        "indices": (count, rows, top),
    }
    names = want | ({"values", "indices"} if top else set())
    results = {}
    for name, size in sizes.items():  # the kernel skips a result without rows
        shape = size if name in names else (count, *(0 for _ in size[1:]))
        dtype = torch.int64 if name == "indices" else torch.float32
        results[name] = torch.zeros(shape, dtype=dtype)
    kernel = _kernel()
    assert kernel is not None
    kernel(
        masked.reshape(count, rows, cols).numpy(),
        logsumexp.reshape(count, rows).contiguous().numpy(),
        columns.numpy(),
        np.float32(first),
        *(x.numpy() for x in results.values()),
    )
    return {name: results[name].reshape(*outer, *results[name].shape[1:]) for name in names}


@cache
def _kernel() -> Any:
    """The compiled loop; None without Numba or without a directory for its cache."""
    try:
        from pellucid.attention import numba_statistics_kernel
    except (ImportError, RuntimeError):
        return None
    return numba_statistics_kernel.sweep

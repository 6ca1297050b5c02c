"""One compiled sweep over a block of scores: received, entropy, distance and top-k together.

A block of scores comes out of the BLAS and is still in cache; torch would read and write it once an
operation, this reads it once. Written in Numba, which is optional (`pip install 'pellucid[fast]'`);
`block_statistics.summarise_in_torch` says the same in torch.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.attention.scores import Scores

WORTHWHILE = 2**20
"""Scores below which loading the compiled code costs more than it saves."""

Summarise = Callable[..., dict[str, Tensor]]


def best(scores: Scores, otherwise: Summarise) -> Summarise:
    """The sweep where it can serve these scores and pays, the alternative elsewhere."""
    fits = scores.query.device.type == "cpu" and scores.dtype == torch.float32
    return summarise if fits and scores.shape.numel() >= WORTHWHILE and _kernel() else otherwise


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
    found = {}
    for name, size in sizes.items():  # what is not wanted has no rows, which the kernel sees
        kept = size if name in names else (count, *(0 for _ in size[1:]))
        found[name] = torch.zeros(kept, dtype=torch.int64 if name == "indices" else torch.float32)
    kernel = _kernel()
    assert kernel is not None
    kernel(
        masked.reshape(count, rows, cols).numpy(),
        logsumexp.reshape(count, rows).contiguous().numpy(),
        columns.numpy(),
        np.float32(first),
        *(x.numpy() for x in found.values()),
    )
    return {name: found[name].reshape(*outer, *found[name].shape[1:]) for name in names}


@cache
def _kernel() -> Any:
    """The compiled sweep, or None without Numba, or where it can keep nothing on disk."""
    try:
        from pellucid.attention import numba_statistics_kernel
    except (ImportError, RuntimeError):
        return None
    return numba_statistics_kernel.sweep

"""One compiled sweep over a block of scores: received, entropy, distance and top-k together.

A block of scores comes out of the BLAS and is still in cache; torch would read and write it once an
operation, this reads it once. Written in Numba, which is optional (`pip install 'pellucid[fast]'`);
`streaming.summarise_in_torch` says the same in torch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    """As `streaming.summarise_in_torch`, in one pass; it costs the same whatever is wanted."""
    *outer, rows, cols = masked.shape
    blocks = masked.reshape(-1, rows, cols)
    count = len(blocks)
    top = min(top, cols)
    workers = min(torch.get_num_threads(), count * rows)
    found = {
        "entropy": torch.empty(count, rows),
        "distance": torch.empty(count, rows),
        "values": torch.empty(count, rows, top),
        "indices": torch.empty(count, rows, top, dtype=torch.int64),
    }
    received = torch.zeros(workers, count, cols)
    arrays = [x.numpy() for x in (blocks, logsumexp.reshape(count, rows).contiguous(), columns)]
    results = [x.numpy() for x in found.values()]
    kernel = _kernel()
    assert kernel is not None
    edges = [count * rows * i // workers for i in range(workers + 1)]

    def work(i: int) -> None:
        kernel(*arrays, np.float32(first), edges[i], edges[i + 1], received[i].numpy(), *results)

    list(_pool(workers).map(work, range(workers)))
    found["received"] = received.sum(0)
    names = want | ({"values", "indices"} if top else set())
    return {name: found[name].reshape(*outer, *found[name].shape[1:]) for name in names}


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="pellucid-sweep")


@cache
def _kernel() -> Any:
    """The compiled sweep, or None without Numba."""
    try:
        from pellucid.attention import sweep_kernel
    except ImportError:
        return None
    return sweep_kernel.sweep

"""A compiled loop over a block of scores: received, entropy, distance and top-k together.

A block of scores is still in cache after its matrix product; torch would read and write it once per
operation, the loop reads it once. It needs Numba, which is optional (`pip install
'pellucid[fast]'`); `block_statistics.summarise_in_torch` is the same in torch.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import forking
from pellucid.attention.scores import Scores

WORTHWHILE = 2**20
"""Scores below which loading the compiled code costs more than it saves."""


def is_best(scores: Scores) -> bool:
    """Whether the compiled loop supports these scores and is faster than torch."""
    fits = scores.query.device.type == "cpu" and scores.dtype == torch.float32
    fits = fits and scores.shape.numel() >= WORTHWHILE and forking.may_compile()
    return fits and _kernel() is not None


def summarise(
    scores: Tensor,
    spans: tuple[Tensor, Tensor] | None,
    logsumexp: Tensor | None,
    columns: Tensor,
    first: int,
    want: frozenset[str],
    top: int,
) -> dict[str, Tensor]:
    """As `block_statistics.summarise_in_torch`, in one pass over the scores.

    Args:
        spans: the range of columns that each row sees, as `Block.spans` gives them; without them,
            hidden scores are -inf.
        logsumexp: (items, heads, rows); that of the scores where it is None.
    """
    *outer, rows, cols = scores.shape
    count, top = scores.shape[:-2].numel(), min(top, cols)
    sizes = {
        "received": (count, cols),
        "entropy": (count, rows),
        "distance": (count, rows),
        "peak": (count, rows),
        "values": (count, rows, top),
        "indices": (count, rows, top),
    }
    names = want | ({"values", "indices"} if top else set())
    results = {}
    for name, size in sizes.items():  # the kernel skips a result without rows
        shape = size if name in names else (count, *(0 for _ in size[1:]))
        dtype = torch.int64 if name == "indices" else torch.float32
        results[name] = torch.zeros(shape, dtype=dtype)
    known = torch.empty(count, 0) if logsumexp is None else logsumexp.reshape(count, rows)
    begins, ends = spans or (torch.zeros(rows, dtype=torch.int64), torch.full((rows,), cols))
    kernel = _kernel()
    assert kernel is not None
    kernel(
        scores.reshape(count, rows, cols).numpy(),
        begins.numpy(),
        ends.numpy(),
        known.contiguous().numpy(),
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

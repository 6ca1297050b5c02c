"""Statistics from query and key in one compiled sweep, which needs the logsumexp of each row.

Scores are computed by tiles of our own and read while they are in cache. It needs Numba, which is
optional; the general way is `block_statistics.statistics`.
"""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import numba_statistics
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.block_pool import each, is_transformed
from pellucid.attention.intervals import Intervals
from pellucid.attention.masks.row_ranges import row_ranges
from pellucid.attention.scores import Scores, steps

STRIPE = 2**21
"""Scores that one thread computes at a time."""
CALLS = 4
"""Fewest calls for each thread."""
LEAST_ROWS = 96
"""Fewest rows at a time, however long."""


def is_best(scores: Scores) -> bool:
    """Whether the sweep may support these scores and is faster than a product and a loop."""
    return (
        scores.energy.is_dot_product
        and scores.softcap is None
        and scores.bias is None
        and not is_transformed()
        and numba_statistics.is_best(scores)
        and _kernel() is not None
    )


def statistics(
    scores: Scores,
    logsumexp: Tensor,
    want: frozenset[str],
    top: int,
    queries: Intervals | None,
) -> dict[str, Tensor] | None:
    """As `block_statistics.statistics`; None where a row sees more than one range of keys."""
    batch, heads, rows, keys = scores.shape
    ranges = row_ranges(scores.mask, rows, keys, scores.query.device)
    kernel = _kernel()
    if ranges is None or kernel is None:
        return None
    offsets = [0 if scores.mask is None else scores.mask.at(i).offset or 0 for i in range(batch)]
    begins, ends = (part.expand(batch, rows).contiguous() for part in ranges)
    lse = finite(logsumexp).to(torch.float32).contiguous()
    width = -(-keys // kernel.PANEL) * kernel.PANEL
    panels = torch.empty(batch, scores.key.shape[1], width * scores.key.shape[-1])
    panels = panels.unflatten(-1, (-1, scores.key.shape[-1], kernel.PANEL))

    def pack(item: int) -> None:
        key = scores.key[item].to(torch.float32)
        key = key if key.stride(-1) == 1 else key.contiguous()
        apart = (4 * stride for stride in key.stride()[:2])
        kernel.pack_heads(key.data_ptr(), *apart, keys, panels[item].numpy())

    for _ in each(pack, range(batch), lse.device, False):
        pass
    sizes = {"entropy": (), "distance": (), "peak": (), "values": (top,), "indices": (top,)}
    names = want | ({"values", "indices"} if top else set())
    results = {}
    for name, size in sizes.items():  # the kernel skips a result without rows
        shape = (batch, heads, rows if name in names or size else 0, *size)
        dtype = torch.int64 if name == "indices" else torch.float32
        results[name] = torch.zeros(shape, dtype=dtype)
    received = torch.zeros(batch, heads, keys, dtype=torch.float64)

    def sweep(place: tuple[int, slice, slice]) -> np.ndarray:
        item, some, part = place
        found = np.zeros((some.stop - some.start, width))
        kernel.sweep(
            scores.query[place].to(torch.float32).contiguous().numpy(),
            scores.scale,
            panels[item].numpy(),
            scores.group,
            some.start,
            begins[item, part].numpy(),
            ends[item, part].numpy(),
            lse[place].numpy(),
            int(offsets[item]) + part.start,
            found,
            *(x[item, some, part if x.shape[2] else slice(0)].numpy() for x in results.values()),
        )
        return found

    step = max(LEAST_ROWS, STRIPE // keys) // kernel.ROWS * kernel.ROWS
    spans = ((0, rows),) if queries is None else queries
    parts = [part for span in spans for part in steps(slice(*span), step)]
    together = 1  # the part of several heads lies together only where it is all of their rows
    if parts == [slice(0, rows)]:
        shared = batch * heads // (CALLS * torch.get_num_threads())
        together = min(shared, STRIPE // (rows * keys))
    places = product(range(batch), steps(slice(0, heads), together), parts)
    for (item, some, _), found in each(sweep, places, lse.device, False):
        received[item, some] += torch.from_numpy(found[:, :keys])
    results["received"] = received.to(torch.float32)
    return {name: results[name] for name in names}


@cache
def _kernel() -> Any:
    """The compiled loops; None without Numba or without a directory for its cache."""
    try:
        from pellucid.attention import fused_statistics_kernel
    except (ImportError, RuntimeError):
        return None
    return fused_statistics_kernel

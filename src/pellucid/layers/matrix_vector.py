"""Products of a matrix and a few vectors at the speed of the memory, by compiled loops if there.

A few texts' next token is a matter of reading every weight once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST_ROWS = 8
"""Texts beyond which a matrix product for all of them is faster than a row of weights at a time."""
WORTHWHILE = 2**20
"""Weights below which loading the compiled code costs more than it saves."""
NOTHING = np.empty(0, np.float32)
_alone = Lock()
"""Without OpenMP, Numba ends the process if two threads call it at once."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """As `F.linear`; of a few rows at the speed of the memory.

    Args:
        x: (..., in).
        weight: (out, in), float; or int8, with a scale (out,).
        bias: (out,).
        scale: of the rows of weight.
    """
    rows = x.flatten(0, -2)
    is_small = weight.numel() < WORTHWHILE
    if is_small or torch.compiler.is_compiling() or not fits(rows):
        if scale is None:
            return nn.functional.linear(x, weight, bias)
        made = nn.functional.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)
        return made if bias is None else made + bias
    kernel = decoding_kernel()
    out = np.empty((len(rows), len(weight)), np.float32)
    vectors = (NOTHING if one is None else one.numpy() for one in (scale, bias))
    with cores() as parts:
        kernel.project(weight.numpy(), *vectors, rows.contiguous().numpy(), out, parts)
    return torch.from_numpy(out).view(*x.shape[:-1], len(weight))


def fits(x: Tensor) -> bool:
    """Whether the kernel serves so many rows of this kind."""
    return (
        len(x) <= MOST_ROWS
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and decoding_kernel() is not None
    )


@contextmanager
def cores() -> Iterator[int]:
    """How many cores to use, as many as torch does; they are ours alone meanwhile."""
    import numba

    with _alone:
        before = numba.get_num_threads()
        parts = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(parts)
        try:
            yield parts
        finally:
            numba.set_num_threads(before)


@cache
def decoding_kernel() -> Any:
    """The compiled loops, or None without Numba, or where it can keep nothing on disk."""
    try:
        from pellucid.layers import decoding_kernel
    except (ImportError, RuntimeError):
        return None
    return decoding_kernel

"""Products of a matrix and vectors by compiled loops, where they are faster than torch.

The next token of a few texts takes one read of every weight, at memory bandwidth. Of int8 weights
and many vectors, the product is one of whole numbers: see `tile_kernel`. Where the processor has a
matrix unit, it multiplies many vectors: see `amx_tiles`.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.attention import forking
from pellucid.layers.background import may_call
from pellucid.layers.fusible import is_plain, is_unobserved, is_watched
from pellucid.layers.thread_count import ThreadCount

MOST_ROWS = 8
"""Most texts; above, one matrix product for all is faster than a row of weights at a time."""
WIDE, MOST_WIDE_ROWS = 2**13, 1024
"""Rows of weights, such as those of a vocabulary, for which torch lays all of them out anew, and
most texts: until then that takes longer than what it saves."""
WORTHWHILE = 2**20
"""Weights below which loading the compiled code costs more than it saves."""
LEAST_SIZE, MOST_COLUMNS = 4, 2**16
"""Rows and columns of int8 weights whose product with many rows is one of whole numbers: a tile
has 4 columns, and the longer a row, the fewer bits an input has."""
LONG = 2048
"""Columns of float32 weights from which on the matrix unit is faster than PyTorch's product."""
NOTHING = np.empty(0, np.float32)
_counts: defaultdict[Any, ThreadCount] = defaultdict(ThreadCount)
"""By the sizes of a product."""
_lock = Lock()
"""Without OpenMP, Numba ends the process if two threads call it at once."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """As `F.linear`; for a few rows at memory bandwidth.

    Args:
        x: (..., in).
        weight: (out, in), float; or int8, with a scale (out,).
        bias: (out,).
        scale: of the rows of weight.
    """
    rows = x.flatten(0, -2)
    most = MOST_WIDE_ROWS if len(weight) >= WIDE and scale is None else MOST_ROWS
    result = None
    if scale is None and _fits_matrix_unit(rows, weight):
        result = _float_product(rows, weight, bias)
    elif scale is not None and _fits_whole(rows, weight):
        result = _whole_product(rows, weight, bias, scale)
    elif weight.numel() >= WORTHWHILE and not torch.compiler.is_compiling() and fits(rows, most):
        result = _product_of_few(rows, weight, bias, scale)
    if result is not None:
        return result.view(*x.shape[:-1], len(weight))
    if scale is None:
        return nn.functional.linear(x, weight, bias)
    product = nn.functional.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)
    return product if bias is None else product + bias


def _product_of_few(
    rows: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None
) -> Tensor | None:
    """rows (rows, in) @ weight.T * scale + bias, by one read of the weights."""
    out = torch.empty(len(rows), len(weight))
    matrix, inputs, outputs = weight.numpy(), rows.contiguous().numpy(), out.numpy()
    scales, added = (NOTHING if part is None else part.numpy() for part in (scale, bias))
    arguments: tuple[Any, ...] = matrix, scales, added, inputs, outputs
    function = compiled_kernel().project
    if len(rows) > 1 and scale is None:
        from pellucid.layers import tile_kernel

        arguments, function = (matrix, added, inputs, outputs), tile_kernel.project_float
    if not may_call(function, *arguments, 1):
        return None
    with cores(_counts[(len(rows), weight.shape, weight.dtype)]) as parts:
        function(*arguments, parts)
    return out


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer's output; of many rows by the matrix unit, where nothing would notice."""
    if (
        type(layer) is nn.Linear
        and x.ndim > 1
        and _fits_matrix_unit(x.flatten(0, -2), layer.weight)
        and is_plain(layer)
        and not is_watched()
    ):
        return linear(x, layer.weight, layer.bias)
    output: Tensor = layer(x)
    return output


def _fits_matrix_unit(rows: Tensor, weight: Tensor) -> bool:
    """Whether to multiply float32 by the matrix unit, here and now."""
    return (
        len(rows) > MOST_ROWS
        and len(rows) * weight.numel() >= WORTHWHILE
        and weight.dtype == torch.float32
        and weight.shape[1] >= LONG
        and weight.is_contiguous()
        and not torch.compiler.is_compiling()
        and is_unobserved()
        and fits(rows, len(rows))
        and (kernel := matrix_unit()) is not None
        and len(rows) >= kernel.LEAST_ROWS
    )


def _float_product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """rows (rows, in) @ weight.T + bias by the matrix unit."""
    out = torch.empty(len(rows), len(weight))
    added = NOTHING if bias is None else bias.numpy()
    arguments = weight.numpy(), added, rows.contiguous().numpy(), out.numpy()
    if torch.get_num_threads() == 1:  # as where each core has texts of its own
        function = matrix_unit().project_float_alone
        if not may_call(function, *arguments):
            return None
        function(*arguments)
        return out
    function = matrix_unit().project_float
    if not may_call(function, *arguments, 1):
        return None
    with cores() as parts:
        function(*arguments, parts)
    return out


def _fits_whole(rows: Tensor, weight: Tensor) -> bool:
    """Whether the kernel for many rows is to multiply int8 weights, here and now."""
    size, cols = weight.shape
    return (
        len(rows) > 1
        and len(rows) * weight.numel() >= WORTHWHILE
        and size >= LEAST_SIZE
        and cols <= MOST_COLUMNS
        and not torch.compiler.is_compiling()
        and fits(rows, len(rows))
    )


def _whole_product(
    rows: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor
) -> Tensor | None:
    """rows (rows, in) @ weight.T * scale + bias, by sums of whole numbers."""
    from pellucid.layers import tile_kernel

    kernel = matrix_unit() or tile_kernel
    out = torch.empty(len(rows), len(weight))
    vectors = (NOTHING if part is None else part.numpy() for part in (scale, bias))
    arguments = weight.numpy(), *vectors, rows.contiguous().numpy(), out.numpy()
    if torch.get_num_threads() == 1:
        if not may_call(kernel.project_alone, *arguments):
            return None
        kernel.project_alone(*arguments)
    else:
        if not may_call(kernel.project_whole, *arguments, 1):
            return None
        with cores() as parts:
            kernel.project_whole(*arguments, parts)
    return out


def fits(x: Tensor, most: int = MOST_ROWS) -> bool:
    """Whether the kernel supports rows of this count, device and dtype."""
    return (
        len(x) <= most
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and compiled_kernel() is not None
    )


@cache
def matrix_unit() -> Any:
    """The compiled loops for AMX; None where the processor has none."""
    from pellucid.layers import amx_tiles

    if not amx_tiles.is_available():
        return None
    from pellucid.layers import amx_kernel

    return amx_kernel


@contextmanager
def cores(count: ThreadCount | None = None) -> Iterator[int]:
    """How many cores to use; inside, no other thread calls Numba.

    Args:
        count: chooses among as many as torch uses, by the time that is spent inside; all unless
            given.
    """
    import numba

    with _lock:
        threads = torch.get_num_threads()
        before = numba.get_num_threads()
        # The first call starts Numba's threads; with OpenMP, it sets torch's number too.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        parts = min(threads, numba.config.NUMBA_NUM_THREADS)
        parts = parts if count is None else count.choose(parts)
        numba.set_num_threads(parts)
        start = perf_counter()
        try:
            yield parts
        finally:
            if count is not None:
                count.note(perf_counter() - start)
            numba.set_num_threads(before)


def compiled_kernel() -> Any:
    """The compiled loops; None without Numba or a directory for its cache, or after a fork."""
    return _kernel() if forking.may_compile() else None


@cache
def _kernel() -> Any:
    try:
        from pellucid.layers import matrix_vector_kernel
    except (ImportError, RuntimeError):
        return None
    return matrix_vector_kernel

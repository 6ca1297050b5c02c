"""The matrix of a linear module, found by running it.

The columns are the results for unit vectors, less the result for zeros.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError

ROUNDINGS = 8
"""The error, in roundings of one number, that a linear module may have: products and sums."""

Ask = Callable[[Tensor], Tensor]
"""A module as (rows, width) to (rows, outputs)."""
Layout = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""How contexts, (rows, width), are laid out for a module, and its results as (rows, outputs)."""


def module_matrix(
    module: nn.Module, name: str, width: int, heads: int, value: Tensor | None
) -> Tensor:
    """(outputs, width): the matrix by which a module multiplies contexts.

    Args:
        module: a module that is linear for each token.
        name: its name, for messages.
        width: the number of its inputs.
        heads: the number of heads that these are divided into.
        value: values of the attention, for their dtype and device.

    Raises:
        ArgumentError: the module cannot be run, or is not linear.
        TypeMismatchError: its weights are on the meta device.
    """
    held = [*module.parameters(), *module.buffers()]
    fetches = any("forward" in vars(part) for part in module.modules())  # as with offloading
    if any(tensor.is_meta for tensor in held) and not fetches:
        raise not_in_memory(name)
    values = [] if value is None else [value]
    devices = [tensor.device for tensor in [*held, *values] if not tensor.is_meta]
    device = devices[0] if devices else torch.device("cpu")
    floats = [x.dtype for x in held if x.is_floating_point() and x.dtype.itemsize > 1]
    dtypes = dict.fromkeys([*(tensor.dtype for tensor in values), *floats, torch.float32])
    with _evaluating(module), torch.no_grad(), torch.autocast(device.type, enabled=False):
        sums = _sums(width).to(device)
        ask, results = _first_way(module, name, sums, heads, dtypes)
        rounding = max([_rounding(results), *(torch.finfo(dtype).eps for dtype in floats)])
        return _probed(ask, name, sums, rounding)


def _probed(ask: Ask, name: str, sums: Tensor, rounding: float) -> Tensor:
    """The matrix behind `ask`, verified on (rows, width) `sums` of unit vectors."""
    width = sums.shape[1]
    together = max(1, BLOCK_NUMBERS // width)
    bias = ask(torch.zeros_like(sums))[0].clone()

    def columns(first: int, scale: float) -> Tensor:
        units = torch.zeros(min(together, width - first), width, device=sums.device)
        units.diagonal(first).fill_(scale)
        return (ask(units) - bias) / scale

    scale = _scale(float(bias.abs().max()), float(columns(0, 1.0).abs().max()))
    matrix = bias.new_empty(len(bias), width)
    for first in range(0, width, together):
        block = columns(first, scale)
        matrix[:, first : first + len(block)] = block.T

    rounding += width**0.5 * torch.finfo(matrix.dtype).eps
    lengths = float(sums.amax()) * torch.linalg.vector_norm(matrix, dim=1)
    for factor in (scale, -2 * scale):
        expected = factor * sums.to(matrix) @ matrix.T
        sizes = expected.abs() + abs(factor) * lengths + bias.abs()
        budget = ROUNDINGS * rounding * float(sizes.norm())
        error = float((ask(factor * sums) - bias - expected).norm())
        if not error <= budget:  # NaN is refused as well
            raise ArgumentError(
                f"'{name}' does not multiply each context by one matrix: its results for sums are "
                f"off by {error:.1e}, where rounding explains {budget:.1e}"
            )
    return matrix


def _sums(width: int) -> Tensor:
    """(rows, width): sums of unit vectors, with a length near 1.

    The entries of a row are 0 or equal, so that a layer that quantizes its inputs loses nothing.
    They are the same every time, and the global random state is not used.
    """
    rows = 2 if width == 3 else 3  # so that rows and width cannot be confused
    generator = torch.Generator("cpu").manual_seed(width)
    chosen = torch.randint(2, (rows, width), generator=generator, device="cpu").float()
    chosen[0] = 1
    return chosen * 2.0 ** -round(math.log2(max(1, width / 2)) / 2)


def _first_way(
    module: nn.Module, name: str, sums: Tensor, heads: int, dtypes: Iterable[torch.dtype]
) -> tuple[Ask, Tensor]:
    """The first way to run the module that works, and its results for `sums`.

    Raises:
        ArgumentError: no way works.
    """
    errors: list[Exception] = []
    for dtype in dtypes:
        for layout in _layouts(heads):
            ask = partial(_run, module, layout, dtype)
            try:
                return ask, ask(sums)
            except Exception as error:
                errors.append(error)
    raise ArgumentError(
        f"'{name}' could not be run on contexts of shape (1, {len(sums)}, {sums.shape[1]}): "
        f"{errors[0]}"
    ) from errors[0]


def _layouts(heads: int) -> list[Layout]:
    return [
        (lambda rows: rows[None], lambda result: result[0]),
        (lambda rows: rows, lambda result: result),
        (lambda rows: rows.unflatten(1, (heads, -1))[None], lambda result: result[0].flatten(1)),
        # Convolutions over single positions.
        (lambda rows: rows.T[None], lambda result: result[0].T),
        (lambda rows: rows.T[None, :, :, None], lambda result: result[0, :, :, 0].T),
    ]


def _run(module: nn.Module, layout: Layout, dtype: torch.dtype, rows: Tensor) -> Tensor:
    lay_out, restore = layout
    result = module(lay_out(rows.to(dtype, copy=True)))
    result = restore(result[0] if isinstance(result, tuple) else result)
    if result.is_meta or result.ndim != 2 or len(result) != len(rows):
        raise ShapeError(f"it returned {tuple(result.shape)} on {result.device}")
    return result.to(torch.promote_types(result.dtype, torch.float32))


def _scale(bias: float, entry: float) -> float:
    """The length of vectors, a power of two, at which a bias of this size does not drown them."""
    if bias == 0 or not math.isfinite(bias * entry):
        return 1.0
    return 2.0 ** min(max(math.ceil(math.log2(16 * bias / max(entry, bias / 2**12))), 0), 12)


def _rounding(results: Tensor) -> float:
    """The relative error of the dtype that results were computed in."""
    try:
        whole = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # it differs between backends
        whole = False
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        is_exact = torch.equal(results.to(dtype).to(results), results)
        if is_exact or (dtype == torch.bfloat16 and not whole):
            return torch.finfo(dtype).eps
    return torch.finfo(results.dtype).eps


def not_in_memory(name: str) -> TypeMismatchError:
    return TypeMismatchError(
        f"'{name}' has its weights on the meta device, which holds no numbers: load them first"
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode on each part: the module's own `eval()` may do more, such as merge adapters."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True

"""Products of matrices in bfloat16, summed in float32, within a block of code that asks for them.

    with precision("bfloat16"):
        model(ids)

A processor with AMX makes some ten of them in the time of one of float32. Inputs and weights of the
products of a block, those of attention included, are rounded to the 8 bits of bfloat16. Norms,
rotary positions, experts and the sums of residual connections stay in float32. Each weight is
rounded once: what it is then stays in memory, half as large, until it changes or goes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from pellucid.errors import ArgumentError
from pellucid.layers.fusible import is_plain
from pellucid.layers.matrix_vector import project

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

_is_low = ContextVar("products in bfloat16", default=False)
_rounded = WeakTensorKeyDictionary()
"""Of each weight: its state when it was rounded, and what it was rounded to."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """The fastest dtype of matrix products: bfloat16 on a GPU that supports it and on a CPU with
    AMX, otherwise float32.
    """
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Those of AVX512-BF16 are no faster than float32, and without either they are emulated.
        has = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has else torch.float32


def resolved(kind: str, device: torch.device | str = "cpu") -> Precision:
    """The precision in which a device is to multiply: "float32" or "bfloat16".

    Args:
        kind: one of these, or "auto" for the faster one.
        device: that multiplies.

    Raises:
        ArgumentError: kind is none of these, or bfloat16 would be slower on the device.
    """
    if kind not in PRECISIONS:
        raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, not {kind!r:.80}")
    device = torch.device(device)
    is_fast = fast_dtype(device) is torch.bfloat16
    if kind == "bfloat16" and not is_fast:
        where = "this processor has no AMX, without which" if device.type == "cpu" else "here"
        raise ArgumentError(
            f"{where} bfloat16 is slower than float32; precision 'auto' takes the faster one"
        )
    return "bfloat16" if kind != "float32" and is_fast else "float32"


@contextmanager
def precision(kind: Precision, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within the block, and in its thread alone, models multiply in a precision.

    A part of a block where gradients are needed or that is compiled multiplies in float32, and so
    does one with a layer that has hooks or is not plain `torch.nn.Linear`.

    Args:
        kind: "float32", "bfloat16", or "auto" for the faster one.
        device: of the models.

    Raises:
        ArgumentError: kind is none of these, or bfloat16 would be slower on the device.
    """
    with products(resolved(kind, device)):
        yield


@contextmanager
def products(kind: Precision) -> Iterator[None]:
    """As `precision`, of what `resolved` has told."""
    token = _is_low.set(kind == "bfloat16")
    try:
        yield
    finally:
        _is_low.reset(token)


def lowered(x: Tensor, *layers: nn.Module | None) -> Tensor:
    """The input of a part of a block, in bfloat16 if its layers are to multiply so."""
    if torch.compiler.is_compiling() or not _is_low.get() or torch.is_grad_enabled():
        return x
    are_fit = all(_fits(layer) for layer in layers if layer is not None)
    return x.to(torch.bfloat16) if x.dtype == torch.float32 and are_fit else x


def product(layer: Any, x: Tensor, *, is_last: bool = False) -> Tensor:
    """layer(x); if `lowered` has rounded x, in bfloat16, and then float32 again if it `is_last`."""
    if x.dtype != torch.bfloat16 or not _is_low.get() or not _fits(layer):
        return project(layer, x)
    bias = None if layer.bias is None else rounded(layer.bias)
    output = F.linear(x, rounded(layer.weight), bias)
    return output.float() if is_last else output


def _fits(layer: Any) -> bool:
    return type(layer) is nn.Linear and layer.weight.dtype == torch.float32 and is_plain(layer)


def rounded(weight: Tensor) -> Tensor:
    """A weight in bfloat16, which is kept until it changes."""
    if weight.is_inference():  # no change of it would be noticed
        return weight.to(torch.bfloat16)
    state = weight.data_ptr(), weight._version
    known = _rounded.get(weight)
    if known is None or known[0] != state:
        known = _rounded[weight] = state, weight.detach().to(torch.bfloat16)
    copy: Tensor = known[1]
    return copy

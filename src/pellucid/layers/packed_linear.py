"""Layers with packed weights: see `layers.packed`. They do not train."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.layers.background import may_call
from pellucid.layers.fusible import fusible
from pellucid.layers.matrix_vector import NOTHING, cores, fits
from pellucid.layers.packed import BLOCK, Packed

MOST_ROWS = 128
"""Rows of inputs above which weights are unpacked, for one product of matrices."""


class _PackedLayer(nn.Module):
    whole: Tensor
    scale: Tensor
    least: Tensor

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.is_half = packed.is_half
        for name in ("whole", "scale", "least"):
            self.register_buffer(name, getattr(packed, name))
        self._matrix = np.zeros(0, np.int64)

    @property
    def packed(self) -> Packed:
        return Packed(self.whole, self.scale, self.least, self.is_half)

    @property
    def matrix(self) -> Any:
        """The weights as the kernel takes them; it holds their addresses."""
        addresses = [self.whole.data_ptr(), self.scale.data_ptr(), 0]
        if self.least.shape[1]:
            addresses[2] = self.least.data_ptr()
        if self._matrix[:3].tolist() != addresses:
            from pellucid.layers import packed_kernel as kernel

            kinds = {
                (4, True, 1): kernel.BY_4,
                (8, True, 1): kernel.BY_8,
                (4, False, 1): kernel.OF_K_4,
                (8, False, 1): kernel.OF_K_8,
                (8, False, 2): kernel.SPLIT,
            }
            scales = self.scale.shape[1] * BLOCK // self.packed.shape[1]
            kind = kinds[self.packed.bits, self.scale.dtype == torch.float16, scales]
            self._matrix = np.array([*addresses, kind, int(self.is_half)], np.int64)
        return self._matrix

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., out) = x @ weight.T + bias, for x (..., in)."""
        rows = x.flatten(0, -2)
        if not torch.compiler.is_compiling() and fits(rows, MOST_ROWS):
            from pellucid.layers.packed_kernel import project

            out = np.empty((len(rows), len(self.whole)), np.float32)
            added = NOTHING if bias is None else bias.numpy()
            arguments = self.matrix, rows.contiguous().numpy(), added, out
            if may_call(project, *arguments, 1):
                with cores() as parts:
                    project(*arguments, parts)
                return torch.from_numpy(out).view(*x.shape[:-1], -1)
        product = self.packed.times(x)
        return product if bias is None else product + bias


@fusible
class PackedLinear(_PackedLayer):
    """A linear layer with packed weights."""

    bias: Tensor | None

    def __init__(self, packed: Packed) -> None:
        super().__init__(packed)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.times(x, self.bias)

    def extra_repr(self) -> str:
        out, width = self.packed.shape
        return f"in_features={width}, out_features={out}, bias={self.bias is not None}"


class PackedEmbedding(_PackedLayer):
    """A packed table of embeddings; its weights may be shared with an output layer."""

    def forward(self, ids: Tensor) -> Tensor:
        """(..., width) for ids (...)."""
        return self.packed.rows(ids.flatten()).unpacked().view(*ids.shape, -1)


def install(model: nn.Module, parameter: str, packed: Packed) -> None:
    """Put a packed matrix in the place of a layer's weight; its bias stays."""
    owner, _, name = parameter.removesuffix(".weight").rpartition(".")
    parent = model.get_submodule(owner)
    before = getattr(parent, name)
    if isinstance(before, nn.Embedding):
        setattr(parent, name, PackedEmbedding(packed))
        return
    layer = PackedLinear(packed)
    layer.bias = before.bias
    setattr(parent, name, layer)


def is_packable(model: nn.Module, parameter: str) -> bool:
    """Whether a parameter is the weight of a layer that may be packed."""
    owner, _, name = parameter.rpartition(".")
    layer = model.get_submodule(owner) if name == "weight" else None
    is_table = type(layer) is nn.Embedding and owner.endswith("tokens")
    return type(layer) is nn.Linear or is_table

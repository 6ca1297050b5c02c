"""Weights in a byte each, for decoding that waits for memory: whole numbers and a scale a row.

    weight ~ scale[:, None] * whole,  whole from -127 to 127,  scale = the row's largest / 127

(Dettmers et al. 2022, "LLM.int8()", section 2, vector-wise, of the weights alone). Numbers that go
through a layer stay float.
"""

import torch
from torch import Tensor, nn

from pellucid.layers.fusible import fusible
from pellucid.layers.matrix_vector import linear


@fusible
class Int8Linear(nn.Module):
    """A linear layer that keeps a byte a weight. It does not train."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        whole, scale = rounded(linear.weight.detach())
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(x, self.weight, self.bias, self.scale)

    def extra_repr(self) -> str:
        out, width = self.weight.shape
        return f"in_features={width}, out_features={out}, bias={self.bias is not None}"


class Int8Embedding(nn.Module):
    """A table of rows, a byte a number; also read as the weights of an output layer."""

    weight: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        whole, scale = rounded(embedding.weight.detach())
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """(..., width) for ids (...)."""
        return self.weight[ids].to(self.scale.dtype) * self.scale[ids].unsqueeze(-1)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, cols) int8 and (rows,) scales, of (rows, cols) float."""
    scale = weight.abs().amax(-1) / 127
    whole = (weight / scale.clamp_min(torch.finfo(weight.dtype).tiny).unsqueeze(-1)).round()
    return whole.to(torch.int8), scale


def quantise(module: nn.Module) -> None:
    """Put bytes in the place of every linear layer and every embedding of tokens, in place.

    Parts that share their weights go on sharing them; norms, biases and tables of positions stay
    as they are.
    """
    made: dict[nn.Module, nn.Module] = {}
    for part in list(module.modules()):
        for name, inner in list(part.named_children()):
            if type(inner) is nn.Linear:
                made.setdefault(inner, Int8Linear(inner))
            elif type(inner) is nn.Embedding and name == "tokens":
                made.setdefault(inner, Int8Embedding(inner))
            else:
                continue
            setattr(part, name, made[inner])

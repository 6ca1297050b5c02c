"""int8 weights, for decoding that is bound by memory: an integer per weight and a scale per row.

    weight ~ scale[:, None] * whole,  whole from -127 to 127,  scale = the row's largest / 127

(Dettmers et al. 2022, "LLM.int8()", section 2, vector-wise, of the weights alone). Activations stay
float.
"""

import torch
from torch import Tensor, nn

from pellucid.layers.feed_forward import StackedLinear
from pellucid.layers.fusible import fusible
from pellucid.layers.matrix_vector import linear


@fusible
class Int8Linear(nn.Module):
    """A linear layer with int8 weights. It does not train."""

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
    """An int8 table of embeddings; its weights may be shared with an output layer."""

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


class Int8StackedLinear(nn.Module):
    """A linear layer with int8 weights for each expert."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, stacked: StackedLinear) -> None:
        super().__init__()
        whole, scale = rounded(stacked.weight.detach())
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)
        bias = stacked.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, in) to (tokens, out), by one of the experts."""
        bias = None if self.bias is None else self.bias[expert]
        return linear(x, self.weight[expert], bias, self.scale[expert])


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(..., rows, cols) int8 and (..., rows) scales for (..., rows, cols) float."""
    scale = weight.abs().amax(-1) / 127
    whole = (weight / scale.clamp_min(torch.finfo(weight.dtype).tiny).unsqueeze(-1)).round()
    return whole.to(torch.int8), scale


def quantise(module: nn.Module) -> None:
    """Replace every linear layer and every token embedding by int8, in place.

    Shared weights stay shared; norms, biases, routers and position tables stay float.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for part in list(module.modules()):
        for name, inner in list(part.named_children()):
            if name == "router":  # a small error would pick other experts
                continue
            if type(inner) is nn.Linear:
                replacements.setdefault(inner, Int8Linear(inner))
            elif type(inner) is StackedLinear:
                replacements.setdefault(inner, Int8StackedLinear(inner))
            elif type(inner) is nn.Embedding and name == "tokens":
                replacements.setdefault(inner, Int8Embedding(inner))
            else:
                continue
            setattr(part, name, replacements[inner])

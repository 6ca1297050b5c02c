"""A norm with its scale frozen: a linear function of its input, plus a bias.

    LayerNorm   y = (x - mean(x)) * weight / sqrt(var(x) + eps) + bias
    RMSNorm     y = x * weight / sqrt(mean(x ** 2) + eps)

The division by what the model observed is the only part that is not linear in x. Some families
multiply by 1 + weight. Which formula holds is not looked up: it is the one that gives the output of
the module.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError

EPS = ("eps", "variance_epsilon")
"""Names of the number that is added to the variance."""
ROUNDINGS = 64
"""The error, in roundings of the largest number, that the formula may have."""


@dataclass(frozen=True, slots=True)
class FrozenNorm:
    """y = (x - mean(x) if it is centred) * scale * weight + bias."""

    scale: Tensor
    """(..., 1): one number for each vector that was normalised."""
    weight: Tensor | None
    """(width,), any 1 that is added included."""
    is_centred: bool
    bias: Tensor | None

    def linear(self, x: Tensor) -> Tensor:
        """The part that is linear in x."""
        y = (x - x.mean(-1, keepdim=True) if self.is_centred else x) * self.scale
        return y if self.weight is None else y * self.weight

    def of_row(self, item: int, position: int) -> "FrozenNorm":
        """In float64, what it does to the vector of one token, (width,)."""
        scale = self.scale[0 if len(self.scale) == 1 else item, position].double()
        weight = None if self.weight is None else self.weight.double()
        return FrozenNorm(scale, weight, self.is_centred, None)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm over the last dimension, by the name of its class."""
    name = type(module).__name__
    is_named = name.endswith(("Norm", "LayerNorm1P"))
    return is_named and "Batch" not in name and "Group" not in name and not module._modules


def frozen(module: nn.Module, name: str, x: Tensor, output: Tensor) -> FrozenNorm:
    """The linear function that the norm is at this input.

    Args:
        module: the norm.
        name: its name, for the message.
        x: (..., width), its input.
        output: what it gave.

    Raises:
        ArgumentError: it computes something else.
    """
    weight: Any = getattr(module, "weight", None)
    bias: Any = getattr(module, "bias", None)
    named = [v for key in EPS if isinstance(v := getattr(module, key, None), float)]
    with torch.no_grad():
        wide, result = x.detach().double(), output.detach().double()
        allowed = ROUNDINGS * torch.finfo(output.dtype).eps * float(result.abs().max())
        is_rms = "RMS" in type(module).__name__
        offsets = (0, 1) if weight is not None else (0,)
        # Without a number of its own: that of nn.RMSNorm, and that of OLMo.
        for eps in named or (torch.finfo(x.dtype).eps, 1e-5):
            for is_centred in (not is_rms, is_rms):
                middle = wide - wide.mean(-1, keepdim=True) if is_centred else wide
                scale = (middle.square().mean(-1, keepdim=True) + eps).rsqrt()
                for offset in offsets:
                    factor = None if weight is None else weight.double() + offset
                    expected = middle * scale if factor is None else middle * scale * factor
                    if bias is not None:
                        expected = expected + bias.double()
                    if float((expected - result).abs().max()) <= allowed:
                        return FrozenNorm(
                            scale.to(x.dtype),
                            None if factor is None else factor.to(x.dtype),
                            is_centred,
                            None if bias is None else bias.detach(),
                        )
    raise ArgumentError(f"the norm '{name}' is neither a layer norm nor an RMS norm")

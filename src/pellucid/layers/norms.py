"""Normalisation: layer norm (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.layers.config import Config
from pellucid.layers.fusible import fusible


@fusible
class OffsetLayerNorm(nn.LayerNorm):
    """A layer norm that multiplies by 1 + weight, so that weights near 0 are kept precisely."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.weight is not None:
            nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


@fusible
class OffsetRMSNorm(nn.RMSNorm):
    """An RMS norm that multiplies by 1 + weight, as in Gemma."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, 1 + self.weight, self.eps)


class OwnHeadNorm(nn.Module):
    """Normalises each head, (..., heads, dim), and multiplies it by weights of its own."""

    def __init__(self, config: Config, heads: int) -> None:
        super().__init__()
        kind = nn.LayerNorm if config.norm == "layer" else nn.RMSNorm
        self.inner = kind(config.dim, eps=config.norm_eps, elementwise_affine=False)
        self.weight = nn.Parameter(torch.ones(heads, config.dim))

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.inner(x)
        return normalised * self.weight


def norm(config: Config, size: int | None = None) -> nn.Module:
    """A norm over the last `size` numbers; config.width unless given."""
    size = config.width if size is None else size
    eps, is_trained = config.norm_eps, config.norm_weight
    is_offset = config.norm_offset and is_trained
    if config.norm == "rms":
        return (OffsetRMSNorm if is_offset else nn.RMSNorm)(size, eps, is_trained)
    kind = OffsetLayerNorm if is_offset else nn.LayerNorm
    return kind(size, eps, is_trained, config.norm_bias)


def head_norm(config: Config, heads: int) -> nn.Module | None:
    """The norm of the queries or keys of that many heads, if the config has one.

    It reads (..., heads, dim); if it is "joint", (..., heads * dim).
    """
    if not config.head_norm:
        return None
    if config.head_norm_kind == "own":
        return OwnHeadNorm(config, heads)
    return norm(config, heads * config.dim if config.head_norm_kind == "joint" else config.dim)

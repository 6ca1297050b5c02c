"""Dropout (Srivastava et al. 2014)."""

import torch
from torch import Tensor, nn

from pellucid.layers.fusible import fusible

LEVELS = 256


@fusible
class Dropout(nn.Dropout):
    """As `torch.nn.Dropout`; on a CPU three times as fast, with p rounded to a multiple of 1/256.

    torch draws a random number for each element. Here each byte of one is used.
    """

    def forward(self, x: Tensor) -> Tensor:
        level = round(LEVELS * self.p)
        if not self.training or x.device.type != "cpu" or not 0 < level < LEVELS:
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64)
        drawn.random_(-(2**63), None)  # all 64 bits
        kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= level
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - level))

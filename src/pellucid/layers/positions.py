"""Positions, encoded in five ways.

    added to the embedding      sinusoidal (Vaswani et al. 2017, section 3.5), or a learned table
    rotating query and key      rotary, in `layers.rotary`
    added to the scores         relative bias in buckets (Raffel et al. 2020, "T5", section 2.1),
                                ALiBi (Press et al. 2022)

All take explicit positions, so that a text may begin anywhere in a row.
"""

import math

import torch
from torch import Tensor, nn


def table(rows: int, width: int) -> nn.Embedding:
    """A table to train, not initialised: torch's own initialisation on the meta device would import
    its compiler.
    """
    embedding: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
    return embedding


def sinusoids(
    positions: Tensor, width: int, interleaved: bool = True, inclusive: bool = False
) -> Tensor:
    """(..., width) for positions (...): sines and cosines of wavelengths 2 pi to 10,000 * 2 pi.

    Args:
        positions: integers, any shape.
        width: of an encoding, even.
        interleaved: sine and cosine alternate, as in the paper; else all sines come first.
        inclusive: the longest wavelength is 10,000 * 2 pi, as in tensor2tensor; in the paper's
            formula that would be the next.
    """
    # In float64, since the position multiplies the rounding error of a frequency.
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device)
    exponent = exponent / (max(width - 2, 1) if inclusive else width)
    angle = positions.double().unsqueeze(-1) * 10_000.0**-exponent
    parts = (angle.sin(), angle.cos())
    both = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    return both.to(torch.get_default_dtype())


class RelativeBias(nn.Module):
    """A trained number per head and bucket of distance, added to the scores."""

    def __init__(self, heads: int, buckets: int, distance: int, causal: bool) -> None:
        """Make the table, (buckets, heads).

        Args:
            heads: of the attention.
            buckets: half of them are single distances, the others grow geometrically; in an encoder
                half of each are for keys that come later.
            distance: from here on all distances share the last bucket.
            causal: whether later keys are hidden anyway.
        """
        super().__init__()
        self.table = table(buckets, heads)
        self.distance = distance
        self.causal = causal

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(batch or 1, heads, queries, keys) for positions (batch or 1, queries), and keys."""
        distance = keys.unsqueeze(-2) - queries.unsqueeze(-1)
        bias: Tensor = self.table(self._bucket(distance))
        return bias.movedim(-1, -3)

    def _bucket(self, distance: Tensor) -> Tensor:
        buckets = self.table.num_embeddings
        later = torch.zeros_like(distance)
        if self.causal:
            back = (-distance).clamp_min(0)
        else:
            buckets //= 2
            later, back = (distance > 0) * buckets, distance.abs()
        single = buckets // 2
        ratio = (back.clamp_min(1).float() / single).log() / math.log(self.distance / single)
        far = single + (ratio * (buckets - single)).long()
        return later + torch.where(back < single, back, far.clamp_max(buckets - 1))


def alibi(heads: int, queries: Tensor, keys: Tensor) -> Tensor:
    """(batch or 1, heads, queries, keys): minus the distance, times the slope of each head.

    Args:
        heads: any number; for a power of two the slopes are a geometric series, else those of the
            power below with every other one of the power above, as in the paper's code.
        queries: positions, (batch or 1, queries).
        keys: positions, (batch or 1, keys).
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (heads - power), 2)]
    distance = (keys.unsqueeze(-2) - queries.unsqueeze(-1)).abs()
    return -torch.tensor(slopes, device=queries.device)[:, None, None] * distance.unsqueeze(-3)

"""Where a token stands, told in five ways.

    added to the embedding      sinusoidal (Vaswani et al. 2017, section 3.5), or a learned table
    turning query and key       rotary (Su et al. 2021, "RoFormer"), halves paired as in GPT-NeoX
    added to the scores         relative bias in buckets (Raffel et al. 2020, "T5", section 2.1),
                                ALiBi (Press et al. 2022)

All of them take positions as they are, so that texts may begin anywhere in a row.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError


def table(rows: int, width: int) -> nn.Embedding:
    """Rows that train. Whoever makes a model draws them: torch's own draw of a table without memory
    would load its compiler.
    """
    made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
    return made


def sinusoids(positions: Tensor, width: int, interleaved: bool = True) -> Tensor:
    """(..., width) for positions (...): sines and cosines of wavelengths 2 pi to 10,000 * 2 pi.

    Args:
        positions: whole numbers, any shape.
        width: of an encoding, even.
        interleaved: sine and cosine by turns, as in the paper; else all sines first.
    """
    # In float64, since a rounded frequency is multiplied by the position.
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
    angle = positions.double().unsqueeze(-1) * 10_000.0**-exponent
    parts = (angle.sin(), angle.cos())
    both = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    return both.to(torch.get_default_dtype())


_SCALINGS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""Kinds of rotary scaling, and the numbers that each needs."""


class Rotary(nn.Module):
    """Turns each pair of a query's or key's numbers by an angle that grows with the position."""

    frequencies: Tensor

    def __init__(self, dim: int, theta: float, scaling: Mapping[str, Any] | None = None) -> None:
        """Make the frequencies.

        Args:
            dim: of a query or key in one head, even.
            theta: pair i turns by theta ** (-2i / dim) a position.
            scaling: {"rope_type": "linear", "factor": f}, or "llama3" with its four numbers, as
                Hugging Face writes them; None = none.

        Raises:
            ArgumentError: another rope_type, or one without its numbers, all of them above 0.
        """
        super().__init__()
        # On the CPU even where a model is made without memory, to be filled from a checkpoint.
        exponent = torch.arange(0, dim, 2, device="cpu").float() / dim
        frequencies = 1.0 / theta**exponent
        scaling = scaling or {}
        kind = scaling.get("rope_type", "default")
        if kind not in _SCALINGS:
            raise ArgumentError(f"rotary scaling must be {', '.join(_SCALINGS)}, not {kind!r}")
        for name in _SCALINGS[kind]:
            number = scaling.get(name)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ArgumentError(
                    f"rotary scaling {kind!r} needs a number {name}, not {number!r}"
                )
            if not 0 < number < math.inf:
                raise ArgumentError(f"rotary scaling's {name} must be above 0, not {number}")
        if kind == "linear":
            frequencies = frequencies / scaling["factor"]
        elif kind == "llama3":
            frequencies = _stretched(frequencies, scaling)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Rotary":
        """Go to other devices in float32: in bfloat16 far positions turn by other angles."""
        exact = self.frequencies
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.frequencies.dtype != exact.dtype:
            self.frequencies = exact.to(self.frequencies.device)
        return self

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, (batch or 1, 1, tokens, dim), for positions (batch or 1, tokens)."""
        angle = positions.unsqueeze(-1).float() * self.frequencies.float()
        angle = torch.cat([angle, angle], -1).unsqueeze(-3)
        return angle.cos(), angle.sin()


def rotated(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys (..., heads, tokens, dim), rotated by what `Rotary` gives."""
    half = x.shape[-1] // 2
    cosine, sine = (part[..., :half].to(x.dtype) for part in rotary)  # both halves turn alike
    first, second = x.chunk(2, -1)
    turned_first = torch.addcmul(first * cosine, second, sine, value=-1)
    return torch.cat([turned_first, torch.addcmul(second * cosine, first, sine)], -1)


def _stretched(frequencies: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Llama 3.1's: slow rotations by a factor, fast ones not at all, and in between by degrees."""
    length = scaling["original_max_position_embeddings"]
    low, high, factor = (
        scaling[name] for name in ("low_freq_factor", "high_freq_factor", "factor")
    )
    if high <= low:
        raise ArgumentError(
            f"rotary scaling's high_freq_factor {high} must be above its low_freq_factor {low}"
        )
    turns = length * frequencies / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    stretched: Tensor = frequencies * (share + (1 - share) / factor)
    return stretched


class RelativeBias(nn.Module):
    """One trained number a head and bucket of distance, added to the scores."""

    def __init__(self, heads: int, buckets: int, distance: int, causal: bool) -> None:
        """Make the table, (buckets, heads).

        Args:
            heads: of the attention.
            buckets: half of them are single distances, the others grow by a factor; of an encoder
                half of each are for keys that come later.
            distance: from which on all share the last bucket.
            causal: whether keys that come later are hidden anyway.
        """
        super().__init__()
        self.table = table(buckets, heads)
        self.distance = distance
        self.causal = causal

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(batch or 1, heads, queries, keys) for positions (batch or 1, queries), and keys."""
        apart = keys.unsqueeze(-2) - queries.unsqueeze(-1)
        bias: Tensor = self.table(self._bucket(apart))
        return bias.movedim(-1, -3)

    def _bucket(self, apart: Tensor) -> Tensor:
        buckets = self.table.num_embeddings
        later = torch.zeros_like(apart)
        if self.causal:
            back = (-apart).clamp_min(0)
        else:
            buckets //= 2
            later, back = (apart > 0) * buckets, apart.abs()
        single = buckets // 2
        ratio = (back.clamp_min(1).float() / single).log() / math.log(self.distance / single)
        far = single + (ratio * (buckets - single)).long()
        return later + torch.where(back < single, back, far.clamp_max(buckets - 1))


def alibi(heads: int, queries: Tensor, keys: Tensor) -> Tensor:
    """(batch or 1, heads, queries, keys): minus the distance, times a slope of each head.

    Args:
        heads: any number; slopes are a geometric series for a power of two, and for others those of
            the next power below with every other one of the next above, as in the paper's code.
        queries: positions, (batch or 1, queries).
        keys: positions, (batch or 1, keys).
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (heads - power), 2)]
    apart = (keys.unsqueeze(-2) - queries.unsqueeze(-1)).abs()
    return -torch.tensor(slopes, device=queries.device)[:, None, None] * apart.unsqueeze(-3)

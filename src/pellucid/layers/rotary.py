"""Rotary positions (Su et al. 2021, "RoFormer"), and ways to stretch them to longer texts.

linear      all frequencies by a factor (Chen et al. 2023, "Position Interpolation")
dynamic     a larger theta for longer texts (bloc97 and emozilla 2023, "NTK-aware")
yarn        slow rotations by a factor, with a ramp, and sharper scores (Peng et al. 2023)
longrope    a factor per frequency, others for long texts (Ding et al. 2024)
llama3      slow rotations by a factor, with another ramp (Llama 3.1)
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.layers.config import Pairs

_ORIGINAL = "original_max_position_embeddings"
_NUMBERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", _ORIGINAL),
    "yarn": ("factor", _ORIGINAL),
    "longrope": (_ORIGINAL,),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
}
"""Kinds of scaling, with the numbers that each needs."""
_MORE_NUMBERS = ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
"""Numbers that a kind of scaling may have."""


class Rotary(nn.Module):
    """Rotates each pair of numbers of a query or key by an angle proportional to the position."""

    frequencies: Tensor
    long_frequencies: Tensor | None

    def __init__(
        self,
        dim: int,
        theta: float,
        scaling: Mapping[str, Any] | None = None,
        positions: int | None = None,
    ) -> None:
        """Compute the frequencies.

        Args:
            dim: how many numbers of a query or key in one head are rotated, even.
            theta: pair i rotates by theta ** (-2i / dim) per position.
            scaling: {"rope_type": "linear", "factor": f}, or another kind with its numbers, as
                Hugging Face writes them; None = none.
            positions: the most tokens of the model, which "longrope" without a factor needs.

        Raises:
            ArgumentError: another rope_type, or one whose numbers are missing or not above 0.
        """
        super().__init__()
        scaling = dict(scaling or {})
        self.kind, self.dim, self.theta = scaling.get("rope_type", "default"), dim, theta
        self.factor = scaling.get("factor", 1.0)
        _check(self.kind, scaling, dim, positions)
        if self.kind == "yarn" and theta <= 1:
            raise ArgumentError(f"rotary scaling 'yarn' needs a rope_theta above 1, not {theta}")
        self.original: float = scaling.get(_ORIGINAL) or math.inf
        self.scale = 1.0
        """Of cosine and sine, and so, squared, of the scores of what is rotated."""
        frequencies, far = _frequencies(dim, theta), None
        if self.kind == "linear":
            frequencies = frequencies / self.factor
        elif self.kind == "llama3":
            frequencies = _llama3(frequencies, scaling)
        elif self.kind == "yarn":
            frequencies, self.scale = _yarn(dim, theta, scaling), _yarn_scale(scaling)
        elif self.kind == "longrope":
            frequencies = _frequencies(dim, theta, scaling["short_factor"])
            far = _frequencies(dim, theta, scaling["long_factor"])
            self.scale = _longrope_scale(scaling, positions)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("long_frequencies", far, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Rotary":
        """Stay in float32: in bfloat16 the angles of far positions would be wrong."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, exact in before.items():
            now = self._buffers[name]
            if exact is not None and now is not None and now.dtype != exact.dtype:
                self._buffers[name] = exact.to(now.device)
        return self

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, (batch or 1, 1, tokens, dim), for positions (batch or 1, tokens)."""
        angle = positions.unsqueeze(-1).float() * self._of(positions)
        angle = torch.cat([angle, angle], -1).unsqueeze(-3)
        cosine, sine = angle.cos(), angle.sin()
        return (cosine, sine) if self.scale == 1 else (cosine * self.scale, sine * self.scale)

    def changes(self, start: int, end: int) -> bool:
        """Whether the first tokens are rotated otherwise in a text of `end` than of `start`."""
        return self.long_frequencies is not None and start <= self.original < end

    def _of(self, positions: Tensor) -> Tensor:
        """The frequencies for a text that reaches these positions."""
        if self.kind not in ("dynamic", "longrope"):
            return self.frequencies.float()
        length = int(positions.max()) + 1
        if self.long_frequencies is not None:
            is_long = length > self.original
            return (self.long_frequencies if is_long else self.frequencies).float()
        if length <= self.original:
            return self.frequencies.float()
        stretch = self.factor * length / self.original - (self.factor - 1)
        theta = self.theta * stretch ** (self.dim / (self.dim - 2))
        return _frequencies(self.dim, theta).to(self.frequencies.device)


def rotated(x: Tensor, rotary: tuple[Tensor, Tensor], pairs: Pairs = "halves") -> Tensor:
    """Queries or keys (..., heads, tokens, dim), rotated by what `Rotary` gives.

    Numbers of a head beyond those that `Rotary` was made for stay as they are.
    """
    width = rotary[0].shape[-1]
    half = width // 2
    cosine, sine = (part[..., :half].to(x.dtype) for part in rotary)  # both halves are equal
    turned = x[..., :width]
    if pairs == "halves":
        first, second = turned.chunk(2, -1)
    else:
        first, second = turned[..., ::2], turned[..., 1::2]
    new_first = torch.addcmul(first * cosine, second, sine, value=-1)
    new_second = torch.addcmul(second * cosine, first, sine)
    if pairs == "neighbours":
        turned = torch.stack([new_first, new_second], -1).flatten(-2)
        return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], -1)
    if width == x.shape[-1]:
        return torch.cat([new_first, new_second], -1)
    return torch.cat([new_first, new_second, x[..., width:]], -1)


def _frequencies(dim: int, theta: float, factors: Any = None) -> Tensor:
    # On the CPU even where the model is on the meta device, until a checkpoint fills it.
    exponent = torch.arange(0, dim, 2, device="cpu").float() / dim
    if factors is None:
        return 1.0 / theta**exponent
    each = torch.tensor(factors, dtype=torch.float32, device="cpu")
    return 1.0 / (each * theta**exponent)


def _check(kind: Any, scaling: Mapping[str, Any], dim: int, positions: int | None) -> None:
    if kind not in _NUMBERS:
        raise ArgumentError(f"rotary scaling must be {', '.join(_NUMBERS)}, not {kind!r}")
    given = [name for name in _MORE_NUMBERS if scaling.get(name) is not None]
    for name in dict.fromkeys([*_NUMBERS[kind], *given]):
        number = scaling.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ArgumentError(f"rotary scaling {kind!r} needs a number {name}, not {number!r}")
        if not 0 < number < math.inf:
            raise ArgumentError(f"rotary scaling's {name} must be above 0, not {number}")
    if kind == "longrope" and positions is None and scaling.get("factor") is None:
        raise ArgumentError("rotary scaling 'longrope' needs a factor or a number of positions")
    if kind == "longrope" and scaling[_ORIGINAL] <= 1:
        raise ArgumentError(f"rotary scaling 'longrope' needs {_ORIGINAL} above 1")
    if kind == "dynamic" and dim < 4:
        raise ArgumentError(f"rotary scaling 'dynamic' needs at least 2 pairs, not {dim // 2}")
    for name in ("short_factor", "long_factor") if kind == "longrope" else ():
        factors = scaling.get(name)
        is_right = isinstance(factors, list | tuple) and len(factors) == dim // 2
        if not is_right or not all(
            type(number) in (int, float) and 0 < number < math.inf for number in factors or ()
        ):
            raise ArgumentError(
                f"rotary scaling 'longrope' needs {dim // 2} numbers {name}, all above 0"
            )


def _llama3(frequencies: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Llama 3.1's scaling: slow rotations by a factor, fast ones not at all, and a ramp between."""
    length = scaling[_ORIGINAL]
    low, high, factor = (
        scaling[name] for name in ("low_freq_factor", "high_freq_factor", "factor")
    )
    if high <= low:
        raise ArgumentError(
            f"rotary scaling's high_freq_factor {high} must be above its low_freq_factor {low}"
        )
    turns = length * frequencies / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    scaled: Tensor = frequencies * (share + (1 - share) / factor)
    return scaled


def _yarn(dim: int, theta: float, scaling: Mapping[str, Any]) -> Tensor:
    """Peng et al. 2023, section 3.2: pairs that turn often in the original length stay."""

    def pair_of(turns: float) -> float:
        """The pair that turns so often within the original length."""
        return dim * math.log(scaling[_ORIGINAL] / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_of(scaling.get("beta_fast") or 32), pair_of(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if low == high else 0
    share = 1 - ((torch.arange(dim // 2, device="cpu").float() - low) / (high - low)).clamp(0, 1)
    wavelengths = theta ** (torch.arange(0, dim, 2, device="cpu").float() / dim)
    slow, fast = 1.0 / (scaling["factor"] * wavelengths), 1.0 / wavelengths
    frequencies: Tensor = slow * (1 - share) + fast * share
    return frequencies


def _yarn_scale(scaling: Mapping[str, Any]) -> float:
    """Peng et al. 2023, section 3.4, equation 22, under the names of DeepSeek."""

    def grown(weight: float = 1.0) -> float:
        factor = scaling["factor"]
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    given = scaling.get("attention_factor")
    if given is not None:
        return float(given)
    above, below = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return grown(above) / grown(below) if above and below else grown()


def _longrope_scale(scaling: Mapping[str, Any], positions: int | None) -> float:
    """Ding et al. 2024, section 3.2: sharper scores for the longer texts."""
    given, factor, original = (
        scaling.get(name) for name in ("attention_factor", "factor", _ORIGINAL)
    )
    if given is not None:
        return float(given)
    assert original is not None
    if factor is None:
        assert positions is not None
        factor = positions / original
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))

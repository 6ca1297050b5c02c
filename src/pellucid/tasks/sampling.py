"""Sampling of the next token from its logits, greedily or at random.

Each step works as in transformers, and in the same order: repetition penalty, temperature, top-k,
top-p, min-p, typical-p, epsilon and eta cutoffs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.tasks.whole_numbers import check_whole

LIKELY = 256
"""Tokens among which top-p is tried first, since sorting the whole vocabulary costs far more."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The defaults sample from the model's own distribution.

    Raises:
        ArgumentError: a number is out of range.
        TypeMismatchError: a value is not a number.
    """

    temperature: float = 1.0
    """Divides the logits; 0 is greedy decoding."""
    top_k: int | None = None
    """Keep the k likeliest tokens and any that tie with the last of them (Fan et al. 2018)."""
    top_p: float = 1.0
    """Keep the fewest likeliest tokens whose probabilities add up to p (Holtzman et al. 2020,
    "nucleus sampling")."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024)."""
    typical_p: float = 1.0
    """Keep the tokens whose information is nearest to the mean, until their probabilities add up to
    p (Meister et al. 2022, "Locally typical sampling")."""
    epsilon_cutoff: float = 0.0
    """Keep tokens of at least this probability, and the likeliest (Hewitt et al. 2022)."""
    eta_cutoff: float = 0.0
    """As epsilon_cutoff, with a bound that entropy lowers (Hewitt et al. 2022, "eta sampling")."""
    repetition_penalty: float = 1.0
    """Divides the positive logits, and multiplies the negative ones, of tokens that are already in
    the text (Keskar et al. 2019, "CTRL", section 4.1)."""

    def __post_init__(self) -> None:
        cuts = ("typical_p", "epsilon_cutoff", "eta_cutoff")
        for name in ("temperature", "top_p", "min_p", *cuts, "repetition_penalty"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeMismatchError(f"{name} must be a number, not {value!r}")
        if self.top_k is not None:
            check_whole("top_k", self.top_k)
        if not 0 <= self.temperature < math.inf:
            raise ArgumentError(
                f"temperature must be 0 (greedy) or above, and finite, not {self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 < self.typical_p <= 1:
            raise ArgumentError(f"typical_p must be above 0 and at most 1, not {self.typical_p}")
        for name in cuts[1:]:
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 0 and below 1")
        if not 0 <= self.min_p <= 1:
            raise ArgumentError(f"min_p must be from 0 to 1, not {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ArgumentError(
                f"repetition_penalty must be above 0 and finite, not {self.repetition_penalty}"
            )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


def probabilities(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """The probabilities that the next token is drawn from, (batch, vocabulary).

    Args:
        logits: of the next token, (batch, vocabulary).
        sampling: how it is chosen.
        seen: the tokens that are already in the text, (batch, vocabulary) bool; needed only for a
            repetition penalty.

    Raises:
        ShapeError: logits or seen has another shape.
    """
    scores = _penalised(logits, sampling, seen)
    if sampling.is_greedy:
        likeliest = scores.argmax(-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, likeliest, 1)
    # The largest score becomes 0, so that nothing overflows at a tiny temperature.
    scores = (scores - scores.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    chances = scores.softmax(-1)
    if sampling.top_p < 1:
        chances = _nucleus(chances, sampling.top_p)
    if sampling.min_p > 0:
        least = sampling.min_p * chances.amax(-1, keepdim=True)
        chances = chances.masked_fill(chances < least, 0)
    if sampling.typical_p < 1:
        chances = _typical(_whole(chances), sampling.typical_p)
    if sampling.epsilon_cutoff > 0:
        chances = _above(_whole(chances), sampling.epsilon_cutoff)
    if sampling.eta_cutoff > 0:
        chances = _whole(chances)
        entropy = -torch.special.xlogy(chances, chances).sum(-1, keepdim=True)
        root = math.sqrt(sampling.eta_cutoff) * (-entropy).exp()
        chances = _above(chances, root.clamp_max(sampling.eta_cutoff))
    return chances / chances.sum(-1, keepdim=True)


def draw(chances: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Ids, (batch,), each drawn from its row of probabilities with one random number.

    Args:
        chances: (batch, vocabulary); rows need not sum to 1.
        generators: one random number generator per row, on the CPU, so that rows are independent.
    """
    numbers = [torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators]
    cumulative = chances.double().cumsum(-1)
    thresholds = torch.stack(numbers).to(chances.device) * cumulative[:, -1:]
    # The first token beyond the threshold; a token of probability 0 is never the first.
    return torch.searchsorted(cumulative, thresholds, right=True).squeeze(-1)


def choose(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    seen: Tensor | None = None,
) -> Tensor:
    """The ids of the next tokens, (batch,); arguments as for `probabilities` and `draw`.

    Raises:
        ArgumentError: logits contain NaN.
        ShapeError: logits or seen has another shape.
    """
    if bool(logits.isnan().any()):
        raise ArgumentError(
            "the model's logits contain NaN: its weights are damaged, or they overflow its dtype "
            f"({logits.dtype})"
        )
    if sampling.is_greedy:
        return _penalised(logits, sampling, seen).argmax(-1)
    return draw(probabilities(logits, sampling, seen), generators)


def _penalised(logits: Tensor, sampling: Sampling, seen: Tensor | None) -> Tensor:
    if logits.ndim != 2:
        raise ShapeError(f"logits must be (batch, vocabulary), not of shape {tuple(logits.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    penalty = sampling.repetition_penalty
    if penalty == 1:
        return logits
    if seen is None or seen.shape != logits.shape:
        shape = None if seen is None else tuple(seen.shape)
        raise ShapeError(f"seen must have the shape of logits, {tuple(logits.shape)}, not {shape}")
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _nucleus(chances: Tensor, top_p: float) -> Tensor:
    """The probabilities, with 0 for tokens after those that add up to p, the likeliest first."""
    for count in (LIKELY, chances.shape[-1]):
        ordered, tokens = chances.topk(min(count, chances.shape[-1]))
        before = ordered.cumsum(-1) - ordered
        if bool((before[:, -1] >= top_p).all()) or count >= chances.shape[-1]:
            break
    kept = ordered.masked_fill(before >= top_p, 0)
    return torch.zeros_like(chances).scatter(-1, tokens, kept)


def _whole(chances: Tensor) -> Tensor:
    """Probabilities that sum to 1."""
    return chances / chances.sum(-1, keepdim=True)


def _typical(chances: Tensor, mass: float) -> Tensor:
    """The probabilities, with 0 for tokens after the most typical ones that add up to `mass`."""
    information = -chances.log()
    mean = -torch.special.xlogy(chances, chances).sum(-1, keepdim=True)
    order = (information - mean).abs().argsort(dim=-1, stable=True)
    ordered = chances.gather(-1, order)
    kept = ordered.masked_fill(ordered.cumsum(-1) - ordered >= mass, 0)
    return torch.zeros_like(chances).scatter(-1, order, kept)


def _above(chances: Tensor, least: Tensor | float) -> Tensor:
    """The probabilities, with 0 for those below a bound, but for the largest."""
    is_best = chances == chances.amax(-1, keepdim=True)
    return chances.masked_fill((chances < least) & ~is_best, 0)

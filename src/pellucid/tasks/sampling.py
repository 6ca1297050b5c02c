"""From logits to the next token: greedy, or drawn from what temperature and cuts leave over.

Each cut is that of transformers, and they come in its order: repetition penalty, temperature,
top-k, top-p, min-p.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.tasks.whole_numbers import check_whole

LIKELY = 256
"""Tokens among which those that top-p keeps are looked for first: to sort all costs far more."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The defaults draw from the model's own distribution.

    Raises:
        ArgumentError: a number outside what is allowed.
        TypeMismatchError: a number that is none.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0 = greedy, always the likeliest token."""
    top_k: int | None = None
    """Keep the k likeliest tokens, and those as likely as the last of them (Fan et al. 2018)."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach p, the one that crosses it among them
    (Holtzman et al. 2020, "nucleus sampling")."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens in the prompt or in what was written are divided by it, negative ones
    multiplied (Keskar et al. 2019, "CTRL", section 4.1)."""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeMismatchError(f"{name} must be a number, not {value!r}")
        if self.top_k is not None:
            check_whole("top_k", self.top_k)
        if not 0 <= self.temperature < math.inf:
            raise ArgumentError(
                f"temperature must be 0 (greedy) or a number above, not {self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ArgumentError(f"min_p must be from 0 to 1, not {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ArgumentError(
                f"repetition_penalty must be a number above 0, not {self.repetition_penalty}"
            )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


def probabilities(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """What is drawn from: (batch, vocabulary), each row sums to 1.

    Args:
        logits: (batch, vocabulary), of the next token.
        sampling: how it is chosen.
        seen: (batch, vocabulary) bool, the tokens of the prompt and of what was written; needed
            for a repetition penalty alone.

    Raises:
        ShapeError: logits or seen of another shape.
    """
    scores = _penalised(logits, sampling, seen)
    if sampling.is_greedy:
        chosen = scores.argmax(-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, chosen, 1)
    # The largest becomes 0, so that nothing overflows at a temperature next to none.
    scores = (scores - scores.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    found = scores.softmax(-1)
    if sampling.top_p < 1:
        found = _nucleus(found, sampling.top_p)
    if sampling.min_p > 0:
        found = found.masked_fill(found < sampling.min_p * found.amax(-1, keepdim=True), 0)
    return found / found.sum(-1, keepdim=True)


def draw(chances: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """(batch,) ids, each drawn from its row of probabilities, by one random number each.

    Args:
        chances: (batch, vocabulary), which need not sum to 1.
        generators: of random numbers, on the CPU, one a row: what a row draws depends on no other.
    """
    numbers = [torch.rand(1, generator=one, dtype=torch.float64) for one in generators]
    reached = chances.double().cumsum(-1)
    wanted = torch.stack(numbers).to(chances.device) * reached[:, -1:]
    # The first token that goes beyond the number: one of probability 0 never does.
    return torch.searchsorted(reached, wanted, right=True).squeeze(-1)


def choose(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    seen: Tensor | None = None,
) -> Tensor:
    """(batch,) ids of the next tokens; arguments as those of `probabilities` and `draw`.

    Raises:
        ArgumentError: logits hold NaN.
        ShapeError: logits or seen of another shape.
    """
    if bool(logits.isnan().any()):
        raise ArgumentError(
            "the model gives logits that are no numbers (NaN): its weights are damaged, or its "
            f"dtype is too small for them ({logits.dtype})"
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
        raise ShapeError(f"seen must be of the shape of logits {tuple(logits.shape)}, not {shape}")
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _nucleus(found: Tensor, top_p: float) -> Tensor:
    """Probabilities without those of tokens before which, the likeliest first, p is reached."""
    for count in (LIKELY, found.shape[-1]):
        ordered, places = found.topk(min(count, found.shape[-1]))
        before = ordered.cumsum(-1) - ordered
        if bool((before[:, -1] >= top_p).all()) or count >= found.shape[-1]:
            break
    kept = ordered.masked_fill(before >= top_p, 0)
    return torch.zeros_like(found).scatter(-1, places, kept)

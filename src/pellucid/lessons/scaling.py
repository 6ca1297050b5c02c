"""Why divide by √d_k? Measure what happens as d_k grows, with the division and without.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, footnote 4: if the components of q
and k are independent, with mean 0 and variance 1, then q · k has mean 0 and variance d_k. Large
scores drive the softmax to where one weight is near 1 and its gradient near 0.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch

from pellucid.common import files
from pellucid.common.wording import percent
from pellucid.errors import ArgumentError, TooLargeError

Distribution = Literal["normal", "uniform", "signs"]
"""Of the components: a standard normal, uniform from -√3 to √3, or -1 and 1. All have mean 0 and
variance 1."""
DIMS = (1, 4, 16, 64, 256, 1024)
HARDLY_ANY = 0.01
"""A gradient this small teaches next to nothing."""
_CHUNK = 2**22
"""The most random numbers held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Means over the samples, at one d_k and one scale."""

    variance: float
    """Of the scores."""
    entropy: float
    """Of the softmax of a query's scores, in nats."""
    largest: float
    """The largest weight of a query."""
    gradient: float
    """The Frobenius norm of the softmax's Jacobian, diag(p) - p pᵀ: what reaches its input."""
    lost: float
    """The share of queries whose gradient is below HARDLY_ANY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theory:
    """What to expect of the same, for n keys and scores of variance s.

    The variance is exact. The rest is an approximation for many keys: the scores of one query are
    normal, so their exponentials are log-normal, which gives an entropy of ln n - s/2 up to
    s = 2 ln n, where in the limit one key takes all (Derrida 1981, the random energy model), and a
    gradient of √(exp(s)/n) up to s = ln(n)/2. None beyond.
    """

    variance: float
    entropy: float | None
    gradient: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One d_k."""

    d_k: int
    unscaled: Measures
    scaled: Measures
    unscaled_theory: Theory
    scaled_theory: Theory


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The whole measurement."""

    keys: int
    samples: int
    seed: int
    distribution: Distribution
    rows: tuple[Row, ...]

    def sentence(self) -> str:
        """What the numbers say, and what scales how."""
        row = self.rows[-1]
        return (
            "The variance of the scores grows as d_k, so that their standard deviation grows as "
            f"√d_k: at d_k = {row.d_k} it is {math.sqrt(row.unscaled.variance):.1f}, where "
            f"√{row.d_k} = {math.sqrt(row.d_k):.1f}. Divided by √d_k both stay at 1. "
            f"At d_k = {row.d_k}, undivided scores give one of {self.keys} keys "
            f"{percent(row.unscaled.largest)} of the attention on average, and leave "
            f"{percent(row.unscaled.lost)} of the queries with hardly any gradient (below "
            f"{HARDLY_ANY}). Divided by √d_k the largest weight is {percent(row.scaled.largest)}, "
            f"and {percent(row.scaled.lost)} of the queries are left so."
        )


def measure_scaling(
    dims: Sequence[int] = DIMS,
    *,
    keys: int = 64,
    samples: int = 512,
    seed: int = 0,
    distribution: Distribution = "normal",
) -> Scaling:
    """Draw queries and keys, and measure their softmax.

    Args:
        dims: the values of d_k.
        keys: how many keys a query has; at least 2.
        samples: how many queries, each with keys of its own; at least 2.
        seed: of the random numbers.
        distribution: of the components of queries and keys.
    """
    if distribution not in get_args(Distribution):
        known = ", ".join(get_args(Distribution))
        raise ArgumentError(f"distribution must be one of {known}, not '{distribution}'")
    if not dims or min(dims) < 1:
        raise ArgumentError(f"dims must be numbers from 1 up, not {list(dims)}")
    for name, given in (("keys", keys), ("samples", samples)):
        if given < 2:
            raise ArgumentError(f"{name} must be at least 2, not {given}")
    if keys * max(dims) > _CHUNK:
        raise TooLargeError(
            f"{keys} keys of {max(dims)} numbers are {keys * max(dims)} at once; at most {_CHUNK}"
        )
    rows = []
    for d_k in sorted(set(dims)):
        scores = _scores(d_k, keys, samples, seed, distribution)
        rows.append(
            Row(
                d_k=d_k,
                unscaled=_measure(scores),
                scaled=_measure(scores / math.sqrt(d_k)),
                unscaled_theory=_theory(d_k, keys),
                scaled_theory=_theory(1, keys),
            )
        )
    return Scaling(
        keys=keys, samples=samples, seed=seed, distribution=distribution, rows=tuple(rows)
    )


def to_json(scaling: Scaling) -> str:
    """The measurement as JSON."""
    return files.to_json(asdict(scaling), indent=2)


def _scores(
    d_k: int, keys: int, samples: int, seed: int, distribution: Distribution
) -> torch.Tensor:
    """(samples, keys) products of random queries and keys."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    at_once = max(1, _CHUNK // (keys * d_k))
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        query = _components((size, d_k), generator, distribution)
        key = _components((size, keys, d_k), generator, distribution)
        parts.append((key @ query[:, :, None])[..., 0])
    return torch.cat(parts).double()


def _components(
    shape: tuple[int, ...], generator: torch.Generator, distribution: Distribution
) -> torch.Tensor:
    """Independent numbers of mean 0 and variance 1."""
    if distribution == "uniform":
        return (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(3)
    numbers = torch.randn(shape, generator=generator)
    return numbers.sign() if distribution == "signs" else numbers


def _measure(scores: torch.Tensor) -> Measures:
    weights = scores.softmax(dim=-1)
    # |diag(p) - p pᵀ|² = Σp² - 2 Σp³ + (Σp²)², without forming the matrix.
    squares = (weights**2).sum(dim=-1)
    jacobian = squares - 2 * (weights**3).sum(dim=-1) + squares**2
    gradient = jacobian.clamp(min=0).sqrt()
    return Measures(
        variance=scores.var().item(),
        entropy=torch.special.entr(weights).sum(dim=-1).mean().item(),
        largest=weights.amax(dim=-1).mean().item(),
        gradient=gradient.mean().item(),
        lost=(gradient < HARDLY_ANY).double().mean().item(),
    )


def _theory(variance: float, keys: int) -> Theory:
    return Theory(
        variance=variance,
        entropy=math.log(keys) - variance / 2 if variance < 2 * math.log(keys) else None,
        gradient=math.sqrt(math.exp(variance) / keys) if variance <= math.log(keys) / 2 else None,
    )

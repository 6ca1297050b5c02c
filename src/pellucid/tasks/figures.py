"""Figures of predictions on held-out texts: their intervals, and what chance would give.

Equal texts are one observation however often they are repeated, so intervals and permutations know
the group of each text. scikit-learn has no interval of any of these, its `permutation_test_score`
permutes labels within a group, where they are equal, and it has no calibration error; training does
not need it otherwise.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Interval = tuple[float, float]

BINS = 10
"""Of the calibration error."""
RESAMPLES = 1000
"""Of a bootstrap."""
_Z = 1.959964


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """What a figure would be if texts said nothing about their labels."""

    mean: float
    interval: Interval
    """95% of the figures with permuted labels lie in it."""
    p: float
    """The share of permutations whose figure is at least as good (Phipson and Smyth 2010)."""
    permutations: int

    @property
    def is_beaten(self) -> bool:
        """Whether the figure is better than chance: at most 5% of permutations are as good."""
        return self.p <= 0.05

    @classmethod
    def of(cls, values: Array, permuted: Array, *, lower_is_better: bool = False) -> "Chance":
        """From the values of a figure, all of which must be good, and those with permuted labels.

        Args:
            values: (values,) of the model and, if another stands in for it, of the other.
            permuted: (permutations,)
            lower_is_better: whether the figure is an error.
        """
        sign = -1 if lower_is_better else 1
        as_good = int((sign * permuted >= (sign * values).min() - 1e-9).sum())
        low, high = np.quantile(permuted, (0.025, 0.975), method="inverted_cdf")
        return cls(
            mean=float(permuted.mean()),
            interval=(float(low), float(high)),
            p=(1 + as_good) / (1 + len(permuted)),
            permutations=len(permuted),
        )


def wilson(share: float, observations: float) -> Interval:
    """The 95% confidence interval of a share (Wilson 1927)."""
    n, p, z = observations, share, _Z
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, p * (1 - p) / n + z * z / (4 * n * n)))
    return max(0.0, middle - half), min(1.0, middle + half)


def share_interval(right: Array, groups: Array) -> Interval:
    """The 95% confidence interval of the share of predictions that are right.

    Predictions for equal texts agree, so they count as fewer: as many as would vary as much
    (Korn and Graubard 1998, "Confidence intervals for proportions", section 3).

    Args:
        right: (texts,) bool.
        groups: (texts,) the group of equal texts of each.
    """
    share, numbers = float(right.mean()), _numbered(groups)
    count, different = len(right), int(numbers.max()) + 1
    if different == count:
        return wilson(share, count)
    if share in (0.0, 1.0) or different < 2:
        return wilson(share, different)
    surplus = np.bincount(numbers, right - share)
    variance = different / (different - 1) * float((surplus**2).sum()) / count**2
    return wilson(share, min(count, share * (1 - share) / variance))


def bootstrap(sums: Array, groups: Array, figure: Callable[[Array], Array], seed: int) -> Interval:
    """The 95% confidence interval of a figure of sums, from groups drawn with replacement (Efron
    1979).

    Args:
        sums: (texts, terms) the terms that the figure sums over texts.
        groups: (texts,) the group of equal texts of each.
        figure: from sums, (resamples, terms), to figures, (resamples,).
        seed: of the draws.
    """
    numbers = _numbered(groups)
    each = np.zeros((int(numbers.max()) + 1, sums.shape[1]))
    np.add.at(each, numbers, sums)
    generator = np.random.default_rng(seed)
    # How often each group is drawn is multinomial: no index of a group need be held.
    counts = generator.multinomial(len(each), np.full(len(each), 1 / len(each)), RESAMPLES)
    low, high = np.quantile(figure(counts @ each), (0.025, 0.975))
    return float(low), float(high)


def permutations(groups: Array, folds: Array, times: int, seed: int) -> Iterator[Array]:
    """Rows whose labels each row gets, (rows,), `times` times.

    Labels move with all rows of a group, to another group of the same fold: so each fold keeps
    its labels, as splits that stratify have it.

    Args:
        groups: (rows,) the group of equal texts of each row.
        folds: (rows,) the fold of each; one number if nothing is learnt again.
        times: the number of permutations.
        seed: of the draws.
    """
    numbers = _numbered(groups)
    order = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers)
    starts = np.cumsum(sizes) - sizes
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order)) - starts[numbers[order]]  # of a row in its group
    fold_of = folds[order[starts]]
    generator = np.random.default_rng(seed)
    for _ in range(times):
        to = np.empty(len(sizes), np.int64)
        for fold in np.unique(fold_of):
            inside = np.flatnonzero(fold_of == fold)
            to[inside] = generator.permutation(inside)
        own = to[numbers]
        yield order[starts[own] + positions % sizes[own]]


def macro_f1(confusion: Array) -> float:
    """The mean F1 of the labels that have examples, from (true labels, predicted labels) counts.

    It equals scikit-learn's `f1_score(..., average="macro", labels=those)`.
    """
    right, true = confusion.diagonal(), confusion.sum(1)
    f1 = 2 * right / np.maximum(true + confusion.sum(0), 1)
    return float(f1[true > 0].mean())


def balanced_accuracy(confusion: Array) -> float:
    """The mean share of each label's examples that is right, over labels that have examples."""
    true = confusion.sum(1)
    return float((confusion.diagonal()[true > 0] / true[true > 0]).mean())


def calibration_error(sure: Array, right: Array) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3).

    Args:
        sure: (predictions,) the probability of each.
        right: (predictions,) whether it was right.
    """
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(bins, right - sure, minlength=BINS))
    return float(gaps.sum() / len(sure))


def brier_score(probabilities: Array, targets: Array) -> float:
    """The mean squared distance of (texts, labels) probabilities to 0 and 1 (Brier 1950)."""
    return float(((probabilities - targets) ** 2).sum(-1).mean())


def rank_correlation(predicted: Array, true: Array) -> float:
    """Spearman's rank correlation; 0 if either is always the same."""
    ranks = [_ranks(predicted), _ranks(true)]
    if min(rank.std() for rank in ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


def _ranks(numbers: Array) -> Array:
    """The rank of each number; equal numbers share their mean rank."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last: Array = np.cumsum(counts)
    mean: Array = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return mean


def softmax(scores: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Array = powers / powers.sum(-1, keepdims=True)
    return shares


def sigmoid(scores: Array) -> Array:
    shares: Array = 0.5 * (1 + np.tanh(scores / 2))
    return shares


def temperature(scores: Array, targets: Array, *, several: bool = False) -> float:
    """What scores are divided by so that probabilities are as likely as they say (Guo et al. 2017,
    section 4.2): the minimum of the negative log-likelihood, which is convex in 1 / temperature.

    scikit-learn's `CalibratedClassifierCV(method="temperature")` finds the same, but fits every
    head anew, and is no part of training.

    Args:
        scores: (texts, labels) of texts that were not learnt.
        targets: (texts, labels) 1 for the labels of each text, else 0.
        several: whether a text may have several labels.

    Returns:
        From 0.01 to 100.
    """
    probabilities = sigmoid if several else softmax

    def slope(log_inverse: float) -> float:
        return float((scores * (probabilities(scores * math.exp(log_inverse)) - targets)).sum())

    low, high = -math.log(100), math.log(100)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def cross_calibrated(
    scores: Array, targets: Array, folds: Array, *, several: bool = False
) -> tuple[float, Array]:
    """The temperature of all scores, and probabilities, (texts, labels), each with the temperature
    of the other folds, so that they may be judged.
    """
    probabilities = np.empty_like(scores)
    for fold in np.unique(folds):
        own = folds == fold
        others = ~own if not own.all() else own
        warmth = temperature(scores[others], targets[others], several=several)
        probabilities[own] = (sigmoid if several else softmax)(scores[own] / warmth)
    return temperature(scores, targets, several=several), probabilities


def _numbered(groups: Array) -> Array:
    """The same groups, numbered from 0."""
    numbers: Array = np.unique(groups, return_inverse=True)[1].reshape(-1)
    return numbers

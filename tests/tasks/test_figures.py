"""Figures against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, f1_score, recall_score
from sklearn.model_selection import KFold, cross_val_predict

from pellucid.tasks import figures
from pellucid.tasks.figures import Chance


def table(seed, examples=61, labels=13, absent=5):
    """True and predicted labels, half of them right; the last labels have no examples."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, labels - absent, examples)
    said = np.where(generator.random(examples) < 0.5, true, generator.integers(0, labels, examples))
    confusion = np.zeros((labels, labels), np.int64)
    np.add.at(confusion, (true, said), 1)
    return true, said, confusion


@given(seed=st.integers(0, 999))
@settings(max_examples=20)
def test_macro_f1_is_scikit_learn_s_over_labels_that_have_examples(seed):
    true, said, confusion = table(seed)
    theirs = f1_score(true, said, average="macro", labels=np.unique(true), zero_division=0)
    assert figures.macro_f1(confusion) == pytest.approx(theirs)
    # The balanced accuracy is the mean recall, which predictions of other labels cost, too.
    evenly = recall_score(true, said, average="macro", labels=np.unique(true))
    assert figures.balanced_accuracy(confusion) == pytest.approx(evenly)


def test_macro_f1_of_many_labels_without_examples():
    """Most labels have no held-out example: the mean is over those that have."""
    true, said, confusion = table(3, examples=29, labels=101, absent=90)
    theirs = f1_score(true, said, average="macro", labels=np.unique(true), zero_division=0)
    assert figures.macro_f1(confusion) == pytest.approx(theirs)
    assert figures.macro_f1(confusion) > 0.3
    f1 = 2 * confusion.diagonal() / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    assert f1.mean() < 0.08


def test_an_interval_counts_what_is_repeated_once():
    right = np.array([True, True, True, False, True])
    alone = figures.share_interval(right, np.arange(5))
    assert alone == pytest.approx(figures.wilson(0.8, 5))
    thrice = figures.share_interval(np.repeat(right, 3), np.repeat(np.arange(5), 3))
    # The variance of a mean is estimated with 4 degrees of freedom: four independent texts.
    assert thrice == pytest.approx(figures.wilson(0.8, 4))
    assert figures.share_interval(np.ones(15, bool), np.repeat(np.arange(5), 3)) == (
        pytest.approx(figures.wilson(1, 5))
    )
    assert figures.wilson(0.8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)


def test_a_bootstrap_of_a_mean_is_as_wide_as_its_standard_error():
    numbers = np.random.default_rng(0).normal(3, 2, 211)
    sums = np.stack([numbers, np.ones(211)], 1)

    def mean(x):
        return x[:, 0] / x[:, 1]

    low, high = figures.bootstrap(sums, np.arange(211), mean, 0)
    error = numbers.std() / 211**0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    again = figures.bootstrap(np.repeat(sums, 5, 0), np.repeat(np.arange(211), 5), mean, 0)
    assert again == pytest.approx((low, high))


@given(seed=st.integers(0, 99), folds=st.integers(1, 3))
@settings(max_examples=20)
def test_permuted_labels_stay_together_and_in_their_fold(seed, folds):
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 17, 43)
    fold = (groups * 7) % folds
    for rows in figures.permutations(groups, fold, 3, seed):
        assert (fold[rows] == fold).all()
        for group in np.unique(groups):
            assert len(np.unique(groups[rows[groups == group]])) == 1
    alone = np.arange(43)
    found = list(figures.permutations(alone, fold, 3, seed))
    assert all(sorted(rows) == list(range(43)) for rows in found)
    assert not (found[0] == found[1]).all()


def test_chance_by_hand():
    permuted = np.arange(1, 100) / 100
    chance = Chance.of(np.array([0.975]), permuted)
    assert (chance.p, chance.is_beaten, chance.permutations) == (0.03, True, 99)
    assert chance.interval == (0.03, 0.97)
    assert chance.mean == pytest.approx(0.5)
    assert Chance.of(np.array([0.975, 0.505]), permuted).p == pytest.approx(0.5)
    assert Chance.of(np.array([0.015]), permuted, lower_is_better=True).p == pytest.approx(0.02)


@pytest.mark.parametrize("kinds", [2, 5])
def test_the_temperature_is_scikit_learn_s(kinds):
    generator = np.random.default_rng(kinds)
    classes = generator.integers(0, kinds, 211)
    points = generator.normal(size=(211, 7)) + 0.7 * np.eye(kinds, 7)[classes]
    split = KFold(5)
    regression = LogisticRegression(C=1000)
    theirs = CalibratedClassifierCV(regression, method="temperature", cv=split, ensemble=False)
    theirs.fit(points, classes)
    scores = cross_val_predict(regression, points, classes, cv=split, method="decision_function")
    if kinds == 2:
        scores = np.stack([-scores, scores], 1)
    targets = np.eye(kinds)[classes]
    warmth, shares = figures.cross_calibrated(scores, targets, np.arange(211) % 5)
    (calibrated,) = theirs.calibrated_classifiers_
    assert warmth == pytest.approx(1 / calibrated.calibrators[0].beta_, rel=1e-2)
    assert shares.sum(1) == pytest.approx(1)
    assert figures.brier_score(shares, targets) == pytest.approx(
        brier_score_loss(classes, shares, scale_by_half=False)
    )


def test_overconfident_scores_are_cooled_and_the_error_falls():
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(3), 2003)
    classes = np.array([generator.choice(3, p=row) for row in shares])
    scores, targets = 3 * np.log(shares), np.eye(3)[classes]
    before = figures.softmax(scores)
    warmth, after = figures.cross_calibrated(scores, targets, np.arange(2003) % 5)
    assert warmth == pytest.approx(3, rel=0.1)
    errors = [figures.calibration_error(x.max(1), x.argmax(1) == classes) for x in (before, after)]
    assert errors[1] < 0.05 < errors[0] / 2
    several = figures.temperature(2 * np.log(shares / (1 - shares)), targets, several=True)
    assert several == pytest.approx(2, rel=0.1)


def test_the_calibration_error_by_hand():
    sure = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    assert figures.calibration_error(sure, right) == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)


def test_ranks_are_scipy_s():
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 9, (2, 53)).astype(float)
    assert figures.rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert figures.rank_correlation(one, np.ones(53)) == 0

"""Held-out figures: of what was not learnt, however often it is repeated."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score

from pellucid.tasks import evaluate, held_out
from pellucid.tasks.held_out import folds_of, groups_of


def noise(seed, texts=61, times=3, kinds=2, width=31):
    """Random points, each several times with the same random label."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(texts, width)).repeat(times, 0)
    labels = generator.integers(0, kinds, texts).repeat(times)
    order = generator.permutation(len(labels))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return torch.from_numpy(points[order]).float(), [f"kind {n}" for n in labels[order]]


def signal(kinds=3, each=17, width=7, strength=2.0, seed=0):
    generator = np.random.default_rng(seed)
    classes = np.arange(kinds).repeat(each)
    points = generator.normal(size=(len(classes), width)) + strength * np.eye(kinds, width)[classes]
    return torch.from_numpy(points).float(), classes


def test_shuffled_labels_with_rows_repeated_are_no_better_than_chance(monkeypatch):
    """Over seeds: the accuracy is in chance's interval, and the interval covers the truth."""
    monkeypatch.setattr(held_out, "MOST_PERMUTATIONS", 100)
    found = [evaluate(*noise(seed), seed) for seed in range(20)]
    inside = [one.chance.interval[0] <= one.value <= one.chance.interval[1] for one in found]
    assert np.mean(inside) >= 0.85
    assert np.mean([one.chance.is_beaten for one in found]) <= 0.15
    assert np.mean([one.interval[0] <= 0.5 <= one.interval[1] for one in found]) >= 0.75
    assert np.mean([one.value for one in found]) == pytest.approx(0.5, abs=0.05)
    assert all((one.examples, one.texts) == (183, 61) for one in found)


def test_without_groups_repeated_rows_would_look_learnt():
    """The test above can fail: folds of rows, not of texts, find what was learnt by heart."""
    points, labels = noise(0)
    folds = folds_of(np.array([int(one[-1]) for one in labels]), np.arange(len(labels)), 0)
    classes = np.array([int(one[-1]) for one in labels])
    right = []
    for fold in range(5):
        own = folds == fold
        head = held_out.Head.fit(points[~own], [labels[n] for n in np.flatnonzero(~own)])
        right += (head.scores(points[own]).argmax(1).numpy() == classes[own]).tolist()
    assert np.mean(right) > 0.7


def test_equal_texts_are_in_one_fold():
    points = torch.randn(43, 5, generator=torch.Generator().manual_seed(0))
    points[7] = points[3]  # told apart by the text alone, but not by the model
    texts = [f"Text {n % 19}" if n % 2 else f" text  {n % 19} " for n in range(43)]
    texts[7] = "another"
    groups = groups_of(points, texts)
    assert groups[7] == groups[3] == groups[22]
    assert len(np.unique(groups)) == 19
    folds = folds_of(np.arange(43) % 2, groups, 0)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    assert len(np.unique(folds)) == 5


def test_folds_share_labels_evenly():
    strata = np.array([0] * 60 + [1] * 15)
    folds = folds_of(strata, np.arange(75), 3)
    assert np.bincount(folds[strata == 0]).tolist() == [12] * 5
    assert np.bincount(folds[strata == 1]).tolist() == [3] * 5


def test_a_signal_is_better_than_chance():
    points, classes = signal()
    found = evaluate(points, [f"kind {n}" for n in classes])
    assert found.chance.p < 0.01
    assert found.chance.interval[1] < found.interval[0]
    confusion = np.array(found.confusion)
    true, said = (np.repeat(grid.ravel(), confusion.ravel()) for grid in np.indices((3, 3)))
    assert found.others["macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert found.others["calibration_error"] < 0.2
    data = found.data()
    assert data["macro_f1"] == found.others["macro_f1"]
    assert data["accuracy"] == data["value"] == found.value
    assert type(found).of_data(json.loads(json.dumps(data))).data() == data
    assert data["chance"]["permutations"] == 1000


def test_labels_with_one_text_are_named_and_left_out():
    points, classes = signal()
    labels = [f"kind {n}" for n in classes]
    points = torch.cat([points, torch.randn(3, 7)])
    texts = [*map(str, range(51)), "Once", "once ", "alone"]
    found = evaluate(points, [*labels, "rare", "rare", "other"], texts=texts)
    assert found.labels_left_out == ("other", "rare")
    assert (found.examples, sum(map(sum, found.confusion))) == (51, 51)
    assert evaluate(points[:19], [*labels[:17], "a", "b"]) is None


def test_balanced_heads_find_the_rare():
    points, classes = signal(kinds=2, each=200, strength=1.0)
    kept = np.concatenate([np.flatnonzero(classes == 0), np.flatnonzero(classes == 1)[:19]])
    labels = ["many" if classes[n] == 0 else "few" for n in kept]
    plain = evaluate(points[kept], labels)
    evenly = evaluate(points[kept], labels, balanced=True)
    assert (plain.figure, evenly.figure) == ("accuracy", "balanced accuracy")
    assert evenly.value > plain.others["balanced_accuracy"] + 0.05
    assert evenly.baseline == 0.5
    assert evenly.interval[0] < evenly.value < evenly.interval[1]
    assert evenly.chance.is_beaten
    assert evenly.chance.mean == pytest.approx(0.5, abs=0.05)


def test_several_labels():
    points, classes = signal(kinds=4, strength=3)
    labels = [("a", "b") if n == 0 else ("b",) if n == 1 else ("c",) * int(n == 2) for n in classes]
    labels[0] = (*labels[0], "rare")
    found = evaluate(points, labels)
    assert (found.figure, found.labels, found.labels_left_out) == (
        "micro F1", ("a", "b", "c", "rare"), ("rare",),
    )  # fmt: skip
    assert found.chance.is_beaten
    assert found.interval[0] < found.value < found.interval[1]
    assert found.value > found.baseline
    assert [row["examples"] for row in found.each] == [17, 34, 17]
    f1 = [row["f1"] for row in found.each]
    assert found.others["macro_f1"] == pytest.approx(np.mean(f1))


def test_numbers():
    points, classes = signal(kinds=5, strength=3)
    numbers = (10 * classes + 1.5).tolist()
    found = evaluate(points, numbers)
    assert (found.kind, found.figure, found.labels) == ("number", "mean absolute error", ())
    assert found.chance.is_beaten
    assert found.interval[0] < found.value < found.interval[1] < found.baseline
    assert found.others["r2"] > 0.5
    assert found.margin > found.value
    away = evaluate(points[torch.randperm(85, generator=torch.manual_seed(1))], numbers)
    assert not away.chance.is_beaten
    assert away.chance.interval[0] < away.value
    said = np.random.default_rng(0).normal(size=53)
    true = said + 0.5
    told = held_out.of_numbers(said, true, np.arange(53))
    assert told["others"]["r2"] == pytest.approx(r2_score(true, said))
    assert told["value"] == pytest.approx(0.5)

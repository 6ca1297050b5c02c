"""Heads: fitted, judged on what they have not seen, saved and read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

from pellucid.errors import ArgumentError, FileError, ShapeError
from pellucid.tasks import Head, evaluate
from pellucid.tasks.classify import INVERSE_REGULARISATION


def examples(kinds, each=7, width=5, seed=0):
    torch.manual_seed(seed)
    middles = torch.randn(kinds, width)
    labels = [f"kind {n}" for n in range(kinds) for _ in range(each)]
    points = middles.repeat_interleave(each, 0) + torch.randn(kinds * each, width) / 3
    return points, labels


@pytest.mark.parametrize("kinds", [2, 3])
def test_probabilities_are_scikit_learn_s(kinds):
    points, labels = examples(kinds)
    head = Head.fit(points, labels)
    theirs = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000).fit(points.numpy(), labels)
    found = head.probabilities(points)
    np.testing.assert_allclose(found, theirs.predict_proba(points.numpy()), atol=1e-5)
    assert head.labels == tuple(theirs.classes_)


def test_what_is_saved_is_read(tmp_path):
    points, labels = examples(3)
    head = Head.fit(points, labels, model="/a/model", probe=points[0])
    path = tmp_path / "head.safetensors"
    head.save(path)
    again = Head.load(path)
    assert (again.labels, again.model) == (head.labels, "/a/model")
    torch.testing.assert_close(again.probe, points[0])
    torch.testing.assert_close(again.probabilities(points), head.probabilities(points))


def test_files_that_are_no_head(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileError, match="there is no file"):
        Head.load(tmp_path / "nowhere")
    path = tmp_path / "other"
    path.write_text("not a head")
    with pytest.raises(FileError, match="is not a head: "):
        Head.load(path)
    save_file({"weight": torch.ones(2, 3)}, path)
    with pytest.raises(FileError, match="is not a head that `pellucid classify` saved"):
        Head.load(path)
    about = {"format": "pellucid head 1", "labels": '["a", "b", "c"]'}
    save_file({"weight": torch.ones(2, 3)}, path, metadata=about)
    with pytest.raises(FileError, match="is a damaged head: 'bias'"):
        Head.load(path)
    save_file({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, path, metadata=about)
    with pytest.raises(FileError, match="its labels do not match its weights"):
        Head.load(path)
    with pytest.raises(FileError, match="cannot write"):
        Head.fit(*examples(2)).save(tmp_path / "nowhere" / "head")


def test_held_out_examples_are_not_seen():
    # Labels drawn by lot: whoever is judged on what it learnt does far better than chance.
    torch.manual_seed(3)
    points = torch.randn(60, 101)
    labels = ["heads" if number % 2 else "tails" for number in range(60)]
    said = Head.fit(points, labels).probabilities(points).argmax(-1)
    assert (said == 1 - torch.arange(60) % 2).float().mean() > 0.95
    judged = evaluate(points, labels)
    assert 0.2 < judged.value < 0.8
    assert (judged.folds, judged.examples, judged.baseline) == (5, 60, 0.5)


def test_what_stands_apart_is_told_apart():
    points, labels = examples(3, each=2)
    judged = evaluate(points * 100, labels)
    assert judged.confusion == ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    assert judged.folds == 2


def test_a_single_example_cannot_be_held_out():
    points, labels = examples(2)
    assert evaluate(points[:8], labels[:8]) is None


@pytest.mark.parametrize("several", [False, True])
def test_heads_of_other_kinds(several, tmp_path):
    points, labels = examples(3)
    given = [(one,) if one != "kind 2" else () for one in labels] if several else points[:, 0]
    head = Head.fit(points, given if several else given.tolist(), margin=0.5)
    if several:
        has = np.array([one == "kind 1" for one in labels])
        theirs = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000)
        found = head.probabilities(points)[:, 1]
        theirs.fit(points.numpy(), has)
        np.testing.assert_allclose(found, theirs.predict_proba(points.numpy())[:, 1], atol=1e-5)
    else:
        np.testing.assert_allclose(head.scores(points)[:, 0], given, atol=0.1)
        with pytest.raises(ArgumentError, match="has no probabilities"):
            head.probabilities(points)
    path = tmp_path / "head"
    head.save(path)
    again = Head.load(path)
    assert (again.kind, again.margin, again.labels) == (head.kind, 0.5, head.labels)
    torch.testing.assert_close(again.scores(points), head.scores(points))
    with safe_open(path, framework="pt") as file:  # what an older reader would misread, it refuses
        assert file.metadata()["format"] == "pellucid head 2"


def test_a_temperature_leaves_the_order(tmp_path):
    points, labels = examples(3)
    head = replace(Head.fit(points, labels), temperature=2.0)
    head.save(tmp_path / "head")
    again = Head.load(tmp_path / "head")
    assert again.temperature == 2
    wanted = (head.scores(points) / 2).softmax(-1)
    torch.testing.assert_close(again.probabilities(points), wanted)


def test_what_cannot_be_fitted():
    points, labels = examples(2)
    with pytest.raises(ArgumentError, match="at least two different labels; all are 'kind 0'"):
        Head.fit(points[:7], labels[:7])
    with pytest.raises(ArgumentError, match="there are none"):
        evaluate(points[:0], [])
    with pytest.raises(ShapeError, match="and 13 labels"):
        Head.fit(points, labels[1:])
    with pytest.raises(ShapeError, match=r"must be \(texts, 5\)"):
        Head.fit(points, labels).probabilities(torch.ones(2, 6))

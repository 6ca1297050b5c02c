"""Ranking by cosine, with numbers worked out by hand."""

import numpy as np
import pytest
import torch

from pellucid.errors import ArgumentError, ShapeError
from pellucid.tasks import similar, similarity
from pellucid.tasks.similarity import Match, nearest


def test_by_hand():
    embeddings = torch.tensor([[0.0, 2.0], [3.0, 0.0], [3.0, 3.0], [-5.0, 0.0], [1.0, 0.0]])
    found = similar(torch.tensor([2.0, 0.0]), embeddings)
    assert [match.index for match in found] == [1, 4, 2, 0, 3]
    assert [match.score for match in found] == pytest.approx([1, 1, 0.5**0.5, 0, -1])
    assert similar(torch.tensor([2.0, 0.0]), embeddings, top=1) == [Match(1, 1.0)]
    assert similar(torch.ones(2), torch.empty(0, 2)) == []


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"got \(3,\) and \(5, 2\)"):
        similar(torch.ones(3), torch.ones(5, 2))
    with pytest.raises(ArgumentError, match="top must be at least 1, not 0"):
        similar(torch.ones(2), torch.ones(5, 2), top=0)


NOT_FINITE = [3, 4, 11, 17]
TOLD = "^4 embeddings with numbers that are not finite left out; the first is in row 4$"


@pytest.mark.parametrize("find", [similar, nearest])
@pytest.mark.parametrize("top", [1, 5, 19])
def test_embeddings_that_are_not_finite_are_left_out(find, top, monkeypatch):
    monkeypatch.setattr(similarity, "SCANNED", 7)
    generator = torch.manual_seed(3)
    embeddings = torch.randn(19, 5, generator=generator)
    query = torch.randn(5, generator=generator)
    kept = [number for number in range(19) if number not in NOT_FINITE]
    expected = [
        Match(kept[match.index], match.score) for match in similar(query, embeddings[kept], top)
    ]
    wrong = (torch.nan, torch.inf, -torch.inf, torch.nan)
    for number, value in zip(NOT_FINITE, wrong, strict=True):
        embeddings[number, number % 5] = value
    given = embeddings if find is similar else embeddings.numpy()
    with pytest.warns(UserWarning, match=TOLD):
        found = find(query, given, top)
    assert [match.index for match in found] == [match.index for match in expected]
    assert [match.score for match in found] == pytest.approx([m.score for m in expected], abs=1e-6)


def test_a_query_that_is_not_finite_is_refused():
    for find, given in ((similar, torch.ones(3, 2)), (nearest, np.ones((3, 2), np.float32))):
        with pytest.raises(ArgumentError, match="query has numbers that are not finite"):
            find(torch.tensor([1.0, torch.nan]), given, 1)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 3e38])
def test_the_length_of_an_embedding_does_not_matter(size):
    embeddings = np.array([[1, 0], [0.5, 0.5], [0, -1], [0, 0]], np.float32) * np.float32(size)
    found = nearest(torch.tensor([1.0, 1.0]), embeddings, 4)
    assert [match.index for match in found] == [1, 0, 3, 2]
    assert [m.score for m in found] == pytest.approx([1, 0.5**0.5, 0, -(0.5**0.5)], abs=1e-6)

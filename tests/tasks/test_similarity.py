"""Ranking by cosine, with numbers worked out by hand."""

import pytest
import torch

from pellucid.errors import ArgumentError, ShapeError
from pellucid.tasks import similar
from pellucid.tasks.similarity import Match


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

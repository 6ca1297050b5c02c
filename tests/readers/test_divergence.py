"""The divergence of two distributions: near each other, far apart, and with impossible outcomes."""

import pytest
import torch

from pellucid.readers.divergence import divergence

INF = float("inf")


def by_hand(plain, changed):
    """KL, and the change of the log of the sum of exponentials, in float64."""
    p, q = plain.double(), changed.double()
    shares = p.softmax(-1)
    lost = (p.log_softmax(-1) - q.log_softmax(-1)).masked_fill(shares == 0, 0)
    return (shares * lost).sum(-1), q.logsumexp(-1) - p.logsumexp(-1)


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 300.0])
def test_near_and_far(size):
    torch.manual_seed(7)
    plain = torch.randn(3, 5, 11)
    changed = plain + size * torch.randn(2, 3, 5, 11)
    for found, truth in zip(divergence(plain, changed), by_hand(plain, changed), strict=True):
        assert found.dtype == torch.float64
        assert found.shape == (2, 3, 5)
        # Differences are rounded in float32, of which a divergence is a mean of squares.
        rounding = 8 * torch.finfo(torch.float32).eps * size
        torch.testing.assert_close(found, truth, rtol=1e-5, atol=rounding)


def test_what_cannot_be():
    plain = torch.tensor([-INF, 0.0, 1.0])
    changed = torch.tensor([[-INF, 0.0, 2.0], [3.0, 0.0, 1.0], [-INF, 0.0, -INF], [-INF, 0, 1]])
    found, change = divergence(plain, changed)
    truth, other = by_hand(plain, changed)
    assert truth.isinf().tolist() == [False, False, True, False]
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(change[[0, 1, 3]], other[[0, 1, 3]], atol=1e-6, rtol=1e-6)

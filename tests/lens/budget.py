"""Weights that were computed twice, compared by what rounding may do to each."""

import torch

ROUNDINGS = 16
"""Of one score and its exponential, on the way from query and key to a weight."""


def assert_same_weights(one, other):
    """Both are exp(score - logsumexp): a score is rounded in proportion to its size."""
    first, second = one.weights.dense(), other.weights.dense()
    scores = one.weights.masked.dense()
    largest = scores.masked_fill(scores.isinf(), 0).abs().max().item()
    tolerance = ROUNDINGS * torch.finfo(first.dtype).eps * (1 + largest)
    torch.testing.assert_close(first, second, atol=1e-30, rtol=tolerance)

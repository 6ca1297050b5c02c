"""The loss that never holds all logits is the one that does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pellucid.training import losses


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 23),
    smoothing=st.sampled_from([0.0, 0.1]),
    has_bias=st.booleans(),
    ignored=st.integers(0, 5),
)
def test_it_is_the_cross_entropy_of_the_logits(rows, smoothing, has_bias, ignored):
    torch.manual_seed(rows)
    x = torch.randn(rows, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(11, dtype=torch.float64, requires_grad=True) if has_bias else None
    inputs = [one for one in (x, weight, bias) if one is not None]
    targets = torch.randint(11, (rows,))
    targets[:ignored] = losses.IGNORED
    before, losses.ROWS = losses.ROWS, 5  # several pieces, the last of them short
    try:
        found = losses.cross_entropy(x, weight, targets, bias=bias, smoothing=smoothing)
    finally:
        losses.ROWS = before
    expected = F.cross_entropy(
        F.linear(x, weight, bias),
        targets,
        reduction="sum",
        ignore_index=losses.IGNORED,
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(3 * one, inputs) for one in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(7, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 6, losses.IGNORED, 2, 2])

    def loss(x, weight, bias):
        return losses.cross_entropy(x, weight, targets, bias=bias, smoothing=0.1)

    assert torch.autograd.gradcheck(loss, (x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision_is_no_worse_than_plain_torch(dtype):
    torch.manual_seed(0)
    x, weight, targets = torch.randn(1031, 13), torch.randn(101, 13), torch.randint(101, (1031,))
    exact = F.cross_entropy(F.linear(x.double(), weight.double()), targets, reduction="sum")
    x, weight = x.to(dtype), weight.to(dtype)
    plain = F.cross_entropy(F.linear(x, weight).float(), targets, reduction="sum")
    found = losses.cross_entropy(x, weight, targets)
    budget = (plain - exact).abs() + exact * torch.finfo(torch.float32).eps * 8
    assert (found - exact).abs() <= budget


def test_without_gradients_none_are_made():
    weight = torch.randn(11, 7, requires_grad=True)
    with torch.no_grad():
        loss = losses.cross_entropy(torch.randn(3, 7), weight, torch.tensor([0, 1, 2]))
    assert not loss.requires_grad

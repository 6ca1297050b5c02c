"""As many are left out as should be, and the mean stays."""

import pytest
import torch
from scipy import stats

from pellucid.layers.dropout import Dropout


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.99])
def test_the_share_that_is_left_out(chance):
    torch.manual_seed(3)
    x = torch.ones(1009, 101)
    made = Dropout(chance)(x)
    level = round(256 * chance)
    left_out = int((made == 0).sum())
    found = stats.chisquare(
        [left_out, x.numel() - left_out],
        [x.numel() * level / 256, x.numel() * (1 - level / 256)],
    )
    assert found.pvalue > 1e-3
    assert made.unique().tolist() == pytest.approx([0.0, 256 / (256 - level)])
    # Neighbours know nothing of each other, though eight are of one random number.
    dropped = (made == 0).flatten()
    for apart in (1, 7, 8):
        both = int((dropped[apart:] & dropped[:-apart]).sum())
        assert both / len(dropped) == pytest.approx((level / 256) ** 2, rel=0.05, abs=1e-3)


def test_what_is_kept_has_a_gradient_and_the_rest_none():
    torch.manual_seed(5)
    x = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    made = Dropout(0.25)(x)
    (grad,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(grad, (made != 0).double() * (4 / 3))
    torch.testing.assert_close(made, x * grad)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_none_and_all(chance):
    x = torch.randn(7, 11)
    torch.testing.assert_close(Dropout(chance)(x), x * (1 - chance))
    torch.testing.assert_close(Dropout(0.5).eval()(x), x)


def test_a_seed_gives_the_same_again():
    x = torch.ones(7, 11)
    torch.manual_seed(1)
    first = Dropout(0.5)(x)
    assert not torch.equal(first, Dropout(0.5)(x))
    torch.manual_seed(1)
    torch.testing.assert_close(Dropout(0.5)(x), first)

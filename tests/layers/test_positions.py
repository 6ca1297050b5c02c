"""Positions at any precision of the model around them."""

import pytest
import torch
from torch import nn

from pellucid.layers.rotary import Rotary

FAR = torch.tensor([[2003, 131_071]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_in_another_dtype_turns_by_the_same_angles(dtype):
    rotary = Rotary(22, 10_000.0)
    exact = 10_000.0 ** (-torch.arange(0, 22, 2).double() / 22)
    angle = (FAR.unsqueeze(-1).double() * exact).repeat(1, 1, 2).unsqueeze(-3)
    model = nn.ModuleList([rotary, nn.Linear(3, 3)]).to(dtype)
    assert model[1].weight.dtype == dtype
    assert rotary.frequencies.dtype == torch.float32
    cosine, sine = rotary(FAR)
    # An angle is rounded in proportion to its size, and its frequency with it.
    budget = 4 * torch.finfo(torch.float32).eps * float(angle.max())
    torch.testing.assert_close(cosine.double(), angle.cos(), atol=budget, rtol=0)
    torch.testing.assert_close(sine.double(), angle.sin(), atol=budget, rtol=0)


def test_it_goes_where_its_model_goes():
    rotary = Rotary(22, 10_000.0)
    assert rotary.to(torch.bfloat16).to("meta").frequencies.is_meta
    assert "frequencies" not in rotary.state_dict()

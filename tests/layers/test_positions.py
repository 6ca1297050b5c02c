"""Positions at any precision of the model around them."""

import pytest
import torch
from torch import nn

from pellucid.errors import ArgumentError
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


LENGTH = "original_max_position_embeddings"
LONG = {"rope_type": "longrope", "short_factor": (1.0,) * 11, "long_factor": (2.0,) * 11}


@pytest.mark.parametrize(
    ("scaling", "theta", "message"),
    [
        ({"rope_type": "yarn", "factor": 2.0, LENGTH: 8}, 1.0, "yarn' needs a rope_theta above 1"),
        ({"rope_type": "yarn", "factor": 2.0}, 100.0, f"needs a number {LENGTH}, not None"),
        ({**LONG, LENGTH: 1, "factor": 2.0}, 100.0, f"longrope' needs {LENGTH} above 1"),
        ({**LONG, LENGTH: 8}, 100.0, "needs a factor or a number of positions"),
        ({**LONG, LENGTH: 8, "factor": -1}, 100.0, "factor must be above 0, not -1"),
        ({**LONG, LENGTH: 8, "factor": 2, "long_factor": 3}, 100.0, "needs 11 numbers long_factor"),
    ],
)
def test_a_scaling_that_cannot_be_is_refused(scaling, theta, message):
    with pytest.raises(ArgumentError, match=message):
        Rotary(22, theta, scaling)


def test_longer_texts_turn_by_other_angles():
    """By longrope's long factors past the length of pretraining, and by its short ones up to it."""
    rotary = Rotary(22, 100.0, {**LONG, LENGTH: 8, "factor": 1})
    plain = Rotary(22, 100.0)
    short, far = torch.arange(8).unsqueeze(0), torch.arange(9).unsqueeze(0)
    assert torch.equal(rotary(short)[0], plain(short)[0])
    torch.testing.assert_close(rotary(2 * far)[0], plain(far)[0])
    assert (rotary.changes(7, 8), rotary.changes(8, 9), rotary.changes(9, 10)) == (0, 1, 0)

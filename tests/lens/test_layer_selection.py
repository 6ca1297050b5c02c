"""`layers=` means the same to `watch`, to a recording, and to what reads one."""

import pytest
import torch
from torch import nn

import pellucid
from pellucid.errors import TypeMismatchError, UnknownNameError
from pellucid.lens import rollout

NAMES = [f"{stack}.{layer}.attn" for stack in ("left", "right") for layer in (0, 2, 3)]
SELECTIONS = {
    0: ["left.0.attn", "right.0.attn"],
    -1: ["left.3.attn", "right.3.attn"],
    "left.2.attn": ["left.2.attn"],
    "left.2": ["left.2.attn"],
    "right": NAMES[3:],
    "": NAMES,
    "right.[02]": ["right.0.attn", "right.2.attn"],
    "r*.3.*": ["right.3.attn"],
    (0, "left.3"): ["left.0.attn", "left.3.attn", "right.0.attn"],
}


class Attend(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Stacks(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("left", "right"):
            layers = {"0": Attend(), "2": Attend(), "3": Attend()}
            blocks = {number: nn.ModuleDict({"attn": layer}) for number, layer in layers.items()}
            self.add_module(name, nn.ModuleDict(blocks))

    def forward(self, x):
        for name in NAMES:
            x = self.get_submodule(name)(x)
        return x


def watched(layers=None):
    with torch.no_grad(), pellucid.watch(Stacks(), layers) as seen:
        seen._model(torch.randn(1, 2, 5, 3))
    return seen


@pytest.mark.parametrize("layers", SELECTIONS)
def test_one_grammar(layers):
    assert watched(layers).names == SELECTIONS[layers]
    whole = watched()
    assert whole.of_layers(layers).names == SELECTIONS[layers]
    chain = rollout(whole.records, layers=layers)
    assert torch.equal(chain, rollout([whole.record(name) for name in SELECTIONS[layers]]))


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (1, UnknownNameError, "there is no layer 1; the last layer is 3"),
        (-5, UnknownNameError, "there is no layer -5"),
        ("lefd", UnknownNameError, r"layers='lefd' matches no module; there are left"),
        ("*.attention", UnknownNameError, "matches no module"),
        (["left", True], TypeMismatchError, "layers must be numbers or names, got True"),
        (0.5, TypeMismatchError, r"layers must be numbers or names, got 0\.5"),
        ([0.5], TypeMismatchError, r"layers must be numbers or names, got 0\.5"),
    ],
)
def test_what_selects_nothing_is_refused(layers, error, message):
    with pytest.raises(error, match=message):
        pellucid.watch(Stacks(), layers)
    with pytest.raises(error, match=message):
        watched().of_layers(layers)

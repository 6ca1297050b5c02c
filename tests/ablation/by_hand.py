"""Ablations as one writes them by hand, in float64: the oracle."""

from copy import deepcopy

import torch

from pellucid.models import Config, EncoderDecoder
from tests import writers

IDS = torch.tensor([[3, 141, 59, 26, 53, 58, 97, 93, 23, 84, 62]])
SOURCE = torch.tensor([[7, 2, 71, 82, 8, 18, 28]])


def translator():
    """A tiny encoder-decoder of random weights."""
    torch.manual_seed(11)
    model = EncoderDecoder(
        Config(
            kind="encoder-decoder",
            vocabulary=writers.VOCABULARY,
            width=24,
            layers=2,
            decoder_layers=1,
            heads=3,
            hidden=37,
            positions=writers.POSITIONS,
        )
    )
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def without(model, name, head):
    """A copy in which nothing reads the output of a head."""
    other = deepcopy(model)
    attention = other.get_submodule(name)
    size = attention.output.weight.shape[1] // 3
    attention.output.weight.data[:, head * size : (head + 1) * size] = 0
    return other


def with_mean(model, name, head):
    """A copy in which the mean over the queries stands for the output of a head."""
    other = deepcopy(model)
    attention = other.get_submodule(name)
    size = attention.output.weight.shape[1] // 3
    mine = slice(head * size, (head + 1) * size)

    def mean(module, inputs):
        x = inputs[0].clone()
        x[..., mine] = x[..., mine].mean(-2, keepdim=True)
        return (x,)

    attention.output.register_forward_pre_hook(mean)
    return other


def divergence(model, other, *ids):
    """KL(model || other) at each position."""
    with torch.no_grad():
        plain, changed = (one(*ids).log_softmax(-1)[0] for one in (model, other))
    return (plain.exp() * (plain - changed)).sum(-1)


def loss(model, *ids):
    """The mean cross-entropy of the next token."""
    with torch.no_grad():
        logits = model(*ids)[0, :-1]
    return torch.nn.functional.cross_entropy(logits, ids[-1][0, 1:])

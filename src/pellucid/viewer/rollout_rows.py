"""The mean attention of a layer, and attention rollout through the layers below it.

As `pellucid.rollout` has it with the mean over the heads and an even residual, for one token at a
time and in either direction: in O(tokens) memory, one pass over each layer's weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError
from pellucid.lens.attention_rollout import chain_of, nonzero, through
from pellucid.lens.module_names import stack as stack_of
from pellucid.viewer.catalogue import Catalogue

RESIDUAL = 0.5
"""The share of the residual connection."""


def row(weights: AttentionWeights, query: int) -> Tensor:
    """(keys,): what one token attends to, averaged over heads."""
    return weights.sample([query])[:, 0].mean(0)


def column(weights: AttentionWeights, key: int) -> Tensor:
    """(queries,): what attends to one token, averaged over heads."""
    return weights[:, :, key].mean(0)


def chain(catalogue: Catalogue, layer: int) -> list[int]:
    """The layers of the same stack, from the first one up to this.

    Raises:
        ArgumentError: the layers do not form a chain of self-attention.
        OutOfRangeError: there is no such layer.
    """
    seen, record = catalogue.record(layer)
    if record.is_cross:
        raise ArgumentError(
            "rollout needs self-attention; in cross-attention, tokens of one text attend to another"
        )
    stack, volume = stack_of(record.name), catalogue.layers[layer].recording
    numbers = [
        number
        for number, candidate in enumerate(catalogue.layers[: layer + 1])
        if candidate.recording == volume
        and not candidate.is_cross
        and stack_of(candidate.name) == stack
    ]
    chain_of(seen, [catalogue.layers[number].name for number in numbers])
    return numbers


def made_of(layers: Sequence[AttentionWeights], query: int) -> Tensor:
    """(tokens,): how much of each input token is in one position of the last layer's output."""
    flow = torch.zeros(1, layers[-1].shape[-1], dtype=layers[-1].dtype)
    flow[0, query] = 1
    for weights in reversed(layers):
        flow = through(weights, flow.to(weights.device, weights.dtype), "mean", RESIDUAL)
    return flow[0]


def reached(layers: Sequence[AttentionWeights], key: int) -> Tensor:
    """(tokens,): how much of one input token is in each position of the last layer's output."""
    held = torch.zeros(layers[0].shape[-1], dtype=layers[0].dtype)
    held[key] = 1
    for weights in layers:
        held = held.to(weights.device, weights.dtype)
        both = torch.stack([held, torch.ones_like(held)], -1)
        mixed = (1 - RESIDUAL) * (weights @ both[None]).mean(0) + RESIDUAL * both
        held = mixed[:, 0] / nonzero(mixed[:, 1])
    return held

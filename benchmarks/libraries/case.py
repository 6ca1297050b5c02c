"""A model to watch: how to build it, and how to call it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.lens import Recording

BATCH = 2
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
VOCABULARY = 50
SHARPER = 2.0
"""How much larger queries and keys are made than those of a fresh model."""
COMPARES = re.compile(
    r"(^|[._])(w?qkv?|w?k|w?kv|query|key|in_proj|c_attn)(_?(proj|lin|norm|conv))?(\.\d+)*\.weight$"
    r"|in_proj_weight$|[qk]_proj_weight$",
    re.IGNORECASE,
)
"""The names of parameters that make queries and keys."""


@dataclass(frozen=True)
class Case:
    """A model and one forward pass of it."""

    name: str
    build: Callable[[], nn.Module]
    run: Callable[[nn.Module], object]
    is_trained: bool = False
    """Whether its parameters are to be left as they are."""
    complaint: Callable[[nn.Module, Recording], str] = lambda model, seen: ""
    """What else is wrong with the recording; nothing where all is well."""

    def model(self) -> nn.Module:
        """The model in eval mode, the same at each call."""
        torch.manual_seed(0)
        model = self.build().eval()
        if not self.is_trained:
            sharpen(model)
            settle(model, self.run)
        return model


def on(*inputs: Any, **options: Any) -> Callable[[nn.Module], object]:
    """What calls a model on these inputs."""
    return lambda model: model(*inputs, **options)


def sharpen(model: nn.Module) -> None:
    """Make a fresh model look somewhere.

    Libraries begin with small or empty parameters, whose attention is nearly uniform: then weights
    of another head, or without their bias, would pass for the right ones.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            noise = torch.randn_like(parameter)
            if parameter.ndim > 1:
                parameter.add_(noise * (parameter.numel() / len(parameter)) ** -0.5)
            else:
                parameter.add_(0.1 * noise)
            if COMPARES.search(name):
                parameter.mul_(SHARPER)


def settle(model: nn.Module, run: Callable[[nn.Module], object]) -> None:
    """Let batch norms learn what comes through them, or numbers grow from layer to layer."""
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        run(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def images(size: int, channels: int = 3) -> Tensor:
    """(batch, channels, size, size)"""
    return torch.randn(BATCH, channels, size, size, generator=torch.Generator().manual_seed(1))


def vectors(length: int, width: int) -> Tensor:
    """(batch, length, width)"""
    return torch.randn(BATCH, length, width, generator=torch.Generator().manual_seed(2))


def token_ids(length: int, vocabulary: int = VOCABULARY) -> Tensor:
    """(batch, length)"""
    return torch.randint(4, vocabulary, (BATCH, length), generator=torch.Generator().manual_seed(3))

"""Activations between the last block and the logits, as factors that are constant to gradients.

    y = f(x) = x * (f(x) / x), of which the factor is what the model observed

A pooler and the head of a masked language model have one (Devlin et al. 2019). Some are modules,
others are called as functions: these are found as what turns the output of a linear layer into the
input of the next module.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from pellucid.lens.tracing.frozen_hooks import ratio, with_gradient_of
from pellucid.lens.tracing.parts import Parts

MODULES = ("torch.nn.modules.activation", "transformers.activations")
"""Where the classes of activations are."""
FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.tanh,
    F.gelu,
    lambda x: F.gelu(x, approximate="tanh"),
    F.relu,
    F.silu,
)
"""Activations that are called as functions."""


def freeze_activations(parts: Parts) -> list[RemovableHandle]:
    """Hook all modules outside blocks that have an activation, or may have one before them."""
    linear: list[Tensor] = []
    """The output of the linear layer that ran last, if nothing ran since."""

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        linear[:] = [output] if isinstance(output, Tensor) else []

    def freeze(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        linear.clear()
        if not (inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)):
            return output
        return with_gradient_of(output, inputs[0] * ratio(output, inputs[0]))

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        if not linear or not inputs or not isinstance(inputs[0], Tensor):
            return None
        x, y = linear.pop(), inputs[0]
        if y is x or y.shape != x.shape or not _is_activated(x, y):
            return None
        return (with_gradient_of(y, x * ratio(y, x)), *inputs[1:])

    handles = []
    for module in parts.outside().values():
        if module._modules:
            continue
        if type(module).__module__ in MODULES:
            handles.append(module.register_forward_hook(freeze))
            continue
        handles.append(module.register_forward_pre_hook(before))
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(keep))
    return handles


def _is_activated(x: Tensor, y: Tensor) -> bool:
    with torch.no_grad():
        return any(torch.allclose(f(x), y, rtol=1e-4, atol=1e-6) for f in FUNCTIONS)

"""Hooks that leave a model's numbers as they are, and change what its gradients are."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pellucid.lens.tracing.frozen_norms import FrozenNorm, frozen, is_norm


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """The numbers of `value`, with the gradient of `other`."""
    return value.detach() + (other - other.detach())


def replaced(output: Any, new: Tensor) -> Any:
    """A module's output with another first tensor."""
    return (new, *output[1:]) if isinstance(output, tuple) else new


def first_of(output: Any) -> Any:
    """The first tensor of a module's output."""
    return output[0] if isinstance(output, tuple) and output else output


def freeze_norms(
    modules: dict[str, nn.Module], after: Callable[[str, FrozenNorm, Tensor], Tensor]
) -> list[RemovableHandle]:
    """Hook every norm, so that its scale is a constant to gradients.

    Args:
        modules: those of the model, by name.
        after: called with the name of a norm, what it is, and its output; gives the new output.
    """

    def hook(name: str) -> Callable[..., Tensor]:
        def freeze(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            norm = frozen(module, name, inputs[0], output)
            return after(name, norm, with_gradient_of(output, norm.linear(inputs[0])))

        return freeze

    return [
        module.register_forward_hook(hook(name))
        for name, module in modules.items()
        if is_norm(module)
    ]

"""Hooks that leave a model's numbers as they are, and change what its gradients are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pellucid.errors import ArgumentError
from pellucid.lens.module_names import within
from pellucid.lens.tracing.frozen_norms import FrozenNorm, frozen, is_norm
from pellucid.lens.tracing.parts import Parts


def check_evaluates(model: nn.Module) -> None:
    """Refuse a model that may drop parts, and a mode in which no graph can be made.

    Raises:
        ArgumentError: the model is in training mode, or torch in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise ArgumentError(
            "torch.inference_mode() keeps no graph: use torch.no_grad(), or neither"
        )
    if any(module.training for module in model.modules()):
        raise ArgumentError("the model is in training mode, and may drop parts: call eval()")


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """The numbers of `value`, with the gradient of `other`."""
    return value.detach() + (other - other.detach())


def ratio(value: Tensor, of: Tensor) -> Tensor:
    """value / of as a constant, and 0 where `of` is 0."""
    with torch.no_grad():
        return torch.where(of == 0, 0, value / torch.where(of == 0, 1, of))


def replaced(output: Any, new: Tensor) -> Any:
    """A module's output with another first tensor."""
    return (new, *output[1:]) if isinstance(output, tuple) else new


def first_of(output: Any) -> Any:
    """The first tensor of a module's output."""
    return output[0] if isinstance(output, tuple) and output else output


def is_biased(module: nn.Module) -> bool:
    """Whether a module is a linear layer with a bias."""
    is_linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    return is_linear and isinstance(getattr(module, "bias", None), Tensor)


def is_table(module: nn.Module) -> bool:
    """Whether a module may be a table of embeddings, by its class."""
    return isinstance(module, nn.Embedding) or type(module).__name__.endswith("Embedding")


def graph_from_tables(model: nn.Module) -> list[RemovableHandle]:
    """Hook tables of embeddings, so that a graph is made even if all parameters are frozen."""

    def begin(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        is_vector = isinstance(output, Tensor) and output.is_floating_point()
        return (
            output.detach().requires_grad_() if is_vector and not output.requires_grad else output
        )

    tables = [module for module in model.modules() if is_table(module)]
    return [module.register_forward_hook(begin) for module in tables]


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


def before_blocks(parts: Parts, note: Callable[[str, Tensor], None]) -> list[RemovableHandle]:
    """Hook every block, and note its name and its input."""

    def hook(name: str) -> Callable[..., None]:
        def start(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            note(name, inputs[0] if inputs else options["hidden_states"])

        return start

    return [
        parts.modules[block].register_forward_pre_hook(hook(block), with_kwargs=True)
        for block in parts.blocks
    ]


def without_graph(parts: Parts, attentions: bool) -> list[RemovableHandle]:
    """Hook what is inside feed-forward parts, and attentions if asked: no graph is made of it.

    Gradients go on where such a part ends; the hooks that take its output switch them on.
    """

    def off(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        torch.set_grad_enabled(False)

    names = [
        feed.ups[0] if feed.ups and not within(feed.ups[0], feed.name) else feed.name
        for feed in parts.feeds
    ]
    if attentions:
        names += [attention.name for attention in parts.attentions]
    return [parts.modules[name].register_forward_pre_hook(off) for name in names]

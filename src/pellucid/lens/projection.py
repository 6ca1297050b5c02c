"""The output projection of an attention: its module, and the matrix of this module.

The weight of a module may not be its matrix: there are adapters (LoRA, DoRA), weights of four or
eight bits, parametrizations and hooks. Such a module is run (see `module_matrix`).
"""

import inspect
from typing import Any, overload

import torch
from torch import Tensor, nn

from pellucid.errors import UnknownNameError
from pellucid.lens.module_matrix import module_matrix, not_in_memory
from pellucid.lens.module_names import modules_of
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording

__all__ = ["output_projection"]

OUTPUTS = (
    "o_proj",
    "out_proj",
    "c_proj",
    "dense",
    "Wo",
    "wo",
    "o",
    "out_lin",
    "to_out.0",
    "to_out",
    "projection",
    "proj",
    "output_proj",
    "projection_layer",
    "linear_out",
    "attention_out",
    "output",
    "out",
)
"""Names of the output projection inside the module that attends."""
OUTPUTS_BESIDE = ("output.dense", "output.o_proj")
"""Names of the output projection beside that module, as in BERT."""


@overload
def output_projection(model: nn.Module, name: str | Record) -> Tensor: ...


@overload
def output_projection(model: nn.Module, name: Recording) -> dict[str, Tensor]: ...


def output_projection(
    model: nn.Module, name: str | Record | Recording
) -> Tensor | dict[str, Tensor]:
    """The output projection of an attention, (model_dim, heads * value_dim).

    The module is found by its name, inside the attention or, as in BERT, beside it. The matrix of a
    plain linear layer is its own weight, in the graph. Any other module (quantized, parametrized,
    hooked, or with an adapter) is run on unit vectors with its hooks, in eval mode and without
    gradients; its matrix is float32 or better. The bias is left out.

    Args:
        model: the model that was watched.
        name: the name of the module that attends, or its record, whose width must fit; or the
            recording, for the matrix of each module by name.

    Raises:
        UnknownNameError: the model has no such module, or no output projection was found; the
            message lists the names that were tried.
        ArgumentError: the module cannot be run on contexts, or is not linear for each token.
        TypeMismatchError: its weights are on the meta device.
    """
    if isinstance(name, Recording):
        return {record.name: output_projection(model, record) for record in name.latest()}
    value, width, heads = None, None, 1
    if isinstance(name, Record):
        if name.value is not None:
            value, heads = name.value, name.shape[-3]
            width = heads * value.shape[-1]
        name = name.name
    modules = dict(modules_of(model))
    if name not in modules:
        raise UnknownNameError(f"the model has no module '{name}'")
    outside = name.rpartition(".")[0]
    candidates = [f"{name}.{candidate}".lstrip(".") for candidate in OUTPUTS]
    if name:
        candidates += [f"{outside}.{candidate}".lstrip(".") for candidate in OUTPUTS_BESIDE]
    for candidate in candidates:
        module = modules.get(candidate)
        if module is None or not _takes_one(module):
            continue
        inputs = _inputs(module, width)
        if inputs is None or width not in (None, inputs):
            continue
        weight: Any = _own_weight(module)
        if _forward(modules[name]) is nn.MultiheadAttention.forward:
            weight = getattr(module, "weight", None)  # it does not call the module
        if not isinstance(weight, Tensor):
            return module_matrix(module, candidate, inputs, heads, value)
        if weight.is_meta:
            raise not_in_memory(candidate)
        return weight
    fitting = "" if width is None else f" of {width} inputs"
    raise UnknownNameError(
        f"no output projection{fitting} of '{name}' was found; looked for {', '.join(candidates)}"
    )


def _forward(module: nn.Module) -> Any:
    """The forward method of its class; None for compiled code."""
    return getattr(type(module), "forward", None)


def _takes_one(module: nn.Module) -> bool:
    """Whether it can be called with one argument."""
    if _forward(module) is nn.Module.forward:
        return False  # a list of modules
    try:
        inspect.signature(module.forward).bind(None)
    except TypeError:
        return False
    except ValueError:  # a function without a signature
        return True
    return True


def _inputs(module: nn.Module, width: int | None) -> int | None:
    """The number of its inputs: by its own attributes, or else `width`, or else by its parts."""
    for part in module.modules() if width is None else [module]:
        for count in (getattr(part, "in_features", None), getattr(part, "nx", None)):
            if isinstance(count, int):
                return count
        weight = getattr(part, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 2 and weight.dtype != torch.uint8:
            return weight.shape[1]  # uint8 may pack two inputs into a byte
    return width


def _own_weight(module: nn.Module) -> Tensor | None:
    """(outputs, inputs): the weight of a layer that multiplies by it and does nothing else."""
    kind = type(module)
    # GPT-2's linear layer has a transposed weight.
    transposed = (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D")
    if not transposed and _forward(module) is not nn.Linear.forward:
        return None
    if "forward" in vars(module) or kind.__call__ is not nn.Module.__call__:
        return None
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    weight = module._parameters.get("weight")  # a parametrized weight is not a parameter
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        return None
    return weight.T if transposed else weight

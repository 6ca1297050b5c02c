"""The projection after attention: which module it is, and the matrix of what that module does.

A weight does not say what its module does: there are adapters (LoRA, DoRA), weights in four or
eight bits, parametrizations, hooks. So the module is asked. What it gives for unit vectors, less
what it gives for zeros, are the columns of its matrix.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError, UnknownNameError
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
"""What the projection after attention is called, inside the module that attends."""
OUTPUTS_BESIDE = ("output.dense", "output.o_proj")
"""And beside it, as in BERT."""
ROUNDINGS = 8
"""How many roundings of one number a module may be off a matrix: several products, a few sums."""

Ask = Callable[[Tensor], Tensor]
"""A module as (rows, width) to (rows, outputs)."""
Layout = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""How a module takes contexts, (rows, width), and how its answers become (rows, outputs) again."""


@overload
def output_projection(model: nn.Module, name: str | Record) -> Tensor: ...


@overload
def output_projection(model: nn.Module, name: Recording) -> dict[str, Tensor]: ...


def output_projection(
    model: nn.Module, name: str | Record | Recording
) -> Tensor | dict[str, Tensor]:
    """The matrix that the contexts of all heads go through, (model_dim, heads * value_dim).

    The module is looked for by the names that models give it, inside the attention and, as in BERT,
    beside it. Of a plain linear layer the matrix is its own weight, still in the graph. Any other
    module, with an adapter, quantized, parametrized or hooked, is run on unit vectors, in eval mode
    and without gradients, its hooks too; the matrix is then that of all it does, at least float32.
    What it adds to zeros, its bias, is left out.

    Args:
        model: the model that was watched.
        name: of the module that attends, or its record, whose width then has to fit; or the
            recording, for the matrix of each module by its name.

    Raises:
        UnknownNameError: the model has no such module, or none of the names fits; the message lists
            what was looked for.
        ArgumentError: the module cannot be run on contexts, or is not linear, token by token.
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
    places = [f"{name}.{place}".lstrip(".") for place in OUTPUTS]
    if name:
        places += [f"{outside}.{place}".lstrip(".") for place in OUTPUTS_BESIDE]
    for place in places:
        module = modules.get(place)
        if module is None or not _takes_one(module):
            continue
        inputs = _inputs(module, width)
        if inputs is None or width not in (None, inputs):
            continue
        weight: Any = _own_weight(module)
        if _forward(modules[name]) is nn.MultiheadAttention.forward:
            weight = getattr(module, "weight", None)  # it takes that, and does not call the module
        if not isinstance(weight, Tensor):
            return _matrix(module, place, inputs, heads, value)
        if weight.is_meta:
            raise _not_in_memory(place)
        return weight
    fitting = "" if width is None else f" of {width} inputs"
    raise UnknownNameError(
        f"no output projection{fitting} of '{name}' was found; looked for {', '.join(places)}"
    )


def _forward(module: nn.Module) -> Any:
    """That of its class; None of compiled code, which has none there."""
    return getattr(type(module), "forward", None)


def _takes_one(module: nn.Module) -> bool:
    """Whether it can be called with contexts alone."""
    if _forward(module) is nn.Module.forward:
        return False  # a list of modules
    try:
        inspect.signature(module.forward).bind(None)
    except TypeError:
        return False
    except ValueError:  # a function that does not tell
        return True
    return True


def _inputs(module: nn.Module, width: int | None) -> int | None:
    """How many numbers it takes: as it says itself, or else `width`, or else as its parts say."""
    for part in module.modules() if width is None else [module]:
        for count in (getattr(part, "in_features", None), getattr(part, "nx", None)):
            if isinstance(count, int):
                return count
        weight = getattr(part, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 2 and weight.dtype != torch.uint8:
            return weight.shape[1]  # where a byte does not hold two
    return width


def _own_weight(module: nn.Module) -> Tensor | None:
    """(outputs, inputs), of a layer that multiplies by its weight and does nothing else."""
    kind = type(module)
    # GPT-2's, a linear layer with its weight the other way round.
    turned = (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D")
    if not turned and _forward(module) is not nn.Linear.forward:
        return None
    if "forward" in vars(module) or kind.__call__ is not nn.Module.__call__:
        return None
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    weight = module._parameters.get("weight")  # a parametrized one is not among them
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        return None
    return weight.T if turned else weight


def _matrix(module: nn.Module, place: str, width: int, heads: int, value: Tensor | None) -> Tensor:
    """(outputs, width), what a module does to contexts, found by running it.

    Raises:
        ArgumentError: it cannot be run, or is not linear.
        TypeMismatchError: its weights are on the meta device.
    """
    held = [*module.parameters(), *module.buffers()]
    fetches = any("forward" in vars(part) for part in module.modules())  # as offloading makes it
    if any(tensor.is_meta for tensor in held) and not fetches:
        raise _not_in_memory(place)
    given = [] if value is None else [value]
    devices = [tensor.device for tensor in [*held, *given] if not tensor.is_meta]
    device = devices[0] if devices else torch.device("cpu")
    floats = [x.dtype for x in held if x.is_floating_point() and x.dtype.itemsize > 1]
    dtypes = dict.fromkeys([*(tensor.dtype for tensor in given), *floats, torch.float32])
    with _evaluating(module), torch.no_grad(), torch.autocast(device.type, enabled=False):
        sums = _sums(width).to(device)
        ask, answers = _asking(module, place, sums, heads, dtypes)
        rounding = max([_rounding(answers), *(torch.finfo(dtype).eps for dtype in floats)])
        return _probed(ask, place, sums, rounding)


def _probed(ask: Ask, place: str, sums: Tensor, rounding: float) -> Tensor:
    """The matrix behind `ask`, made sure of by (rows, width) `sums` of unit vectors."""
    width = sums.shape[1]
    together = max(1, BLOCK_NUMBERS // width)
    bias = ask(torch.zeros_like(sums))[0].clone()

    def columns(first: int, scale: float) -> Tensor:
        units = torch.zeros(min(together, width - first), width, device=sums.device)
        units.diagonal(first).fill_(scale)
        return (ask(units) - bias) / scale

    scale = _scale(float(bias.abs().max()), float(columns(0, 1.0).abs().max()))
    matrix = bias.new_empty(len(bias), width)
    for first in range(0, width, together):
        block = columns(first, scale)
        matrix[:, first : first + len(block)] = block.T

    rounding += width**0.5 * torch.finfo(matrix.dtype).eps
    lengths = float(sums.amax()) * torch.linalg.vector_norm(matrix, dim=1)
    for factor in (scale, -2 * scale):
        expected = factor * sums.to(matrix) @ matrix.T
        sizes = expected.abs() + abs(factor) * lengths + bias.abs()
        budget = ROUNDINGS * rounding * float(sizes.norm())
        error = float((ask(factor * sums) - bias - expected).norm())
        if not error <= budget:  # nor is it where it is no number
            raise ArgumentError(
                f"'{place}' does not multiply each context by one matrix: what it gives for sums "
                f"is off by {error:.1e}, where rounding explains {budget:.1e}"
            )
    return matrix


def _sums(width: int) -> Tensor:
    """(rows, width), sums of unit vectors, about as long as one.

    The entries of a row are zero or all the same: so a layer that rounds what goes in to eight bits
    or fewer, with a scale of its own, rounds nothing. They are the same every time, and nobody's
    random numbers are used up.
    """
    rows = 2 if width == 3 else 3  # so that neither is taken for the other
    generator = torch.Generator("cpu").manual_seed(width)
    chosen = torch.randint(2, (rows, width), generator=generator, device="cpu").float()
    chosen[0] = 1
    return chosen * 2.0 ** -round(math.log2(max(1, width / 2)) / 2)


def _asking(
    module: nn.Module, place: str, sums: Tensor, heads: int, dtypes: Iterable[torch.dtype]
) -> tuple[Ask, Tensor]:
    """The first way to run a module that it takes, and what it gives for sums that way.

    Raises:
        ArgumentError: it takes none.
    """
    errors: list[Exception] = []
    for dtype in dtypes:
        for layout in _layouts(heads):
            ask = partial(_answers, module, layout, dtype)
            try:
                return ask, ask(sums)
            except Exception as error:
                errors.append(error)
    raise ArgumentError(
        f"'{place}' could not be run on contexts of shape (1, {len(sums)}, {sums.shape[1]}): "
        f"{errors[0]}"
    ) from errors[0]


def _layouts(heads: int) -> list[Layout]:
    return [
        (lambda rows: rows[None], lambda answer: answer[0]),
        (lambda rows: rows, lambda answer: answer),
        (lambda rows: rows.unflatten(1, (heads, -1))[None], lambda answer: answer[0].flatten(1)),
        # Convolutions of single places.
        (lambda rows: rows.T[None], lambda answer: answer[0].T),
        (lambda rows: rows.T[None, :, :, None], lambda answer: answer[0, :, :, 0].T),
    ]


def _answers(module: nn.Module, layout: Layout, dtype: torch.dtype, rows: Tensor) -> Tensor:
    there, back = layout
    answer = module(there(rows.to(dtype, copy=True)))
    answer = back(answer[0] if isinstance(answer, tuple) else answer)
    if answer.is_meta or answer.ndim != 2 or len(answer) != len(rows):
        raise ShapeError(f"it gave {tuple(answer.shape)} on {answer.device}")
    return answer.to(torch.promote_types(answer.dtype, torch.float32))


def _scale(bias: float, entry: float) -> float:
    """A power of two: how long vectors are to be that a bias of this size does not drown them."""
    if bias == 0 or not math.isfinite(bias * entry):
        return 1.0
    return 2.0 ** min(max(math.ceil(math.log2(16 * bias / max(entry, bias / 2**12))), 0), 12)


def _rounding(answers: Tensor) -> float:
    """The relative error of what answers were computed in, whatever dtype holds them now."""
    try:
        whole = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for some backends, and not all alike
        whole = False
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        is_exact = torch.equal(answers.to(dtype).to(answers), answers)
        if is_exact or (dtype == torch.bfloat16 and not whole):
            return torch.finfo(dtype).eps
    return torch.finfo(answers.dtype).eps


def _not_in_memory(place: str) -> TypeMismatchError:
    return TypeMismatchError(
        f"'{place}' has its weights on the meta device, which holds no numbers: load them first"
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, flag by flag: `eval()` of a module may do more, such as merge an adapter."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True

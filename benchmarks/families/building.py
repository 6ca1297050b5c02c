"""A tiny model of a class, with attention that is far from uniform, and inputs that it takes."""

import random
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.families import overrides
from benchmarks.families.inputs import Inputs, find, mended, outline, tries
from benchmarks.families.shrinking import WIDTH, shrunk
from benchmarks.families.truth import weights_of

MOST_PARAMETERS = 120_000_000
MOST_TRIES = 40
MOST_NAN = 0.5
"""Of what a model returns: rows that are padding may be NaN, and a whole model that fails is."""
SHARPER = 1.5
"""How much larger the projections of queries and keys are than what keeps numbers as large."""
WIDEST = 6.0
"""The largest standard deviation of scores: beyond it, weights are one or zero and show nothing."""
WIDE = 3.0
"""The standard deviation that they are brought to then."""
QUERY_OR_KEY = re.compile(
    r"(^|[._])(q|k|query|key|qkv|kv|wq|wk|c_attn|in_proj|query_key_value|Wqkv)(_|\.|$)"
)


class NotBuiltError(Exception):
    """No tiny model of the class could be made and run."""


@dataclass
class Built:
    """A model and what it is given."""

    config: Any
    kind: Any
    model: nn.Module
    inputs: dict[str, Any]
    sharper: float = SHARPER
    left_out: str = ""
    """The error of what was tried first, where something else was given in the end."""

    def run(self) -> Any:
        return run(self.model, self.inputs)

    def otherwise(self) -> "Built":
        """The same model in the implementation of attention that it chooses by itself."""
        model = made(self.kind, self.config, None)
        model.load_state_dict(self.model.state_dict(), strict=False)
        return Built(self.config, self.kind, model, self.inputs, self.sharper, self.left_out)

    def tempered(self) -> None:
        """Make scores smaller where they are so large that weights are one or zero."""
        spreads = [softmax.spread for softmax in weights_of(self.model, self.run)]
        spread = sum(spreads) / max(1, len(spreads))
        if spread > WIDEST:
            self.sharper *= (WIDE / spread) ** 0.5
            sharpen(self.model, self.sharper)


def run(model: nn.Module, inputs: dict[str, Any]) -> Any:
    seed()
    with torch.no_grad():
        return model(**{name: _copy(value) for name, value in inputs.items()})


def seed() -> None:
    random.seed(0)
    torch.manual_seed(0)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else deepcopy(value)


def made(kind: Any, config: Any, implementation: str | None) -> nn.Module:
    """A model of a class, its weights random and sharp."""
    seed()
    model: nn.Module = kind._from_config(
        deepcopy(config), attn_implementation=implementation, dtype=torch.float32
    )
    model = model.float().eval()
    sharpen(model)
    return model


@torch.no_grad()
def sharpen(model: nn.Module, sharper: float = SHARPER) -> None:
    """Random weights that keep numbers as large as they are, and make scores larger."""
    generator = torch.Generator().manual_seed(1)
    embeddings = {part.weight for part in model.modules() if isinstance(part, nn.Embedding)}
    transposed = {part.weight for part in model.modules() if type(part).__name__ == "Conv1D"}
    kernels = {part.weight for part in model.modules() if isinstance(part, nn.Conv1d)}
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or not parameter.numel():
            continue
        if parameter.ndim < 2:
            if name.endswith("bias") and not bool(parameter.any()):
                parameter.normal_(0, 0.1, generator=generator)
            continue
        if parameter in embeddings:
            parameter.normal_(0, 1, generator=generator)
            continue
        inner = parameter.shape[0] if parameter in transposed else parameter[0].numel()
        if parameter.ndim == 3 and parameter not in kernels:  # experts, each with its own matrix
            inner = parameter.shape[-1]
        gain = sharper if QUERY_OR_KEY.search(name) else 1.0
        parameter.normal_(0, gain * inner**-0.5, generator=generator)


def built(
    kind: Any, is_wanted: Callable[[nn.Module], bool], settings: dict[str, Any] | None = None
) -> Built | None:
    """A tiny model of a class in its own eager attention, with inputs that it takes.

    Args:
        kind: the class.
        is_wanted: whether it is worth running, asked once it is made.
        settings: of its configuration, in place of those in `overrides`.

    Returns:
        None where the model, once it is made, is not wanted.

    Raises:
        NotBuiltError: nothing that was tried works; the message says why the first try failed.
    """
    name = kind.__name__
    if name in overrides.UNBUILT:
        raise NotBuiltError(overrides.UNBUILT[name])
    reasons: list[str] = []
    try:
        default = kind.config_class()
    except Exception as error:
        raise NotBuiltError(f"no default configuration: {_told(error)}") from error
    if settings is None:
        settings = overrides.SETTINGS.get(kind.config_class.model_type, {})
    wanted: bool | None = None
    for narrow in (True, False):
        try:
            config = shrunk(default, narrow, settings)
            if not narrow and _count(kind, config) > MOST_PARAMETERS:
                reasons.append("too large where only its depth is cut")
                continue
            model = made(kind, config, "eager")
        except Exception as error:
            reasons.append(_told(error))
            continue
        wanted = is_wanted(model) if wanted is None else wanted
        if not wanted:
            return None
        found = _working(name, model, reasons)
        if found is not None:
            inputs, left_out = found
            ready = Built(config, kind, model, inputs, left_out=left_out)
            ready.tempered()
            return ready
    raise NotBuiltError("; then ".join(dict.fromkeys(reasons)))


def _count(kind: Any, config: Any) -> int:
    with torch.device("meta"):
        model = kind._from_config(deepcopy(config))
    return sum(parameter.numel() for parameter in model.parameters())


def _working(name: str, model: Any, reasons: list[str]) -> tuple[dict[str, Any], str] | None:
    """Inputs that the model takes, and why they are not those that were tried first."""
    if name in overrides.INPUTS:
        inputs = overrides.INPUTS[name](model.config)
        error = _error(model, inputs)
        if error is not None:
            reasons.append(_told(error))
        return (inputs, "") if error is None else None
    first: Exception | None = None
    done: set[frozenset[tuple[str, Any]]] = set()
    text = getattr(model.config, "text_config", None) or model.config
    width = find(text, "hidden_size", "d_model", default=WIDTH)
    whole: set[str] = set()
    for names, sizes in tries(model, model.config):
        now, whole = sizes, whole or names
        while len(done) < MOST_TRIES:
            inputs = Inputs(model.config, now, names).made()
            if outline(inputs) in done:
                break
            done.add(outline(inputs))
            error = _error(model, inputs)
            if error is None:
                return inputs, _told(first) if first is not None and whole != names else ""
            first = first or error
            other = mended(now, error, width)
            if other is None:
                break
            now = other
    reasons.append("no input tried" if first is None else _told(first))
    return None


def _error(model: nn.Module, inputs: dict[str, Any]) -> Exception | None:
    try:
        output = run(model, inputs)
    except Exception as error:
        return error
    numbers = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()]
    if numbers and numbers[0].numel() and float(numbers[0].isnan().double().mean()) > MOST_NAN:
        return ArithmeticError("it returns NaN")
    return None


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"

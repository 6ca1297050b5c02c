"""Which modules of a model are meant, and which of them look like attention."""

import re
import sys
from collections.abc import Hashable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from torch import Tensor, nn

from pellucid.errors import TypeMismatchError, UnknownNameError

Layers = int | str | Iterable[int | str]
"""Layer numbers, names of modules, or patterns of names."""

CROSS = re.compile(r"cross|encdec|encoder_attn|multihead_attn", re.IGNORECASE)
"""What the names of cross-attention have in common: BERT, T5, BART and Marian, PyTorch."""
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
"""The number of a layer: the first in a module's name."""
ALIKE = re.compile("attention|attn", re.IGNORECASE)
"""What the classes of attention have in their names."""
SETTINGS = {bool, int, float, str}
"""What a module is configured by."""
Parts = list[tuple[str, nn.Module]]
"""The modules of a model and their names. What compiling puts in between has none of its own."""


def parts(model: nn.Module) -> Parts:
    """All modules of a model, in the order of `model.named_modules()`."""
    found: Parts = []
    seen: set[int] = set()

    def walk(part: nn.Module, name: str) -> None:
        if id(part) not in seen:
            seen.add(id(part))
            found.append((name, part))
            for own, inner in part._modules.items():
                if inner is not None:
                    outer = name and f"{name}."
                    walk(inner, name if own == "_orig_mod" else outer + own)

    walk(model, "")
    return found


def names(parts: Parts, layers: Layers) -> set[str]:
    """The modules that `layers` asks for, and all that is inside them.

    Raises:
        UnknownNameError: one of them asks for nothing that is there.
        TypeMismatchError: one of them is neither a number nor a name.
    """
    known = [name for name, _ in parts]
    numbers = {name: int(match[1]) for name in known if (match := LAYER.search(name))}
    chosen: set[str] = set()
    for wanted in [layers] if isinstance(layers, int | str) else layers:
        if isinstance(wanted, bool) or not isinstance(wanted, int | str):
            raise TypeMismatchError(f"layers must be numbers or names, got {wanted!r}")
        if isinstance(wanted, int):
            count = max(numbers.values(), default=-1) + 1
            found = [name for name, number in numbers.items() if number == wanted % max(1, count)]
            if not -count <= wanted < count:
                raise UnknownNameError(f"there is no layer {wanted}: the model has {count} layers")
        else:
            found = [name for name in known if fnmatchcase(name, wanted)]
            if not found:
                near = ", ".join(get_close_matches(wanted, known, 5, cutoff=0.3)) or "none"
                raise UnknownNameError(f"no module is called '{wanted}'; near: {near}")
        chosen.update(found)
    return {name for name in known if any(_within(name, outer) for outer in chosen)}


def is_compiled(parts: Parts) -> bool:
    """Whether the model or a part of it was compiled, or is wrapped by something that was."""
    if "torch._dynamo" not in sys.modules:
        return False
    graphs = sys.modules["torch._dynamo.eval_frame"]._debug_get_cache_entry_list
    for kind in {type(part) for _, part in parts}:
        code = getattr(kind.forward, "__code__", None)
        if code is not None and graphs(code):
            return True
    return any(part._compiled_call_impl or "_orig_mod" in part._modules for _, part in parts)


def silent(parts: Parts, accounted: set[str], chosen: set[str] | None) -> list[str]:
    """Modules that look like attention, none of whose calls is accounted for."""
    kinds = {type(part) for _, part in parts}
    alike_kinds = {kind for kind in kinds if ALIKE.search(kind.__name__)}
    alike = {
        name
        for name, part in parts
        if type(part) in alike_kinds and (chosen is None or name in chosen)
    }
    # A wrapper around a module that was recorded (BertAttention) is seen through it, and so is a
    # part of one. Of nested ones that were not, the innermost is the one to look at.
    lost = {
        name
        for name in alike
        if not any(_within(other, name) or _within(name, other) for other in accounted)
    }
    return sorted(name for name in lost if not any(_within(other, name) for other in lost - {name}))


def kind(module: nn.Module) -> Hashable:
    """What modules have in common that differ in their parameters and their layer only."""
    settings = {
        name: value
        for name, value in vars(module).items()
        if type(value) in SETTINGS and "layer" not in name and "idx" not in name
    }
    return type(module), frozenset(settings.items())


def token_embedding(model: nn.Module) -> Tensor | None:
    """The embedding that reads token ids: what the model says it is, or else its first."""
    found: Any = None
    with suppress(AttributeError, NotImplementedError):  # of transformers only, and not of all
        found = model.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(found, nn.Embedding):
        found = next((part for part in model.modules() if isinstance(part, nn.Embedding)), None)
    return None if found is None else found.weight


@cache
def is_cross(name: str) -> bool:
    """Whether a module's name says that it attends to another sequence."""
    return CROSS.search(name.rpartition(".")[2]) is not None or ".crossattention." in name


def _within(inner: str, outer: str) -> bool:
    """Whether the module called `inner` is `outer` or a part of it."""
    return inner == outer or outer == "" or inner.startswith(outer + ".")

"""Which modules of a model are meant, and which of them look like attention."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from itertools import takewhile

from torch import nn

from pellucid.errors import TypeMismatchError, UnknownNameError

Layers = int | str | Iterable[int | str]
"""Layer numbers, names of modules, or patterns of names."""

CROSS = re.compile(r"cross|encdec|encoder_attn|multihead_attn", re.IGNORECASE)
"""What the names of cross-attention have in common: BERT, T5, BART and Marian, PyTorch."""
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
"""The number of a layer: the first in a module's name."""
PLACEHOLDER = re.compile(r"(image|video|audio|vision|speech|media)\w*_token_(id|index)$")
"""What configs call the ids whose embeddings are replaced."""
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
    return {name for name in known if any(within(name, outer) for outer in chosen)}


def placeholders(parts: Parts) -> frozenset[int]:
    """Ids that stand for pictures or sound, whose embeddings are replaced, by the config."""
    configs = {id(config): config for _, part in parts if (config := vars(part).get("config"))}
    return frozenset(
        value
        for config in configs.values()
        for name, value in getattr(config, "__dict__", {}).items()
        if type(value) is int and PLACEHOLDER.search(name)
    )


@cache
def nearness(one: str, other: str) -> int:
    """How many of the modules that two modules are part of are the same, by their names."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


@cache
def stack(name: str) -> str:
    """What comes before the layer's number in a module's name: the stack that it is part of."""
    found = LAYER.search(name)
    return name[: found.start(1)] if found else ""


@cache
def is_cross(name: str) -> bool:
    """Whether a module's name says that it attends to another sequence."""
    return CROSS.search(name.rpartition(".")[2]) is not None or ".crossattention." in name


def within(inner: str, outer: str) -> bool:
    """Whether the module called `inner` is `outer` or a part of it."""
    return inner == outer or outer == "" or inner.startswith(outer + ".")

"""The modules of a model, and what their names say: layer number, stack, cross-attention."""

import re
from functools import cache
from itertools import takewhile

from torch import nn

CROSS = re.compile(r"cross|encdec|encoder_attn|multihead_attn", re.IGNORECASE)
"""Matches the names of cross-attention in BERT, T5, BART and Marian, and PyTorch."""
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
"""The layer number: the first number in a module's name."""
PLACEHOLDER = re.compile(r"(image|video|audio|vision|speech|media)\w*_token_(id|index)$")
"""Config fields for ids whose embeddings are replaced."""
Modules = list[tuple[str, nn.Module]]
"""The modules of a model with their names, without the `_orig_mod` that compiling inserts."""


def modules_of(model: nn.Module) -> Modules:
    """All modules of a model, in the order of `model.named_modules()`."""
    modules: Modules = []
    visited: set[int] = set()

    def walk(module: nn.Module, name: str) -> None:
        if id(module) not in visited:
            visited.add(id(module))
            modules.append((name, module))
            for own, child in module._modules.items():
                if child is not None:
                    prefix = name and f"{name}."
                    walk(child, name if own == "_orig_mod" else prefix + own)

    walk(model, "")
    return modules


def placeholders(modules: Modules) -> frozenset[int]:
    """Ids that stand for images or audio, in the configs; their embeddings are replaced."""
    configs = {id(config): config for _, x in modules if (config := vars(x).get("config"))}
    return frozenset(
        value
        for config in configs.values()
        for name, value in getattr(config, "__dict__", {}).items()
        if type(value) is int and PLACEHOLDER.search(name)
    )


@cache
def common_depth(left: str, right: str) -> int:
    """The number of leading components that two module names share."""
    pairs = zip(left.split("."), right.split("."), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


@cache
def layer_number(name: str) -> int | None:
    """The first number in a module's name; None if it has none."""
    match = LAYER.search(name)
    return int(match[1]) if match else None


@cache
def stack(name: str) -> str:
    """The stack that a layer belongs to: what precedes the layer number in a module's name."""
    match = LAYER.search(name)
    return name[: match.start(1)] if match else ""


@cache
def is_cross(name: str) -> bool:
    """Whether a module's name denotes cross-attention."""
    return CROSS.search(name.rpartition(".")[2]) is not None or ".crossattention." in name


def within(inner: str, outer: str) -> bool:
    """Whether the module named `inner` is `outer` or inside it."""
    return inner == outer or outer == "" or inner.startswith(outer + ".")


def ancestors(name: str) -> list[str]:
    """A module's name and the names of all modules that contain it, innermost first."""
    return [name, *(name[:dot] for dot in range(len(name) - 1, 0, -1) if name[dot] == "."), ""]

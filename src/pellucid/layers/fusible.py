"""Which modules a fused computation may replace: those that nothing has changed or hooked."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

Kind = TypeVar("Kind", bound=type[nn.Module])

_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward for kind in (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.ModuleList)
}
"""The original forward of each."""


def fusible(kind: Kind) -> Kind:
    """Mark a class whose modules a fused computation may replace; its subclasses are not marked."""
    _FORWARD[kind] = kind.forward
    return kind


def are_fusible(parts: Iterable[nn.Module]) -> bool:
    """Whether each is of such a class, which still has its original forward."""
    return all(_FORWARD.get(type(part)) is type(part).forward for part in parts)


def is_plain(part: nn.Module) -> bool:
    """Whether a module is fusible, and nothing has hooked or changed it."""
    return are_fusible([part]) and not (is_hooked(part) or are_all_hooked())


def is_hooked(part: nn.Module) -> bool:
    """Whether a module has hooks or a forward of its own."""
    return bool(part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__)


def are_all_hooked() -> bool:
    """Whether torch has hooks for every module."""
    return bool(_global_forward_hooks or _global_forward_pre_hooks)


def is_unobserved() -> bool:
    """Whether no mode or transform of torch expects to see each operation."""
    c: Any = torch._C
    are_there = (
        c._len_torch_dispatch_stack,  # noqa: SLF001 - as torch's own modules ask
        c._len_torch_function_stack,  # noqa: SLF001
        c._are_functorch_transforms_active,  # noqa: SLF001
    )
    return not any(ask() for ask in are_there)


def is_watched() -> bool:
    """Whether anything listens to the operations of models: see `lens.interception`."""
    listeners = sys.modules.get("pellucid.lens.interception.listeners")
    return listeners is not None and bool(listeners.active)

"""Which modules a fused computation may stand in for: those whose work nobody has changed."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

Kind = TypeVar("Kind", bound=type[nn.Module])

_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward for kind in (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.ModuleList)
}
"""The forward of each, as it was when this was loaded."""


def fusible(kind: Kind) -> Kind:
    """A class whose modules a fused computation may stand in for; relatives of it are not."""
    _FORWARD[kind] = kind.forward
    return kind


def are_fusible(parts: Iterable[nn.Module]) -> bool:
    """Whether each is of such a class, and that has its forward still."""
    return all(_FORWARD.get(type(part)) is type(part).forward for part in parts)


def is_plain(part: nn.Module) -> bool:
    """Whether a module is fusible, and nobody has hooked or changed it."""
    return are_fusible([part]) and not (
        part._forward_hooks
        or part._forward_pre_hooks
        or "forward" in part.__dict__
        or _global_forward_hooks
        or _global_forward_pre_hooks
    )

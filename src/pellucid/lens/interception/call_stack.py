"""Which modules are running, by the Python stack."""

import sys
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch import nn

OWN_CODE = ("pellucid.attention.", "pellucid.lens.")
"""Code that computes from records. Its attention is not the model's."""
SHIPPED = ("torch.", "transformers.", "pellucid.")
PASSES = ("forward", "_call_impl")
"""Methods by which modules are called; scripted modules have only the latter in Python."""
_originals: "weakref.WeakKeyDictionary[nn.Module, nn.Module]" = weakref.WeakKeyDictionary()
"""The originals of replicas."""


def is_shipped(function: Callable[..., Any]) -> bool:
    """Whether a function belongs to PyTorch, transformers or Pellucid, whatever its name."""
    home = getattr(function, "__globals__", {}).get("__name__", "")
    return str(home).startswith(SHIPPED)


def is_in_forward() -> bool:
    """Whether a module is being called, and not only another method of a module."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in PASSES and module_of_call(frame) is not None:
            return True
        frame = frame.f_back
    return False


def is_own_code(frame: FrameType) -> bool:
    """Whether a frame runs our own code, other than a wrapper."""
    name = str(frame.f_globals.get("__name__"))
    return name.startswith(OWN_CODE) and not name.startswith("pellucid.lens.interception")


def module_of_call(frame: FrameType) -> nn.Module | None:
    """The module whose method a frame runs, if any."""
    code = frame.f_code
    # Reading `f_locals` keeps the variables of a function alive until it returns: avoid it.
    if code.co_argcount and (code.co_varnames[0] == "self" or code.co_name == "forward"):
        first = frame.f_locals.get(code.co_varnames[0])
        return first if isinstance(first, nn.Module) else None
    return None


def running_modules(frame: FrameType | None) -> Iterator[tuple[FrameType, nn.Module]]:
    """The running calls of methods of modules, innermost first."""
    while frame is not None:
        module = module_of_call(frame)
        if module is not None:
            yield frame, module
        frame = frame.f_back


def outermost_forward(name_of: Callable[[nn.Module], str | None]) -> FrameType | None:
    """The outermost running forward pass of modules that have a name."""
    outermost = None
    for frame, module in running_modules(sys._getframe(1)):
        if frame.f_code.co_name in PASSES and name_of(module) is not None:
            outermost = frame
    return outermost


def replicate(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Module._replicate_for_data_parallel`: the copy of a module for each device."""

    def _replicate_for_data_parallel(self: nn.Module) -> nn.Module:
        replica: nn.Module = original(self)
        _originals[replica] = original_of(self)
        return replica

    return _replicate_for_data_parallel


def original_of(module: nn.Module) -> nn.Module:
    """The module of which this is a replica; itself if it is none."""
    return _originals.get(module, module)

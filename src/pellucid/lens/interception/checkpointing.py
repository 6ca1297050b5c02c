"""Gradient checkpointing, which computes a part of a model again in the backward pass.

`torch.utils.checkpoint` keeps the function that it will call again, which is wrapped here: nobody
is left that could edit what it computes once an intervention is over.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

MODULE = "torch.utils.checkpoint"


def before_recomputation(check: Callable[[], None]) -> None:
    """Call a function whenever what is running now is about to be computed again."""
    if MODULE not in sys.modules or torch._C._current_graph_task_id() != -1:  # it is that already
        return
    file = sys.modules[MODULE].__file__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == file:
            keeper, name = _keeper(frame)
            function = getattr(keeper, name, None)
            if callable(function):
                setattr(keeper, name, _checked(function, check))
        frame = frame.f_back


def _keeper(frame: FrameType) -> tuple[Any, str]:
    """What keeps the function, and under what name; None of other frames of the module."""
    if frame.f_code.co_name == "forward":  # of the variant that is reentrant
        return frame.f_locals.get("ctx"), "run_function"
    generator = frame.f_locals.get("gen")
    inner = getattr(generator, "gi_frame", None)
    return None if inner is None else inner.f_locals.get("new_frame"), "recompute_fn"


def _checked(function: Callable[..., Any], check: Callable[[], None]) -> Callable[..., Any]:
    def again(*args: Any, **options: Any) -> Any:
        check()
        return function(*args, **options)

    return again

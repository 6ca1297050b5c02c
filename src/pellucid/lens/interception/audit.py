"""An audit: every operator that runs is inspected for attention without a record.

It is a dispatch mode, and so slows everything down. It sees what the wrappers do not: kernels of
other libraries, and a softmax that consists of exponentials and their sum.
"""

import re
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from pellucid.lens.interception import reporting
from pellucid.lens.interception.listeners import Listener

ATTENTION = re.compile(r"attention|attn|flash|xformers|fmha", re.IGNORECASE)
"""Matches the names of attention operators."""


class Audit(TorchDispatchMode):
    """Reports attention in a listener's model that no wrapper reports."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._listener = listener
        self._exponentials: Any = WeakTensorKeyDictionary()
        self._sums: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self,
        operator: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        result = operator(*args, **(options or {}))
        if not reporting.is_inside_call() and torch._C._current_graph_task_id() == -1:
            what = self._attention_computed(operator, args, result)
            if what is not None:
                for listener, name in reporting.callers():
                    if listener is self._listener:
                        listener.on_missed(name, f"runs {what}, of which there is no record")
        return result

    def _attention_computed(self, operator: Any, args: tuple[Any, ...], result: Any) -> str | None:
        """The attention that an operator computes, if any."""
        name = str(operator)
        if ATTENTION.search(name):
            return f"the kernel {name}"
        if not isinstance(result, Tensor) or not args or not isinstance(args[0], Tensor):
            return None
        kind = name.split(".")[1]
        if kind in ("exp", "exp_", "exp2"):
            self._exponentials[result] = True
        elif kind == "sum" and args[0] in self._exponentials:
            self._sums[result] = weakref.ref(args[0])
        elif kind in ("div", "div_") and isinstance(args[1], Tensor):
            divided = self._sums.get(args[1])
            if divided is not None and divided() is args[0]:
                return f"a softmax by hand over {args[0].shape[-1]} entries, {tuple(result.shape)}"
        return None

"""Where attention happens: functions are wrapped while anybody listens.

Patches are put in when the first listener is added, and taken out when the last one is removed.
"""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from pellucid.common.interrupts import held_back
from pellucid.lens.interception import (
    caches,
    call_stack,
    dispatcher,
    hugging_face,
    listeners,
    multi_head,
    operator_hooks,
    patches,
    sdpa,
    softmax,
    threads,
)
from pellucid.lens.interception.listeners import Listener

_stance: Any = None
"""Makes compiled code run eagerly while anybody listens, as no wrapper sees into its graphs."""


def add(listener: Listener, *, everywhere: bool = False, eagerly: bool = True) -> None:
    """Tell a listener of calls from now on.

    Args:
        listener: the listener.
        everywhere: on every thread and in every task, and not only in this context and in what is
            started in it.
        eagerly: whether compiled code runs eagerly meanwhile.
    """
    try:
        with held_back(), listeners.lock:
            listeners.add(listener, everywhere=everywhere)
            _patch_all()
            if eagerly and "torch._dynamo" in sys.modules:
                _run_eagerly()
    except BaseException:
        remove(listener)
        raise


def remove(listener: Listener) -> None:
    """Stop telling a listener."""
    global _stance
    with held_back(), listeners.lock:
        listeners.remove(listener)
        if not listeners.active:
            if _stance is not None:
                _stance.__exit__(None, None, None)
                _stance = None
            patches.remove_all()
            dispatcher.leave()
            caches.forget()
        softmax.forget(everywhere=not listeners.active)


def _patch_all() -> None:
    for taps in (sdpa, multi_head, hugging_face, caches, operator_hooks):
        for point in taps.patch_points():
            patches.patch(*point)
    patches.patch(threading.Thread, "start", threads.start)
    patches.patch(ThreadPoolExecutor, "submit", threads.submit)
    if listeners.is_any_everywhere():
        patches.patch(nn.Module, "__call__", threads.call_module)
    patches.patch(nn.Module, "_replicate_for_data_parallel", call_stack.replicate)
    patches.patch(torch, "compile", _compile)
    patches.patch(torch.jit, "script", patches.script)
    dispatcher.begin(
        pair for taps in (sdpa, multi_head, operator_hooks) for pair in taps.operators()
    )


def _run_eagerly() -> None:
    global _stance
    with listeners.lock:
        if _stance is None and listeners.active:
            _stance = torch.compiler.set_stance("force_eager")
            _stance.__enter__()


def _compile(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile`, if the compiler was not loaded when the first listener was added."""

    def compile(*args: Any, **options: Any) -> Any:
        compiled = original(*args, **options)
        _run_eagerly()
        return compiled

    return compile

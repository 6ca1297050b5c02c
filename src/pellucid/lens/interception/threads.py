"""Threads that are started in a context are heard by the listeners of this context."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from pellucid.lens.interception import dispatcher, listeners


def start(original: Callable[..., None]) -> Callable[..., None]:
    """`Thread.start`."""

    def start(self: threading.Thread) -> None:
        context = listeners.context.get()
        if context:
            self.run = partial(_run_in, context, self.run)  # type: ignore[method-assign]
        original(self)

    return start


def submit(original: Callable[..., Any]) -> Callable[..., Any]:
    """`ThreadPoolExecutor.submit`, to threads that may be older than the watch."""

    def submit(self: Any, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        if listeners.here():
            return original(self, _run, function, *args, **options)
        return original(self, function, *args, **options)

    return submit


def call_module(original: Callable[..., Any]) -> Callable[..., Any]:
    """`nn.Module.__call__`, for listeners on every thread."""

    def call(self: nn.Module, *args: Any, **options: Any) -> Any:
        return _run(original, self, *args, **options)

    return call


def _run_in(context: listeners.Context, run: Callable[[], None]) -> None:
    listeners.context.set(context)
    _run(run)


def _run(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    dispatcher.join()
    return function(*args, **options)

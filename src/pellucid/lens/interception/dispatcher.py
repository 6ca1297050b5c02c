"""Interception of operators in PyTorch's dispatcher, under whatever name they are called.

A function that a module holds, a default argument, and scripted, traced or exported code look no
name up, but they all go through the dispatcher. On watched threads it includes a key that PyTorch
reserves for tests of modes. The key falls through for all operators but the intercepted ones, so
that the others take no longer (a mode of `torch.utils` would run Python for every operator).
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, fallthrough_kernel

from pellucid.lens.interception import listeners, reporting

KEY = "TESTING_ONLY_GenericMode"
_kept: list[Library] = []
"""The fallthrough, kept for good: a library without references is removed."""
_library: Library | None = None
"""The intercepted operators. It is kept: it runs only where the key is included."""
_include = torch._C._dispatch_tls_set_dispatch_key_included
_is_included = torch._C._dispatch_tls_is_dispatch_key_included


@cache
def _key() -> Any:
    """The key, which falls through from now on."""
    key = torch._C._dispatch_key_parse(KEY)
    everything = Library("_", "IMPL", KEY)
    everything.fallback(fallthrough_kernel)
    _kept.append(everything)
    # Higher-order operators have lists of their own.
    torch._ops._HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS.append(key)
    for operator in torch._ops._higher_order_ops.values():
        operator.fallthrough(key)
    return key


def is_data(tensor: Any) -> bool:
    """Whether a tensor has numbers: a compiler that traces a model passes other ones."""
    return tensor.__class__.__torch_dispatch__ is Tensor.__torch_dispatch__


def begin(operators: Iterable[tuple[Any, Callable[[Any], Callable[..., Any]]]]) -> None:
    """Intercept operators on this thread.

    Args:
        operators: the operators, each with its wrapper.
    """
    global _library
    if _library is None:
        library = Library("aten", "IMPL", KEY)
        for operator, make in operators:
            library.impl(operator, _intercept(operator, make))
        _library = library
    join()


def join() -> None:
    """Intercept operators on this thread too, if it does not yet."""
    if _library is not None and not _is_included(_key()):
        _include(_key(), True)


def leave() -> None:
    """Stop on this thread; other threads stop by themselves once nobody listens."""
    _include(_key(), False)


def past(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a function that is reported as one call, without interception of its operators."""
    key = _key()
    _include(key, False)
    try:
        return reporting.as_one_call(function, *args, **options)
    finally:
        _include(key, True)


def _intercept(operator: Any, make: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """The wrapped operator; the operators that it calls are not intercepted."""
    key, wrapper = _key(), make(operator)

    def intercept(*args: Any, **options: Any) -> Any:
        _include(key, False)
        try:
            tensor = args[0] if isinstance(args[0], Tensor) else args[1]  # of `2**x`, the second
            return (wrapper if is_data(tensor) else operator)(*args, **options)
        finally:
            if listeners.active:
                _include(key, True)

    return intercept

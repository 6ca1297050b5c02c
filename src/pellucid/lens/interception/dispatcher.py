"""Softmaxes and fused kernels as PyTorch's dispatcher meets them, whatever name they are called by.

A function that a module holds, a default argument, scripted, traced or exported code: nothing of
that looks a name up, but all of it goes through the dispatcher. There, one key that PyTorch keeps
for tests of modes is included on the threads that are watched. It falls through for every operator
but the few below, so that nothing else takes longer (a mode of `torch.utils` would cost each
operator its way through Python).
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
"""What falls through for good: a library that nobody refers to is taken out again."""
_library: Library | None = None
"""The operators that are met. It stays: nothing runs it where the key is not included."""
_include = torch._C._dispatch_tls_set_dispatch_key_included
_is_included = torch._C._dispatch_tls_is_dispatch_key_included


@cache
def _key() -> Any:
    """The key, which from here on falls through wherever it is included."""
    key = torch._C._dispatch_key_parse(KEY)
    everything = Library("_", "IMPL", KEY)
    everything.fallback(fallthrough_kernel)
    _kept.append(everything)
    # Operators of higher order keep lists of their own.
    torch._ops._HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS.append(key)
    for operator in torch._ops._higher_order_ops.values():
        operator.fallthrough(key)
    return key


def is_data(tensor: Any) -> bool:
    """Whether a tensor has numbers: a compiler that traces a model passes others."""
    return tensor.__class__.__torch_dispatch__ is Tensor.__torch_dispatch__


def begin(operators: Iterable[tuple[Any, Callable[[Any], Callable[..., Any]]]]) -> None:
    """Meet what runs on this thread.

    Args:
        operators: those to meet, each with what makes a tap of it.
    """
    global _library
    if _library is None:
        library = Library("aten", "IMPL", KEY)
        for operator, make in operators:
            library.impl(operator, _witness(operator, make))
        _library = library
    join()


def join() -> None:
    """Meet what runs on this thread too; it costs nothing where that is so already."""
    if _library is not None and not _is_included(_key()):
        _include(_key(), True)


def leave() -> None:
    """Nobody listens any more. A thread that is still met leaves by itself."""
    _include(_key(), False)


def past(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a function that is told as a whole, and whose operators need not be met."""
    key = _key()
    _include(key, False)
    try:
        return reporting.as_one_call(function, *args, **options)
    finally:
        _include(key, True)


def _witness(operator: Any, make: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """The operator, told by a tap; what it calls in turn is not met."""
    key, told = _key(), make(operator)

    def meet(*args: Any, **options: Any) -> Any:
        _include(key, False)
        try:
            given = args[0] if isinstance(args[0], Tensor) else args[1]  # `2**x` has a number first
            return (told if is_data(given) else operator)(*args, **options)
        finally:
            if listeners.active:
                _include(key, True)

    return meet

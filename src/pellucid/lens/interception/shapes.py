"""The shapes of a model's attention, brought into that of records: (batch, heads, n, dim).

A shape does not tell whether items come before heads, as in most models, or heads before items, as
when the width is split and the parts are joined along the batch. Memory does (the heads of a token
lie side by side after a projection, until a copy reorders them), and so does the number of items in
the arguments of the running modules.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from pellucid.lens.interception import call_stack, listeners, reporting

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
"""Names of the number of heads in modules."""
REMEMBERED = 8
"""How many reordered tensors are remembered: query, key, value, and some more."""


class Fold(NamedTuple):
    """The order of items and heads, and how many heads are folded into the batch."""

    heads: int = 1
    is_heads_first: bool = False


class _Ordered(NamedTuple):
    """Memory in which the order of items and heads is known."""

    memory: StorageWeakRef
    pairs: int
    """Items times heads."""
    heads: int
    is_heads_first: bool


class _Latest(threading.local):
    """The tensors that were put in an order last on this thread."""

    def __init__(self) -> None:
        self.ordered: deque[_Ordered] = deque(maxlen=REMEMBERED)


_latest = _Latest()


def joined(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.cat` and its other names: parts that are one head each are remembered."""

    def join(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        parts, axis = _joined_along(*args, **options)
        if axis in (0, -3) and _is_plain(result) and result.ndim == 3:
            with reporting.untraced():
                if all(len(part) == len(parts[0]) for part in parts):
                    _remember(result, len(result), len(parts), True)
        return result

    return join


def stacked(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.stack`: the same, if the parts lay side by side for each token."""

    def stack(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        parts, axis = _joined_along(*args, **options)
        if axis in (0, 1, -4, -3) and _is_plain(result) and result.ndim == 4:
            with reporting.untraced():
                item, row, _ = parts[0].stride()
                if item > row > result.shape[3]:
                    count = len(parts) * len(parts[0])
                    _remember(result, count, len(parts), axis in (0, -4))
        return result

    return stack


def _joined_along(
    tensors: Any, dim: Any = 0, *, axis: Any = None, out: Tensor | None = None
) -> tuple[Any, Any]:
    """The tensors that are joined, and the axis."""
    return tensors, dim if axis is None else axis


def _is_plain(tensor: Any) -> bool:
    is_there = isinstance(tensor, Tensor) and listeners.here()
    if not is_there or reporting.is_transformed():
        return False
    return not tensor.is_nested and bool(tensor.layout == torch.strided)


def copied(original: Callable[..., Any]) -> Callable[..., Any]:
    """`clone`, with which `contiguous` and `reshape` put heads before or after items."""

    def copy(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        argument = args[0]
        if argument.ndim == 4 and _is_plain(argument):
            with reporting.untraced():
                is_first = _lie_first(argument)
                if is_first is not None:
                    heads = argument.shape[0 if is_first else 1]
                    _remember(result, argument.shape[0] * argument.shape[1], heads, is_first)
        return result

    return copy


def _remember(tensor: Tensor, count: int, heads: int, is_heads_first: bool) -> None:
    memory = StorageWeakRef(tensor.untyped_storage())
    _latest.ordered.append(_Ordered(memory, count, heads, is_heads_first))


def fold_of(module: nn.Module, query: Tensor, *others: Tensor) -> Fold:
    """The order of items and heads in a module, as far as it can be told.

    Args:
        module: the module, which may have an attribute with its number of heads.
        query: (..., queries, dim)
        others: tensors in the same order, such as the key.
    """
    heads, outer = _heads_of(module), query.shape[:-2]
    if len(outer) > 2:
        return Fold(heads if heads == outer[-2:].numel() else 1)
    if len(outer) == 2:
        first = next((x for x in map(_is_first, (query, *others)) if x is not None), None)
        # If both axes are equal, the number of items tells nothing.
        if first is None and outer[0] != outer[1] and heads in (0, outer[0]):
            first = _batch(query) == outer[1]
        return Fold(1, bool(first))
    if len(outer) == 1 and not heads:
        return _fold_of_caller(query, *others)
    if len(outer) != 1 or heads < 2 or outer[0] % heads:
        return Fold(max(1, heads))
    for tensor in (query, *others):
        first = _is_first(tensor, heads)
        if first is not None:
            return Fold(heads, first)
    if outer[0] == _batch(query):  # one head after another
        return Fold()
    return Fold(_batched_heads(query, heads))


def _fold_of_caller(query: Tensor, *others: Tensor) -> Fold:
    """The order for a helper module: the number of heads is that of a module that calls it."""
    running = call_stack.running_modules(sys._getframe(1))
    heads = next(filter(None, (_heads_of(part) for _, part in running)), 1)
    if heads == 1:
        return Fold()
    for tensor in (query, *others):
        first = _remembered(tensor, heads)
        if first is not None:
            return Fold(heads, first)
    return Fold(heads if len(query) == heads and _batch(query) == 1 else 1)


def _heads_of(module: nn.Module) -> int:
    """The number of heads by a module's attributes, 0 if it has none."""
    return next((n for n in map(vars(module).get, HEADS) if type(n) is int and n > 0), 0)


def _is_first(tensor: Tensor, heads: int = 0) -> bool | None:
    """Whether heads come before items in (..., n, dim); None if its memory does not tell."""
    if tensor.ndim == 4:
        first = None if 1 in tensor.shape[:2] else _lie_first(tensor)
        if first is not None:
            return first
    elif tensor.ndim == 3 and tensor.stride(0) == tensor.shape[2] < tensor.stride(1):
        return False  # heads lie next to each other for each token
    return _remembered(tensor, heads)


def _remembered(tensor: Tensor, heads: int) -> bool | None:
    """The same, if its memory was reordered recently."""
    memory, count = tensor.untyped_storage()._cdata, tensor.shape[:-2].numel()
    for known in _latest.ordered:
        if (
            known.memory.cdata == memory
            and known.pairs == count
            and known.heads == (heads or (tensor.shape[0 if known.is_heads_first else 1]))
        ):
            return known.is_heads_first
    return None


def _lie_first(tensor: Tensor) -> bool | None:
    """Whether the first axis of (a, b, n, dim) is heads, which lie side by side for a token."""
    first, second, *inner = tensor.stride()
    items, heads, n, _ = tensor.shape
    if 1 in (items, heads) and n > 1:  # the stride of an axis of size one tells nothing
        lies = 0 < (first if heads == 1 else second) < inner[0]
        return heads == 1 if lies and items != heads else None
    if n == 1:
        return None
    if not 0 < min(first, second) < max(inner) or first == second:
        return None
    return first < second


def _batch(query: Tensor) -> int | None:
    """The number of items in the batch, by the arguments of the running modules."""
    memory, rows = query.untyped_storage()._cdata, query.shape[-2]
    for arguments in _all_arguments():
        for argument in arguments:
            if argument.untyped_storage()._cdata == memory:
                break  # the argument is queries, in unknown order
            items = _items(argument, rows)
            if items is not None:
                return items
    return None


def _batched_heads(query: Tensor, heads: int) -> int:
    """The number of heads in the batch of (batch * heads, queries, dim).

    Fewer than `heads` if heads that share a key are rows of one product.
    """
    pairs, rows = query.shape[:2]
    for arguments in _all_arguments():
        for argument in arguments:
            if argument.ndim == 3 and argument.shape[1] and argument.shape[1] != rows:
                items, n = argument.shape[:2]
                if pairs * rows == items * n * heads and not (pairs % items or rows % n):
                    return pairs // items
    return heads


def _all_arguments() -> Iterator[Iterator[Tensor]]:
    """The tensor arguments of each running module, innermost first."""
    for frame, _ in call_stack.running_modules(sys._getframe(1)):
        if frame.f_code.co_name == "forward":
            yield _arguments(frame)


def is_argument(tensor: Tensor) -> bool:
    """Whether a tensor lies in the memory of an argument of the running module."""
    memory = tensor.untyped_storage()._cdata
    for frame, _ in call_stack.running_modules(sys._getframe(1)):
        if frame.f_code.co_name == "forward":
            return any(
                argument.untyped_storage()._cdata == memory for argument in _arguments(frame)
            )
    return False


def _arguments(frame: FrameType) -> Iterator[Tensor]:
    """The tensor arguments of a running function, without flags."""
    code, variables = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    more = bool(code.co_flags & CO_VARARGS) + bool(code.co_flags & CO_VARKEYWORDS)
    for name in code.co_varnames[: count + more]:
        argument = variables.get(name)
        whole = argument if isinstance(argument, tuple) else (argument,)
        for part in argument.values() if isinstance(argument, dict) else whole:
            is_plain = isinstance(part, Tensor) and part.layout == torch.strided
            if is_plain and not part.is_nested and part.dtype != torch.bool:
                yield part


def _items(argument: Tensor, rows: int) -> int | None:
    """The number of items of a tensor, if each has `rows` tokens."""
    shape = argument.shape
    if argument.ndim == 2 and argument.is_floating_point():
        return shape[0] // rows if rows and not shape[0] % rows else None
    if argument.ndim in (2, 3) and rows in shape[1:]:
        return shape[0]
    if argument.ndim == 3 and shape[0] == rows:
        return shape[1]
    is_image = argument.ndim == 4 and rows in (shape[1] * shape[2], shape[2] * shape[3])
    return shape[0] if is_image else None


def as_four(tensor: Tensor, fold: Fold) -> Tensor:
    """(batch, heads, n, m): heads are unfolded from the batch, and further axes are folded into it.

    Args:
        tensor: (n, m), (batch, n, m), (batch * heads, n, m), or (..., heads, n, m).
        fold: the order of heads and items, and how they are folded into three dimensions.
    """
    if tensor.ndim == 2:
        return tensor[None, None]
    if tensor.ndim == 3:
        if fold.heads == 1 or len(tensor) % fold.heads:
            return tensor.unsqueeze(1)
        sizes = (fold.heads, -1) if fold.is_heads_first else (-1, fold.heads)
        unfolded: Tensor = tensor.unflatten(0, sizes)
        return unfolded.transpose(0, 1) if fold.is_heads_first else unfolded
    if tensor.ndim == 4:
        return tensor.transpose(0, 1) if fold.is_heads_first else tensor
    heads = tensor.shape[-4:-2].numel() if fold.heads > 1 else tensor.shape[-3]
    return tensor.reshape(-1, heads, *tensor.shape[-2:])


def as_it_was(tensor: Tensor, shape: torch.Size, fold: Fold) -> Tensor:
    """(batch, heads, n, m) in the given shape, of which `as_four` has made it."""
    if fold.is_heads_first:
        tensor = tensor.transpose(0, 1)
    return tensor.reshape(shape)


def mask_as_four(mask: Tensor, outer: torch.Size, fold: Fold) -> Tensor:
    """`as_four` for a mask that broadcasts to (*outer, queries, keys)."""
    if mask.ndim < 3:
        return mask
    if len(outer) == 2:
        mask = mask if mask.ndim == 4 else mask.unsqueeze(0)
        return mask.transpose(0, 1) if fold.is_heads_first else mask
    is_shared = all(size == 1 for size in mask.shape[:-3])
    if is_shared and len(outer) > 2 and (fold.heads == 1 or mask.shape[-3] == 1):
        return mask.reshape(mask.shape[-3:])
    if len(outer) == 1 and len(mask) == 1:
        return mask
    return as_four(mask.expand(*outer, *mask.shape[-2:]), fold)

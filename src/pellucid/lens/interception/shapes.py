"""Shapes that models give to attention, and the one that records have: (batch, heads, n, dim).

Nothing in a shape tells in which order items and heads stand: items first, as in most models, or
heads first, as where the width is split and the parts are joined along the batch. What does tell is
memory (the heads of a token lie side by side where a projection has made them, until a copy puts
them in another order) and how many items the modules that run were given.
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

__all__ = ["Fold", "as_four", "copied", "fold_of", "is_given", "joined", "mask_as_four", "stacked"]

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
"""What modules call the number of their heads."""
REMEMBERED = 8
"""Tensors that were put in an order last: query, key, value, and what else is."""


class Fold(NamedTuple):
    """In which order items and heads stand, and how many heads are folded into the batch."""

    heads: int = 1
    is_heads_first: bool = False


class _Made(NamedTuple):
    """Memory in which items and heads lie in a known order."""

    memory: StorageWeakRef
    pairs: int
    """Items times heads."""
    heads: int
    is_heads_first: bool


class _Latest(threading.local):
    """What was put in an order on this thread."""

    def __init__(self) -> None:
        self.made: deque[_Made] = deque(maxlen=REMEMBERED)


_latest = _Latest()


def joined(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.cat` and its other names, of which the taps remember parts that are one head each."""

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
    """`torch.stack`: the same, where the parts lay side by side for each token."""

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
    """What is joined, and along which axis."""
    return tensors, dim if axis is None else axis


def _is_plain(tensor: Any) -> bool:
    is_there = isinstance(tensor, Tensor) and listeners.here()
    if not is_there or reporting.is_transformed():
        return False
    return not tensor.is_nested and bool(tensor.layout == torch.strided)


def copied(original: Callable[..., Any]) -> Callable[..., Any]:
    """`clone`, by which `contiguous` and `reshape` put heads before or behind the items."""

    def copy(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        given = args[0]
        if given.ndim == 4 and _is_plain(given):
            with reporting.untraced():
                is_first = _lie_first(given)
                if is_first is not None:
                    heads = given.shape[0 if is_first else 1]
                    _remember(result, given.shape[0] * given.shape[1], heads, is_first)
        return result

    return copy


def _remember(tensor: Tensor, count: int, heads: int, is_heads_first: bool) -> None:
    memory = StorageWeakRef(tensor.untyped_storage())
    _latest.made.append(_Made(memory, count, heads, is_heads_first))


def fold_of(module: nn.Module, query: Tensor, *others: Tensor) -> Fold:
    """In which order a module has items and heads, as far as anything tells.

    Args:
        module: one that may say how many heads it has.
        query: what it attends with, (..., queries, dim).
        others: what else is in the same order, as the key.
    """
    heads, outer = _heads_of(module), query.shape[:-2]
    if len(outer) > 2:
        return Fold(heads if heads == outer[-2:].numel() else 1)
    if len(outer) == 2:
        first = next((x for x in map(_is_first, (query, *others)) if x is not None), None)
        # A batch of as many items as the second axis has is no evidence where both are alike.
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
    """That of a module which attends for another: who splits the heads has their number."""
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
    """How many heads a module says that it has, 0 where it does not say."""
    return next((n for n in map(vars(module).get, HEADS) if type(n) is int and n > 0), 0)


def _is_first(tensor: Tensor, heads: int = 0) -> bool | None:
    """Whether heads stand before items in (..., n, dim); None where its memory does not tell."""
    if tensor.ndim == 4:
        first = None if 1 in tensor.shape[:2] else _lie_first(tensor)
        if first is not None:
            return first
    elif tensor.ndim == 3 and tensor.stride(0) == tensor.shape[2] < tensor.stride(1):
        return False  # next to each other for each token
    return _remembered(tensor, heads)


def _remembered(tensor: Tensor, heads: int) -> bool | None:
    """The same, where its memory was put in order a moment ago."""
    memory, count = tensor.untyped_storage()._cdata, tensor.shape[:-2].numel()
    for made in _latest.made:
        if (
            made.memory.cdata == memory
            and made.pairs == count
            and made.heads == (heads or (tensor.shape[0 if made.is_heads_first else 1]))
        ):
            return made.is_heads_first
    return None


def _lie_first(tensor: Tensor) -> bool | None:
    """Whether the heads of (a, b, n, dim) are its first axis: those of a token lie side by side."""
    one, other, *inner = tensor.stride()
    items, heads, n, _ = tensor.shape
    if 1 in (items, heads) and n > 1:  # a stride of one place says nothing
        lies = 0 < (one if heads == 1 else other) < inner[0]
        return heads == 1 if lies and items != heads else None
    if n == 1:
        return None
    if not 0 < min(one, other) < max(inner) or one == other:
        return None
    return one < other


def _batch(query: Tensor) -> int | None:
    """How many items are in the batch of the pass, by what the modules that run were given."""
    memory, rows = query.untyped_storage()._cdata, query.shape[-2]
    for arguments in _given():
        for given in arguments:
            if given.untyped_storage()._cdata == memory:
                break  # it was given queries, in whatever order
            items = _items(given, rows)
            if items is not None:
                return items
    return None


def _batched_heads(query: Tensor, heads: int) -> int:
    """How many heads are in the batch of (batch * heads, queries, dim).

    Fewer than there are where heads that share a key are rows of one product.
    """
    pairs, rows = query.shape[:2]
    for arguments in _given():
        for given in arguments:
            if given.ndim == 3 and given.shape[1] and given.shape[1] != rows:
                items, n = given.shape[:2]
                if pairs * rows == items * n * heads and not (pairs % items or rows % n):
                    return pairs // items
    return heads


def _given() -> Iterator[Iterator[Tensor]]:
    """The tensors that each module that runs was given, the innermost first."""
    for frame, _ in call_stack.running_modules(sys._getframe(1)):
        if frame.f_code.co_name == "forward":
            yield _arguments(frame)


def is_given(tensor: Tensor) -> bool:
    """Whether a tensor lies in the memory of what the module that runs was given."""
    memory = tensor.untyped_storage()._cdata
    for frame, _ in call_stack.running_modules(sys._getframe(1)):
        if frame.f_code.co_name == "forward":
            return any(given.untyped_storage()._cdata == memory for given in _arguments(frame))
    return False


def _arguments(frame: FrameType) -> Iterator[Tensor]:
    """The tensors that a running function was given, but for flags."""
    code, variables = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    more = bool(code.co_flags & CO_VARARGS) + bool(code.co_flags & CO_VARKEYWORDS)
    for name in code.co_varnames[: count + more]:
        given = variables.get(name)
        whole = given if isinstance(given, tuple) else (given,)
        for one in given.values() if isinstance(given, dict) else whole:
            is_plain = isinstance(one, Tensor) and one.layout == torch.strided
            if is_plain and not one.is_nested and one.dtype != torch.bool:
                yield one


def _items(given: Tensor, rows: int) -> int | None:
    """How many items a tensor has, if it has so many tokens of each."""
    shape = given.shape
    if given.ndim == 2 and given.is_floating_point():
        return shape[0] // rows if rows and not shape[0] % rows else None
    if given.ndim in (2, 3) and rows in shape[1:]:
        return shape[0]
    if given.ndim == 3 and shape[0] == rows:
        return shape[1]
    is_picture = given.ndim == 4 and rows in (shape[1] * shape[2], shape[2] * shape[3])
    return shape[0] if is_picture else None


def as_four(tensor: Tensor, fold: Fold) -> Tensor:
    """(batch, heads, n, m): what is folded into the batch is unfolded, and any more are folded.

    Args:
        tensor: (n, m), (batch, n, m), (batch * heads, n, m), or (..., heads, n, m).
        fold: in which order heads and items stand, or how they are folded into three dimensions.
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


def mask_as_four(mask: Tensor, outer: torch.Size, fold: Fold) -> Tensor:
    """The same of a mask that broadcasts to (*outer, queries, keys)."""
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

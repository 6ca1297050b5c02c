"""Attention that a model writes by hand: softmax(query @ key.T) @ value.

It consists of a product, a softmax over something of its shape, and a product of the result with
values. These operations are wrapped here, under all their names; `products` tells which product it
is, and `softmax` makes calls of them.

A softmax over the outputs of a projection has another purpose, such as choosing experts or classes,
and is not attention.
"""

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.lens.interception import (
    call_stack,
    dispatcher,
    listeners,
    pending,
    products,
    reporting,
)
from pellucid.lens.interception import softmax as softmaxes
from pellucid.lens.interception.patches import PatchPoint
from pellucid.lens.interception.shapes import copied, is_argument, joined, stacked


def patch_points() -> Iterator[PatchPoint]:
    for owner in (torch, torch.Tensor):
        for name in ("matmul", "bmm", "mm"):
            yield owner, name, product
        yield owner, "baddbmm", added_product
        yield owner, "addmm", added_product
        yield owner, "topk", chosen
    yield torch.Tensor, "__matmul__", product
    yield torch, "einsum", einsum
    for name in ("cat", "concat", "concatenate", "vstack"):
        yield torch, name, joined
    yield torch, "stack", stacked
    yield nn.functional, "linear", linear
    yield nn.functional, "dropout", dropout
    for listener in listeners.active:
        for file in listener.files():
            for name, value in list(vars(file).items()):
                make = _BY_NAME.get(id(value))
                if make is not None and file is not nn.functional:
                    yield file, name, make


def operators() -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Operators to intercept in the dispatcher, under whatever name they are called."""
    aten = torch.ops.aten
    for operator in (
        aten.softmax.int,
        aten._softmax.default,
        aten._safe_softmax.default,
        aten.softmax.int_out,
        aten._softmax.out,
    ):
        yield operator, softmax
    for base in (aten.exp, aten.exp_, aten.exp2, aten.exp2_, aten.expm1, aten.expm1_):
        yield base.default, exponential
    for operator in (aten.exp.out, aten.exp2.out, aten.pow.Scalar):
        yield operator, exponential
    yield aten.clone.default, copy


def product(original: Callable[..., Any]) -> Callable[..., Any]:
    """`left @ right`, and its other names."""

    def multiply(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        pair = (*args, *(options[name] for name in ("other", "mat2") if name in options))
        if len(pair) == 2 and _is_observed(result, *pair):
            left, right = pair
            if left.ndim >= 2 and right.ndim >= 2:
                _safely(products.multiplied, result, left, right)
        return result

    return multiply


def added_product(original: Callable[..., Any]) -> Callable[..., Any]:
    """`baddbmm(added, left, right)`, and `addmm`."""
    names = ("batch1", "batch2", "mat1", "mat2")

    def multiply(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        pair = (*args[1:], *(options[name] for name in names if name in options))
        if len(pair) == 2 and _is_observed(result, *pair):
            _safely(products.multiplied, result, *pair)
        return result

    return multiply


def einsum(original: Callable[..., Any]) -> Callable[..., Any]:
    def contract(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        operands = args[1:]
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        if len(operands) == 2 and isinstance(args[0], str) and _is_observed(result, *operands):
            _safely(products.contracted, result, operands, args[0])
        return result

    return contract


def linear(original: Callable[..., Any]) -> Callable[..., Any]:
    """A projection: a softmax over its outputs is a choice among them."""

    def project(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if listeners.here():
            dispatcher.join()
            weight = args[1] if len(args) > 1 else None
            is_own = (
                weight is None or isinstance(weight, nn.Parameter) or pending.is_parameter(weight)
            )
            if is_own or isinstance(call_stack.module_of_call(sys._getframe(1)), nn.Linear):
                if isinstance(result, Tensor) and not result.is_nested:
                    pending.here().projections.append(result.shape)
            elif isinstance(weight, Tensor) and args[0].ndim == weight.ndim == 2:
                if _is_observed(result, args[0], weight):
                    is_key = pending.is_projected(weight, 1) or is_argument(weight)
                    _safely(products.multiplied, result, args[0], weight.mT, is_key)
            elif isinstance(result, Tensor) and not result.is_nested:
                pending.here().projections.append(result.shape)
        return result

    return project


def chosen(original: Callable[..., Any]) -> Callable[..., Any]:
    """`topk`: the largest outputs of a projection are outputs of a projection."""

    def choose(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        source: Any = args[0] if args else options.get("input")
        if listeners.here() and _is_plain(source) and source.ndim:
            best = result[0]
            if pending.is_projected(source, source.ndim - 1):
                pending.here().projections.append(best.shape)
        return result

    return choose


def dropout(original: Callable[..., Any]) -> Callable[..., Any]:
    """Dropout: weights are recorded as they were before it."""

    def drop(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        source: Any = args[0] if args else options.get("input")
        if result is not source and listeners.here() and _is_plain(result) and _is_plain(source):
            pending.here().dropped = weakref.ref(result), weakref.ref(source)
        return result

    return drop


def softmax(original: Callable[..., Any]) -> Callable[..., Any]:
    """A softmax in the dispatcher: (scores, axis, ...)."""

    def normalise(*args: Any, **options: Any) -> Any:
        scores = args[0]
        is_there = listeners.active and not reporting.is_transformed() and _is_plain(scores)
        memory = scores.untyped_storage()._cdata if is_there else 0
        result = original(*args, **options)
        if _is_observed(result, scores) and result.ndim >= 2:
            axis = (args[1] if len(args) > 1 else options["dim"]) % result.ndim
            is_there = result.untyped_storage()._cdata != memory
            _safely(softmaxes.normalised, result, scores if is_there else None, axis)
            if is_there and any(listener.edits for listener in listeners.active):
                result = softmaxes.edited(result, scores)
        return result

    return normalise


def copy(original: Callable[..., Any]) -> Callable[..., Any]:
    """`clone`, which puts heads in another order, and folds parts of weights into the batch."""
    ordered = copied(original)

    def clone(*args: Any, **options: Any) -> Any:
        result = ordered(*args, **options)
        if pending.here().softmaxes and _is_plain(args[0]) and not reporting.is_transformed():
            pending.copied(result, args[0])
        return result

    return clone


def exponential(original: Callable[..., Any]) -> Callable[..., Any]:
    """`exp`, as the dispatcher meets it: of it and its sum a softmax can be made."""

    def exponentiate(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if _is_observed(result) and result.ndim >= 2:
            size = (result.numel(), result.shape[-1])
            of = [(x.shape.numel(), x.shape[-1]) for x in pending.here().products]
            pending.here().exponentials.append((size, size in of))
        return result

    return exponentiate


def _safely(function: Callable[..., None], /, *args: Any) -> None:
    """Errors in here do not reach the model."""
    try:
        with reporting.untraced():
            function(*args)
    except Exception as error:
        for listener, name in reporting.callers():
            listener.on_missed(name, f"could not be recorded: {type(error).__name__}: {error}")


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor has strides and is not nested."""
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_nested


def _is_observed(result: Any, *operands: Any) -> bool:
    """Whether anybody listens, and these are ordinary tensors of a forward pass."""
    if reporting.is_unobserved():
        return False
    if torch._C._current_graph_task_id() != -1:
        if not listeners.in_backward():
            return False
    elif not listeners.here():
        return False
    if call_stack.is_own_code(sys._getframe(2)) or not all(map(_is_plain, (result, *operands))):
        return False
    if reporting.is_transformed():
        reporting.report_transformed()
        return False
    dispatcher.join()
    return not result.is_meta and result.is_floating_point() and dispatcher.is_data(result)


_BY_NAME = {
    id(torch.matmul): product,
    id(torch.bmm): product,
    id(torch.mm): product,
    id(torch.baddbmm): added_product,
    id(torch.addmm): added_product,
    id(torch.einsum): einsum,
    id(torch.cat): joined,
    id(torch.stack): stacked,
    id(torch.topk): chosen,
    id(nn.functional.linear): linear,
    id(nn.functional.dropout): dropout,
}

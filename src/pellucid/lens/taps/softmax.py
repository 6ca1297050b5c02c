"""Softmaxes that a model writes by hand: softmax(query @ key.T) @ value.

Three events make one attention: a product, a softmax over something of its shape, and a product of
what came of that with values. Of the first, query and key are referred to; at the second, the mask
is read off the scores; at the third, the weights are at hand as the model uses them, after head
masks and whatever else. Where query, key and mask give these weights, the record is as lazy as any;
else it keeps the weights.

What is softmaxed for another end (experts to be chosen, classes) meets no such product.
"""

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from pellucid.lens import taps
from pellucid.lens.recognise import HIDDEN, Recognised, recognise_in_scores
from pellucid.lens.taps import caches, equations, witness
from pellucid.lens.taps.shapes import as_four, heads_of

PRODUCTS_KEPT = 4
"""Products among which a softmax looks for its scores."""
SAMPLED = 3
"""Rows from which the scale is worked out."""
SHIPPED = ("torch.", "transformers.", "pellucid.")


@dataclass(eq=False, slots=True)
class Product:
    """A product of two tensors over their last axes."""

    left: Tensor
    """(..., rows, dim)"""
    right: Tensor
    """(..., columns, dim)"""
    shape: torch.Size
    """What came out, its axes in any order."""
    order: list[int]
    """Which axes of that are (..., rows, columns)."""


@dataclass(eq=False, slots=True)
class Soft:
    """A softmax that waits for the product of its result with values."""

    result: "Tensor | None"
    """As it came out; let go when it has met its product."""
    reference: "weakref.ref[Tensor]"
    keys: int
    """The axis that sums to one."""
    order: list[int]
    """Which axes are (..., queries, keys)."""
    found: "list[tuple[taps.Listener, str]]"
    product: Product | None = None
    query: Tensor | None = None
    """(batch, heads, queries, dim)"""
    key: Tensor | None = None
    """(batch, heads, keys, dim)"""
    read: Recognised | None = None
    scale: float = 1.0


class _State(threading.local):
    """What happened last on this thread."""

    def __init__(self) -> None:
        self.products: deque[Product] = deque(maxlen=PRODUCTS_KEPT)
        self.soft: Soft | None = None


_state = _State()


def places() -> Iterator[taps.Place]:
    for owner in (torch, torch.Tensor):
        for name in ("matmul", "bmm"):
            yield owner, name, product
        yield owner, "baddbmm", added_product
    yield torch.Tensor, "__matmul__", product
    yield torch, "einsum", einsum
    for listener in taps.listeners:
        for file in listener.files():
            for name, value in list(vars(file).items()):
                make = _BY_NAME.get(id(value))
                if make is not None:
                    yield file, name, make


def forget() -> None:
    """Nothing is to come on this thread that goes on with what happened last."""
    soft, _state.soft = _state.soft, None
    _state.products.clear()
    if soft is not None:
        _say_if_unused(soft)


def product(original: Callable[..., Any]) -> Callable[..., Any]:
    """`left @ right`, and its other names."""

    def multiply(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if len(args) == 2 and _is_heard(result, *args):
            left, right = args
            if left.ndim >= 2 and right.ndim >= 2:
                _safely(_multiplied, result, left, right)
        return result

    return multiply


def added_product(original: Callable[..., Any]) -> Callable[..., Any]:
    """`baddbmm(added, left, right)`."""

    def multiply(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        pair = (*args[1:], *(options[name] for name in ("batch1", "batch2") if name in options))
        if len(pair) == 2 and _is_heard(result, *pair):
            _safely(_multiplied, result, *pair)
        return result

    return multiply


def einsum(original: Callable[..., Any]) -> Callable[..., Any]:
    def contract(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        operands = args[1:]
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        if len(operands) == 2 and isinstance(args[0], str) and _is_heard(result, *operands):
            _safely(_contracted, result, operands, args[0])
        return result

    return contract


def softmax(original: Callable[..., Any]) -> Callable[..., Any]:
    """A softmax, as the dispatcher meets it: (scores, axis, ...)."""

    def normalise(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if _is_heard(result, args[0]) and result.ndim >= 2:
            axis = args[1] if len(args) > 1 else options["dim"]
            with torch.no_grad():
                _safely(_normalised, result, args[0], axis % result.ndim)
        return result

    return normalise


def _safely(function: Callable[..., None], /, *args: Any) -> None:
    """What goes wrong here must not reach the model."""
    try:
        function(*args)
    except Exception as error:
        _state.soft = None
        for listener, name in taps.callers():
            listener.missed(name, f"could not be recorded: {type(error).__name__}: {error}")


def _is_heard(result: Any, *operands: Any) -> bool:
    """Whether anybody listens, and these are plain tensors of a forward pass."""
    if not taps.here() or taps.is_transformed() or torch._C._current_graph_task_id() != -1:
        return False
    if taps.is_question(sys._getframe(2)):
        return False
    witness.join()
    if not all(isinstance(x, Tensor) and x.layout == torch.strided for x in (result, *operands)):
        return False
    return type(result) is Tensor and not result.is_meta and result.is_floating_point()


# What a product may be: one of scores, or one of weights and values.


def _multiplied(result: Tensor, left: Tensor, right: Tensor) -> None:
    soft = _state.soft
    if soft is not None:
        if _is_of(soft, left, left.ndim - 1):
            return _used(soft, left, right, result)
        if _is_of(soft, right, right.ndim - 2):  # (weights @ value).T, as value.T @ weights.T
            return _used(soft, right.mT, left.mT, result.mT)
    order = list(range(result.ndim))
    _state.products.append(Product(left, right.mT, result.shape, order))
    return None


def _contracted(result: Tensor, operands: tuple[Any, ...], equation: str) -> None:
    named = equations.labels(equation, *operands)
    if named is None:
        return None
    (left, right), (of_left, of_right, of_result) = operands, named
    over = [x for x in of_left if x in of_right and x not in of_result]
    outer = "".join(x for x in of_result if x in of_left and x in of_right)
    rows = "".join(x for x in of_result if x in of_left and x not in outer)
    columns = "".join(x for x in of_result if x in of_right and x not in outer)
    soft = _state.soft
    if soft is not None:
        pairs = ((left, of_left, right, of_right), (right, of_right, left, of_left))
        for weights, own, value, of_value in pairs:
            if weights.ndim == len(soft.order) and _is_of(soft, weights, soft.keys):
                keys = own[soft.keys]
                if keys not in over:
                    return None
                dims = "".join(x for x in of_value if x not in own)
                ordered = "".join(own[axis] for axis in soft.order)
                batch = ordered[:-2]
                plain = len(dims) == 1 and set(ordered[:-1]) <= set(of_result)
                return _used(
                    soft,
                    weights,
                    equations.arranged(value, of_value, batch + keys + dims) if plain else value,
                    equations.arranged(result, of_result, ordered[:-1] + dims) if plain else None,
                    is_ordered=plain,
                )
    if len(over) == 1 and rows and columns:
        # Heads that share a key: what only one operand has, but for its last axis, is expanded.
        outer, rows, columns = outer + rows[:-1] + columns[:-1], rows[-1], columns[-1]
        _state.products.append(
            Product(
                equations.arranged(left, of_left, outer + rows + over[0]),
                equations.arranged(right, of_right, outer + columns + over[0]),
                result.shape,
                [of_result.index(x) for x in outer + rows + columns],
            )
        )
    return None


def _is_of(soft: Soft, operand: Tensor, contracted: int) -> bool:
    """Whether an operand came of a softmax, and is contracted over the axis that sums to one."""
    result = soft.reference()
    if result is None:
        return False
    if operand is result:
        return contracted == soft.keys
    if operand.untyped_storage()._cdata == result.untyped_storage()._cdata:
        return True
    if soft.result is None or (soft.product is None and operand.ndim < 3):
        return False
    # Dropout, another dtype, a head mask, talking heads: made of it, in memory of its own.
    return (
        operand.numel() == result.numel() and operand.shape[contracted] == result.shape[soft.keys]
    )


# A softmax, and what it is a softmax of.


def _normalised(result: Tensor, scores: Tensor, axis: int) -> None:
    forget_used, _state.soft = _state.soft, None
    if forget_used is not None:
        _say_if_unused(forget_used)
    is_inner = taps.is_told_as_a_whole()
    found = [] if is_inner else [(x, name) for x, name in taps.callers() if x.wants(name)]
    if not found and not is_inner:
        return
    for listener, name in found:
        listener.softmaxed(name)
    order = [x for x in range(result.ndim) if x != axis] + [axis]
    soft = Soft(result, weakref.ref(result), axis, order, found)
    soft.product = _product_of(scores, axis)
    _state.soft = soft
    if soft.product is None:
        return
    if soft.product.shape == scores.shape:
        soft.order = soft.product.order
        if soft.order[-1] != axis:  # keys first: the columns are queries
            left, right = soft.product.right, soft.product.left
            soft.order = [*soft.order[:-2], soft.order[-1], soft.order[-2]]
            soft.product = Product(left, right, soft.product.shape, soft.order)
    if found:
        with taps.unheard():
            _read(soft, scores)


def _product_of(scores: Tensor, axis: int) -> Product | None:
    """The latest product that these scores can have come of."""
    for candidate in reversed(_state.products):
        if candidate.shape == scores.shape:
            if axis in candidate.order[-2:]:
                return candidate
        elif candidate.shape.numel() == scores.numel() and axis == scores.ndim - 1:
            in_order = candidate.order == list(range(len(candidate.shape)))
            if in_order and candidate.shape[-1] == scores.shape[-1]:
                return candidate
    return None


def _read(soft: Soft, scores: Tensor) -> None:
    """The mask and the scale of scores, if they are those of a product and a mask."""
    product = soft.product
    assert product is not None
    ordered = scores.permute(soft.order) if product.shape == scores.shape else scores
    outer, queries, keys = ordered.shape[:-2], ordered.shape[-2], ordered.shape[-1]
    if product.left.shape[-2] != queries or product.right.shape[-2] != keys:
        return
    heads = _heads(soft)
    try:
        soft.query, soft.key = (
            as_four(_with_outer(x, outer), heads) for x in (product.left, product.right)
        )
    except RuntimeError:  # rows of several heads in another order
        return
    scores = as_four(ordered, heads)
    soft.read = recognise_in_scores(scores, queries, keys)
    if soft.read is not None:
        soft.scale = _scale(scores, soft.query, soft.key)


def _with_outer(tensor: Tensor, outer: torch.Size) -> Tensor:
    """(*outer, n, dim), or one head that all share: a view, axes of size one expanded."""
    own = tensor.shape[:-2]
    if prod(own) == prod(outer):
        return tensor.reshape(*outer, *tensor.shape[-2:])
    if len(own) == len(outer) > 1 and own[-1] == 1:
        outer = torch.Size((*outer[:-1], 1))
    return tensor.expand(*outer, *tensor.shape[-2:])


def _scale(scores: Tensor, query: Tensor, key: Tensor) -> float:
    """What products were multiplied by, from a few rows; a usual number where it is near one."""
    rows = torch.linspace(0, scores.shape[2] - 1, min(SAMPLED, scores.shape[2])).long()
    one = query.shape[0] - 1
    if query.shape[1] != scores.shape[1]:
        return 1.0
    products = (query[one][:, rows].float() @ key[one].float().mT).double()
    seen = scores[one][:, rows].double()
    shown = (seen > HIDDEN) & seen.isfinite()
    products, seen = products.masked_fill(~shown, 0), seen.masked_fill(~shown, 0)
    size = float((products * products).sum())
    if not size:
        return 1.0
    found = float((products * seen).sum()) / size
    nearness = 1e-2 if scores.dtype in (torch.float16, torch.bfloat16) else 1e-4
    for known in (1.0, query.shape[-1] ** -0.5):
        if abs(found - known) <= nearness * known:
            return float(known)
    return found


# Weights that meet their values.


def _used(
    soft: Soft, weights: Tensor, value: Tensor, context: Tensor | None, is_ordered: bool = True
) -> None:
    result, soft.result = soft.result, None
    if result is None or taps.is_transformed():
        return  # told already, of another part of it
    if any(listener.is_parameter(value) for listener in taps.here()):
        soft.result = result
        return
    with torch.no_grad():
        weights = _as_used(soft, result, weights)
    is_whole = weights.numel() in (
        result.numel(),
        result.numel() // result.shape[soft.keys] * (result.shape[soft.keys] - 1),
    )
    if taps.is_told_as_a_whole():
        taps.note_made(taps.Made(weights=as_four(weights, _heads(soft))))
        return
    is_pooling = result.numel() == result.shape[soft.keys] * result.shape[soft.order[0]]
    if soft.product is None and is_pooling and not _is_over_positions(soft, result):
        return
    told = (weights, value, context) if is_whole and is_ordered else (weights, None, None)
    update = caches.claimed_by(soft.found)
    taps.tell(soft.found, _call, soft, *told, update, result.untyped_storage()._cdata)


def _as_used(soft: Soft, result: Tensor, weights: Tensor) -> Tensor:
    """(..., queries, keys) as they are multiplied; before dropout, and whole where in parts."""
    whole = result.permute(soft.order)
    if weights.numel() != result.numel():
        # A sink that has no value is left out; other parts are blocks, which are kept together.
        left_out = result.shape[soft.keys] - 1
        same = [*result.shape[: soft.keys], left_out, *result.shape[soft.keys + 1 :]]
        return weights.permute(soft.order) if list(weights.shape) == same else whole
    if weights.shape == result.shape:
        weights = weights.permute(soft.order)
    elif weights.numel() == whole.numel():
        weights = weights.reshape(whole.shape)
    return whole if _is_dropout(weights, whole) else weights


def _is_dropout(weights: Tensor, whole: Tensor) -> bool:
    """Whether what is multiplied is, of some rows, zero or the weights times one number above 1."""
    if weights.untyped_storage()._cdata == whole.untyped_storage()._cdata:
        return False
    ratio = (weights[..., :SAMPLED, :] / whole[..., :SAMPLED, :]).nan_to_num(posinf=0)
    kept = ratio[ratio != 0].float()
    if not kept.numel() or kept.numel() == ratio.numel():
        return False
    low, high = kept.aminmax()
    return bool((low > 1.001) & (high - low < 1e-2 * high))


def _is_over_positions(soft: Soft, result: Tensor) -> bool:
    """Whether a softmax is one over positions, and not over experts or classes.

    Of those there are as many as a projection nearby has outputs.
    """
    keys = result.shape[soft.keys]
    return keys > 1 and not any(keys in x.widths(name) for x, name in soft.found)


def _call(
    soft: Soft,
    weights: Tensor,
    value: Tensor | None,
    context: Tensor | None,
    update: "taps.CacheUpdate | None",
    memory: int,
) -> "taps.Call | taps.Made":
    heads = _heads(soft)
    made = as_four(weights, heads)
    outer = weights.shape[:-2]
    if value is not None:
        try:
            value = as_four(_with_outer(value, outer), heads)
        except RuntimeError:
            value = None
    if context is not None:
        context = as_four(context, heads) if prod(context.shape[:-2]) == prod(outer) else None
        if context is not None and context.shape[:-1] != made.shape[:-1]:
            context = None
    if soft.read is None or soft.query is None or soft.key is None or value is None:
        is_plain = made.untyped_storage()._cdata == memory
        return taps.Made(weights=made, value=value, context=context, is_plain=is_plain)
    listener, name = soft.found[0]
    kind = type(listener.module_of(name)).__module__ + "."
    return taps.Call(
        query=soft.query,
        key=soft.key,
        value=value,
        read=soft.read,
        scale=soft.scale,
        context=context,
        update=update,
        made=made,
        is_known=kind.startswith(SHIPPED),
    )


def _heads(soft: Soft) -> int:
    return heads_of(soft.found[0][0].module_of(soft.found[0][1])) if soft.found else 1


def _say_if_unused(soft: Soft) -> None:
    """A softmax that has met no values: said where it looks like attention."""
    result = soft.result
    if result is None:
        return
    keys = result.shape[soft.keys]
    looks = keys > 1 and (result.ndim > 3 or _is_over_positions(soft, result))
    what = f"a softmax over {keys} entries, {tuple(result.shape)}, of which nothing else was seen"
    if soft.product is not None:
        what = f"softmax(query @ key.T) over {keys} keys, of which no product with values was seen"
    for listener, name in soft.found:
        if looks or soft.product is not None or listener.audits:
            listener.missed(name, f"computes {what}")


_BY_NAME = {
    id(torch.matmul): product,
    id(torch.bmm): product,
    id(torch.baddbmm): added_product,
    id(torch.einsum): einsum,
}

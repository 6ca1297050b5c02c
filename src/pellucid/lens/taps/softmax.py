"""Softmaxes that a model writes by hand: softmax(query @ key.T) @ value.

Three events make one attention: a product, a softmax over something of its shape, and a product of
what came of that with values. Of the first, query and key are referred to; at the second, the mask
is read off the scores; at the third, the weights are at hand as the model uses them, after head
masks and whatever else. Where query, key and mask give these weights, the record is as lazy as any;
else it keeps the weights.

What is softmaxed for another end (experts to be chosen, classes) comes straight from a projection
whose outputs it is taken over, and is no attention.
"""

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.lens import taps
from pellucid.lens.proof import prove_scores
from pellucid.lens.recognise import HIDDEN, Recognised, recognise_in_scores
from pellucid.lens.record import Proof
from pellucid.lens.taps import caches, equations, witness
from pellucid.lens.taps.shapes import Fold, as_four, fold_of, joined

REMEMBERED = 4
"""How many products, projections and softmaxes may come before what goes on with them."""
LOOKED_AT, SAMPLED = 32, 3
"""Rows that are looked at, and those of them from which the scale is worked out."""
NEAR_ONE = 1e-2
"""How far the sum of a row may be from one that was made by hand, in the shortest dtype."""
Shape = tuple[int, int]
"""How many numbers, and how many along the last axis: the outputs of a projection."""


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
    version: int
    """How often it was written to when it came out; -1 where nobody counts that."""
    reference: "weakref.ref[Tensor]"
    keys: int
    """The axis that sums to one."""
    order: list[int]
    """Which axes are (..., queries, keys)."""
    found: "list[tuple[taps.Listener, str]]"
    is_projected: bool
    """Whether it is taken over the outputs of a projection."""
    has_product: bool = False
    query: Tensor | None = None
    """(batch, heads, queries, dim)"""
    key: Tensor | None = None
    """(batch, heads or 1, keys, dim)"""
    read: Recognised | None = None
    scale: float = 1.0
    fold: Fold | None = None
    proof: Proof | None = None
    """That every row of the scores is theirs, where it was to be proven."""


class _Own:
    """What happened last on one thread."""

    def __init__(self) -> None:
        self.products: deque[Product] = deque(maxlen=REMEMBERED)
        self.projections: deque[Shape] = deque(maxlen=REMEMBERED)
        self.exponentials: deque[Shape] = deque(maxlen=REMEMBERED)
        self.softs: list[Soft] = []
        self.dropped: tuple[weakref.ref[Tensor], weakref.ref[Tensor]] | None = None


class _State(threading.local):
    """That of the thread which asks."""

    def __init__(self) -> None:
        self.own = _Own()
        _owns.add(self.own)


_owns: "weakref.WeakSet[_Own]" = weakref.WeakSet()
_state = _State()


def places() -> Iterator[taps.Place]:
    for owner in (torch, torch.Tensor):
        for name in ("matmul", "bmm", "mm"):
            yield owner, name, product
        yield owner, "baddbmm", added_product
        yield owner, "addmm", added_product
        yield owner, "topk", chosen
    yield torch.Tensor, "__matmul__", product
    yield torch, "einsum", einsum
    yield torch, "cat", joined
    yield nn.functional, "linear", linear
    yield nn.functional, "dropout", dropout
    for listener in taps.listeners:
        for file in listener.files():
            for name, value in list(vars(file).items()):
                make = _BY_NAME.get(id(value))
                if make is not None and file is not nn.functional:
                    yield file, name, make


def forget(everywhere: bool) -> None:
    """Nothing is to come on this thread, or on any, that goes on with what happened last."""
    for own in list(_owns) if everywhere else [_state.own]:
        softs, own.softs = own.softs, []
        own.products.clear()
        own.projections.clear()
        own.exponentials.clear()
        own.dropped = None
        for soft in softs:
            _say_if_unused(soft)


def product(original: Callable[..., Any]) -> Callable[..., Any]:
    """`left @ right`, and its other names."""

    def multiply(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        given = (*args, *(options[name] for name in ("other", "mat2") if name in options))
        if len(given) == 2 and _is_heard(result, *given):
            left, right = given
            if left.ndim >= 2 and right.ndim >= 2:
                _safely(_multiplied, result, left, right)
        return result

    return multiply


def added_product(original: Callable[..., Any]) -> Callable[..., Any]:
    """`baddbmm(added, left, right)`, and `addmm`."""
    names = ("batch1", "batch2", "mat1", "mat2")

    def multiply(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        pair = (*args[1:], *(options[name] for name in names if name in options))
        if len(pair) == 2 and _is_heard(result, *pair):
            _safely(_multiplied, result, *pair)
        return result

    return multiply


def _multiplied_if_heard(result: Tensor, left: Tensor, right: Tensor) -> None:
    if _is_heard(result, left, right):
        _safely(_multiplied, result, left, right)


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


def linear(original: Callable[..., Any]) -> Callable[..., Any]:
    """A projection: what is softmaxed over its outputs is a choice among them."""

    def project(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if taps.here():
            witness.join()
            weight = args[1] if len(args) > 1 else None
            is_own = weight is None or isinstance(weight, nn.Parameter) or _is_parameter(weight)
            if is_own or isinstance(taps.module_of_call(sys._getframe(1)), nn.Linear):
                if isinstance(result, Tensor) and not result.is_nested and result.ndim:
                    _state.own.projections.append((result.numel(), result.shape[-1]))
            elif isinstance(weight, Tensor) and args[0].ndim == weight.ndim == 2:
                _multiplied_if_heard(result, args[0], weight.mT)
        return result

    return project


def chosen(original: Callable[..., Any]) -> Callable[..., Any]:
    """`topk`: the largest outputs of a projection are outputs of it."""

    def choose(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        given: Any = args[0] if args else options.get("input")
        if taps.here() and _is_plain(given) and given.ndim:
            best = result[0]
            if _is_projected(given, given.ndim - 1):
                _state.own.projections.append((best.numel(), best.shape[-1]))
        return result

    return choose


def dropout(original: Callable[..., Any]) -> Callable[..., Any]:
    """Weights are recorded as they were before it."""

    def drop(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        given: Any = args[0] if args else options.get("input")
        if result is not given and taps.here() and _is_plain(result) and _is_plain(given):
            _state.own.dropped = weakref.ref(result), weakref.ref(given)
        return result

    return drop


def softmax(original: Callable[..., Any]) -> Callable[..., Any]:
    """A softmax, as the dispatcher meets it: (scores, axis, ...)."""

    def normalise(*args: Any, **options: Any) -> Any:
        scores = args[0]
        is_there = taps.here() and not taps.is_transformed() and _is_plain(scores)
        memory = scores.untyped_storage()._cdata if is_there else 0
        result = original(*args, **options)
        if _is_heard(result, scores) and result.ndim >= 2:
            axis = (args[1] if len(args) > 1 else options["dim"]) % result.ndim
            is_there = result.untyped_storage()._cdata != memory
            _safely(_normalised, result, scores if is_there else None, axis)
        return result

    return normalise


def exponential(original: Callable[..., Any]) -> Callable[..., Any]:
    """`exp`, as the dispatcher meets it: of it and its sum a softmax can be made."""

    def exponentiate(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if _is_heard(result, args[0]) and result.ndim >= 2:
            _state.own.exponentials.append((result.numel(), result.shape[-1]))
        return result

    return exponentiate


def _safely(function: Callable[..., None], /, *args: Any) -> None:
    """What goes wrong here must not reach the model."""
    try:
        function(*args)
    except Exception as error:
        for listener, name in taps.callers():
            listener.missed(name, f"could not be recorded: {type(error).__name__}: {error}")


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor holds numbers in memory of its own."""
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_nested


def _is_heard(result: Any, *operands: Any) -> bool:
    """Whether anybody listens, and these are tensors of a forward pass."""
    if not taps.here() or taps.is_deaf() or torch._C._current_graph_task_id() != -1:
        return False
    if taps.is_question(sys._getframe(2)) or not all(map(_is_plain, (result, *operands))):
        return False
    if taps.is_transformed():
        taps.say_transformed()
        return False
    witness.join()
    return not result.is_meta and result.is_floating_point() and witness.is_data(result)


# What a product may be: one of scores, or one of weights and values.


def _multiplied(result: Tensor, left: Tensor, right: Tensor) -> None:
    for is_of in (_is_result, _is_made_of):
        for soft in reversed(_state.own.softs):
            if is_of(soft, left, left.ndim - 1):
                return _used(soft, left, list(range(left.ndim)), right, result)
            if is_of(soft, right, right.ndim - 2):  # (weights @ value).T, as value.T @ weights.T
                axes = [*range(right.ndim - 2), right.ndim - 1, right.ndim - 2]
                return _used(soft, right, axes, left.mT, result.mT)
    by_hand = _of_exponentials(left)
    if by_hand is not None:
        return _used(by_hand, left, list(range(left.ndim)), right, result)
    if _is_parameter(right):
        _state.own.projections.append((result.numel(), result.shape[-1]))
    else:
        order = list(range(result.ndim))
        _state.own.products.append(Product(left, right.mT, result.shape, order))
    return None


def _of_exponentials(weights: Tensor) -> Soft | None:
    """A softmax that is made of exponentials and their sum, now that its result is multiplied."""
    size = (weights.numel(), weights.shape[-1])
    if size not in _state.own.exponentials or taps.is_told_as_a_whole():
        return None
    with torch.no_grad(), taps.deaf():
        row = weights[(0,) * (weights.ndim - 1)].double()
        if bool((row < 0).any()) or abs(float(row.sum()) - 1) > NEAR_ONE:
            return None
    found = [(x, name) for x, name in taps.callers() if x.wants(name)]
    if not found:
        return None
    order = list(range(weights.ndim))
    axis, reference = weights.ndim - 1, weakref.ref(weights)
    return Soft(weights, _version(weights), reference, axis, order, found, False)


def _contracted(result: Tensor, operands: tuple[Any, ...], equation: str) -> None:
    named = equations.labels(equation, *operands)
    if named is None:
        return None
    (left, right), (of_left, of_right, of_result) = operands, named
    over = [x for x in of_left if x in of_right and x not in of_result]
    pairs = ((left, of_left, right, of_right), (right, of_right, left, of_left))
    for is_of in (_is_result, _is_made_of):
        for soft in reversed(_state.own.softs) if len(over) == 1 else ():
            for weights, own, value, of_value in pairs:
                if is_of(soft, weights, own.index(over[0])):
                    return _weighted(
                        soft, weights, own, over[0], (value, of_value), (result, of_result)
                    )
    outer = "".join(x for x in of_result if x in of_left and x in of_right)
    rows = "".join(x for x in of_result if x in of_left and x not in outer)
    columns = "".join(x for x in of_result if x in of_right and x not in outer)
    if len(over) != 1 or not rows or not columns:
        return None
    if _is_parameter(right):
        _state.own.projections.append((result.numel(), result.shape[-1]))
        return None
    # Heads that share a key: what only one operand has, but for its last axis, is expanded.
    outer, rows, columns = outer + rows[:-1] + columns[:-1], rows[-1], columns[-1]
    _state.own.products.append(
        Product(
            equations.arranged(left, of_left, outer + rows + over[0]),
            equations.arranged(right, of_right, outer + columns + over[0]),
            result.shape,
            [of_result.index(x) for x in outer + rows + columns],
        )
    )
    return None


def _weighted(
    soft: Soft,
    weights: Tensor,
    own: str,
    keys: str,
    value: tuple[Tensor, str],
    context: tuple[Tensor, str],
) -> None:
    """Weights that meet values in an equation; axes by their letters."""
    letters = _in_order(soft, weights, own)
    if letters is None:
        return _used(soft, weights, list(range(weights.ndim)), value[0], None, is_ordered=False)
    shared = [x for x in letters if x != keys and x in value[1]]
    alone = [x for x in letters if x != keys and x not in value[1]]
    pools = not alone  # there is one query for each item
    ordered = "".join(shared) + "".join(alone)
    dims = "".join(x for x in value[1] if x not in own)
    axes = [own.index(x) for x in ordered + keys]
    if len(dims) != 1 or not set(ordered) <= set(context[1]):
        return _used(soft, weights, axes, value[0], None, is_ordered=False)
    # Heads that share a value: letters of the weights alone, but for the last, are batch.
    batch = ordered if pools else ordered[:-1]
    return _used(
        soft,
        weights,
        axes,
        equations.arranged(*value, batch + keys + dims),
        equations.arranged(*context, ordered + dims),
        pools=pools,
    )


def _in_order(soft: Soft, weights: Tensor, own: str) -> str | None:
    """The letters of weights in the order of the axes that the softmax gave; None if not known."""
    result = soft.reference()
    assert result is not None
    if weights.shape == result.shape and weights.stride() == result.stride():
        return own
    is_same = weights.untyped_storage()._cdata == result.untyped_storage()._cdata
    if weights.numel() != result.numel() or weights.ndim != result.ndim:
        return own
    ours, theirs = (
        list(zip(x.shape, x.stride(), strict=True)) if is_same else [(n, 0) for n in x.shape]
        for x in (weights, result)
    )
    if ours == theirs:
        return own
    if len(set(ours)) != len(ours) or sorted(ours) != sorted(theirs):
        return None
    return "".join(own[ours.index(axis)] for axis in theirs)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _is_parameter(tensor: Tensor) -> bool:
    return any(listener.is_parameter(tensor) for listener in taps.here())


def _is_result(soft: Soft, operand: Tensor, contracted: int) -> bool:
    """Whether an operand is what a softmax gave, contracted over the axis that sums to one."""
    result = soft.reference()
    if result is None:
        return False
    if operand is result:
        return contracted == soft.keys
    is_there = operand.untyped_storage()._cdata == result.untyped_storage()._cdata
    return is_there and operand.stride(contracted) == result.stride(soft.keys)


def _is_made_of(soft: Soft, operand: Tensor, contracted: int) -> bool:
    """Whether an operand was made of what a softmax gave, in memory of its own.

    Dropout, another dtype, a head mask, rows that are normalised again: a row is then that of the
    softmax times one number, or what dropout has left of it.
    """
    result = soft.result
    if result is None or soft is not _state.own.softs[-1] or soft.is_projected:
        return False
    if operand.numel() != result.numel() or operand.shape[contracted] != result.shape[soft.keys]:
        return False
    if _is_dropped(operand):
        return True
    if operand.shape != result.shape:  # in another order: as many of each size
        return True
    with torch.no_grad(), taps.deaf():
        ours, theirs = (x.movedim(soft.keys, -1) for x in (result, operand))
        return _is_scaled(ours, theirs) or (ours.ndim == 4 and _is_mixed(ours, theirs))


def _is_scaled(ours: Tensor, theirs: Tensor) -> bool:
    """Whether rows, (..., keys), are those of ours times one number each, or zero in places."""
    ours, theirs = (x.reshape(-1, x.shape[-1]) for x in (ours, theirs))
    rows = torch.linspace(0, len(ours) - 1, min(LOOKED_AT, len(ours)), device=ours.device).long()
    ours, theirs = ours[rows].double(), theirs[rows].double()
    ours = ours.masked_fill(theirs == 0, 0)
    size = theirs.sum(-1, keepdim=True) / ours.sum(-1, keepdim=True)
    apart = (theirs - ours * size.nan_to_num()).abs().amax()
    return bool(apart <= NEAR_ONE * theirs.abs().amax())


def _is_mixed(ours: Tensor, theirs: Tensor) -> bool:
    """Whether heads, (batch, heads, queries, keys), are mixtures of ours (talking heads)."""
    row = ours.shape[2] // 2
    mixed, given = theirs[0, :, row].double().T, ours[0, :, row].double().T  # (keys, heads)
    given = torch.cat([given, torch.ones_like(given[:, :1])], 1)
    found = given @ torch.linalg.lstsq(given, mixed).solution
    return bool((found - mixed).abs().amax() <= NEAR_ONE * mixed.abs().amax())


# A softmax, and what it is a softmax of.


def _normalised(result: Tensor, scores: Tensor | None, axis: int) -> None:
    is_inner = taps.is_told_as_a_whole()
    found = [] if is_inner else [(x, _attends(x, name)) for x, name in taps.callers()]
    found = [(x, name) for x, name in found if x.wants(name)]
    if not is_inner and not (found and taps.is_in_a_pass()):
        return  # one of a `generate`, say, that draws a token
    for listener, name in found:
        listener.softmaxed(name)
    order = [x for x in range(result.ndim) if x != axis] + [axis]
    is_projected = _is_projected(result, axis)
    reference = weakref.ref(result)
    soft = Soft(result, _version(result), reference, axis, order, found, is_projected)
    if len(_state.own.softs) >= REMEMBERED:
        _say_if_unused(_state.own.softs.pop(0))
    _state.own.softs.append(soft)
    product = None if scores is None else _product_of(scores, axis)
    if product is None or scores is None:
        return
    soft.has_product, left, right = True, product.left, product.right
    ordered = scores
    if product.shape == scores.shape:
        soft.order = product.order
        if soft.order[-1] != axis:  # keys first: the columns are queries
            left, right = right, left
            soft.order = [*soft.order[:-2], soft.order[-1], soft.order[-2]]
        ordered = scores.permute(soft.order)
    if found:
        with taps.deaf():
            _read(soft, ordered, left, right)


def _attends(listener: taps.Listener, name: str) -> str:
    """The module that attends, where the one that runs is a softmax alone."""
    is_softmax = isinstance(listener.module_of(name), nn.Softmax) and "." in name
    return name.rpartition(".")[0] if is_softmax else name


def _is_projected(tensor: Tensor, axis: int) -> bool:
    """Whether a softmax along an axis is one over the outputs of a recent projection."""
    size = (tensor.numel(), tensor.shape[axis])
    return axis == tensor.ndim - 1 and size in _state.own.projections


def _product_of(scores: Tensor, axis: int) -> Product | None:
    """The latest product that these scores can have come of."""
    for candidate in reversed(_state.own.products):
        if candidate.shape == scores.shape:
            if axis in candidate.order[-2:]:
                return candidate
        elif candidate.shape.numel() == scores.numel() and axis == scores.ndim - 1:
            in_order = candidate.order == list(range(len(candidate.shape)))
            if in_order and candidate.shape[-1] == scores.shape[-1]:
                return candidate
    return None


def _read(soft: Soft, scores: Tensor, left: Tensor, right: Tensor) -> None:
    """The mask and the scale of scores, if they are those of a product and a mask."""
    outer, queries, keys = scores.shape[:-2], scores.shape[-2], scores.shape[-1]
    if left.shape[-2] != queries or right.shape[-2] != keys:
        return
    soft.fold = fold = _fold(soft, left)
    try:
        query, key = (as_four(_with_outer(x, outer), fold) for x in (left, right))
    except RuntimeError:  # rows of several heads in another order
        return
    with torch.no_grad():
        scores = as_four(scores, fold)
        if query.shape[:-1] != scores.shape[:-1] or key.shape[1] not in (1, query.shape[1]):
            return
        soft.read = read = recognise_in_scores(scores, queries, keys)
        if read is None:
            return
        soft.scale = _scale(scores, query, key)
        if not _is_shipped(soft) and scores.dtype in (torch.float32, torch.float64):
            soft.proof = prove_scores(scores, query, key, soft.scale, read)
            if soft.proof is None and read.uniform is None:
                return
        soft.query, soft.key = query, key


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
    # The item and the rows that show most keys: others may be padding.
    count = scores.shape[2]
    rows = torch.linspace(0, count - 1, min(LOOKED_AT, count), device=scores.device).long()
    counts = (scores[:, 0, rows] > HIDDEN).sum(-1)
    one = int(counts.sum(-1).argmax())
    rows = rows[counts[one].topk(min(SAMPLED, len(rows))).indices]
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
    soft: Soft,
    weights: Tensor,
    axes: list[int],
    value: Tensor,
    context: Tensor | None,
    is_ordered: bool = True,
    pools: bool = False,
) -> None:
    """A softmax has met values.

    Args:
        soft: the softmax.
        weights: what was multiplied.
        axes: which axes of that are (..., queries, keys), or (..., keys) where they pool.
        value: what it was multiplied with, (..., keys, value_dim).
        context: what came out, (..., queries, value_dim); None where it is in another order.
        is_ordered: whether value is in that order.
        pools: whether each item has one query, for which there is no axis.
    """
    result = soft.result
    if result is None or _is_parameter(value):
        return  # told already, of another part of it; or an expectation over a table
    if soft.is_projected and not soft.has_product:
        soft.result = None  # a choice among experts or classes
        return
    soft.result = None
    if _is_dropped(weights):
        weights, context = _before_dropout(weights, result), None
    is_whole = weights.numel() == result.numel()
    is_without_sink = _is_without_sink(weights, result, soft.keys)
    if is_whole or is_without_sink:
        weights = weights.permute(axes)
        if pools:
            weights = weights.unsqueeze(-2)
            context = None if context is None else context.unsqueeze(-2)
    else:  # in blocks, which are kept together
        weights, is_ordered = result.permute(soft.order), False
    if taps.is_told_as_a_whole():
        taps.note_made(_made(soft, weights, value, context, is_ordered))
        return
    update = caches.claimed_by(soft.found)
    taps.tell(soft.found, _call, soft, weights, value, context, is_ordered, update)


def _is_dropped(weights: Tensor) -> bool:
    """Whether weights are what dropout left, or a view of that."""
    left = None if _state.own.dropped is None else _state.own.dropped[0]()
    memory = weights.untyped_storage()._cdata
    return left is not None and bool(left.untyped_storage()._cdata == memory)


def _before_dropout(weights: Tensor, result: Tensor) -> Tensor:
    """What dropout was given, if that is still there."""
    assert _state.own.dropped is not None
    given = _state.own.dropped[1]()
    if given is not None and given.shape == weights.shape:
        return given
    return result if result.shape == weights.shape else weights


def _is_without_sink(weights: Tensor, result: Tensor, keys: int) -> bool:
    """Whether one key was left out that has no value."""
    left = [*result.shape[:keys], result.shape[keys] - 1, *result.shape[keys + 1 :]]
    return list(weights.shape) == left


def _made(
    soft: Soft, weights: Tensor, value: Tensor, context: Tensor | None, is_ordered: bool
) -> taps.Made:
    """Weights, (..., queries, keys), and what they were multiplied with if that is in order."""
    outer, result = weights.shape[:-2], soft.reference()
    fold = _fold(soft) if soft.fold is None else soft.fold
    is_plain = (
        result is not None
        and weights.untyped_storage()._cdata == result.untyped_storage()._cdata
        and _version(result) == soft.version >= 0
    )
    made = taps.Made(weights=as_four(weights, fold), is_plain=is_plain)
    if not is_ordered:
        return made
    with suppress(RuntimeError):  # several values for each weight, in another order
        made.value = as_four(_with_outer(value, outer), fold)
    if context is not None and prod(context.shape[:-2]) == prod(outer):
        context = as_four(context, fold)
        made.context = context if context.shape[:-1] == made.weights.shape[:-1] else None
    return made


def _call(
    soft: Soft,
    weights: Tensor,
    value: Tensor,
    context: Tensor | None,
    is_ordered: bool,
    update: "taps.CacheUpdate | None",
) -> "taps.Call | taps.Made":
    made = _made(soft, weights, value, context, is_ordered)
    if soft.query is None or soft.key is None or made.value is None:
        return made
    if (*soft.query.shape[:-1], soft.key.shape[-2]) != made.weights.shape:
        return made
    return taps.Call(
        query=soft.query,
        key=soft.key,
        value=made.value,
        read=soft.read,
        scale=soft.scale,
        context=made.context,
        update=update,
        made=made,
        proof=soft.proof if made.is_plain else None,
        is_known=_is_shipped(soft),
    )


def _is_shipped(soft: Soft) -> bool:
    """Whether the module that attends is one of PyTorch, transformers or Pellucid, as it was."""
    listener, name = soft.found[0]
    module: Any = listener.module_of(name)
    if "forward" in vars(module) or not taps.is_shipped(type(module).forward):
        return False
    hooks = (part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return not any(map(bool, hooks))


def _fold(soft: Soft, query: Tensor | None = None) -> Fold:
    if not soft.found:
        return Fold()
    listener, name = soft.found[0]
    return fold_of(listener.module_of(name), query)


def _say_if_unused(soft: Soft) -> None:
    """A softmax that has met no values: said where it looks like attention."""
    result = soft.result
    if result is None:
        return
    keys = result.shape[soft.keys]
    # Keys lie along one of the last two axes; over the others goes what chooses a class or an item.
    looks = keys > 1 and soft.keys >= result.ndim - 2 and not soft.is_projected
    what = f"a softmax over {keys} entries, {tuple(result.shape)}, of which nothing else was seen"
    if soft.has_product:
        what = f"softmax(query @ key.T) over {keys} keys, of which no product with values was seen"
    for listener, name in soft.found:
        if looks or soft.has_product or listener.audits:
            listener.missed(name, f"computes {what}")


_BY_NAME = {
    id(torch.matmul): product,
    id(torch.bmm): product,
    id(torch.mm): product,
    id(torch.baddbmm): added_product,
    id(torch.addmm): added_product,
    id(torch.einsum): einsum,
    id(torch.topk): chosen,
    id(nn.functional.linear): linear,
    id(nn.functional.dropout): dropout,
}

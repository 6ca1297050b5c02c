"""Products: of queries and keys, or of weights and values."""

import weakref
from itertools import permutations
from math import prod
from typing import Any

import torch
from torch import Tensor

from pellucid.lens.interception import equations, pending, reporting, softmax
from pellucid.lens.interception.pending import PendingSoftmax, Product

SAMPLE_ROWS = 32
"""Rows that are sampled to tell whether a tensor comes from a softmax."""
MOST_AXES = 5
"""The most axes of a softmax whose result may be used in another order of axes."""
NEAR_ONE = 1e-2
"""The largest relative difference of numbers that were rounded in the shortest dtype."""


def multiplied(result: Tensor, left: Tensor, right: Tensor, is_certain: bool = True) -> None:
    """`left @ right` was computed, which may be a projection if not `is_certain`."""
    for is_of in (_is_result, _is_made_of):
        for soft in reversed(pending.here().softmaxes):
            if is_of(soft, left, left.ndim - 1):
                return _multiplied(soft, left, right, result)
            if is_of(soft, right, right.ndim - 2):  # (weights @ value).T, as value.T @ weights.T
                return _multiplied(soft, right.mT, left.mT, result.mT)
    by_hand = _of_exponentials(left)
    if by_hand is not None:
        return softmax.used(by_hand, left, list(range(left.ndim)), right, result)
    if pending.is_parameter(right):
        pending.here().projections.append(result.shape)
    else:
        order = list(range(result.ndim))
        product = Product(left, right.mT, result.shape, order, is_certain)
        pending.here().products.append(product)
    return None


def _multiplied(soft: PendingSoftmax, weights: Tensor, value: Tensor, context: Tensor) -> None:
    """Weights met values in a product; their axes are put in the order of the softmax."""
    order, outer = _order(soft, weights), weights.shape[:-2]
    if order is not None and (len(order) > len(outer) + 1 or list(order) != sorted(order)):
        query, result = len(order) - 1, soft.reference()
        assert result is not None
        sizes = result.permute(soft.order).shape
        unfolded = [sizes[x] for x in order]
        ends = [x for x in range(query + 1) if prod(unfolded[:x]) == outer.numel()]
        batch = order[: ends[0]] if ends else order
        if query in batch:
            return softmax.met_term(soft)  # a value for each query: a term for relative positions
        shared = [x for x in order if x not in batch and x != query]  # they share a value
        back = [order.index(x) for x in range(query + 1)]
        weights, context = (
            x.reshape(*unfolded, x.shape[-1]).permute(*back, -1) for x in (weights, context)
        )
        inner = value.shape[-2:]
        value = value.expand(*outer, *inner)
        value = value.reshape(*unfolded[: len(batch)], *[1] * len(shared), *inner)
        value = value.permute(*([*batch, *shared].index(x) for x in range(query)), -2, -1)
    return softmax.used(soft, weights, list(range(weights.ndim)), value, context)


def _order(soft: PendingSoftmax, weights: Tensor) -> tuple[int, ...] | None:
    """The order in which weights, (..., keys), have the axes of their softmax; None if unknown.

    Several axes may be merged into one.
    """
    result = soft.reference()
    if result is None or not soft.has_product or weights.numel() != result.numel():
        return None
    ordered = result.permute(soft.order)
    if weights.shape[-1] != ordered.shape[-1] or ordered.ndim > MOST_AXES:
        return None
    orders = list(permutations(range(ordered.ndim - 1)))
    is_there = weights.untyped_storage()._cdata == result.untyped_storage()._cdata
    if is_there and weights.shape == ordered.shape and weights.stride() == ordered.stride():
        return orders[0]
    with torch.no_grad(), reporting.unobserved():
        apart = [_apart(ordered.permute(*order, -1), weights) for order in orders]
    best = min(range(len(orders)), key=lambda at: round(apart[at], 6))  # unchanged, if in doubt
    return orders[best] if apart[best] <= NEAR_ONE else None


def contracted(result: Tensor, operands: tuple[Any, ...], equation: str) -> None:
    named = equations.labels(equation, *operands)
    if named is None:
        return None
    (left, right), (of_left, of_right, of_result) = operands, named
    over = [x for x in of_left if x in of_right and x not in of_result]
    pairs = ((left, of_left, right, of_right), (right, of_right, left, of_left))
    for is_of in (_is_result, _is_made_of):
        for soft in reversed(pending.here().softmaxes) if len(over) == 1 else ():
            for weights, own, value, of_value in pairs:
                if is_of(soft, weights, own.index(over[0])):
                    return _weighted(
                        soft, weights, own, over[0], (value, of_value), (result, of_result)
                    )
    for weights, own, value, of_value in pairs if len(over) == 1 else ():
        by_hand = _of_exponentials(weights) if own[-1] == over[0] else None
        if by_hand is not None:
            return _weighted(by_hand, weights, own, over[0], (value, of_value), (result, of_result))
    outer = "".join(x for x in of_result if x in of_left and x in of_right)
    rows = "".join(x for x in of_result if x in of_left and x not in outer)
    columns = "".join(x for x in of_result if x in of_right and x not in outer)
    if len(over) != 1 or not rows or not columns:
        return None
    if pending.is_parameter(right):
        pending.here().projections.append(result.shape)
        return None
    # Heads that share a key: all axes of a single operand but its last one are expanded.
    columns = columns[-1]
    # If heads share a key, queries are the axis that is as long as the keys.
    alike = [
        x for x in rows if result.shape[of_result.index(x)] == right.shape[of_right.index(columns)]
    ]
    rows = alike[0] if len(alike) == 1 else rows[-1]
    outer = "".join(x for x in of_result if x not in (rows, columns))
    pending.here().products.append(
        Product(
            equations.arranged(left, of_left, outer + rows + over[0]),
            equations.arranged(right, of_right, outer + columns + over[0]),
            result.shape,
            [of_result.index(x) for x in outer + rows + columns],
        )
    )
    return None


def _weighted(
    soft: PendingSoftmax,
    weights: Tensor,
    own: str,
    keys: str,
    value: tuple[Tensor, str],
    context: tuple[Tensor, str],
) -> None:
    """Weights met values in an equation; axes are given by their letters."""
    letters = _in_order(soft, weights, own, keys)
    if letters is None:
        return None
    shared = [x for x in letters if x != keys and x in value[1]]
    alone = [x for x in letters if x != keys and x not in value[1]]
    pools = not alone  # each item has one query
    query = "".join(alone[-1:])
    if soft.has_product and len(letters) == len(soft.order) and alone:
        query = letters[soft.order[-2]]
        if query in shared:
            return softmax.met_term(soft)  # a value for each query: a term for relative positions
    ordered = "".join(x for x in letters if x not in (keys, query)) + query
    dims = "".join(x for x in value[1] if x not in own)
    axes = [own.index(x) for x in ordered + keys]
    if len(dims) != 1 or not set(ordered) <= set(context[1]):
        return softmax.used(soft, weights, axes, value[0], None, is_ordered=False)
    # Heads that share a value: all letters of the weights alone but the last one are batch.
    batch = ordered if pools else ordered[:-1]
    return softmax.used(
        soft,
        weights,
        axes,
        equations.arranged(*value, batch + keys + dims),
        equations.arranged(*context, ordered + dims),
        pools=pools,
    )


def _in_order(soft: PendingSoftmax, weights: Tensor, own: str, keys: str) -> str | None:
    """The letters of weights in the order of the axes of their softmax; None if unknown."""
    result = soft.reference()
    assert result is not None
    order = _order(soft, weights.movedim(own.index(keys), -1))
    if order is None or weights.ndim != result.ndim:
        is_turned = weights.numel() == result.numel() and weights.ndim == result.ndim
        return None if is_turned and weights.shape != result.shape else own
    left = own.replace(keys, "")
    letters = dict(zip(order, left, strict=True))
    of_axes = {axis: letters.get(at, keys) for at, axis in enumerate(soft.order)}
    return "".join(of_axes[axis] for axis in range(len(own)))


def _of_exponentials(weights: Tensor) -> PendingSoftmax | None:
    """A softmax that consists of exponentials and their sum, once its result is multiplied."""
    size = (weights.numel(), weights.shape[-1])
    known = [is_of_product for shape, is_of_product in pending.here().exponentials if shape == size]
    if not known or reporting.is_inside_call():
        return None
    with torch.no_grad(), reporting.unobserved():
        sums = weights.sum(-1, dtype=torch.promote_types(weights.dtype, torch.float32))
        if bool((weights < 0).any()):
            return None
        is_softmax = bool((((sums - 1).abs() <= NEAR_ONE) | (sums == 0)).all())
    callers = [(x, name) for x, name in reporting.callers() if x.wants(name)]
    if not callers:
        return None
    if not is_softmax:
        for listener, name in callers if any(known) else ():
            listener.on_missed(
                name,
                "multiplies values by exponentials of products, which sum to something other than "
                "one: a softmax that is made block by block, or has more in its sum",
            )
        return None
    order = list(range(weights.ndim))
    axis, reference = weights.ndim - 1, weakref.ref(weights)
    return PendingSoftmax(weights, pending.version(weights), reference, axis, order, callers, False)


def _is_result(soft: PendingSoftmax, operand: Tensor, contracted: int) -> bool:
    """Whether an operand is the result of a softmax, contracted over the axis that sums to one."""
    result = soft.reference()
    if result is None:
        return False
    if operand is result:
        return contracted == soft.keys
    memory = operand.untyped_storage()._cdata
    if memory == result.untyped_storage()._cdata:
        return operand.stride(contracted) == result.stride(soft.keys)
    is_copy = any(memory == copy.cdata for copy in soft.copies)
    return is_copy and contracted == operand.ndim - 1 and pending.version(operand) <= 0


def _is_made_of(soft: PendingSoftmax, operand: Tensor, contracted: int) -> bool:
    """Whether an operand was computed from the result of a softmax, in other memory.

    By dropout, another dtype, a head mask, or another normalisation: a row is that of the softmax
    times one number, or with zeros from dropout.
    """
    result = soft.result
    if result is None or soft is not pending.here().softmaxes[-1] or soft.is_projected:
        return False
    if operand.numel() != result.numel() or operand.shape[contracted] != result.shape[soft.keys]:
        return False
    if pending.is_dropped(operand):
        return True
    operand = operand.movedim(contracted, -1)
    if _order(soft, operand) is not None:
        return True
    with torch.no_grad(), reporting.unobserved():
        ours = result.movedim(soft.keys, -1)
        if ours.shape != operand.shape:
            return False
        return _apart(ours, operand) <= NEAR_ONE or (ours.ndim == 4 and _is_mixed(ours, operand))


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The relative difference of rows, (..., keys), from ours times a number each, or zero."""
    count = ours.shape[:-1].numel()
    rows = torch.linspace(0, count - 1, min(SAMPLE_ROWS, count), device=ours.device).long()
    ours, theirs = (x[torch.unravel_index(rows, x.shape[:-1])].double() for x in (ours, theirs))
    ours = ours.masked_fill(theirs == 0, 0)
    size = theirs.sum(-1, keepdim=True) / ours.sum(-1, keepdim=True)
    apart = (theirs - ours * size.nan_to_num()).abs().amax()
    return float(apart / theirs.abs().amax().clamp_min(torch.finfo(theirs.dtype).tiny))


def _is_mixed(ours: Tensor, theirs: Tensor) -> bool:
    """Whether heads, (batch, heads, queries, keys), are mixtures of ours (talking heads)."""
    row = ours.shape[2] // 2
    mixed, own = theirs[0, :, row].double().T, ours[0, :, row].double().T  # (keys, heads)
    own = torch.cat([own, torch.ones_like(own[:, :1])], 1)
    fitted = own @ torch.linalg.lstsq(own, mixed).solution
    return bool((fitted - mixed).abs().amax() <= NEAR_ONE * mixed.abs().amax())

"""A softmax written by hand: its scores, and its weights when they meet values.

At the softmax, the mask is inferred from the scores. When its result is multiplied, the weights are
known as the model uses them, after head masks and the like. If query, key and mask give these
weights, the record is lazy; else it keeps the weights.
"""

import weakref
from contextlib import suppress
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from pellucid.lens.interception import caches, call_stack, pending, reporting
from pellucid.lens.interception.calls import CacheUpdate, Call, ModelWeights
from pellucid.lens.interception.pending import PendingSoftmax, Product
from pellucid.lens.interception.shapes import Fold, as_four, as_it_was, fold_of, is_argument
from pellucid.lens.mask_inference import infer_mask_of_scores
from pellucid.lens.proof import prove_scores, random_factors
from pellucid.lens.score_scan import HIDDEN, scan_scores

SAMPLE_ROWS, SCALE_ROWS = 32, 3
"""Rows that are sampled, and those of them from which the scale is computed."""


def forget(everywhere: bool) -> None:
    """Forget what happened last on this thread, or on all of them."""
    for own in pending.everywhere() if everywhere else [pending.here()]:
        softmaxes = own.softmaxes[:]
        own.softmaxes.clear()
        own.products.clear()
        own.projections.clear()
        own.exponentials.clear()
        own.dropped = None
        for soft in softmaxes:
            _report_if_unused(soft)
    for soft in pending.left():
        _report_if_unused(soft)


# A softmax and its scores.


def normalised(result: Tensor, scores: Tensor | None, axis: int) -> None:
    is_inner = reporting.is_inside_call()
    callers = [] if is_inner else [(x, name) for x, name in reporting.callers() if x.wants(name)]
    if not is_inner and not (callers and call_stack.is_in_forward()):
        return  # outside any forward pass, such as when `generate` draws a token
    for listener, name in callers:
        listener.on_softmax(name)
    order = [x for x in range(result.ndim) if x != axis] + [axis]
    is_projected = pending.is_projected(result, axis)
    reference = weakref.ref(result)
    soft = PendingSoftmax(
        result, pending.version(result), reference, axis, order, callers, is_projected
    )
    for ended in pending.left():
        _report_if_unused(ended)
    if len(pending.here().softmaxes) >= pending.REMEMBERED:
        _report_if_unused(pending.here().softmaxes.pop(0))
    pending.here().softmaxes.append(soft)
    product = None if scores is None else _product_of(scores, axis)
    if product is None or scores is None:
        return
    soft.has_product, soft.is_certain = True, product.is_certain
    left, right = product.left, product.right
    ordered = scores
    if product.shape == scores.shape:
        soft.order = product.order
        if soft.order[-1] != axis:  # keys first: the columns are queries
            left, right = right, left
            soft.order = [*soft.order[:-2], soft.order[-1], soft.order[-2]]
        ordered = scores.permute(soft.order)
    if any(listener.edits for listener, _ in callers):
        soft.right = right
    if callers:
        with reporting.unobserved():
            _read(soft, ordered, left, right)


def edited(result: Tensor, scores: Tensor) -> Tensor:
    """The result of a softmax as listeners have edited it; errors reach the user."""
    latest = pending.here().softmaxes[-1:]
    if not latest or latest[0].reference() is not result:
        return result
    soft = latest[0]
    editors = [(x, name) for x, name in soft.callers if x.edits]
    if not editors or not soft.has_product or not soft.is_certain:
        return result
    with reporting.unobserved():
        ordered = scores.permute(soft.order)
        fold = _fold(soft, ordered) if soft.fold is None else soft.fold
        weights = as_four(result.permute(soft.order), fold)
        before, soft.is_offered = weights, True
        for listener, name in editors:
            update = caches.claimed_by(soft.callers, is_over=False)
            assert soft.right is not None
            four = as_four(ordered, fold)
            edit = listener.on_softmax_edit(name, four, weights, soft.right, update)
            if edit is None:
                continue
            if edit.weights is not None:
                weights = edit.weights
                soft.hidden = edit.hidden if not soft.is_edited else None
                soft.is_edited = True
            if edit.finish is not None:
                soft.finish.append(edit)
                soft.editors.append((listener, name))
        if weights is before:
            return result
        permutation = [soft.order.index(axis) for axis in range(result.ndim)]
        changed = as_it_was(weights, ordered.shape, fold).permute(permutation).contiguous()
    soft.result, soft.reference = changed, weakref.ref(changed)
    soft.version, soft.proof = pending.version(changed), None
    return changed


def _product_of(scores: Tensor, axis: int) -> Product | None:
    """The latest product from which these scores can come.

    A term for relative positions is a product of the same shape, whose rows are heads: a product
    of queries and keys that was made before it is the one that is meant.
    """
    turned = None
    for candidate in reversed(pending.here().products):
        if candidate.shape == scores.shape:
            if axis in candidate.order[-2:]:
                if candidate.order == sorted(candidate.order):
                    return candidate
                turned = turned or candidate
        elif candidate.shape.numel() == scores.numel() and axis == scores.ndim - 1:
            in_order = candidate.order == list(range(len(candidate.shape)))
            if in_order and candidate.shape[-1] == scores.shape[-1] and turned is None:
                return candidate
    return turned


def _read(soft: PendingSoftmax, scores: Tensor, left: Tensor, right: Tensor) -> None:
    """Infer the mask and the scale of scores, if they are a product with a mask."""
    outer, queries, keys = scores.shape[:-2], scores.shape[-2], scores.shape[-1]
    if left.shape[-2] != queries or right.shape[-2] != keys:
        return
    soft.fold = fold = _fold(soft, left, right)
    try:
        query, key = (as_four(_with_outer(x, outer), fold) for x in (left, right))
    except RuntimeError:  # rows of several heads in another order
        return
    with torch.no_grad():
        scores = as_four(scores, fold)
        if 1 < key.shape[1] < query.shape[1]:  # as many heads share each
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        if query.shape[:-1] != scores.shape[:-1] or key.shape[1] not in (1, query.shape[1]):
            return
        factors = None
        if not _is_shipped(soft) and scores.dtype in (torch.float32, torch.float64):
            factors = random_factors(keys).to(scores)
        scan = scan_scores(scores, factors)
        soft.inferred = inferred = infer_mask_of_scores(scan)
        if inferred is None:
            return
        soft.scale = _scale(scores, query, key)
        if factors is not None:
            soft.proof = prove_scores(scan, factors, query, key, soft.scale, inferred)
            if soft.proof is None and inferred.uniform is None:
                return
        soft.query, soft.key = query, key


def _with_outer(tensor: Tensor, outer: torch.Size) -> Tensor:
    """(*outer, n, dim), or with one head that all share: a view, with axes of size one expanded."""
    own = tensor.shape[:-2]
    if prod(own) == prod(outer):
        return tensor.reshape(*outer, *tensor.shape[-2:])
    if len(own) == len(outer) > 1 and own[-1] == 1:
        outer = torch.Size((*outer[:-1], 1))
    return tensor.expand(*outer, *tensor.shape[-2:])


def _scale(scores: Tensor, query: Tensor, key: Tensor) -> float:
    """The factor of the products, from a few rows; rounded to 1 or the usual scale if close."""
    # The item and the rows with the most visible keys: others may be padding.
    count = scores.shape[2]
    rows = torch.linspace(0, count - 1, min(SAMPLE_ROWS, count), device=scores.device).long()
    counts = (scores[:, 0, rows] > HIDDEN).sum(-1)
    item = int(counts.sum(-1).argmax())
    rows = rows[counts[item].topk(min(SCALE_ROWS, len(rows))).indices]
    products = (query[item][:, rows].float() @ key[item].float().mT).double()
    seen = scores[item][:, rows].double()
    shown = (seen > HIDDEN) & seen.isfinite()
    products, seen = products.masked_fill(~shown, 0), seen.masked_fill(~shown, 0)
    size = float((products * products).sum())
    if not size:
        return 1.0
    scale = float((products * seen).sum()) / size
    tolerance = 1e-2 if scores.dtype in (torch.float16, torch.bfloat16) else 1e-4
    for usual in (1.0, query.shape[-1] ** -0.5):
        if abs(scale - usual) <= tolerance * usual:
            return float(usual)
    return scale


# Weights that meet values.


def used(
    soft: PendingSoftmax,
    weights: Tensor,
    axes: list[int],
    value: Tensor,
    context: Tensor | None,
    is_ordered: bool = True,
    pools: bool = False,
) -> None:
    """The result of a softmax was multiplied with values.

    Args:
        soft: the softmax.
        weights: the weights that were multiplied.
        axes: which axes of them are (..., queries, keys), or (..., keys) if `pools`.
        value: (..., keys, value_dim)
        context: the product, (..., queries, value_dim); None if its axes are in another order.
        is_ordered: whether the axes of value are in this order.
        pools: whether each item has one query, without an axis.
    """
    result = soft.result
    if result is None:  # already reported with another part
        if soft.finish:
            _used_again(soft, weights.permute(axes), value, context, is_ordered and not pools)
        return
    if _is_table(soft, value):
        soft.result = result if soft.has_product else None
        met_term(soft)
        return  # an expectation over classes, or a term for relative positions
    soft.result = None
    if soft.is_projected and not soft.has_product:
        _report_if_over_positions(soft, 1 if pools else weights.shape[axes[-2]], value)
        return
    if not soft.is_certain and not weights.ndim == value.ndim == 2:
        return  # a mixture of experts
    if pending.is_dropped(weights):
        weights, context = pending.before_dropout(weights, result), None
    is_whole = weights.numel() == result.numel()
    if is_whole or _is_without_sink(weights, result, soft.keys):
        weights = weights.permute(axes)
        if pools:
            weights = weights.unsqueeze(-2)
            context = None if context is None else context.unsqueeze(-2)
    else:  # in blocks, which are recorded together
        soft.met += weights.numel()
        if soft.met < result.numel():
            soft.result = result
            return
        weights, is_ordered = result.permute(soft.order), False
    if reporting.is_inside_call():
        reporting.note_weights(_weights_of(soft, weights, value, context, is_ordered))
        return
    update = caches.claimed_by(soft.callers)
    if soft.finish:  # by which another product with them is known
        soft.copies.append(StorageWeakRef(weights.untyped_storage()))
    _finish(soft, weights, value, context, is_ordered)
    soft.callers = [(x, name) for x, name in soft.callers if not x.edits]
    reporting.report(soft.callers, _call, soft, weights, value, context, is_ordered, update)


def met_term(soft: PendingSoftmax) -> None:
    """The weights met something other than values, which may be a part of what the heads give."""
    soft.has_term = True
    if soft.result is None:
        _report_partly_edited(soft, "multiplies its weights with more than its values")


def _used_again(
    soft: PendingSoftmax, weights: Tensor, value: Tensor, context: Tensor | None, is_ordered: bool
) -> None:
    """Weights whose context was edited met other values: a part of what the heads give, too."""
    if [name for _, name in soft.editors] != [name for x, name in reporting.callers() if x.edits]:
        return  # somebody else reads them
    if not all(edit.is_of_any for edit in soft.finish):
        what = "multiplies its weights with several values, and one of them can be replaced"
        _report_partly_edited(soft, what)
    elif _is_table(soft, value) or not _edit_context(soft, weights, value, context, is_ordered):
        _report_partly_edited(soft, "multiplies its weights with more than its values")


def _report_partly_edited(soft: PendingSoftmax, reason: str) -> None:
    for listener, name in soft.editors:
        listener.on_partly_edited(name, reason)


def _edit_context(
    soft: PendingSoftmax, weights: Tensor, value: Tensor, context: Tensor | None, is_ordered: bool
) -> Tensor | None:
    """Edit a context in place, and return what it was, by heads; None if heads are not known."""
    by_head = _weights_of(soft, weights, value, context, is_ordered).context
    if by_head is None or context is None or not _shares(by_head, context):
        return None
    before = by_head.clone()
    with reporting.unobserved():
        for edit in soft.finish:
            assert edit.finish is not None
            by_head.copy_(edit.finish(by_head))
    return before


def _finish(
    soft: PendingSoftmax, weights: Tensor, value: Tensor, context: Tensor | None, is_ordered: bool
) -> None:
    """Edit the context in place, if that is to be done."""
    why = None if soft.is_offered else "computes weights that no product of query and key gives"
    if soft.finish:
        if soft.has_term:
            why = "multiplies its weights with more than its values"
        else:
            soft.attended = _edit_context(soft, weights, value, context, is_ordered)
            if soft.attended is None:
                why = "has the outputs of its heads in an order that is not known"
    for listener, name in soft.callers:
        if listener.edits and why is not None:
            listener.on_missed(name, why)


def _shares(part: Tensor, whole: Tensor) -> bool:
    """Whether a tensor is a view of another one."""
    return bool(part.untyped_storage()._cdata == whole.untyped_storage()._cdata)


def _is_table(soft: PendingSoftmax, value: Tensor) -> bool:
    """Whether values are a table of the model, such as one row per class."""
    if soft.has_product or value.ndim != 2 or not soft.callers:
        return pending.is_parameter(value)
    return any(listener.is_lasting(name, value) for listener, name in soft.callers)


def _report_if_over_positions(soft: PendingSoftmax, rows: int, value: Tensor) -> None:
    """Report weights that are the output of a projection, unless they mix experts or classes.

    Experts have values for each row; positions have values for all rows of an item, or values that
    were passed to the module.
    """
    if (rows > 1 and value.ndim > 2) or is_argument(value):
        for listener, name in soft.callers:
            keys = value.shape[-2]
            listener.on_missed(
                name,
                f"mixes {keys} values by weights that a projection gives, and no query and key",
            )


def _is_without_sink(weights: Tensor, result: Tensor, keys: int) -> bool:
    """Whether one key, which has no value, was left out."""
    left = [*result.shape[:keys], result.shape[keys] - 1, *result.shape[keys + 1 :]]
    return sorted(weights.shape) == sorted(left)


def _weights_of(
    soft: PendingSoftmax, weights: Tensor, value: Tensor, context: Tensor | None, is_ordered: bool
) -> ModelWeights:
    """Weights, (..., queries, keys), with value and context if their axes are in this order."""
    if context is not None and context.ndim == 4 and weights.ndim == 3:
        weights = weights.unsqueeze(0)  # the same for all items
    outer, result = weights.shape[:-2], soft.reference()
    fold = _fold(soft, weights) if soft.fold is None else soft.fold
    is_plain = (
        result is not None
        and weights.untyped_storage()._cdata == result.untyped_storage()._cdata
        and pending.version(result) == soft.version >= 0
    )
    computed = ModelWeights(weights=as_four(weights, fold), is_plain=is_plain)
    if result is not None and weights.shape[-1] == result.shape[soft.keys] - 1:
        wide = torch.promote_types(weights.dtype, torch.float32)
        computed.sink = (1 - computed.weights.sum(-1, dtype=wide)).clamp_min(0)
    if not is_ordered:
        return computed
    with suppress(RuntimeError):  # several values for each weight, in another order
        computed.value = as_four(_with_outer(value, outer), fold)
    if context is not None and prod(context.shape[:-2]) == prod(outer):
        context = as_four(context, fold)
        computed.context = context if context.shape[:-1] == computed.weights.shape[:-1] else None
    return computed


def _call(
    soft: PendingSoftmax,
    weights: Tensor,
    value: Tensor,
    context: Tensor | None,
    is_ordered: bool,
    update: CacheUpdate | None,
) -> Call | ModelWeights:
    computed = _weights_of(soft, weights, value, context, is_ordered)
    computed.attended = soft.attended
    if soft.is_edited and soft.hidden is None:
        return computed
    if soft.query is None or soft.key is None or computed.value is None:
        return computed
    if (*soft.query.shape[:-1], soft.key.shape[-2]) != computed.weights.shape:
        return computed
    return Call(
        query=soft.query,
        key=soft.key,
        value=computed.value,
        inferred=soft.inferred,
        scale=soft.scale,
        context=computed.context,
        update=update,
        model_weights=computed,
        proof=soft.proof if computed.is_plain else None,
        is_known=_is_shipped(soft),
        hidden=soft.hidden,
        attended=soft.attended,
    )


def _is_shipped(soft: PendingSoftmax) -> bool:
    """Whether the module that attends belongs to PyTorch, transformers or Pellucid, unchanged."""
    listener, name = soft.callers[0]
    module: Any = listener.module_of(name)
    if "forward" in vars(module) or not call_stack.is_shipped(type(module).forward):
        return False
    hooks = (part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return not any(map(bool, hooks))


def _fold(soft: PendingSoftmax, query: Tensor, *others: Tensor) -> Fold:
    if not soft.callers:
        return Fold()
    listener, name = soft.callers[0]
    return fold_of(listener.module_of(name), query, *others)


def _report_if_unused(soft: PendingSoftmax) -> None:
    """Report a softmax that has met no values, if it looks like attention."""
    result = soft.result
    if result is None:
        return
    keys = result.shape[soft.keys]
    # Keys are one of the last two axes; a softmax over another axis chooses a class or an item.
    is_choice = soft.is_projected or not soft.is_certain
    looks = keys > 1 and soft.keys >= result.ndim - 2 and not is_choice
    what = f"a softmax over {keys} entries, {tuple(result.shape)}, of which nothing else was seen"
    if soft.has_product:
        what = f"softmax(query @ key.T) over {keys} keys, of which no product with values was seen"
    if soft.met:
        what = f"weights over {keys} keys, and of {soft.met} of {result.numel()} a product was seen"
    for listener, name in soft.callers:
        if looks or soft.met or (soft.has_product and soft.is_certain) or listener.audits:
            listener.on_missed(name, f"computes {what}")

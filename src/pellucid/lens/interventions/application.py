"""One call with all of its edits: its context, and what a watch is told of it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.interception.calls import Call
from pellucid.lens.interventions import closed_form, exact, outputs
from pellucid.lens.interventions.edits import Region, Stage, flagged
from pellucid.lens.interventions.operands import Operands
from pellucid.lens.interventions.telling import tell
from pellucid.lens.mask_reader import MaskReader


def edited(name: str, call: Call, regions: Sequence[Region], reader: MaskReader) -> Call:
    """The call of a module with its edits.

    Raises:
        ArgumentError: the edits cannot be applied to it.
    """
    of_weights = [region for region in regions if region.edit.stage < Stage.OUTPUT]
    of_output = [region for region in regions if region.edit.stage == Stage.OUTPUT]
    zeroes = [region for region in of_output if region.edit.zeroes]
    others = [region for region in of_output if not region.edit.zeroes]
    _check(name, call, of_weights, [*of_weights, *zeroes])
    of = None
    if of_weights or call.projection is not None or any(x.edit.is_mean for x in of_output):
        of = Operands.of(call, reader)
    assert call.context is not None
    if call.projection is None:
        attended = context = call.context
        if of_weights:
            assert of is not None
            attended = context = _attended(call, of, of_weights, call.context)
        if zeroes:
            attended = context = outputs.changed(context, zeroes, of)
        if others:
            context = outputs.changed(context, others, of)
    else:
        assert of is not None
        before, places = _contexts_before(of, regions)
        after = before.index_put(places, exact.contexts(of, of_weights, *_unfolded(places)))
        after = outputs.changed(after, zeroes, of)
        attended = call.context + _projected(after - before, call.projection[0], call.context)
        context = attended
        if others:
            change = outputs.changed(after, others, of) - before
            context = call.context + _projected(change, call.projection[0], call.context)
    changed = replace(call, context=context, attended=attended if others else call.attended)
    if of_weights or zeroes:
        tell(changed, [*of_weights, *zeroes], partial(Operands.of, call, reader))
    return changed


def _check(name: str, call: Call, of_weights: Sequence[Region], told: Sequence[Region]) -> None:
    if call.context is None:
        raise ArgumentError(f"the attention of '{name}' cannot be edited: it returns no context")
    if call.dropout and (of_weights or call.projection is not None):
        raise ArgumentError(
            f"the attention of '{name}' drops weights at random, so that edited weights are not "
            "known: call model.eval() first"
        )
    if told and call.edited_weights is not None and call.hidden is None:
        raise ArgumentError(
            f"the weights of '{name}' were changed by another intervention: put the edits into one"
        )


def _pairs(regions: Sequence[Region], batch: int, heads: int) -> tuple[Tensor, Tensor]:
    """(pairs,) items and heads that any of these edits changes."""
    flags = reduce(torch.logical_or, (region.of_heads(batch, heads) for region in regions))
    items, numbers = flags.nonzero(as_tuple=True)
    return items, numbers


def _rows(regions: Sequence[Region], queries: int, device: torch.device) -> Tensor:
    """(n,) the queries that any of these edits changes."""
    flags = [flagged(region.rows, queries, device) for region in regions]
    return reduce(torch.logical_or, flags).nonzero().flatten()


def _attended(call: Call, of: Operands, regions: Sequence[Region], context: Tensor) -> Tensor:
    """(batch, heads, queries, value_dim): the context of edited weights."""
    batch, heads, queries, _ = of.shape
    items, numbers = _pairs(regions, batch, heads)
    rows = _rows(regions, queries, context.device)
    logsumexp = _logsumexp(call)
    cols = closed_form.columns(of, regions, logsumexp)
    if cols is None or logsumexp is None:
        new = exact.contexts(of, regions, items, numbers, rows)
    else:
        new = closed_form.contexts(of, regions, context, logsumexp, cols, items, numbers, rows)
    result = context.clone()
    result[items[:, None], numbers[:, None], rows] = new.to(context.dtype)
    return result


def _logsumexp(call: Call) -> Tensor | None:
    """(batch, heads, queries) of all that the scores of the call consist of, if it is known."""
    logsumexp = call.logsumexp
    if logsumexp is None or logsumexp.shape != call.query.shape[:-1] or call.hidden is not None:
        return None
    if call.weights is not None:  # ours, of scores with everything in them
        return logsumexp
    more = (*call.masks, call.bias, call.softcap, call.sinks)
    return None if any(x is not None for x in more) else logsumexp


def _contexts_before(
    of: Operands, regions: Sequence[Region]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """(batch, heads, queries, value_dim): the contexts of all pairs and rows that are edited, zero
    elsewhere; and where they are.
    """
    batch, heads, queries, _ = of.shape
    items, numbers = _pairs(regions, batch, heads)
    is_mean = any(region.edit.is_mean for region in regions)
    device = of.query.device
    rows = torch.arange(queries, device=device) if is_mean else _rows(regions, queries, device)
    places = items[:, None], numbers[:, None], rows
    blank = of.value.new_zeros(batch, heads, queries, of.value.shape[-1], dtype=of.dtype)
    return blank.index_put(places, exact.contexts(of, (), items, numbers, rows)), places


def _unfolded(places: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(pairs,) items, (pairs,) heads and (n,) rows of an index of contexts."""
    items, heads, rows = places
    return items.flatten(), heads.flatten(), rows


def _projected(change: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """(batch, queries, model_dim): what a change of contexts adds to the output projection's."""
    return nn.functional.linear(change.transpose(1, 2).flatten(2), weight.to(change)).to(like)

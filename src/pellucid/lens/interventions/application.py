"""One call with all of its edits: its context, and what a watch is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from torch import Tensor, nn

from pellucid.attention import intervals
from pellucid.errors import ArgumentError
from pellucid.lens.interception.calls import Call
from pellucid.lens.interventions import closed_form, exact, outputs
from pellucid.lens.interventions.edits import Stage
from pellucid.lens.interventions.operands import Operands
from pellucid.lens.interventions.regions import Region, flagged
from pellucid.lens.interventions.telling import tell
from pellucid.lens.mask_reader import MaskReader


def edited(name: str, call: Call, regions: Sequence[Region], reader: MaskReader) -> Call:
    """The call of a module with its edits.

    Raises:
        ArgumentError: the edits cannot be applied to it.
    """
    parts = Parts.of(regions)
    _check(name, call, parts)
    of = None
    is_mean = any(region.edit.is_mean for region in parts.others)
    if parts.of_weights or parts.of_values or is_mean or call.projection is not None:
        of = Operands.of(call, reader)
    if call.projection is None:
        attended, context = _contexts(call, of, parts)
    else:
        assert of is not None
        attended, context = _projected_contexts(call, of, parts, is_mean)
    is_replaced = bool(parts.of_values or parts.others)
    if not is_replaced and call.attended is None:
        changed = replace(call, context=context)
    else:
        changed = replace(call, context=context, attended=attended)
    if parts.of_weights or parts.zeroes:
        reported = [*parts.of_weights, *parts.zeroes]
        tell(changed, reported, partial(Operands.of, call, reader))
    return changed


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """Edits by what they change."""

    of_weights: list[Region]
    of_values: list[Region]
    zeroes: list[Region]
    """Outputs that become zero."""
    others: list[Region]
    """Outputs that are scaled or replaced."""

    @classmethod
    def of(cls, regions: Sequence[Region]) -> "Parts":
        parts = cls([], [], [], [])
        for region in regions:
            edit = region.edit
            if edit.stage == Stage.OUTPUT:
                (parts.zeroes if edit.zeroes else parts.others).append(region)
            elif edit.stage == Stage.INPUT and edit.part == "value":
                parts.of_values.append(region)
            else:
                parts.of_weights.append(region)
        return parts


def _check(name: str, call: Call, parts: Parts) -> None:
    if not isinstance(call.query, Tensor):
        raise ArgumentError(
            f"the attention of '{name}' cannot be edited: it runs natively, in scripted or traced "
            "code; edit the model that this code was made of"
        )
    if call.context is None:
        raise ArgumentError(f"the attention of '{name}' cannot be edited: it returns no context")
    of_inside = parts.of_weights or parts.of_values or call.projection is not None
    if call.dropout and of_inside:
        raise ArgumentError(
            f"the attention of '{name}' drops weights at random, so that edited weights are not "
            "known: call model.eval() first"
        )
    if call.attended is not None and of_inside:
        raise ArgumentError(
            f"the outputs of '{name}' were changed by another intervention: put the edits into one"
        )
    changes = parts.of_weights or parts.of_values or parts.zeroes
    if changes and call.edited_weights is not None and call.hidden is None:
        raise ArgumentError(
            f"the weights of '{name}' were changed by another intervention: put the edits into one"
        )


def _rows(regions: Sequence[Region], queries: int, device: torch.device) -> Tensor:
    """(n,) the queries that any of these edits changes."""
    flags = [flagged(region.rows, queries, device) for region in regions]
    return reduce(torch.logical_or, flags).nonzero().flatten()


def _contexts(call: Call, of: Operands | None, parts: Parts) -> tuple[Tensor, Tensor]:
    """(batch, heads, queries, value_dim): before values and outputs are replaced, and after."""
    assert call.context is not None
    attended = call.context
    if parts.of_weights:
        assert of is not None
        attended = _attended(call, of, parts.of_weights, call.context)
    context = attended
    if parts.of_values:
        assert of is not None
        context = _attended(call, of, [*parts.of_weights, *parts.of_values], call.context)
        context = outputs.changed(context, parts.zeroes) if parts.zeroes else context
    elif call.attended is not None:  # another intervention has changed outputs
        attended, context = call.attended, outputs.changed(context, parts.zeroes)
    attended = outputs.changed(attended, parts.zeroes) if parts.zeroes else attended
    if not parts.of_values and call.attended is None:
        context = attended
    if parts.others:
        context = outputs.changed(context, parts.others, partial(_present, of))
    return attended, context


def _projected_contexts(
    call: Call, of: Operands, parts: Parts, is_mean: bool
) -> tuple[Tensor, Tensor]:
    """The same after the output projection, (batch, queries, model_dim): it is linear, so that the
    change of the contexts is projected.
    """
    assert call.context is not None
    assert call.projection is not None
    regions = [*parts.of_weights, *parts.of_values, *parts.zeroes, *parts.others]
    batch, heads, queries, _ = of.shape
    items, numbers = exact.pairs_of(regions, batch, heads)
    device = of.query.device
    rows = torch.arange(queries, device=device) if is_mean else _rows(regions, queries, device)
    blank = of.value.new_zeros(batch, heads, queries, of.value.shape[-1], dtype=of.dtype)

    def contexts(regions: Sequence[Region]) -> Tensor:
        computed = exact.contexts(of, regions, items, numbers, rows)
        return blank.index_put((items[:, None], numbers[:, None], rows), computed)

    def projected(after: Tensor) -> Tensor:
        change = (after - before).transpose(1, 2).flatten(2)
        return output + nn.functional.linear(change, weight.to(change)).to(output)

    before, weight, output = contexts(()), call.projection[0], call.context
    attended = outputs.changed(contexts(parts.of_weights), parts.zeroes)
    after = attended
    if parts.of_values:
        after = outputs.changed(contexts([*parts.of_weights, *parts.of_values]), parts.zeroes)
    after = outputs.changed(after, parts.others, partial(_present, of))
    return projected(attended), projected(after)


def _present(of: Operands | None, item: int) -> Tensor | None:
    """(queries,) bool: the positions that some query of an item sees; None if not known."""
    if of is None or of.mask is None or of.shape[2] != of.shape[3]:
        return None
    mask = of.mask if of.mask.batch is None else of.mask.at(item)
    flags = torch.zeros(of.shape[3], dtype=torch.bool, device=of.query.device)
    rows: intervals.Intervals = ((0, of.shape[2]),)
    if of.uniform is not None:  # queries of padding, which see all keys alike
        rows = intervals.runs(~of.uniform.expand(of.shape[0], -1)[item])
    for first, last in rows:
        for start, stop in mask.spans(first, last, of.shape[3]).some:
            flags[start:stop] = True
    return flags


def _attended(call: Call, of: Operands, regions: Sequence[Region], context: Tensor) -> Tensor:
    """(batch, heads, queries, value_dim): the context of edited weights."""
    batch, heads, queries, _ = of.shape
    items, numbers = exact.pairs_of(regions, batch, heads)
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

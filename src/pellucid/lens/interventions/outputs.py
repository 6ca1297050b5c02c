"""Edits of the outputs of heads: scaled, or replaced."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.lens.interventions.edits import Region
from pellucid.lens.interventions.operands import Operands


def changed(context: Tensor, regions: Sequence[Region], of: Operands | None) -> Tensor:
    """A copy of (batch, heads, queries, value_dim) with its edits.

    Args:
        context: what the heads give.
        regions: edits of Stage.OUTPUT.
        of: the call; only means need it.
    """
    result = context.clone()
    for region in regions:
        edit = region.edit
        rows = region.rows
        if rows is None:
            rows = torch.arange(context.shape[2], device=context.device)
        place = region.items[:, None, None], region.heads[:, None], rows
        if edit.is_mean:
            assert of is not None
            own = context[region.items[:, None], region.heads]
            new = _means(own, region, of).expand(*own.shape[:2], len(rows), -1)
        elif edit.source is not None:
            new = edit.source.contexts(region, result, rows)
        else:
            new = result[place] * edit.factor
        result = result.index_put(place, new.to(result))
    return result


def _means(context: Tensor, region: Region, of: Operands) -> Tensor:
    """(items, heads, 1, value_dim): the means of (items, heads, queries, value_dim) over queries.

    Positions that no query sees, as padding, do not count.
    """
    if context.shape[2] == 1:
        raise ArgumentError(
            f"{region.edit.text}: the mean over a single query is the query itself; take the mean "
            "of a whole text, or the output of another one with by=recording"
        )
    wide = context.to(of.dtype)
    if of.mask is None or of.shape[2] != of.shape[3]:
        return wide.mean(2, keepdim=True)
    present = torch.stack([_seen(of, item) for item in region.items.tolist()])
    present = present[:, None, :, None]
    return (wide * present).sum(2, keepdim=True) / present.sum(2, keepdim=True).clamp_min(1)


def _seen(of: Operands, item: int) -> Tensor:
    """(keys,) bool: the keys that some query of an item sees."""
    assert of.mask is not None
    mask = of.mask if of.mask.batch is None else of.mask.at(item)
    flags = torch.zeros(of.shape[3], dtype=torch.bool, device=of.query.device)
    for start, stop in mask.spans(0, of.shape[2], of.shape[3]).some:
        flags[start:stop] = True
    return flags

"""Edits of the outputs of heads: scaled, or replaced."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.lens.interventions.regions import Region

Present = Callable[[int], Tensor | None]
"""(queries,) bool: which queries of an item are no padding; None = all."""


def changed(
    context: Tensor, regions: Sequence[Region], present: Present = lambda item: None
) -> Tensor:
    """A copy of (batch, heads, queries, value_dim) with its edits.

    Args:
        context: what the heads give.
        regions: edits of Stage.OUTPUT.
        present: which queries count in means.
    """
    result = context.clone()
    for region in regions:
        edit = region.edit
        rows = region.rows
        if rows is None:
            rows = torch.arange(context.shape[2], device=context.device)
        place = region.items[:, None, None], region.heads[:, None], rows
        if edit.is_mean:
            own = context[region.items[:, None], region.heads]
            new = _means(own, region, present).expand(*own.shape[:2], len(rows), -1)
        elif edit.source is not None:
            new = edit.source.contexts(region, rows)
            if new.shape[-1] != context.shape[-1]:
                raise ArgumentError(
                    f"{edit.text}: the recorded outputs of '{region.name}' have "
                    f"{new.shape[-1]} numbers, and the model's {context.shape[-1]}"
                )
        else:
            new = result[place] * edit.factor
        result = result.index_put(place, new.to(result))
    return result


def _means(context: Tensor, region: Region, present: Present) -> Tensor:
    """(items, heads, 1, value_dim): the means of (items, heads, queries, value_dim) over queries.

    Positions that no query sees, as padding, do not count.
    """
    if context.shape[2] == 1:
        raise ArgumentError(
            f"{region.edit.text}: the mean over a single query is the query itself; take the mean "
            "of a whole text, or the output of another one with by=recording"
        )
    wide = context.to(torch.promote_types(context.dtype, torch.float32))
    means = []
    for item, own in zip(region.items.tolist(), wide, strict=True):
        counted = present(item)
        means.append((own if counted is None else own[:, counted]).mean(1, keepdim=True))
    return torch.stack(means)

"""Edited weights and contexts, computed anew a block of rows at a time: exact for any edit.

This is what a model's eager code does after its scores are masked, in O(n) memory.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from pellucid.lens.interventions.edits import Stage
from pellucid.lens.interventions.operands import Operands
from pellucid.lens.interventions.regions import Region, flagged

NUMBERS_AT_ONCE = 2**21
"""Weights that are computed together."""


def contexts(
    of: Operands, regions: Sequence[Region], items: Tensor, heads: Tensor, rows: Tensor
) -> Tensor:
    """(pairs, rows, value_dim): the contexts of edited weights.

    Args:
        of: the call.
        regions: the edits of its weights and their inputs.
        items, heads: (pairs,) int64.
        rows: (n,) int64, the queries.
    """

    def of_block(items: Tensor, heads: Tensor, rows: Tensor) -> Tensor:
        value = of.values(regions, items, heads)
        return weights(of, regions, items, heads, rows) @ value

    return _in_blocks(of_block, of.shape[3], items, heads, rows)


def all_weights(of: Operands, regions: Sequence[Region]) -> Tensor:
    """(batch, heads, queries, keys): all weights, edited."""
    batch, heads, queries, keys = of.shape
    device = of.query.device

    def of_block(items: Tensor, heads: Tensor, rows: Tensor) -> Tensor:
        return weights(of, regions, items, heads, rows)

    items, numbers = torch.ones(batch, heads, device=device).nonzero(as_tuple=True)
    rows = torch.arange(queries, device=device)
    return _in_blocks(of_block, keys, items, numbers, rows).view(of.shape)


def softmax_of(scores: Tensor, weights: Tensor, regions: Sequence[Region]) -> Tensor:
    """(batch, heads, queries, keys): a softmax, edited, of scores and weights of this shape."""
    items, heads = pairs_of(regions, *scores.shape[:2])
    rows = torch.arange(scores.shape[2], device=scores.device)
    own = scores[items, heads]
    shown = shown_by(own)
    # Numbers that hide keys weigh nothing beside a key that is seen, whether or not it is cut.
    own = own.masked_fill(~shown & shown.any(-1, keepdim=True), -torch.inf).to(weights.dtype)
    new = weights_of_scores(own, None, regions, scores.shape, items, heads, rows)
    return weights.index_put((items, heads), new)


def shown_by(scores: Tensor) -> Tensor:
    """(...) bool: the scores that no large negative number hides, as `infer_mask` says."""
    return scores > max(torch.finfo(scores.dtype).min / 2, -1e8)


def pairs_of(regions: Sequence[Region], batch: int, heads: int) -> tuple[Tensor, Tensor]:
    """(pairs,) items and heads that any of these edits changes."""
    flags = reduce(torch.logical_or, (region.of_heads(batch, heads) for region in regions))
    items, numbers = flags.nonzero(as_tuple=True)
    return items, numbers


def _in_blocks(
    compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    keys: int,
    items: Tensor,
    heads: Tensor,
    rows: Tensor,
) -> Tensor:
    """(pairs, rows, ...), of blocks of bounded size."""
    step = max(1, NUMBERS_AT_ONCE // max(1, keys))
    together = max(1, step // max(1, len(rows)))
    pairs = zip(items.split(together), heads.split(together), strict=True)
    return torch.cat(
        [torch.cat([compute(*pair, part) for part in rows.split(step)], 1) for pair in pairs]
    )


def weights(
    of: Operands, regions: Sequence[Region], items: Tensor, heads: Tensor, rows: Tensor
) -> Tensor:
    """(pairs, rows, keys): the weights with all edits. A row that loses all its weight is zero."""
    scores = of.scores(regions, items, heads, rows)
    sinks = None if of.sinks is None else of.sinks[heads]
    return weights_of_scores(scores, sinks, regions, of.shape, items, heads, rows)


def weights_of_scores(
    scores: Tensor,
    sinks: Tensor | None,
    regions: Sequence[Region],
    size: torch.Size,
    items: Tensor,
    heads: Tensor,
    rows: Tensor,
) -> Tensor:
    """The same, of (pairs, rows, keys) scores.

    Args:
        scores: -inf where hidden.
        sinks: (pairs,) logits that take part and have no value.
        regions: the edits.
        size: (batch, heads, queries, keys).
        items, heads: (pairs,)
        rows: (n,)
    """
    for region in regions:
        if region.edit.stage == Stage.SCORES:
            chosen = _chosen(region, size, items, heads, rows)
            if region.edit.hides:
                scores = scores.masked_fill(chosen, -torch.inf)
            else:
                raised = scores + math.log(region.edit.factor)
                scores = torch.where(chosen, raised, scores)
    weights = _normalised(scores, sinks)
    for region in regions:
        if region.edit.stage == Stage.GIVEN:
            given = region.edit.source.weights(region, size, items, heads, rows).to(weights)
            chosen = _chosen(region, size, items, heads, rows)
            weights = torch.where(chosen, given, weights)
    for region in regions:
        if region.edit.stage == Stage.WEIGHTS or region.edit.zeroes:
            weights = weights.masked_fill(_chosen(region, size, items, heads, rows), 0)
    return weights


def _normalised(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """The softmax of (pairs, rows, keys) scores, zero in rows that see nothing."""
    if sinks is not None:
        column = sinks.to(scores)[:, None, None].expand(*scores.shape[:2], 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    hidden = scores.detach().amax(-1, keepdim=True) == -torch.inf
    if bool(hidden.any()):  # 0 and no NaN, for gradients too
        return scores.masked_fill(hidden, 0).softmax(-1).masked_fill(hidden, 0)
    return scores.softmax(-1)


def _chosen(region: Region, size: torch.Size, items: Tensor, heads: Tensor, rows: Tensor) -> Tensor:
    """(pairs, rows or 1, keys or 1) bool: the links that an edit changes."""
    chosen = region.flags(items, heads)[:, None, None]
    if region.rows is not None:
        chosen = chosen & torch.isin(rows, region.rows)[:, None]
    if region.cols is not None and region.edit.stage != Stage.INPUT:
        chosen = chosen & flagged(region.cols, size[3], rows.device)
    return chosen

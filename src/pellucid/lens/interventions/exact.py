"""Edited weights and contexts, computed anew a block of rows at a time: exact for any edit.

This is what a model's eager code does after its scores are masked, in O(n) memory.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pellucid.lens.interventions.edits import Region, Stage, flagged
from pellucid.lens.interventions.operands import Operands

NUMBERS_AT_ONCE = 2**21
"""Weights that are computed together."""


def contexts(
    of: Operands, regions: Sequence[Region], items: Tensor, heads: Tensor, rows: Tensor
) -> Tensor:
    """(pairs, rows, value_dim): the contexts of edited weights.

    Args:
        of: the call.
        regions: the edits of its weights.
        items, heads: (pairs,) int64.
        rows: (n,) int64, the queries.
    """
    value = of.keys_of(of.value, items, heads).to(of.dtype)
    parts = [
        weights(of, regions, items[pairs], heads[pairs], rows[part]) @ value[pairs]
        for pairs, part in _blocks(len(items), len(rows), of.shape[3])
    ]
    return _joined(parts, len(items), len(rows), of.shape[3])


def all_weights(
    of: Operands, regions: Sequence[Region], items: Tensor, heads: Tensor, rows: Tensor
) -> Tensor:
    """(pairs, rows, keys): the edited weights."""
    parts = [
        weights(of, regions, items[pairs], heads[pairs], rows[part])
        for pairs, part in _blocks(len(items), len(rows), of.shape[3])
    ]
    return _joined(parts, len(items), len(rows), of.shape[3])


def weights(
    of: Operands, regions: Sequence[Region], items: Tensor, heads: Tensor, rows: Tensor
) -> Tensor:
    """(pairs, rows, keys): the weights with all edits. A row that loses all its weight is zero."""
    scores = of.scores(items, heads, rows)
    for region in regions:
        if region.edit.stage == Stage.SCORES:
            chosen = _chosen(of, region, items, heads, rows)
            if region.edit.hides:
                scores = scores.masked_fill(chosen, -torch.inf)
            else:
                scores = scores + chosen * torch.tensor(region.edit.factor).log().to(scores)
    weights = normalised(scores, None if of.sinks is None else of.sinks[heads])
    for region in regions:
        if region.edit.stage == Stage.GIVEN:
            given = region.edit.source.weights(region, of.shape, items, heads, rows).to(weights)
            chosen = _chosen(of, region, items, heads, rows)
            weights = torch.where(chosen, given, weights)
    for region in regions:
        if region.edit.stage == Stage.WEIGHTS or region.edit.zeroes:
            chosen = _chosen(of, region, items, heads, rows)
            weights = weights.masked_fill(chosen, 0)
    return weights


def normalised(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """The softmax of (pairs, rows, keys) scores, zero in rows that see nothing.

    Args:
        scores: -inf where hidden.
        sinks: (pairs,) logits that take part and have no value.
    """
    hidden = (scores == -torch.inf).all(-1, keepdim=True)
    if sinks is not None:
        column = sinks.to(scores)[:, None, None].expand(*scores.shape[:2], 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    if bool(hidden.any()):  # 0 and no NaN, for gradients too
        return scores.masked_fill(hidden, 0).softmax(-1).masked_fill(hidden, 0)
    return scores.softmax(-1)


def _chosen(of: Operands, region: Region, items: Tensor, heads: Tensor, rows: Tensor) -> Tensor:
    """(pairs, rows, keys or 1) bool: the links that an edit changes."""
    chosen = region.flags(items, heads)[:, None, None]
    if region.rows is not None:
        chosen = chosen & torch.isin(rows, region.rows)[:, None]
    if region.cols is not None:
        chosen = chosen & flagged(region.cols, of.shape[3], rows.device)
    return chosen.expand(len(items), len(rows), chosen.shape[-1])


def _blocks(pairs: int, rows: int, keys: int) -> Iterator[tuple[slice, slice]]:
    """Pairs and rows of blocks of bounded size, those of the same pairs in a row."""
    step = max(1, NUMBERS_AT_ONCE // max(1, keys))
    together = max(1, step // max(1, rows))
    for first in range(0, pairs, together):
        for start in range(0, rows, step):
            yield slice(first, first + together), slice(start, start + step)


def _joined(parts: list[Tensor], pairs: int, rows: int, keys: int) -> Tensor:
    """The results of all blocks, (pairs, rows, ...)."""
    if len(parts) == 1:
        return parts[0]
    per_pairs = max(1, -(-rows // max(1, NUMBERS_AT_ONCE // max(1, keys))))
    groups = [parts[at : at + per_pairs] for at in range(0, len(parts), per_pairs)]
    return torch.cat([torch.cat(group, 1) for group in groups])

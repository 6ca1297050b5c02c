"""The context without some links, from the context with them.

    share = sum of (f - 1) w,    context' = (context + sum of (f - 1) w value) / (1 + share)

where w = exp(score - logsumexp) are the weights of the links, and f their factors, 0 for a link
that is knocked out. That costs the edited columns alone, and not the attention.

Where a row loses nearly all its weight the division magnifies rounding. A weight is off by the
rounding of its score and of the logsumexp, about unit * (|score| + |logsumexp|) relative, and the
context by a few units; both are divided by the rest, 1 + share. Rows in which that exceeds
`MOST_UNITS` are computed anew (see `exact`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.lens.interventions import exact
from pellucid.lens.interventions.edits import Stage
from pellucid.lens.interventions.operands import Operands
from pellucid.lens.interventions.regions import Region, flagged

MOST_UNITS = 80
"""Units of rounding that a context may be off, in terms of the largest value: 5e-6 in float32."""
OTHER_UNITS = 16
"""Units of rounding besides those of the scores: exponential, products and their sums."""
MOST_COLUMNS = 1 / 8
"""The share of all keys beyond which computing anew costs little more."""
MOST_FACTOR = 2.0**32
"""Larger ones could overflow; a softmax takes their logarithm."""
NUMBERS_AT_ONCE = 2**21


def columns(of: Operands, regions: Sequence[Region], logsumexp: Tensor | None) -> Tensor | None:
    """(n,) the keys of all links of these edits, if the closed form has them; None if not."""
    if logsumexp is None or torch.is_grad_enabled() or of.uniform is not None:
        return None
    keys, flags = of.shape[3], torch.zeros(of.shape[3], dtype=torch.bool, device=of.key.device)
    for region in regions:
        if region.edit.stage not in (Stage.SCORES, Stage.WEIGHTS) or region.cols is None:
            return None
        if region.edit.factor > MOST_FACTOR:
            return None
        flags |= flagged(region.cols, keys, flags.device)
    cols = flags.nonzero().flatten()
    return cols if len(cols) <= max(1, MOST_COLUMNS * keys) else None


def contexts(
    of: Operands,
    regions: Sequence[Region],
    context: Tensor,
    logsumexp: Tensor,
    cols: Tensor,
    items: Tensor,
    heads: Tensor,
    rows: Tensor,
) -> Tensor:
    """(pairs, rows, value_dim): the contexts of edited weights.

    Args:
        of: the call.
        regions: its edits.
        context: (batch, heads, queries, value_dim), unedited.
        logsumexp: (batch, heads, queries) of its scores.
        cols: (n,) the keys of all edited links.
        items, heads: (pairs,) int64.
        rows: (n,) int64, the queries.
    """
    value = of.values(regions, items, heads, cols)
    step = max(1, NUMBERS_AT_ONCE // (len(items) * len(cols)))
    parts, doubts = [], []
    for part in rows.split(step):
        plain = context[items[:, None], heads[:, None], part].to(of.dtype)
        lse = logsumexp[items[:, None], heads[:, None], part].to(of.dtype).unsqueeze(-1)
        seen = lse > -torch.inf
        weights = torch.exp(
            of.scores(regions, items, heads, part, cols) - lse.masked_fill(~seen, 0)
        )
        weights = weights.masked_fill(~seen, 0)
        change, share = _changes(of, regions, weights, items, heads, part, cols)
        rest = 1 + share
        lost = change.abs().sum(-1, keepdim=True) * (2 * lse.abs() + OTHER_UNITS)
        doubts.append(((lost > MOST_UNITS * rest) & seen).squeeze(-1))
        plain.baddbmm_(change, value).div_(rest.masked_fill(rest <= 0, 1))
        parts.append(plain)
    result, doubt = torch.cat(parts, 1), torch.cat(doubts, 1)
    for pair in doubt.any(1).nonzero().flatten().tolist():
        single, own = slice(pair, pair + 1), doubt[pair].nonzero().flatten()
        result[pair, own] = exact.contexts(of, regions, items[single], heads[single], rows[own])[0]
    return result


def _changes(
    of: Operands,
    regions: Sequence[Region],
    weights: Tensor,
    items: Tensor,
    heads: Tensor,
    rows: Tensor,
    cols: Tensor,
) -> tuple[Tensor, Tensor]:
    """What weights, (pairs, rows, cols), gain before they are normalised, and what a row gains.

    Links that are dropped without normalising what is left change no sum.
    """
    factor, kept = torch.ones_like(weights), torch.ones_like(weights)
    for region in regions:
        chosen = region.flags(items, heads)[:, None, None]
        if region.rows is not None:
            chosen = chosen & torch.isin(rows, region.rows)[:, None]
        assert region.cols is not None
        chosen = chosen & torch.isin(cols, region.cols)
        if region.edit.stage == Stage.SCORES:
            factor = torch.where(chosen, factor * region.edit.factor, factor)
        else:
            kept = kept.masked_fill(chosen, 0)
    share = ((factor - 1) * weights).sum(-1, keepdim=True)
    return (factor * kept - 1) * weights, share

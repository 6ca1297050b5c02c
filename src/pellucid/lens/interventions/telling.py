"""What the weights of an edited call are, for a watch and for the model's own answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights, attention_weights, given_weights, masks
from pellucid.attention.masks import Heads, Mask, Rows
from pellucid.lens.interception.calls import Call, Shown
from pellucid.lens.interventions import exact
from pellucid.lens.interventions.operands import Operands
from pellucid.lens.interventions.regions import Region, flagged


def tell(call: Call, regions: Sequence[Region], operands: Callable[[], Operands]) -> None:
    """Say in an edited call what its weights are now.

    Args:
        call: the call, whose context is edited already.
        regions: the edits that change weights.
        operands: computes the operands of the call before these edits.
    """
    batch, heads, queries = call.query.shape[:3]
    size = torch.Size((batch, heads, queries, call.key.shape[-2]))
    call.proof = call.logsumexp = call.model_weights = None
    before, shown = call.hidden, shown_by_all(regions, size, call.query.device)
    call.hidden = shown
    if shown is not None and before is not None:
        call.hidden = lambda keys: before(keys) & shown(keys)
    call.edited_weights = lambda: exact.all_weights(operands(), regions)
    if call.weights is not None:
        call.weights = _lazy_weights(call, call.weights)


def shown_by_all(regions: Sequence[Region], size: torch.Size, device: torch.device) -> Shown | None:
    """The rule that shows all but what edits hide; None if they do something else.

    Args:
        regions: the edits, one at least.
        size: (batch, heads, queries, keys).
        device: that of the call.
    """
    if not all(region.edit.hides or region.edit.zeroes for region in regions):
        return None
    return lambda keys: reduce(and_, (_shown(region, size, keys, device) for region in regions))


def _shown(region: Region, size: torch.Size, keys: int, device: torch.device) -> Mask:
    """The rule that shows the first keys except what an edit hides."""
    batch, heads, queries, all_keys = size
    parts: list[Mask] = []
    flags = region.of_heads(batch, heads)
    if not bool(flags.all()):
        alike = bool((flags == flags[:1]).all())
        parts.append(Heads(flags[0] if alike else flags))
    if region.rows is not None:
        parts.append(Rows(flagged(region.rows, queries, device)))
    if region.cols is not None:
        parts.append(masks.present(flagged(region.cols, all_keys, device)[:keys]))
    return ~reduce(and_, parts) if parts else masks.padding(0)


def _lazy_weights(call: Call, before: AttentionWeights) -> AttentionWeights:
    """The edited weights of a call of our own attention, as it returns them."""
    of = before.operands
    assert isinstance(call.query, Tensor)
    assert isinstance(call.key, Tensor)
    if call.hidden is None:
        assert call.edited_weights is not None
        return given_weights(call.edited_weights().view(before.shape))
    hidden = call.hidden(call.key.shape[-2])
    rule = hidden if call.rule is None else call.rule & hidden
    for mask in call.masks:
        rule = rule & mask
    weights = attention_weights(
        call.query,
        call.key,
        rule,
        bias=call.bias,
        scale=call.scale,
        softcap=call.softcap,
        sinks=call.sinks,
    )
    return AttentionWeights(replace(weights.operands, batch_shape=of.batch_shape))

"""What the weights of an edited call are, for a watch and for the model's own answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights, attention_weights, given_weights, masks
from pellucid.attention.masks import Heads, Mask, Rows
from pellucid.lens.interception.calls import Call
from pellucid.lens.interventions import exact
from pellucid.lens.interventions.edits import Region, flagged
from pellucid.lens.interventions.operands import Operands


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
    if all(region.edit.hides or region.edit.zeroes for region in regions):
        shown = reduce(and_, (_shown(region, size, call.query.device) for region in regions))
        call.hidden = shown if call.hidden is None else call.hidden & shown
    else:
        call.hidden = None
    call.edited_weights = lambda: _weights(operands(), regions)
    if call.weights is not None:
        call.weights = _lazy_weights(call, call.weights)


def _weights(of: Operands, regions: Sequence[Region]) -> Tensor:
    """(batch, heads, queries, keys): all weights, edited."""
    batch, heads, queries, _ = of.shape
    device = of.query.device
    items, numbers = torch.ones(batch, heads, device=device).nonzero(as_tuple=True)
    rows = torch.arange(queries, device=device)
    return exact.all_weights(of, regions, items, numbers, rows).view(of.shape)


def _shown(region: Region, size: torch.Size, device: torch.device) -> Mask:
    """The rule that shows all but what an edit hides."""
    batch, heads, queries, keys = size
    parts: list[Mask] = []
    flags = region.of_heads(batch, heads)
    if not bool(flags.all()):
        parts.append(Heads(flags))
    if region.rows is not None:
        parts.append(Rows(flagged(region.rows, queries, device)))
    if region.cols is not None:
        parts.append(masks.present(flagged(region.cols, keys, device)))
    return ~reduce(and_, parts) if parts else masks.padding(0)


def _lazy_weights(call: Call, before: AttentionWeights) -> AttentionWeights:
    """The edited weights of a call of our own attention, as it returns them."""
    of = before.operands
    assert isinstance(call.query, Tensor)
    assert isinstance(call.key, Tensor)
    if call.hidden is None:
        assert call.edited_weights is not None
        return given_weights(call.edited_weights().view(before.shape))
    rule = call.hidden if call.rule is None else call.rule & call.hidden
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

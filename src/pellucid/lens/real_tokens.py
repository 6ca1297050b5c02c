"""Which tokens are real, and not padding, as far as the mask tells."""

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.lens.head_patterns import Positions
from pellucid.lens.record import Record


def real_tokens(record: Record) -> tuple[Tensor, Tensor]:
    """(batch, keys) and (batch, queries) bool: the tokens that are not padding.

    A key is real if any query sees it, its own query included. A query is real if its key is; in
    cross-attention, every query is real unless its row is entirely hidden. Batch dimensions are
    flattened into one. Costs a pass over the weights.
    """
    with torch.no_grad():
        weights, own = with_query_positions(record)
        received = weights.received()
        return real_given_received(record, weights, own, received.reshape(-1, *received.shape[-2:]))


def with_query_positions(record: Record) -> tuple[AttentionWeights, Tensor]:
    """The weights with a mask that knows the queries' positions among the keys, and these.

    If the mask does not tell, the queries are taken to be the last of the keys.
    """
    weights = record.weights
    batch = weights.shape[:-3].numel()
    queries, keys = weights.shape[-2:]
    offset = None if weights.mask is None else weights.mask.offset
    if offset is None:
        offset = 0 if record.is_cross else keys - queries
        if offset:
            weights = weights.placed(offset)
    first = torch.as_tensor(offset, device=weights.device).reshape(-1, 1).expand(batch, 1)
    return weights, first + torch.arange(queries, device=weights.device)


def real_given_received(
    record: Record, weights: AttentionWeights, own: Tensor, received: Tensor
) -> tuple[Tensor, Tensor]:
    """`real_tokens`, given what each key received.

    Args:
        record: the record.
        weights, own: as `with_query_positions` returns them.
        received: (batch, heads, keys)
    """
    uniform = record.visibility.uniform_rows(weights.shape[-2])
    if uniform is not None:  # hidden rows, whose uniform weights do not follow from the mask
        follows = (~uniform).to(weights.dtype).expand(len(received), -1)
        follows = follows.reshape(*weights.shape[:-3], 1, 1, -1)
        received = (follows @ weights).reshape(received.shape)
    keys = received.sum(1) > 0  # (batch, keys)
    if record.is_cross:
        queries = torch.ones_like(own, dtype=torch.bool)
    else:
        sees_itself = Positions(weights, own, torch.ones_like(keys)).visible(own).any(1)
        if uniform is not None:
            sees_itself &= ~uniform
        for item, flags in enumerate(sees_itself):
            keys[item, own[item, flags]] = True
        outside = (own < 0) | (own >= keys.shape[-1])
        queries = outside | keys.gather(-1, own.clamp(0, keys.shape[-1] - 1))
    return keys, queries if uniform is None else queries & ~uniform

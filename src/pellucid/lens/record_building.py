"""Records of intercepted calls, built and proven."""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.lens.generations import Origin, logsumexp_of
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.pieces import Keeper, Part, Pieces
from pellucid.lens.proof import Evidence, prove
from pellucid.lens.record import Proof, Record
from pellucid.lens.visibility import Visibility

Ids = tuple[Tensor | None, Tensor | None]
"""(batch, queries) and (batch, keys) ids of the tokens of queries and keys."""


def record_of_call(
    name: str,
    call: Call,
    origin: Origin,
    rule: tuple[Visibility, Pieces | None],
    ids: Ids,
    *,
    is_cross: bool,
    keep: Keeper,
    keeps_values: bool,
    is_lasting: Callable[[Part], bool],
) -> Record:
    """The record of a call that stands alone or begins a generation.

    Args:
        name: the name of the module.
        call: the call.
        origin: where its keys come from.
        rule: its rule and its bias.
        ids: the ids of its tokens.
        is_cross: whether it is cross-attention.
        keep: keeps its tensors.
        keeps_values: whether the record has values and contexts.
        is_lasting: whether a tensor lies in memory of the model.
    """

    def pieces(part: Part) -> Pieces:
        return keep.pieces(part, is_lasting=is_lasting(part))

    source, (visibility, bias), (query_ids, key_ids) = origin.source, rule, ids
    context = call.context if keeps_values and call.projection is None else None
    logsumexp = logsumexp_of(call, keep)
    query_tokens = None if query_ids is None else Pieces(query_ids, -1)
    key_tokens = query_tokens
    if key_ids is not query_ids:
        key_tokens = None if key_ids is None else Pieces(key_ids, -1)
    record = Record(
        name=name,
        queries=pieces(call.query),
        keys=pieces(origin.keys) if source is None else source.record.keys,
        visibility=visibility,
        biases=[] if bias is None else [bias],
        scale=call.scale,
        softcap=call.softcap,
        sinks=None if call.sinks is None else call.sinks.to(keep.device).clone(),
        logsumexps=None if logsumexp is None else Pieces(logsumexp, -1),
        values=pieces(origin.values) if keeps_values else None,
        contexts=None if context is None else keep.pieces(context),
        has_edited_outputs=call.attended is not None,
        query_tokens=query_tokens,
        key_tokens=key_tokens,
        is_cross=is_cross,
        latest_queries=call.query.shape[-2],
        output_weights=None if call.projection is None else Pieces(call.projection[0].detach()),
    )
    if source is not None:  # two layers that read the same pieces share them, as they grow once
        record.values, record.key_tokens = source.record.values, source.record.key_tokens
    return record


def prove_call(record: Record, call: Call, value: Part, *, every_row: bool) -> Proof:
    """Prove the record of a call.

    Raises:
        Contradiction: the record gives something else than the model computed.
    """
    if call.model_weights is None and (call.context is None or call.dropout):
        reason = "dropout is random" if call.dropout else "the call returns no context of its own"
        return Proof(0, record.shape[0] * record.shape[-2], reason=reason)
    # Padding rows give a share to empty slots of a static cache, which are not in the record.
    is_cut = record.keys.length < call.key.shape[-2]
    weights = None if call.model_weights is None else call.model_weights.weights
    proof = prove(
        Evidence(
            record=record,
            value=value,
            context=call.context if call.attended is None else call.attended,
            weights=None if weights is None or weights.shape != record.shape else weights,
            projection=call.projection,
            without=record.visibility.uniform if is_cut else None,
            every_row=every_row or (not call.is_known and call.proof is None),
        )
    )
    return proof if call.proof is None or every_row else call.proof


def record_of_weights(
    name: str, source: ModelWeights, ids: Ids, *, is_cross: bool, keep: Keeper, keeps_values: bool
) -> Record:
    """A record that holds the model's own weights."""
    weights = source.weights
    queries, keys = weights.shape[-2:]
    value, context = source.value, source.context
    if not keeps_values or value is None or context is None:
        value = context = None
    query_ids, key_ids = ids
    return Record(
        name=name,
        kept="weights",
        queries=keep.pieces(weights),
        keys=Pieces(torch.arange(keys, device=weights.device)[None, None, :, None]),
        visibility=Visibility.of(
            InferredMask(None, None, None), queries, keys, keep.device or weights.device
        ),
        sink_weights=None if source.sink is None else Pieces(keep.keep(source.sink), -1),
        values=None if value is None else keep.pieces(value),
        contexts=None if context is None else keep.pieces(context),
        has_edited_outputs=source.attended is not None,
        query_tokens=None if query_ids is None else Pieces(query_ids, -1),
        key_tokens=None if key_ids is None else Pieces(key_ids, -1),
        is_cross=is_cross,
        latest_queries=queries,
    )


def prove_weights(record: Record, source: ModelWeights, *, every_row: bool) -> Proof:
    """Prove that the weights times the values are the context.

    Raises:
        Contradiction: they are not.
    """
    if source.value is None or source.context is None:
        rows = record.shape[0] * record.shape[-2]
        return Proof(0, rows, reason="the use of the model's own weights was not seen")
    return prove(
        Evidence(
            record=record,
            value=source.value,
            context=source.context if source.attended is None else source.attended,
            every_row=every_row or not source.is_known,
        )
    )

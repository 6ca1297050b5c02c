"""Records of single calls of attention, with any of its options."""

import torch

import pellucid
from pellucid.lens import Record
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.pieces import Pieces
from pellucid.lens.visibility import Visibility


def record_of(case) -> Record:
    """The record of a `tests.attention.cases.Case`, with values and contexts."""
    query, key, options = case.query, case.key, case.options
    with torch.no_grad():
        context, weights = pellucid.attention(query, key, case.value, case.mask, **options)
    inferred = InferredMask(case.mask, None, None)
    return Record(
        name="attention",
        queries=Pieces(query),
        keys=Pieces(key),
        visibility=Visibility.of(inferred, query.shape[-2], key.shape[-2], query.device),
        biases=[] if weights.bias is None else [Pieces(weights.bias)],
        scale=options.get("scale"),
        softcap=options.get("softcap"),
        sinks=options.get("sinks"),
        values=Pieces(case.value),
        contexts=Pieces(context),
        latest_queries=query.shape[-2],
    )

"""A recorder that proves itself: what was recorded must give what the model got."""

import torch
from torch import Tensor, nn

from pellucid.lens.record import Record
from pellucid.lens.taps import Call

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far a replay may be from what the model got, over the largest number in it."""


def contradiction(
    record: Record, call: Call, value: Tensor, without: Tensor | None = None
) -> str | None:
    """How the record contradicts what the call returned; None where it does not.

    A few rows of the first and the last item are computed again: the first, which shows whether
    a call was causal, one in the middle, and the last.

    Args:
        value: (..., kv_heads, keys, value_dim), of the keys that were recorded.
        without: (batch or 1, queries) bool, rows that are left out.
    """
    if call.context is None or call.dropout or not value.numel():
        return None
    with torch.no_grad():
        weights, actual = record.weights, call.context.detach()
        queries, heads = weights.shape[-2], weights.shape[-3]
        rows = torch.tensor(sorted({0, queries // 2, queries - 1}), device=weights.device)
        batch = weights.shape[:-3]
        for item in {tuple(0 for _ in batch), tuple(size - 1 for size in batch)}:
            moved = value[item].to(weights.device, weights.dtype)  # (kv_heads, keys, value_dim)
            picked = weights[(*item, slice(None), rows)]  # (heads, rows, keys)
            grouped = picked.reshape(len(moved), -1, picked.shape[-1])
            ours = (grouped @ moved).reshape(heads, len(rows), -1)
            if call.projection is not None:
                weight, bias = (None if x is None else x.detach().to(ours) for x in call.projection)
                assert weight is not None
                ours = nn.functional.linear(ours.transpose(0, 1).flatten(1), weight, bias)
            theirs = actual[item][..., rows.to(actual.device), :].to(ours)
            if without is not None:
                left = (~without[item[0] if len(without) > 1 else 0, rows]).nonzero().flatten()
                ours, theirs = (x.index_select(-2, left) for x in (ours, theirs))
                if not ours.numel():
                    continue
            # What a row is that sees nothing, zero or NaN, is the kernel's own choice.
            ours, theirs = ours.nan_to_num(), theirs.nan_to_num()
            error, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
            if error > TOLERANCE[call.context.dtype] * max(size, 1e-6):
                return (
                    f"does more than attention as Pellucid knows it: its weights give a context "
                    f"that is off by {error:.1g} where the largest number is {size:.1g}"
                )
    return None

"""Attention a block of rows at a time, in plain torch: any option, O(n) memory.

Each block is whole rows, so it needs no running softmax (compare Rabe & Staats 2021,
"Self-attention Does Not Need O(n^2) Memory"); for gradients it is computed again, not kept.
"""

from functools import partial

import torch
from torch import Tensor

from pellucid.attention.block_pool import each, is_transformed
from pellucid.attention.scores import Block, Scores, pick_columns


def refuse(scores: Scores, value: Tensor, dropout: float) -> str | None:
    if is_transformed():
        return "it writes blocks in place, which the transforms of torch.func (grad, vmap) refuse"
    return None


def forward(scores: Scores, value: Tensor, dropout: float) -> tuple[Tensor, Tensor, str]:
    batch, heads, queries, _ = scores.shape
    context = value.new_zeros(batch, heads, queries, value.shape[-1])
    logsumexp = value.new_full((batch, heads, queries), -torch.inf, dtype=scores.dtype)
    differentiable = torch.is_grad_enabled() and (scores.requires_grad or value.requires_grad)
    part = partial(_block, scores, value, dropout)
    for block, result in each(part, scores.blocks(), value.device, differentiable):
        rows = (block.items, block.heads, block.rows)
        context[rows], logsumexp[rows] = result
    return context, logsumexp, "blockwise"


def _block(scores: Scores, value: Tensor, dropout: float, block: Block) -> tuple[Tensor, Tensor]:
    masked = scores.of_block(block)
    logsumexp = of_rows(masked)
    weights = torch.exp(masked - finite(logsumexp).unsqueeze(-1))
    weights = torch.nn.functional.dropout(weights, dropout)
    values = pick_columns(scores.of_heads(value[block.items], block.heads), block.cols, -2)
    return (weights @ values.to(weights.dtype)).to(value.dtype), logsumexp


def of_rows(masked: Tensor) -> Tensor:
    """The logsumexp of each row, -inf for a fully hidden one, whose gradient is 0 and not NaN."""
    hidden = masked.amax(-1) == -torch.inf
    fill = is_transformed() or hidden.any()  # vmap allows no branch on the data
    filled = masked.masked_fill(hidden.unsqueeze(-1), 0) if fill else masked
    return filled.logsumexp(-1).masked_fill(hidden, -torch.inf)


def finite(logsumexp: Tensor) -> Tensor:
    """The logsumexp to subtract: +inf for a fully hidden row, so that its weights are zero."""
    return logsumexp.masked_fill(logsumexp == -torch.inf, torch.inf)

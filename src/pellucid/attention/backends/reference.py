"""The formula as written, n x n numbers per head: for learning and for checking the others."""

import torch
from torch import Tensor

from pellucid.attention import reference
from pellucid.attention.backends.blockwise import of_rows
from pellucid.attention.scores import Scores


def refuse(scores: Scores, value: Tensor, dropout: float) -> str | None:
    return None


def forward(scores: Scores, value: Tensor, dropout: float) -> tuple[Tensor, Tensor, str]:
    query, key, value_in = (x.to(scores.dtype) for x in (scores.query, scores.key, value))
    visible = None
    if scores.mask is not None:
        positions = [torch.arange(n, device=value.device) for n in scores.shape]
        visible = scores.mask.sees(*torch.meshgrid(*positions, indexing="ij"))
        visible = visible.expand(scores.shape)
        unseen = ~visible.any(2).any(1)[:, None, :, None]  # may hold anything, NaN included
        key, value_in = key.masked_fill(unseen, 0), value_in.masked_fill(unseen, 0)
    stages = reference.stages(
        query,
        key,
        value_in,
        visible,
        bias=scores.bias,
        scale=scores.scale,
        softcap=scores.softcap,
        score=scores.energy.score,
    )
    context = stages.context
    if dropout:
        group = scores.shape[1] // value.shape[1]
        dropped = torch.nn.functional.dropout(stages.weights, dropout)
        context = dropped @ value_in.repeat_interleave(group, 1)
    return context.to(value.dtype), of_rows(stages.masked), "reference"

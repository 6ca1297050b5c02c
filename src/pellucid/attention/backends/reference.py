"""The formula as it is written, n x n numbers a head: for learning and for checking the others."""

import torch
from torch import Tensor

from pellucid.attention import reference
from pellucid.attention.scores import Scores


def refuse(scores: Scores, value: Tensor, dropout: float) -> str | None:
    return None


def forward(scores: Scores, value: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    batch, heads, queries, keys = scores.shape
    visible = None
    if scores.mask is not None:
        item, head, query, key = torch.meshgrid(
            *(torch.arange(n, device=value.device) for n in scores.shape), indexing="ij"
        )
        visible = scores.mask.sees(item, head, query, key)
        seen = visible.expand(scores.shape).any(2).unsqueeze(-1)  # (batch, heads, keys, 1)
    stages = reference.stages(
        scores.query.to(scores.dtype),
        scores.key.to(scores.dtype),
        value.to(scores.dtype),
        visible,
        bias=scores.bias,
        scale=scores.scale,
        softcap=scores.softcap,
        score=scores.energy.score,
    )
    context = stages.context
    if dropout:
        context = torch.nn.functional.dropout(stages.weights, dropout) @ value
    return context.to(value.dtype), stages.masked.logsumexp(-1)

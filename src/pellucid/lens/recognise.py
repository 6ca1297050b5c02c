"""A first, plain version, to be replaced as a whole: a mask tensor to a rule."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attention import masks


@dataclass(frozen=True, eq=False)
class Recognised:
    mask: masks.Mask | None
    bias: Tensor | None
    uniform: Tensor | None


def recognise(given: Tensor, queries: int, keys: int) -> Recognised:
    bias = None
    visible = given
    if given.dtype != torch.bool:
        visible = given > torch.finfo(given.dtype).min / 2
        rest = given.masked_fill(~visible, 0)
        bias = rest if rest.any() else None
    visible = visible.expand(*visible.shape[:-2], queries, keys)
    if visible.all():
        return Recognised(None, bias, None)
    if (visible == torch.ones_like(visible).tril(keys - queries)).all():
        return Recognised(masks.causal(keys - queries), bias, None)
    return Recognised(masks.dense(visible), bias, None)

"""Cross-entropy without the whole matrix of logits."""

from typing import Any

import torch
from torch import Tensor

ROWS = 512
"""Tokens whose logits are in memory at once."""
IGNORED = -1
"""A target without loss."""


def cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """The sum, over tokens, of -log softmax(x @ weight.T + bias)[target].

    It equals `torch.nn.functional.cross_entropy` of the logits with reduction="sum", but only the
    logits of `ROWS` tokens are in memory: the gradients are computed in the forward pass.

    Args:
        x: (tokens, width).
        weight: (vocabulary, width).
        targets: (tokens,) ids, or `IGNORED`.
        bias: (vocabulary,).
        smoothing: label smoothing.

    Returns:
        A scalar, in nats.
    """
    total: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, targets, smoothing, torch.is_grad_enabled()
    )
    return total


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        needs: bool,
    ) -> Tensor:
        # In bfloat16 a long sum would round off its last terms.
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=kind, device=x.device)
        to_x = torch.empty_like(x) if needs else None
        to_weight = torch.zeros_like(weight, dtype=kind) if needs else None
        to_bias = None
        if needs and bias is not None:
            to_bias = torch.zeros_like(bias, dtype=kind)
        vocabulary = len(weight)
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            logits = torch.nn.functional.linear(x[rows], weight, bias)
            logits = logits.to(kind)
            at = torch.arange(len(logits), device=x.device)
            target, counts = targets[rows].clamp_min(0), targets[rows] != IGNORED
            loss = logits[at, target] * (smoothing - 1)
            if smoothing:
                loss -= logits.mean(-1) * smoothing
            # softmax(logits) - target, computed in place
            highest = logits.amax(-1, keepdim=True)
            logits.sub_(highest).exp_()
            each = logits.sum(-1, keepdim=True)
            loss += (highest + each.log()).squeeze(1)
            total += loss[counts].sum()
            if to_x is None or to_weight is None:
                continue
            logits.div_(each)
            if smoothing:
                logits.sub_(smoothing / vocabulary)
            logits[at, target] -= 1 - smoothing
            if not bool(counts.all()):
                logits[~counts] = 0
            change = logits.to(x.dtype)
            torch.mm(change, weight.to(x.dtype), out=to_x[rows])
            if to_weight.dtype == x.dtype:
                to_weight.addmm_(change.T, x[rows])
            else:
                to_weight += change.T @ x[rows]
            if to_bias is not None:
                to_bias += logits.sum(0)
        ctx.save_for_backward(to_x, to_weight, to_bias)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        to_x, to_weight, to_bias = ctx.saved_tensors
        of_weight, of_bias = ctx.dtypes
        return (
            to_x * grad.to(to_x.dtype),
            (to_weight * grad).to(of_weight),
            None if to_bias is None else (to_bias * grad).to(of_bias),
            None,
            None,
            None,
        )

"""Attention rollout: how much each input token contributes to each output, through all layers."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.attention import AttentionWeights
from pellucid.attention.block_pool import each
from pellucid.attention.limits import DENSE_LIMIT, readable_bytes
from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.errors import ArgumentError, TooLargeError
from pellucid.lens.layer_selection import Layers, select_records
from pellucid.lens.module_names import stack
from pellucid.lens.query_positions import Queries, query_positions
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording
from pellucid.lens.unseen import unseen_note

__all__ = ["rollout"]

Fusion = Literal["mean", "max", "min"]

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda block: block.mean(-3),
    "max": lambda block: block.amax(-3),
    "min": lambda block: block.amin(-3),
}
FEW_QUERIES = 32
"""Up to this many queries, one streamed product per head is cheaper than fusing the heads first."""


def rollout(
    seen: Recording | Record | Iterable[Record],
    queries: int | Queries = None,
    *,
    heads: Fusion = "mean",
    residual: float = 0.5,
    layers: Layers | None = None,
    limit: int | None = DENSE_LIMIT,
) -> Tensor:
    """How much each input token contributes to chosen positions of the last layer's output.

        mixed_l = (1 - residual) * fused over heads(A_l) + residual * I
        A'_l    = mixed_l, each row divided by its sum
        rollout = the chosen rows of A'_L ... A'_2 A'_1

    A_l are the weights of layer l, and I stands for the residual connection, which passes each
    position to itself. A row that sees no key passes on its residual alone. Rows sum to 1, except
    that a row that sees no key is 0 if residual is 0.

    The product is formed from the last layer to the first, in O(keys) memory for each chosen query
    and one pass over each layer's weights. Differentiable if the weights are.

    Args:
        seen: a recording, of which the latest record of each module is used, without
            cross-attention and without layers that are not square; or the records of a chain, one
            per layer in call order.
        queries: positions of the output, an int, a slice or several ints, from the end if negative;
            None = all, n x n numbers.
        heads: how the heads of a layer are fused: "mean", "max" or "min".
        residual: the share of the residual connection, from 0 to 1.
        layers: layer numbers, module names or patterns of names. For an encoder-decoder they select
            the stack, such as "encoder.*".
        limit: the most bytes that the result may take; None = no limit.

    Returns:
        (..., chosen queries, keys), in the dtype of the weights.

    Raises:
        ArgumentError: the records do not form a chain, `heads` is unknown, or residual is outside
            0 to 1.
        OutOfRangeError: a query past the end.
        TooLargeError: the result would take more than `limit` bytes; the message says how much.
        TypeMismatchError: seen is neither a recording nor records.
        UnknownNameError: `layers` matches no record.

    Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3
    (residual 0.5, the mean over heads); "max" and "min" are common variants for vision models.
    """
    if heads not in FUSIONS:
        raise ArgumentError(f"heads must be 'mean', 'max' or 'min', got {heads!r}")
    if not 0 <= residual <= 1:
        raise ArgumentError(f"residual must be from 0 to 1, got {residual}")
    chain = chain_of(seen, layers)
    last = chain[-1].weights
    size = last.shape[-1]
    positions = query_positions(queries, size)
    if not len(positions):
        raise ArgumentError(f"queries must contain at least one of {size}, got {queries}")
    shape = (*last.shape[:-3], len(positions), size)
    needed = math.prod(shape) * last.dtype.itemsize
    if limit is not None and needed > limit:
        raise TooLargeError(
            f"a rollout of shape {shape} needs {readable_bytes(needed)}, above the limit of "
            f"{readable_bytes(limit)}; choose fewer queries, or pass limit=None"
        )
    flow = torch.zeros(len(positions), size, dtype=last.dtype)
    flow[torch.arange(len(positions)), positions] = 1
    flow = flow.expand(shape)
    for record in reversed(chain):
        weights = record.weights
        flow = through(weights, flow.to(weights.device, weights.dtype), heads, residual)
    return flow


def chain_of(seen: Recording | Record | Iterable[Record], layers: Layers | None) -> list[Record]:
    """The records of one stack, first layer first.

    Raises:
        ArgumentError, TypeMismatchError, UnknownNameError: as `rollout`.
    """
    is_chain = not isinstance(seen, Recording)
    seen = as_recording(seen)
    records = seen.records if is_chain else seen.latest()
    square = [x for x in records if not x.is_cross and x.shape[-2] == x.shape[-1]]
    note = unseen_note(seen.unseen, cross=False)
    if not square:
        shapes = ", ".join(f"{x.name} {tuple(x.shape)}" for x in records[:5]) or "nothing"
        raise ArgumentError(
            "rollout needs self-attention with as many queries as keys, recorded from the first "
            f"token on; recorded: {shapes}{note}"
        )
    chain = select_records(square, layers, note)
    kinds = {(stack(x.name), *x.shape[:-3], *x.shape[-2:]): x for x in reversed(chain)}
    stacks = dict.fromkeys(stack(x.name) for x in chain)
    if len({kind[1:] for kind in kinds}) > 1 or (not is_chain and len(stacks) > 1):
        shapes = ", ".join(f"{x.name} {tuple(x.shape)}" for x in reversed(kinds.values()))
        raise ArgumentError(
            f"the records do not form a chain: {shapes}; select one stack with layers=, such as "
            f"'{next(iter(stacks))}*'"
        )
    if not is_chain:
        _refuse_repeated(seen, chain)
    return chain


def _refuse_repeated(seen: Recording, chain: list[Record]) -> None:
    """Refuse a module that ran twice in a row: layers may share it, or the model was run twice."""
    for before, record in pairwise(seen.records):
        if record.name == before.name and any(record is x for x in chain):
            raise ArgumentError(
                f"'{record.name}' was recorded several times in a row: pass the records of the "
                "layers, in call order, instead of the recording: rollout(seen.records)"
            )


def through(weights: AttentionWeights, flow: Tensor, heads: Fusion, residual: float) -> Tensor:
    """flow @ A' of one layer, (..., m, keys), for a flow of (..., m, queries)."""
    # Under a causal mask nothing flows to later queries: their rows are not computed.
    used = (flow != 0).flatten(0, -2).any(0).nonzero()
    if not used.numel():
        return flow
    span = slice(int(used[0]), int(used[-1]) + 1)
    if heads == "mean" and flow.shape[-2] <= FEW_QUERIES:
        return _by_products(weights, flow, span, residual)
    return _by_blocks(weights, flow, span, heads, residual)


def _by_products(weights: AttentionWeights, flow: Tensor, span: slice, residual: float) -> Tensor:
    """Divide by the row sums first and fuse after the product, as the mean over heads is linear."""
    part = weights if span == slice(0, weights.shape[-2]) else weights.rows(span)
    ones = torch.ones(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    sums = (1 - residual) * (part @ ones).mean(-2) + residual  # (..., rows)
    share = flow[..., span] / nonzero(sums).unsqueeze(-2)
    attended = (share.unsqueeze(-3) @ part).mean(-3)  # (..., m, keys)
    before, after = span.start, weights.shape[-1] - span.stop
    return (1 - residual) * attended + residual * nn.functional.pad(share, (before, after))


def _by_blocks(
    weights: AttentionWeights, flow: Tensor, span: slice, heads: Fusion, residual: float
) -> Tensor:
    """Fuse the heads of a block of rows, normalise the rows, and add what flows through them."""
    fuse = FUSIONS[heads]
    step = max(1, BLOCK_NUMBERS // (math.prod(weights.shape[:-2]) * weights.shape[-1]))
    starts = range(span.start, span.stop, step)
    blocks = [slice(start, min(start + step, span.stop)) for start in starts]
    weights.logsumexp  # noqa: B018  computed once, before threads share the blocks

    def of_rows(rows: slice) -> tuple[slice, Tensor]:
        cols = _reach(weights, rows)
        block = (1 - residual) * fuse(weights[..., rows, cols])  # (..., rows, cols)
        block.diagonal(rows.start - cols.start, -2, -1).add_(residual)
        block = block / nonzero(block.sum(-1, keepdim=True))
        return cols, flow[..., rows] @ block

    differentiable = torch.is_grad_enabled() and (
        flow.requires_grad or weights.logsumexp.requires_grad
    )
    total = torch.zeros_like(flow)
    for _, (cols, piece) in each(of_rows, blocks, weights.device, differentiable):
        total[..., cols] += piece
    return total


def _reach(weights: AttentionWeights, rows: slice) -> slice:
    """From the first to the last key that any of the rows sees, their own positions included."""
    mask, keys = weights.mask, weights.shape[-1]
    if mask is None:
        return slice(0, keys)
    items = [mask] if mask.batch is None else [mask.at(item) for item in range(mask.batch)]
    spans = [span for item in items for span in item.spans(rows.start, rows.stop, keys).some]
    starts, stops = zip((rows.start, rows.stop), *spans, strict=True)
    return slice(min(starts), max(stops))


def nonzero(sums: Tensor) -> Tensor:
    """The sums, with 1 in place of 0, so that rows of zeros can be divided by them."""
    return sums.masked_fill(sums == 0, 1)

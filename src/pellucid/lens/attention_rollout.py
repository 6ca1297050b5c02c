"""Attention rollout: how much of each input token is in each output, through all layers."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights, indexing
from pellucid.attention.block_pool import each
from pellucid.attention.limits import DENSE_LIMIT, readable_bytes
from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.errors import ArgumentError, OutOfRangeError, TooLargeError
from pellucid.lens import module_selection, record_selection
from pellucid.lens.alignment import choose, why_unseen
from pellucid.lens.module_selection import Layers
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording

__all__ = ["rollout"]

Fusion = Literal["mean", "max", "min"]

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda block: block.mean(-3),
    "max": lambda block: block.amax(-3),
    "min": lambda block: block.amin(-3),
}
FEW_QUERIES = 32
"""Up to so many go through all heads in one streamed product; for more it is cheaper to fuse the
heads first, a block of rows at a time."""


def rollout(
    seen: Recording | Record | Iterable[Record],
    queries: int | slice | Sequence[int] | Tensor | None = None,
    *,
    heads: Fusion = "mean",
    residual: float = 0.5,
    layers: Layers | None = None,
    limit: int | None = DENSE_LIMIT,
) -> Tensor:
    """How much of each input token reaches each chosen position of the last layer's output.

        mixed_l = (1 - residual) * fused over heads(A_l) + residual * I
        A'_l    = mixed_l, each row divided by its sum
        rollout = the chosen rows of A'_L ... A'_2 A'_1

    A_l are the weights of layer l and I stands for the residual connection, which hands each
    position on to itself. A row that sees nothing (a query hidden from every key) is handed on by
    the residual alone. Rows sum to one, but for rows of zeros where residual is 0 and nothing is
    seen.

    The product is formed from the last layer to the first, so it takes O(keys) memory for each
    chosen query, and one pass over each layer's weights. Differentiable as the weights are.

    Args:
        seen: a recording, of which the latest record of each module is taken, those of
            cross-attention and of layers that are not square left out; or the records of a chain
            themselves, one a layer in call order.
        queries: positions of the output, an int, a slice or several ints, from the end where
            negative; None = all, n x n numbers.
        heads: how the heads of a layer become one, their "mean", "max" or "min".
        residual: the share of the residual connection, from 0 to 1.
        layers: layer numbers, names of modules or patterns of names. Of an encoder-decoder they
            choose the stack, as "encoder.*" does.
        limit: bytes that the answer may take; None = no limit.

    Returns:
        (..., chosen queries, keys), in the dtype of the weights.

    Raises:
        ArgumentError: the records do not chain, an unknown `heads`, or a residual outside 0 to 1.
        OutOfRangeError: a query past the end.
        TooLargeError: the answer would take more than the limit, and how much.
        TypeMismatchError: seen is neither a recording nor records.
        UnknownNameError: `layers` asks for what was not recorded.

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
    places = _places(queries, size)
    shape = (*last.shape[:-3], len(places), size)
    needed = math.prod(shape) * last.dtype.itemsize
    if limit is not None and needed > limit:
        raise TooLargeError(
            f"a rollout of shape {shape} needs {readable_bytes(needed)}, above the limit of "
            f"{readable_bytes(limit)}; choose fewer queries, or pass limit=None"
        )
    flow = torch.zeros(len(places), size, dtype=last.dtype)
    flow[torch.arange(len(places)), places] = 1
    flow = flow.expand(shape)
    for record in reversed(chain):
        weights = record.weights
        flow = through(weights, flow.to(weights.device, weights.dtype), heads, residual)
    return flow


def chain_of(seen: Recording | Record | Iterable[Record], layers: Layers | None) -> list[Record]:
    """The records of one stack, first layer first."""
    given = _given(seen)
    square = [x for x in given if not x.is_cross and x.shape[-2] == x.shape[-1]]
    if not square:
        found = ", ".join(f"{x.name} {tuple(x.shape)}" for x in given[:5]) or "nothing"
        raise ArgumentError(
            "rollout needs self-attention of as many queries as keys, recorded from the first "
            f"token on; recorded: {found}"
            + (why_unseen(seen, cross=False) if isinstance(seen, Recording) else "")
        )
    if isinstance(seen, Recording):
        chain = choose(seen, square, layers, cross=False)
    else:
        chain = record_selection.chosen(square, layers)
    kinds = {
        (module_selection.stack(x.name), *x.shape[:-3], *x.shape[-2:]): x for x in reversed(chain)
    }
    stacks = dict.fromkeys(module_selection.stack(x.name) for x in chain)
    fit = len({kind[1:] for kind in kinds}) == 1
    if not fit or (isinstance(seen, Recording) and len(stacks) > 1):
        found = ", ".join(f"{x.name} {tuple(x.shape)}" for x in reversed(kinds.values()))
        raise ArgumentError(
            f"the records do not chain: {found}; choose one stack by layers=, such as "
            f"'{next(iter(stacks))}*'"
        )
    if isinstance(seen, Recording):
        _refuse_repeated(seen, chain)
    return chain


def _given(seen: Recording | Record | Iterable[Record]) -> list[Record]:
    return seen.latest() if isinstance(seen, Recording) else as_recording(seen).records


def _refuse_repeated(seen: Recording, chain: list[Record]) -> None:
    """One module twice in a row is one that all layers share, or a model of one layer run twice."""
    everything = seen.records
    for before, record in pairwise(everything):
        if record.name == before.name and any(record is x for x in chain):
            raise ArgumentError(
                f"'{record.name}' was recorded several times in a row: give the records of the "
                "layers, in call order, in place of the recording, as rollout(seen.records)"
            )


def _places(queries: int | slice | Sequence[int] | Tensor | None, size: int) -> Tensor:
    if queries is None:
        return torch.arange(size)
    if isinstance(queries, slice):
        places = torch.arange(size)[queries]
    else:
        places = indexing.as_positions("queries", queries).cpu().reshape(-1)
    if not places.numel():
        raise ArgumentError(f"queries must choose at least one of {size}, got {queries}")
    if not -size <= int(places.min()) <= int(places.max()) < size:
        raise OutOfRangeError(f"queries must be from {-size} to {size - 1}, got {queries}")
    return places % size


def through(weights: AttentionWeights, flow: Tensor, heads: Fusion, residual: float) -> Tensor:
    """flow @ A' of one layer: (..., m, keys) from flow (..., m, queries)."""
    # Under a causal mask nothing flows to later queries, and these rows need not be computed.
    used = (flow != 0).flatten(0, -2).any(0).nonzero()
    if not used.numel():
        return flow
    span = slice(int(used[0]), int(used[-1]) + 1)
    if heads == "mean" and flow.shape[-2] <= FEW_QUERIES:
        return _by_products(weights, flow, span, residual)
    return _by_blocks(weights, flow, span, heads, residual)


def _by_products(weights: AttentionWeights, flow: Tensor, span: slice, residual: float) -> Tensor:
    """The mean over heads is linear: divide by the sums of the rows first, and multiply then."""
    part = weights if span == slice(0, weights.shape[-2]) else weights.rows(span)
    ones = torch.ones(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    sums = (1 - residual) * (part @ ones).mean(-2) + residual  # (..., rows)
    share = flow[..., span] / nonzero(sums).unsqueeze(-2)
    attended = (share.unsqueeze(-3) @ part).mean(-3)  # (..., m, keys)
    before, after = span.start, weights.shape[-1] - span.stop
    kept = torch.nn.functional.pad(share, (before, after))
    return (1 - residual) * attended + residual * kept


def _by_blocks(
    weights: AttentionWeights, flow: Tensor, span: slice, heads: Fusion, residual: float
) -> Tensor:
    """Fuse the heads of some rows at a time, make each sum to one, and add what flows through."""
    fuse = FUSIONS[heads]
    step = max(1, BLOCK_NUMBERS // (math.prod(weights.shape[:-2]) * weights.shape[-1]))
    starts = range(span.start, span.stop, step)
    blocks = [slice(start, min(start + step, span.stop)) for start in starts]
    weights.logsumexp  # noqa: B018  found once, before the blocks are shared out

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
    """From the first to the last key that any of the rows may see, their own places included."""
    mask, keys = weights.mask, weights.shape[-1]
    if mask is None:
        return slice(0, keys)
    items = [mask] if mask.batch is None else [mask.at(item) for item in range(mask.batch)]
    spans = [span for item in items for span in item.spans(rows.start, rows.stop, keys).some]
    starts, stops = zip((rows.start, rows.stop), *spans, strict=True)
    return slice(min(starts), max(stops))


def nonzero(sums: Tensor) -> Tensor:
    """Ones for the sums of rows of zeros, which stay zero when they are divided by it."""
    return sums.masked_fill(sums == 0, 1)

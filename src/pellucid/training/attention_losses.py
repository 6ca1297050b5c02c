"""Losses on attention weights: entropy, guided alignment and diagonality.

    with pellucid.watch(model) as seen:
        loss = ...  # the model's own loss
    loss = loss + 0.05 * guided_loss(seen["decoder.blocks.1.cross"], alignments, heads=0)

They use the lazy weights and never form the matrix, so a loss and its gradient take memory that is
linear in the number of tokens, like the attention itself.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.indexing import as_positions
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError

__all__ = ["diagonal_loss", "end_to_end", "entropy_loss", "guided_loss"]

Heads = int | Sequence[int] | None
Reduction = Literal["mean", "sum"]


def entropy_loss(
    weights: AttentionWeights,
    *,
    heads: Heads = None,
    target: float | None = None,
    queries: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The entropy of each attention row in nats, or its squared distance from a target.

        entropy = -sum(weights * ln(weights))      over the keys; 0 for one key, ln(n) if uniform
        loss    = entropy                          without a target: heads learn to focus
        loss    = (entropy - target)**2            with a target

    With a negative coefficient, the first makes attention more uniform.

    Args:
        weights: (..., heads, queries, keys).
        heads: the heads to include; all by default.
        target: in nats.
        queries: the queries to include, such as those without padding: bool that broadcasts to
            (..., heads, queries); all by default. Queries without visible keys are never included.
        reduction: over queries, "mean" or, for an `Objective`, "sum"; over heads, always the mean.

    Returns:
        A scalar; 0 if no query is included.

    Raises:
        ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError: an argument does not fit the
            weights.
    """
    chosen = _heads(heads, weights)
    each = weights.entropy()[..., chosen, :]
    counts = weights.logsumexp.detach()[..., chosen, :] > -torch.inf
    if target is not None:
        if isinstance(target, bool) or not isinstance(target, int | float):
            raise TypeMismatchError(f"target must be a number of nats, got {target!r}")
        each = (each - target) ** 2
    if queries is not None:
        counts = counts & _chosen_queries(queries, weights)[..., chosen, :]
    return _reduced(each.where(counts, 0), int(counts.sum()), len(chosen), reduction)


def guided_loss(
    weights: AttentionWeights,
    alignments: Tensor,
    *,
    heads: Heads = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of attention with given alignments, which supervises where heads attend.

        loss = -sum(G[m, n] * ln(weights[m, n]))   over the keys n, for each query m

    G is uniform over the keys aligned to a query; queries without alignments have no loss.
    ln(weight) is computed as the score minus the logsumexp, at the aligned cells only, so it is
    finite however small the weight.

    Row i of a decoder reads token i and predicts token i + 1. Since targets are shifted by one in
    training, row i predicts word i of the target.

    Args:
        weights: (..., heads, queries, keys).
        alignments: links as ints, in any order: (links, 2), query and key; or, for a batch,
            (links, 3), item, query and key. `end_to_end` makes them for packed texts.
        heads: the heads to guide, each separately; all by default. Garg et al. guide one head of
            the penultimate layer only.
        reduction: over aligned queries, "mean" or "sum"; over heads, always the mean. The sum
            divided by the number of targets, as in `Objective`, is the equation of Garg et al.

    Returns:
        A scalar in nats; 0 without alignments.

    Raises:
        ArgumentError: a link is to a masked key, or the reduction is unknown.
        OutOfRangeError: a link or head does not exist.
        ShapeError: alignments has another shape.
        TypeMismatchError: alignments or heads is not of ints.

    Source: Liu et al. 2016, "Neural Machine Translation with Supervised Attention"; Garg et al.
    2019, "Jointly Learning to Align and Translate with Transformer Models", the alignment loss.
    """
    chosen = _heads(heads, weights)
    *items, rows, keys = _links(alignments, weights)
    head = torch.tensor(chosen, device=weights.device)
    cells = (*(x[:, None] for x in items), head, rows[:, None])  # (links, heads)
    masked = weights.masked[(*cells, keys[:, None])]
    _refuse_hidden(masked, rows, keys)
    total = weights.logsumexp[cells]
    query = torch.zeros_like(rows)  # the number of each link's query among those of all items
    for size, at in zip(weights.shape[:-3], items, strict=True):
        query = query * size + at
    query = query * weights.shape[-2] + rows
    links = query.bincount()
    share = 1 / links[query].to(weights.dtype)
    each = (total - masked) * share[:, None]  # (links, heads)
    return _reduced(each, int((links > 0).sum()) * len(chosen), len(chosen), reduction)


def diagonal_loss(
    weights: AttentionWeights,
    *,
    heads: Heads = None,
    width: float = 0.2,
    queries_at: Tensor | None = None,
    keys_at: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The attention mass off the diagonal, for monotonic alignments such as those of speech.

        loss = sum(weights[m, n] * (1 - exp(-(q[m] - k[n])**2 / (2 * width**2))))   over the keys

    The Gaussian is expanded into a Fourier series in q - k, and each term factors into functions
    of q and k. So the loss is one product of the weights with 24 columns in float32 (more for a
    narrower Gaussian), exact to rounding.

    Args:
        weights: (..., heads, queries, keys).
        heads: the heads to guide; all by default.
        width: of the diagonal, as a fraction of the text.
        queries_at: q, the relative position of each query in its text, floats (queries,) or
            (..., queries) from 0 to 1; m / queries by default.
        keys_at: k, likewise, (keys,) or (..., keys).
        reduction: over queries with visible keys, "mean" or "sum"; over heads, always the mean.

    Returns:
        A scalar, from 0 to 1 with "mean".

    Raises:
        ArgumentError: width is not above 0, or a position is outside 0 to 1.
        OutOfRangeError, ShapeError, TypeMismatchError: an argument does not fit the weights.

    Source: Tachibana et al. 2018, "Efficiently Trainable Text-to-Speech System Based on Deep
    Convolutional Networks with Guided Attention", whose loss is the mean over all cells.
    """
    if not width > 0:
        raise ArgumentError(f"width must be above 0, got {width}")
    chosen = _heads(heads, weights)
    left = _relative_positions("queries_at", queries_at, weights, weights.shape[-2])
    right = _relative_positions("keys_at", keys_at, weights, weights.shape[-1])
    # exp(-d**2 / (2 width**2)) for |d| <= 1, with a period beyond which it is below rounding.
    reach = math.sqrt(-2 * math.log(torch.finfo(weights.dtype).eps / 8))
    period = 1 + width * reach
    count = math.ceil(period / (2 * math.pi * width) * reach)
    waves = torch.arange(count + 1, device=weights.device, dtype=weights.dtype)
    pitch = 2 * math.pi / period * waves
    height = 2 * width * math.sqrt(2 * math.pi) / period * torch.exp(-((pitch * width) ** 2) / 2)
    height[0] /= 2
    q, k = left[..., None] * pitch, right[..., None] * pitch
    columns = torch.cat([k.cos(), k.sin()], -1)
    # The heads of an item share its positions.
    columns = columns.unsqueeze(-3) if columns.ndim > 2 else columns
    products = (weights @ columns)[..., chosen, :, :]
    rows = torch.cat([q.cos() * height, q.sin() * height], -1)
    rows = rows.unsqueeze(-3) if rows.ndim > 2 else rows
    each = products[..., 0] - (products * rows).sum(-1)
    seen = int((products[..., 0].detach() > 0).sum())
    return _reduced(each, seen, len(chosen), reduction)


def end_to_end(alignments: Sequence[Tensor], queries: Sequence[int], keys: Sequence[int]) -> Tensor:
    """The alignments of packed texts, as an `Objective` packs them: ints (links, 2).

    Args:
        alignments: one tensor of ints (links, 2) per text, with query and key relative to its
            start.
        queries: the number of queries of each text.
        keys: the number of keys of each text.

    Raises:
        OutOfRangeError: a link is outside its text.
        ShapeError: alignments has another shape, or the arguments differ in length.
        TypeMismatchError: alignments is not of ints.
    """
    if not len(alignments) == len(queries) == len(keys):
        raise ShapeError(
            f"alignments has {len(alignments)} texts, queries {len(queries)} and keys {len(keys)}; "
            "they must be as many"
        )
    sizes = [(int(q), int(k)) for q, k in zip(queries, keys, strict=True)]
    starts = accumulate(sizes, lambda a, b: (a[0] + b[0], a[1] + b[1]), initial=(0, 0))
    packed = [torch.empty(0, 2, dtype=torch.int64)]
    for links, size, start in zip(alignments, sizes, starts, strict=False):
        packed.append(_checked(links, size, ("query", "key")) + torch.tensor(start))
    return torch.cat(packed)


def _reduced(each: Tensor, count: int, heads: int, reduction: str) -> Tensor:
    """The mean over `count` rows, or the sum over queries and the mean over heads."""
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    return each.sum() / (max(1, count) if reduction == "mean" else heads)


def _heads(given: Heads, weights: AttentionWeights) -> list[int]:
    if not isinstance(weights, AttentionWeights):
        raise TypeMismatchError(
            f"weights must be AttentionWeights, as watch records them, got {type(weights).__name__}"
        )
    size = weights.shape[-3]
    if given is None:
        return list(range(size))
    chosen = as_positions("heads", given).flatten().tolist()
    if not chosen:
        raise ArgumentError("heads must name at least one head")
    for head in chosen:
        if not -size <= head < size:
            raise OutOfRangeError(f"there is no head {head}: the weights have {size} heads")
    return [head % size for head in chosen]


def _chosen_queries(given: Tensor, weights: AttentionWeights) -> Tensor:
    shape = weights.shape[:-1]
    if not isinstance(given, Tensor) or given.dtype != torch.bool:
        kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeMismatchError(f"queries must be a bool tensor, got {kind}")
    try:
        return given.to(weights.device).expand(shape)
    except RuntimeError:
        raise ShapeError(
            f"queries must broadcast to {tuple(shape)}, got {tuple(given.shape)}"
        ) from None


def _links(alignments: Tensor, weights: AttentionWeights) -> list[Tensor]:
    """The columns of the alignments, one for each axis of the weights but that of the heads."""
    sizes = (*weights.shape[:-3], *weights.shape[-2:])
    names = (*("item",) * (len(sizes) - 2), "query", "key")
    links = as_positions("alignments", alignments)
    if links.ndim == 2 and links.shape[1] == 2 and math.prod(sizes[:-2]) == 1:
        links = torch.nn.functional.pad(links, (len(sizes) - 2, 0))  # the only item
    elif links.numel() == 0:
        links = links.new_empty(0, len(sizes))
    return list(_checked(links, sizes, names).to(weights.device).unbind(1))


def _checked(alignments: Any, sizes: Sequence[int], names: Sequence[str]) -> Tensor:
    """(links, columns) int64, all of them places that there are."""
    links = as_positions("alignments", alignments)
    if links.numel() == 0:
        return links.new_empty(0, len(sizes))
    if links.ndim != 2 or links.shape[1] != len(sizes):
        raise ShapeError(
            f"alignments must be (links, {len(sizes)}), {', '.join(names)}; got "
            f"{tuple(links.shape)}"
        )
    wrong = (links < 0) | (links >= torch.tensor(sizes, device=links.device))
    if bool(wrong.any()):
        link, column = wrong.nonzero()[0].tolist()
        raise OutOfRangeError(
            f"alignments has {names[column]} {int(links[link, column])}, but there are "
            f"{sizes[column]}"
        )
    return links


def _refuse_hidden(masked: Tensor, rows: Tensor, keys: Tensor) -> None:
    hidden = (masked.detach() == -torch.inf).any(-1)
    if bool(hidden.any()):
        link = int(hidden.nonzero()[0])
        raise ArgumentError(
            f"alignments has query {int(rows[link])} and key {int(keys[link])}, which the mask "
            "hides from it"
        )


def _relative_positions(
    name: str, given: Tensor | None, weights: AttentionWeights, size: int
) -> Tensor:
    if given is None:
        return torch.arange(size, device=weights.device, dtype=weights.dtype) / size
    if not isinstance(given, Tensor) or not given.is_floating_point():
        raise TypeMismatchError(f"{name} must be a float tensor, from 0 to 1")
    if given.shape[-1:] != (size,) or given.shape[:-1] not in (weights.shape[:-3], ()):
        raise ShapeError(
            f"{name} must be ({size},) or ({', '.join(map(str, (*weights.shape[:-3], size)))}), "
            f"got {tuple(given.shape)}"
        )
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise ArgumentError(f"{name} must be from 0 to 1")
    return given.to(weights.device, weights.dtype)

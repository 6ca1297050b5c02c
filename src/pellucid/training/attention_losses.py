"""Losses on attention: how widely heads look, and at what.

    with pellucid.watch(model) as seen:
        loss = ...  # of what the model says
    loss = loss + 0.05 * guided_loss(seen["decoder.blocks.1.cross"], alignments, heads=0)

They read the lazy weights and never form the matrix, so that a loss and its gradient take memory
that grows with the number of tokens, like the attention itself.
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
    """How widely heads look: the entropy of each row, in nats, or how far it is from a target.

        entropy = -sum(weights * ln(weights))      over the keys; 0 at one key, ln(n) over n alike
        loss    = entropy                          without a target: heads learn to look at little
        loss    = (entropy - target)**2            with one

    Times a number below 0, the first makes heads look widely.

    Args:
        weights: (..., heads, queries, keys).
        heads: which to count; all unless given.
        target: nats.
        queries: bool that broadcasts to (..., heads, queries), those to count, as what is no
            padding; all unless given. Queries that see nothing never count.
        reduction: over heads the mean; over queries the "mean", or the "sum", as `Objective` wants.

    Returns:
        One number; 0 where no query counts.

    Raises:
        ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError: what does not fit the
            weights, or is no such thing.
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
    """Cross-entropy of attention and given alignments: heads learn to look where they are told.

        loss = -sum(G[m, n] * ln(weights[m, n]))   over the keys n, for each query m

    G shares one evenly among the keys that are aligned to a query; queries without any have no
    loss. ln(weight) is the score less the logsumexp, at the aligned cells alone: finite however
    small the weight.

    A decoder's row i has read token i and writes token i + 1: as targets in training are shifted by
    one, word i of a target is what row i writes.

    Args:
        weights: (..., heads, queries, keys).
        alignments: ints (links, 2), a query and a key that belong together, in any order; or with
            what stands before, (links, 3), item, query and key, of a batch. `end_to_end` makes them
            for texts that lie end to end in one row.
        heads: which to guide, each by itself; all unless given. Garg et al. guide one head of the
            last layer but one, and leave the others free.
        reduction: over heads the mean; over aligned queries the "mean", or the "sum": divided by
            the number of all targets, as `Objective` is, that is the equation of Garg et al.

    Returns:
        One number, in nats; 0 without alignments.

    Raises:
        ArgumentError: a link to a key that the mask hides; or a reduction that is none.
        OutOfRangeError: a link to what is not there, or a head that is not there.
        ShapeError: alignments of another shape.
        TypeMismatchError: alignments or heads that are no ints.

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
    """The weight that lies off the diagonal: for texts that go side by side, as speech does.

        loss = sum(weights[m, n] * (1 - exp(-(q[m] - k[n])**2 / (2 * width**2))))   over the keys

    The bell is a sum of waves in q - k, and each wave a product of one of q and one of k. So the
    whole is one product of the weights with 24 columns in float32 (more for a narrower bell), exact
    to rounding.

    Args:
        weights: (..., heads, queries, keys).
        heads: which to guide; all unless given.
        width: of the diagonal, where both texts have length 1.
        queries_at: floats (queries,) or (..., queries), q: where each stands in its text, from
            0 to 1; m / queries unless given.
        keys_at: (keys,) or (..., keys), k.
        reduction: over heads the mean; over queries that see something the "mean", or the
            "sum".

    Returns:
        One number, from 0 to 1 with the mean.

    Raises:
        ArgumentError: a width that is not above 0, or a place outside 0 to 1.
        OutOfRangeError, ShapeError, TypeMismatchError: what does not fit the weights.

    Source: Tachibana et al. 2018, "Efficiently Trainable Text-to-Speech System Based on Deep
    Convolutional Networks with Guided Attention", whose loss is the mean over all cells.
    """
    if not width > 0:
        raise ArgumentError(f"width must be above 0, got {width}")
    chosen = _heads(heads, weights)
    left = _places("queries_at", queries_at, weights, weights.shape[-2])
    right = _places("keys_at", keys_at, weights, weights.shape[-1])
    # exp(-d**2 / (2 width**2)) for |d| <= 1, repeated at a distance where nothing of it is left.
    reach = math.sqrt(-2 * math.log(torch.finfo(weights.dtype).eps / 8))
    period = 1 + width * reach
    count = math.ceil(period / (2 * math.pi * width) * reach)
    waves = torch.arange(count + 1, device=weights.device, dtype=weights.dtype)
    pitch = 2 * math.pi / period * waves
    height = 2 * width * math.sqrt(2 * math.pi) / period * torch.exp(-((pitch * width) ** 2) / 2)
    height[0] /= 2
    q, k = left[..., None] * pitch, right[..., None] * pitch
    columns = torch.cat([k.cos(), k.sin()], -1)
    # An item's heads share its places.
    columns = columns.unsqueeze(-3) if columns.ndim > 2 else columns
    products = (weights @ columns)[..., chosen, :, :]
    rows = torch.cat([q.cos() * height, q.sin() * height], -1)
    rows = rows.unsqueeze(-3) if rows.ndim > 2 else rows
    each = products[..., 0] - (products * rows).sum(-1)
    seen = int((products[..., 0].detach() > 0).sum())
    return _reduced(each, seen, len(chosen), reduction)


def end_to_end(alignments: Sequence[Tensor], queries: Sequence[int], keys: Sequence[int]) -> Tensor:
    """Alignments of texts that lie end to end, as an `Objective` packs them: ints (links, 2).

    Args:
        alignments: of each text, ints (its links, 2), query and key counted from its own start.
        queries: how many each text has.
        keys: how many each text has.

    Raises:
        OutOfRangeError: a link that leaves its text.
        ShapeError: alignments of another shape, or lengths that are not as many.
        TypeMismatchError: alignments that are no ints.
    """
    if not len(alignments) == len(queries) == len(keys):
        raise ShapeError(
            f"alignments are of {len(alignments)} texts, but there are {len(queries)} of queries "
            f"and {len(keys)} of keys"
        )
    sizes = [(int(q), int(k)) for q, k in zip(queries, keys, strict=True)]
    starts = accumulate(sizes, lambda a, b: (a[0] + b[0], a[1] + b[1]), initial=(0, 0))
    made = [torch.empty(0, 2, dtype=torch.int64)]
    for links, size, start in zip(alignments, sizes, starts, strict=False):
        made.append(_checked(links, size, ("query", "key")) + torch.tensor(start))
    return torch.cat(made)


def _reduced(each: Tensor, count: int, heads: int, reduction: str) -> Tensor:
    """What `count` rows of heads say together; of a sum, the mean over the heads."""
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    return each.sum() / (max(1, count) if reduction == "mean" else heads)


def _heads(given: Heads, weights: AttentionWeights) -> list[int]:
    if not isinstance(weights, AttentionWeights):
        raise TypeMismatchError(
            f"weights must be AttentionWeights, as watch records, got {type(weights).__name__}"
        )
    size = weights.shape[-3]
    if given is None:
        return list(range(size))
    chosen = as_positions("heads", given).flatten().tolist()
    if not chosen:
        raise ArgumentError("heads must choose at least one")
    for head in chosen:
        if not -size <= head < size:
            raise OutOfRangeError(f"there is no head {head}: these weights have {size}")
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
    places = as_positions("alignments", alignments)
    if places.ndim == 2 and places.shape[1] == 2 and math.prod(sizes[:-2]) == 1:
        places = torch.nn.functional.pad(places, (len(sizes) - 2, 0))  # the only item
    elif places.numel() == 0:
        places = places.new_empty(0, len(sizes))
    return list(_checked(places, sizes, names).to(weights.device).unbind(1))


def _checked(alignments: Any, sizes: Sequence[int], names: Sequence[str]) -> Tensor:
    """(links, columns) int64, all of them places that there are."""
    places = as_positions("alignments", alignments)
    if places.numel() == 0:
        return places.new_empty(0, len(sizes))
    if places.ndim != 2 or places.shape[1] != len(sizes):
        raise ShapeError(
            f"alignments must be (links, {len(sizes)}), {', '.join(names)}; got "
            f"{tuple(places.shape)}"
        )
    wrong = (places < 0) | (places >= torch.tensor(sizes, device=places.device))
    if bool(wrong.any()):
        link, column = wrong.nonzero()[0].tolist()
        raise OutOfRangeError(
            f"alignments has {names[column]} {int(places[link, column])}, but there are "
            f"{sizes[column]}"
        )
    return places


def _refuse_hidden(masked: Tensor, rows: Tensor, keys: Tensor) -> None:
    hidden = (masked.detach() == -torch.inf).any(-1)
    if bool(hidden.any()):
        link = int(hidden.nonzero()[0])
        raise ArgumentError(
            f"alignments has query {int(rows[link])} and key {int(keys[link])}, which the mask "
            "hides from it"
        )


def _places(name: str, given: Tensor | None, weights: AttentionWeights, size: int) -> Tensor:
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

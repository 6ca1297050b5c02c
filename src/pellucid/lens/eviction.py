"""Scores by which methods evict keys from a cache, in O(keys) memory.

There is one score for each key and each group of query heads that share it, since that is what a
cache holds. `seen.record(name)` works while a generation is still being watched.
"""

from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.lens.contributions import value_of
from pellucid.lens.past_record import first_position
from pellucid.lens.real_tokens import real_tokens
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording

__all__ = ["expected_attention_scores", "h2o_scores", "snapkv_scores", "streaming_llm_scores"]


@overload
def snapkv_scores(
    weights: AttentionWeights | Record,
    window: int = 32,
    kernel: int = 7,
    pool: Literal["mean", "max"] = "mean",
) -> Tensor: ...


@overload
def snapkv_scores(
    weights: Recording,
    window: int = 32,
    kernel: int = 7,
    pool: Literal["mean", "max"] = "mean",
) -> dict[str, Tensor]: ...


def snapkv_scores(
    weights: AttentionWeights | Record | Recording,
    window: int = 32,
    kernel: int = 7,
    pool: Literal["mean", "max"] = "mean",
) -> Tensor | dict[str, Tensor]:
    """SnapKV: what the last `window` queries attend to before the window, smoothed over the keys.

        votes  = weights[..., -window:, :-window].sum(over the window's queries)
        scores = votes pooled over `kernel` neighbours, averaged over the heads of each group

    The keys of the window are always kept, so they have no score. Pooling at the borders follows
    the authors' code: a mean counts missing votes as 0 and still divides by `kernel`; a max ignores
    them. Only the rows of the window are computed. The last queries should not be padding: pad on
    the left.

    Args:
        weights: (..., heads, queries, keys), or a record; or a recording, for the scores of each
            module's latest call by name.
        window: the number of queries that vote, the last ones.
        kernel: the number of neighbouring keys that are pooled, odd; 1 = no pooling.
        pool: "mean" or "max".

    Returns:
        (..., kv_heads, keys - window), or a dict of these by module name.

    Raises:
        ArgumentError: window is not from 1 to the number of queries, or leaves no keys; kernel is
            not odd; pool is unknown.
        TypeMismatchError: an argument has the wrong type.

    Source: Li et al. 2024, "SnapKV: LLM Knows What You are Looking for Before Generation",
    section 4, listing 1.
    """
    if isinstance(weights, Recording):
        return {
            record.name: snapkv_scores(record, window, kernel, pool) for record in weights.latest()
        }
    weights = _weights(weights)
    queries, keys = weights.shape[-2:]
    for name, number in (("window", window), ("kernel", kernel)):
        if type(number) is not int:
            raise TypeMismatchError(f"{name} must be an int, got {number!r}")
    if not 1 <= window <= queries or window >= keys:
        raise ArgumentError(
            f"window must be from 1 to the number of queries, {queries}, and below the number of "
            f"keys, {keys}; got {window}"
        )
    if kernel < 1 or kernel % 2 == 0:
        raise ArgumentError(f"kernel must be an odd number above 0, got {kernel}")
    if pool not in ("mean", "max"):
        raise ArgumentError(f"pool must be 'mean' or 'max', got {pool!r}")
    votes = weights.rows(slice(-window, None)).received()[..., :-window]
    flat = votes.reshape(-1, 1, votes.shape[-1])
    pooling = F.avg_pool1d if pool == "mean" else F.max_pool1d
    pooled = pooling(flat, kernel, stride=1, padding=kernel // 2).reshape(votes.shape)
    return _group_means(pooled, weights)


@overload
def h2o_scores(weights: AttentionWeights | Record) -> Tensor: ...


@overload
def h2o_scores(weights: Recording) -> dict[str, Tensor]: ...


def h2o_scores(weights: AttentionWeights | Record | Recording) -> Tensor | dict[str, Tensor]:
    """H2O: the attention that each key received from all queries.

        scores = weights.sum(over the queries), averaged over the heads of each group

    Padding queries of a record do not count, as far as its mask tells them: an item of a padded
    batch has the same scores as alone, and padding has 0. Without a record, all queries count.

    Under a causal mask, earlier keys receive attention from more queries. The method relies on
    that, and also keeps the most recent keys. Costs one pass over the weights, and up to two more
    if there is padding.

    Args:
        weights: (..., heads, queries, keys), or a record; or a recording, for the scores of each
            module's latest call by name.

    Returns:
        (..., kv_heads, keys), or a dict of these by module name.

    Raises:
        TypeMismatchError: weights are of another type.

    Source: Zhang et al. 2023, "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large
    Language Models", section 4, algorithm 1.
    """
    if isinstance(weights, Recording):
        return {record.name: h2o_scores(record) for record in weights.latest()}
    record, weights = weights, _weights(weights)
    if isinstance(record, Record) and record.mask is not None:
        _, real = real_tokens(record)
        if not bool(real.all()):
            votes = real.to(weights.dtype).reshape(*weights.shape[:-3], 1, 1, -1)
            return _group_means((votes @ weights).squeeze(-2), weights)
    return _group_means(weights.received(), weights)


def streaming_llm_scores(record: Record, sinks: int = 4) -> Tensor:
    """StreamingLLM: the first keys, which are attention sinks, and then the latest.

    Args:
        record: of any attention.
        sinks: the number of first keys, whose scores are infinite.

    Returns:
        (..., kv_heads, keys): the position of each key.

    Source: Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks", section
    3.2.
    """
    weights = _weights(record)
    *outer, _, _, keys = weights.shape
    scores = torch.arange(keys, dtype=weights.dtype, device=weights.device)
    scores[: _count("sinks", sinks)] = torch.inf
    return scores.expand(*outer, weights.kv_heads, keys)


def expected_attention_scores(
    record: Record,
    frequencies: Tensor | None = None,
    future: int = 512,
    sinks: int = 4,
) -> Tensor:
    """Expected attention: what queries that are distributed as those so far would give each key.

        log weight = scale * mean . key + scale**2 / 2 * key . covariance . key
        scores     = softmax of that over the keys, averaged over each group, * ||value||

    This is the expectation of exp(scale * query . key) for queries of a normal distribution. The
    mean and the covariance of each head are those of its queries before the rotary embedding, which
    are then rotated by the average rotation of the next `future` positions. A record has rotated
    queries, so that the frequencies must be given for this to be undone; without them, the queries
    are taken as they are.

    Args:
        record: of a causal attention, recorded with values and with query and key.
        frequencies: (rotated dims / 2,) radians per position by which dims i and i + rotated dims /
            2 are rotated as a pair, such as base ** (-2 i / dims); None without rotary embedding.
        future: the number of positions over which rotations are averaged.
        sinks: the number of first keys, whose scores are infinite and whose queries do not count.

    Returns:
        (..., kv_heads, keys)

    Raises:
        ArgumentError: the record has no values or no query and key, or no query after the sinks,
            is not causal, or future is below 1.
        ShapeError: frequencies for more dims than there are.

    Source: Devoto et al. 2025, "Expected Attention: KV Cache Compression by Estimating Attention
    from Future Queries Distribution", section 3, arXiv:2510.00636.
    """
    weights = _weights(record)
    query, key, value = (x.to(weights.dtype) for x in (record.query, record.key, value_of(record)))
    start = first_position(record)
    skipped = max(0, _count("sinks", sinks) - start)
    query = query[..., skipped:, :]
    if not query.shape[-2]:
        raise ArgumentError(f"'{record.name}' has no query after {sinks} sinks")
    if _count("future", future) < 1:
        raise ArgumentError(f"future must be 1 or more, got {future}")
    ahead = None
    if frequencies is not None:
        dim, keys = query.shape[-1], key.shape[-2]
        if frequencies.ndim != 1 or 2 * len(frequencies) > dim:
            raise ShapeError(
                f"frequencies must be at most key_dim / 2 = {dim // 2} numbers, got shape "
                f"{tuple(frequencies.shape)}"
            )
        query = turned(query, *rotation(frequencies, -torch.arange(start + skipped, keys)))
        of_each = rotation(frequencies, torch.arange(keys, keys + future))
        ahead = [x.mean(0) for x in of_each]
    mean = query.mean(-2, keepdim=True)
    centred = query - mean
    covariance = centred.mT @ centred / query.shape[-2]
    if ahead is not None:
        mean = turned(mean, *ahead)
        covariance = turned(turned(covariance, *ahead).mT, *ahead)
    # Heads of a group beside each other: (..., kv_heads, group, ...)
    kv_heads = key.shape[-3]
    mean, covariance = (x.unflatten(-3, (kv_heads, -1)) for x in (mean, covariance))
    keys_of_all = key.unsqueeze(-3)
    logs = weights.scale * (mean @ keys_of_all.mT).squeeze(-2)
    logs = logs + weights.scale**2 / 2 * ((keys_of_all @ covariance) * keys_of_all).sum(-1)
    scores: Tensor = logs.softmax(-1).mean(-2) * torch.linalg.vector_norm(value, dim=-1)
    scores[..., :sinks] = torch.inf
    return scores


def rotation(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of frequencies times positions, (positions, frequencies) float64."""
    angle = positions.to(frequencies.device).double().unsqueeze(-1) * frequencies.double()
    return angle.cos(), angle.sin()


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x (..., dim), whose pairs (i, i + half) are rotated by angles (..., half)."""
    half = cosine.shape[-1]
    cosine, sine = cosine.to(x), sine.to(x)
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)


def _count(name: str, number: int) -> int:
    if type(number) is not int:
        raise TypeMismatchError(f"{name} must be an int, got {number!r}")
    if number < 0:
        raise ArgumentError(f"{name} must be 0 or more, got {number}")
    return number


def _weights(source: AttentionWeights | Record) -> AttentionWeights:
    weights = source.weights if isinstance(source, Record) else source
    if not isinstance(weights, AttentionWeights):
        raise TypeMismatchError(
            "weights must be AttentionWeights, a Record or a Recording, got "
            f"{type(source).__name__}"
        )
    return weights


def _group_means(scores: Tensor, weights: AttentionWeights) -> Tensor:
    """(..., kv_heads, n), the mean over the query heads of each group."""
    *outer, heads, keys = scores.shape
    return scores.reshape(*outer, weights.kv_heads, heads // weights.kv_heads, keys).mean(-2)

"""Scores by which methods evict keys from a cache, in O(keys) memory.

There is one score for each key and each group of query heads that share it, since that is what a
cache holds. `seen.record(name)` works while a generation is still being watched.
"""

from typing import Literal, overload

from torch import Tensor
from torch.nn import functional as F

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.real_tokens import real_tokens
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording

__all__ = ["h2o_scores", "snapkv_scores"]


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

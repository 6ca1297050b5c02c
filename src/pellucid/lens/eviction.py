"""What a method that evicts keys from a cache needs to know of each key, in O(keys) memory.

Numbers are one a key and a group of query heads that share it, since that is what a cache holds.
Give a record, or the weights of one: `seen.record(name)` works while a generation is still being
watched.
"""

from typing import Literal, overload

from torch import Tensor
from torch.nn import functional as F

from pellucid.attention import AttentionWeights
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.head_table import real_tokens
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
    """What the last `window` queries attend to before the window, smoothed along the keys.

        votes  = weights[..., -window:, :-window].sum(over the window's queries)
        scores = the pool of `kernel` neighbouring votes, averaged over the heads of each group

    The keys of the window itself are no candidates: they are always kept, and have no score here.
    At the borders pooling is as the authors' code does it: a mean counts the votes beyond the first
    and the last candidate as 0 and still divides by `kernel`; a max leaves them out. Costs the rows
    of the window alone. The last queries should be real: pad on the left, not on the right.

    Args:
        weights: (..., heads, queries, keys), or the record that has them; or a recording, for the
            scores of each module's latest call by its name.
        window: how many of the last queries observe.
        kernel: how many neighbouring keys are pooled, an odd number; 1 = no pooling.
        pool: "mean" or "max".

    Returns:
        (..., kv_heads, keys - window): the first score is that of key 0.

    Raises:
        ArgumentError: window is not from 1 to the number of queries, or leaves no keys; kernel is
            not odd; another pool.
        TypeMismatchError: weights are neither, or window or kernel is no int.

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
    return _of_groups(pooled, weights)


@overload
def h2o_scores(weights: AttentionWeights | Record) -> Tensor: ...


@overload
def h2o_scores(weights: Recording) -> dict[str, Tensor]: ...


def h2o_scores(weights: AttentionWeights | Record | Recording) -> Tensor | dict[str, Tensor]:
    """The attention that each key got from all queries so far: the larger, the heavier a hitter.

        scores = weights.sum(over the queries), averaged over the heads of each group

    Given a record, queries that are padding have no vote, as far as its mask tells which those are:
    an item of a padded batch has the scores that it has alone, and padding has 0. Weights alone do
    not tell, and all their queries vote.

    Under a causal mask earlier keys have met more queries, and so gather more: the method counts on
    it, and keeps the most recent keys besides. Costs a pass over the weights, and up to two more
    where there is padding.

    Args:
        weights: (..., heads, queries, keys), or the record that has them; or a recording, for the
            scores of each module's latest call by its name.

    Returns:
        (..., kv_heads, keys)

    Raises:
        TypeMismatchError: weights are neither.

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
            return _of_groups((votes @ weights).squeeze(-2), weights)
    return _of_groups(weights.received(), weights)


def _weights(given: AttentionWeights | Record) -> AttentionWeights:
    weights = given.weights if isinstance(given, Record) else given
    if not isinstance(weights, AttentionWeights):
        raise TypeMismatchError(
            f"weights must be AttentionWeights, a Record or a Recording, got {type(given).__name__}"
        )
    return weights


def _of_groups(scores: Tensor, weights: AttentionWeights) -> Tensor:
    """(..., kv_heads, n), the mean over the query heads of each group."""
    *outer, heads, keys = scores.shape
    return scores.reshape(*outer, weights.kv_heads, heads // weights.kv_heads, keys).mean(-2)

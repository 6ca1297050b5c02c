"""Word alignment of parallel texts by a statistical model.

IBM Model 2 with a prior for the diagonal (Dyer et al. 2013, "A Simple, Fast, and Effective
Reparameterization of IBM Model 2"), fitted by expectation maximisation in both directions. The
links are the intersection (Och and Ney 2003, "A Systematic Comparison of Various Statistical
Alignment Models", section 4.3).
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pellucid.common.files import written_whole
from pellucid.training.sequences import Sequences

ROUNDS = 5
UNALIGNED = 0.08
"""The prior probability that a token is aligned to none."""
TENSION = 4.0
"""The strength of the diagonal prior."""
PRIOR = 0.01
"""The Dirichlet prior of each translation, which keeps rare tokens from absorbing common ones."""
SLOTS = 2**24
"""The size of the hashed translation table; above 4,096 tokens of vocabulary, pairs collide."""
CELLS = 2**18
"""Token pairs processed at once."""


def links(
    sources: Sequences,
    targets: Sequences,
    vocabulary: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> np.ndarray:
    """Align each target token: its index in the source text, or -1, (target tokens,) int32.

    Args:
        sources: ids, below `vocabulary`.
        targets: as many texts.
        vocabulary: the shared vocabulary size.
        progress: called with the number of passes over the data done and the total.
    """
    passes = 2 * (ROUNDS + 1)
    forth = _best(sources, targets, vocabulary, lambda done: progress(done, passes))
    back = _best(targets, sources, vocabulary, lambda done: progress(ROUNDS + 1 + done, passes))
    # Keep the links of which the reverse direction has the same.
    first_target = np.repeat(targets.ends - targets.lengths, targets.lengths)
    first_source = np.repeat(sources.ends - sources.lengths, targets.lengths)
    place = np.arange(len(forth)) - first_target
    agreed = (forth >= 0) & (back[first_source + np.maximum(forth, 0)] == place)
    return np.where(agreed, forth, -1).astype(np.int32)


def kept(
    directory: Path,
    sources: Sequences,
    targets: Sequences,
    progress: Callable[[str, int, int | None], None],
) -> np.ndarray:
    """The result of `links`, cached in a file per set of pairs."""
    digest = hashlib.sha256()
    for part in (sources.ids, sources.ends, targets.ids, targets.ends):
        digest.update(part.data)
    path = directory / f"links-{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        size = 1 + max(int(texts.ids.max()) for texts in (sources, targets))
        alignment = links(sources, targets, size, lambda *done: progress("aligning words", *done))
        with written_whole(path) as aside, aside.open("wb") as file:
            np.save(file, alignment)
    loaded: np.ndarray = np.load(path, mmap_mode="r")
    return loaded


class _Chunk(NamedTuple):
    """Padded texts, with the table slot and the prior of each pair of tokens."""

    slots: np.ndarray
    """(texts, made, 1 + given); the first given token is the null token."""
    prior: np.ndarray
    """Of the same shape; 0 at padding."""
    given: np.ndarray
    """(texts, 1 + given) ids; `vocabulary` is the null token."""
    indices: np.ndarray
    """(texts, made): the index of each made token among those of all texts."""
    real: np.ndarray
    """(texts, made): False at padding."""


def _best(
    given: Sequences, made: Sequences, vocabulary: int, progress: Callable[[int], None]
) -> np.ndarray:
    """The index of the likeliest given token of each made token, or -1, (made tokens,)."""
    slots = min(SLOTS, (vocabulary + 1) * vocabulary)
    likely = np.ones(slots, np.float32)
    scale = np.ones(vocabulary + 1, np.float32)
    for number in range(ROUNDS):
        counts = np.zeros(slots, np.float32)
        totals = np.zeros(vocabulary + 1)
        for chunk in _chunks(given, made, vocabulary):
            share = _share(chunk, likely, scale)
            np.add.at(counts, chunk.slots, share)
            np.add.at(totals, chunk.given, share.sum(1))
        # The expected logarithm under a Dirichlet prior (variational Bayes).
        likely = _exp_digamma(counts + PRIOR)
        scale = 1 / np.maximum(_exp_digamma(totals + PRIOR * vocabulary), 1e-30)
        progress(number + 1)
    best = np.full(len(made.ids), -1, np.int64)
    for chunk in _chunks(given, made, vocabulary):
        sources = _share(chunk, likely, scale).argmax(-1) - 1
        best[chunk.indices[chunk.real]] = sources[chunk.real]
    progress(ROUNDS + 1)
    return best


def _share(chunk: _Chunk, likely: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The posterior probability of each given token for each made token."""
    share = likely[chunk.slots] * scale[chunk.given][:, None] * chunk.prior
    total = share.sum(-1, keepdims=True)
    posterior: np.ndarray = share / np.where(total > 0, total, 1)
    return posterior


def _exp_digamma(numbers: np.ndarray) -> np.ndarray:
    result: np.ndarray = torch.from_numpy(numbers).digamma_().exp_().numpy()
    return result


def _chunks(given: Sequences, made: Sequences, vocabulary: int) -> Iterator[_Chunk]:
    by_length = np.lexsort((given.lengths, made.lengths))
    start = 0
    while start < len(by_length):
        stop = start
        longest = 0
        while stop < len(by_length):
            text = by_length[stop]
            longest = max(longest, int(given.lengths[text]))
            if stop > start and (stop - start + 1) * longest * made.lengths[text] > CELLS:
                break
            stop += 1
        yield _chunk(given, made, by_length[start:stop], vocabulary)
        start = stop


def _chunk(given: Sequences, made: Sequences, texts: np.ndarray, vocabulary: int) -> _Chunk:
    (ours, _, is_ours), (theirs, indices, is_theirs) = (_padded(x, texts) for x in (given, made))
    ours = np.pad(ours, ((0, 0), (1, 0)), constant_values=vocabulary)
    columns = (np.arange(is_ours.shape[1]) + 1) / given.lengths[texts][:, None]
    rows = (np.arange(is_theirs.shape[1]) + 1) / made.lengths[texts][:, None]
    near = np.exp(-TENSION * np.abs(rows[:, :, None] - columns[:, None])) * is_ours[:, None]
    near *= (1 - UNALIGNED) / near.sum(-1, keepdims=True)
    prior = np.pad(near, ((0, 0), (0, 0), (1, 0)), constant_values=UNALIGNED)
    return _Chunk(
        slots=(ours[:, None] * vocabulary + theirs[:, :, None]) % SLOTS,
        prior=(prior * is_theirs[:, :, None]).astype(np.float32),
        given=ours,
        indices=indices,
        real=is_theirs,
    )


def _padded(texts: Sequences, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, their indices among those of all texts, and whether they are real, (texts, longest)."""
    lengths = texts.lengths[which][:, None]
    within = np.arange(int(lengths.max()))
    real = within < lengths
    indices = (texts.ends[which][:, None] - lengths) + np.minimum(within, lengths - 1)
    return texts.ids[indices].astype(np.int64), indices, real

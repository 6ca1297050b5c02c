"""Groups of similar texts, each with the words that tell it apart and its most central text.

Groups are those of k-means on embeddings of length 1. Where their number is not given, it is the
one whose groups lie furthest apart for their size (Rousseeuw 1987, "Silhouettes").
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import ArgumentError, MissingExtraError, ShapeError
from pellucid.tasks.whole_numbers import check_whole

MOST_GROUPS = 12
"""That are tried where no number is given."""
SEEDS = 2**32 - 1
"""The largest seed that scikit-learn takes."""
SAMPLE = 2000
"""Texts that a silhouette is taken over, at the most: it compares all with all."""
TELLING = 3
"""Words in a group's label."""
_WORD = re.compile(r"[^\W\d_](?:[\w'’-]*\w)?")
_POSSESSIVE = re.compile(r"['’]s$")

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Group:
    """Texts that are similar to each other."""

    number: int
    """From 1, the largest group first."""
    words: tuple[str, ...]
    """That tell it apart, the most telling first; none where its texts have no words."""
    central: int
    """The text nearest to the middle of the group."""
    members: tuple[int, ...]
    """Its texts, from the middle outwards."""


@dataclass(frozen=True, slots=True)
class Clustering:
    """Every text in one group."""

    groups: tuple[Group, ...]
    group_of: tuple[int, ...]
    """Of each text, the number of its group."""
    silhouette: float | None
    """From -1 to 1: how much nearer texts are to their own group than to the next; None of a
    single group."""


def cluster(
    texts: Sequence[str], embeddings: Tensor, groups: int | None = None, seed: int = 0
) -> Clustering:
    """Group texts by their embeddings.

    Args:
        texts: what the labels are made of.
        embeddings: (texts, width).
        groups: how many; of 2 to 12 the number with the best silhouette, unless given.
        seed: where the random numbers start.

    Raises:
        ShapeError: there is not one embedding for each text.
        ArgumentError: there are fewer different texts than groups, or seed is below 0 or too large.
        TypeMismatchError: groups or seed is no int.
        MissingExtraError: scikit-learn is not installed.
    """
    require_sklearn()
    if embeddings.ndim != 2 or len(embeddings) != len(texts):
        raise ShapeError(
            f"embeddings must be (texts, width) for {len(texts)} texts; got "
            f"{tuple(embeddings.shape)}"
        )
    points: Array = F.normalize(embeddings.float(), dim=-1).numpy()
    check_whole("seed", seed, 0, SEEDS)
    if groups is not None:
        check_whole("groups", groups)
    different = len(np.unique(points.round(6), axis=0))
    if groups is not None and groups > different:
        raise ArgumentError(
            f"groups must be from 1 to {different}, as many as there are different texts; "
            f"got {groups}"
        )
    if not texts:
        raise ArgumentError("there are no texts to group")
    # Where no number is given: groups of one text each would say nothing.
    most = min(MOST_GROUPS, different, len(texts) - 1)
    tried = range(2, most + 1) if groups is None else [groups]
    with one_thread():
        found = [_grouped(points, k, seed) for k in tried] or [_grouped(points, 1, seed)]
    labels, silhouette = max(found, key=lambda one: -2.0 if one[1] is None else one[1])
    return _named(texts, points, labels, silhouette)


def telling_words(documents: Sequence[Sequence[str]], most: int = TELLING) -> list[list[str]]:
    """Of each group of texts, the words that it has more of than the others.

    Class-based tf-idf (Grootendorst 2022, "BERTopic", section 3.3): the share of a word in the
    group, times log(1 + words a group / how often it occurs in all). Words like "the" and "no"
    count only in a group that has no others.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts = []
    for texts in documents:
        found = (word for text in texts for word in _WORD.findall(text))
        words = (_POSSESSIVE.sub("", word).casefold() for word in found)
        every = Counter(words)
        telling = {w for w in every if len(w) > 1 and w not in ENGLISH_STOP_WORDS} or every.keys()
        counts.append(Counter({word: every[word] for word in telling}))
    total: Counter[str] = sum(counts, Counter())
    mean = total.total() / max(1, len(counts))
    return [
        sorted(own, key=lambda word: (-own[word] * np.log1p(mean / total[word]), word))[:most]
        for own in counts
    ]


def one_thread() -> AbstractContextManager[Any]:
    """Keep scikit-learn to one thread: what it does here is so small that threads mostly wait."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)  # type: ignore[no-any-return]


def _grouped(points: Array, k: int, seed: int) -> tuple[Array, float | None]:
    """The group of each point, and the silhouette."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if k == 1:
        return np.zeros(len(points), np.int32), None
    labels = KMeans(k, n_init=8, random_state=seed).fit_predict(points)
    if not 2 <= len(np.unique(labels)) < len(points):
        return labels, None
    if len(points) <= SAMPLE:
        return labels, float(silhouette_score(points, labels))
    chosen = np.random.default_rng(seed).permutation(len(points))[:SAMPLE]
    if len(np.unique(labels[chosen])) < 2:
        return labels, None
    return labels, float(silhouette_score(points[chosen], labels[chosen]))


def _named(
    texts: Sequence[str], points: Array, labels: Array, silhouette: float | None
) -> Clustering:
    members = []
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        middle = points[inside].mean(0)
        members.append(inside[np.argsort(-points[inside] @ middle, kind="stable")].tolist())
    members.sort(key=lambda inside: (-len(inside), min(inside)))
    words = telling_words([[texts[n] for n in inside] for inside in members])
    groups = tuple(
        Group(number, tuple(said), inside[0], tuple(inside))
        for number, (inside, said) in enumerate(zip(members, words, strict=True), start=1)
    )
    group_of = {text: group.number for group in groups for text in group.members}
    return Clustering(groups, tuple(group_of[n] for n in range(len(texts))), silhouette)


def require_sklearn() -> None:
    """Say how to install scikit-learn where it is not."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("this needs scikit-learn", "tasks") from error

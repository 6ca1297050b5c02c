"""Groups of similar texts, each with its characteristic words and its most central text.

The groups come from k-means on embeddings of unit length. If their number is not given, it is the
one with the best silhouette (Rousseeuw 1987, "Silhouettes").
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import ArgumentError, MissingExtraError, ShapeError
from pellucid.tasks.whole_numbers import check_whole
from pellucid.tasks.words import telling_words

MOST_GROUPS = 12
"""The largest number of groups that is tried if none is given."""
SEEDS = 2**32 - 1
"""The largest seed that scikit-learn accepts."""
SAMPLE = 2000
"""The most texts of a silhouette, which compares all pairs."""

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Group:
    """Texts that are similar to each other."""

    number: int
    """From 1, the largest group first."""
    words: tuple[str, ...]
    """Its characteristic words, the strongest first; empty if its texts contain no words."""
    central: int
    """The index of the text nearest to the mean of the group."""
    members: tuple[int, ...]
    """The indices of its texts, the most central first."""


@dataclass(frozen=True, slots=True)
class Clustering:
    """A partition of the texts into groups."""

    groups: tuple[Group, ...]
    group_of: tuple[int, ...]
    """The number of each text's group."""
    silhouette: float | None
    """The mean silhouette coefficient, from -1 to 1; None for a single group."""


def cluster(
    texts: Sequence[str], embeddings: Tensor, groups: int | None = None, seed: int = 0
) -> Clustering:
    """Group texts by their embeddings.

    Args:
        texts: the texts, from which the labels of the groups are made.
        embeddings: (texts, width).
        groups: the number of groups; by default, the number from 2 to 12 with the best silhouette.
        seed: the random seed.

    Raises:
        ShapeError: the numbers of embeddings and texts differ.
        ArgumentError: there are fewer different texts than groups, or seed is below 0 or too large.
        TypeMismatchError: groups or seed is not an int.
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
            f"groups must be from 1 to {different}, the number of different texts; got {groups}"
        )
    if not texts:
        raise ArgumentError("there are no texts to group")
    # One text per group is never a useful partition.
    most = min(MOST_GROUPS, different, len(texts) - 1)
    candidates = range(2, most + 1) if groups is None else [groups]
    with one_thread():
        trials = [_grouped(points, k, seed) for k in candidates] or [_grouped(points, 1, seed)]
    labels, silhouette = max(trials, key=lambda trial: -2.0 if trial[1] is None else trial[1])
    return _clustering(texts, points, labels, silhouette)


def one_thread() -> AbstractContextManager[Any]:
    """Limit scikit-learn to one thread; the work here is too small to share."""
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
    sample = np.random.default_rng(seed).permutation(len(points))[:SAMPLE]
    if len(np.unique(labels[sample])) < 2:
        return labels, None
    return labels, float(silhouette_score(points[sample], labels[sample]))


def _clustering(
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
        Group(number, tuple(label), inside[0], tuple(inside))
        for number, (inside, label) in enumerate(zip(members, words, strict=True), start=1)
    )
    group_of = {text: group.number for group in groups for text in group.members}
    return Clustering(groups, tuple(group_of[n] for n in range(len(texts))), silhouette)


def require_sklearn() -> None:
    """Raise MissingExtraError if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("this needs scikit-learn", "tasks") from error

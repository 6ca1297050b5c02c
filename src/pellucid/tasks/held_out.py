"""Heads judged on examples that they have not seen, by cross-validation.

Equal texts are in the same fold, so nothing is judged on what was learnt, and every fold has about
the same share of each label.
"""

import warnings
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
from torch import Tensor

from pellucid.tasks import figures
from pellucid.tasks.classify import INVERSE_REGULARISATION, Head, targets_for
from pellucid.tasks.clustering import SEEDS, one_thread, require_sklearn
from pellucid.tasks.evaluation import Evaluation, figures_with, of_labels, of_numbers, of_several
from pellucid.tasks.figures import Array, Chance
from pellucid.tasks.targets import Given, Targets
from pellucid.tasks.whole_numbers import check_whole
from pellucid.text import equal_texts

FOLDS = 5
LEAST_PERMUTATIONS, MOST_PERMUTATIONS = 100, 1000
_PERMUTED = 4_000_000
"""Targets of all permutations together, which limit their number; and those held at once."""
_RIDGE = 4 / INVERSE_REGULARISATION
"""The penalty of the ridge regression that stands in for heads: the curvature of a logistic loss is
at most 1/4."""
_PARTS = 5
"""Ranges of numbers that each fold has about the same share of."""


def evaluate(
    embeddings: Tensor,
    labels: Given,
    seed: int = 0,
    *,
    texts: Sequence[str] | None = None,
    balanced: bool = False,
) -> Evaluation | None:
    """Held-out figures by stratified cross-validation in 5 folds, or as many as there are texts.

    A label with a single different text is left out of the figures: a head fitted without that text
    cannot predict the label. The result is None if fewer than two labels remain.

    Args:
        embeddings: (texts, width).
        labels: for each text a label, a collection of labels, or a number.
        seed: of the folds and permutations.
        texts: whose equal ones stay in one fold; those of equal embeddings do in any case.
        balanced: whether heads are fitted with equal weight for each label; then the figure is the
            balanced accuracy.

    Raises:
        ShapeError, ArgumentError, TypeMismatchError, MissingExtraError: as `Head.fit`.
        ArgumentError, TypeMismatchError: seed is not an int from 0 to 2**32 - 1.
    """
    check_whole("seed", seed, 0, SEEDS)
    require_sklearn()
    targets = targets_for(embeddings, labels)
    groups = groups_of(embeddings, texts)
    strata = _strata(targets)
    folds = folds_of(strata, groups, seed)
    judged = np.ones(len(groups), bool)
    left_out: tuple[str, ...] = ()
    if targets.kind != "number":
        different = [len(np.unique(groups[has])) for has in targets.values.T > 0]
        few = np.array(different) < 2
        left_out = tuple(name for name, rare in zip(targets.names, few, strict=True) if rare)
        if targets.kind == "label":
            judged = ~few[targets.values.argmax(1)]
            if len(few) - few.sum() < 2:
                return None
        elif few.all():
            return None
    if len(np.unique(folds)) < 2:
        return None
    with one_thread():
        scores = _cross_fitted(embeddings, targets, folds, balanced)
        shown = targets if targets.kind != "labels" else targets.columns(~few)
        own, *permuted = _permuted(embeddings, shown, folds, groups, judged, balanced, seed)
    if targets.kind == "number":
        measured = of_numbers(scores[:, 0], targets.values[:, 0], groups, seed)
    else:
        several = targets.kind == "labels"
        warmth, shares = figures.cross_calibrated(scores, targets.values, folds, several=several)
        measured = {"temperature": warmth, "labels_left_out": left_out}
        if several:
            measured |= of_several(shares, targets.values, targets.names, ~few, groups, seed)
        else:
            measured |= of_labels(shares[judged], targets.values[judged], groups[judged], balanced)
    values = np.array([measured["value"], own])
    chance = Chance.of(values, np.array(permuted), lower_is_better=targets.kind == "number")
    return Evaluation(
        kind=targets.kind,
        labels=targets.names,
        examples=int(judged.sum()),
        texts=len(np.unique(groups[judged])),
        folds=len(np.unique(folds)),
        chance=chance,
        **measured,
    )


def groups_of(embeddings: Tensor, texts: Sequence[str] | None = None) -> Array:
    """The group of equal texts of each text, (texts,): by the text, or by the embedding, which
    texts share that are equal as far as the model reads them.
    """
    points = embeddings.float().numpy().round(6) + 0.0  # no negative zeros
    groups: Array = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
    if texts is None:
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    others = equal_texts.groups(texts) + len(groups)
    size = 2 * len(groups)
    links = coo_array((np.ones(len(groups)), (groups, others)), shape=(size, size))
    joined: Array = connected_components(links, directed=False)[1][groups]
    return joined


def folds_of(strata: Array, groups: Array, seed: int) -> Array:
    """The fold of each text, (texts,), with groups whole and strata shared evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.zeros(len(groups), np.int64)
    different = len(np.unique(groups))
    count = min(FOLDS, different, int(np.bincount(strata).max()))
    if count < 2:
        return folds
    split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # that a label is rarer than the folds is known
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, inside) in enumerate(split.split(strata, strata, groups)):
            folds[inside] = number
    return folds


def _strata(targets: Targets) -> Array:
    """What folds share evenly, (texts,): the label; or, as scikit-learn stratifies neither, the
    rarest of several labels, or the range of the number.
    """
    values = targets.values
    if targets.kind == "label":
        classes: Array = values.argmax(1)
        return classes
    if targets.kind == "number":
        edges = np.quantile(values, np.arange(1, _PARTS) / _PARTS)
        return np.searchsorted(edges, values[:, 0], side="right")
    rarity = np.where(values > 0, values.sum(0), np.inf)
    none = values.shape[1]
    return np.unique(np.where(values.any(1), rarity.argmin(1), none), return_inverse=True)[1]


def _cross_fitted(embeddings: Tensor, targets: Targets, folds: Array, balanced: bool) -> Array:
    """The scores of each text, (texts, labels), by a head that has not seen its fold."""
    scores = np.zeros(targets.values.shape)
    for fold in np.unique(folds):
        own = folds == fold
        seen = targets.part(~own)
        columns = [targets.names.index(name) for name in seen.names] or [0]
        inside = np.ix_(own, columns)
        if seen.kind == "label" and len(seen.names) == 1:
            predicted = np.zeros((int(own.sum()), 1))
        else:
            head = Head.fit(embeddings[~own], seen, balanced=balanced)
            predicted = head.scores(embeddings[own]).double().numpy()
        scores[own] = predicted.min() - 10  # of labels that this head cannot know
        scores[inside] = predicted
    return scores


def _permuted(
    embeddings: Tensor,
    targets: Targets,
    folds: Array,
    groups: Array,
    judged: Array,
    balanced: bool,
    seed: int,
) -> Array:
    """The figure of ridge regression on the labels, (1 + permutations,): with the labels as they
    are, and permuted.

    Heads fitted anew to hundreds of permutations would take minutes. Ridge regression stands in for
    them: it is linear in the labels, so all permutations are one product.
    """
    values = targets.values
    points = embeddings.float().numpy()
    times = int(np.clip(_PERMUTED / values.size, LEAST_PERMUTATIONS, MOST_PERMUTATIONS))
    at_once = max(1, _PERMUTED // values.size)
    rows = chain([np.arange(len(values))], figures.permutations(groups, folds, times, seed))
    chunks: list[Array] = []
    while orders := list(islice(rows, at_once)):
        order = np.stack(orders)
        moved = values[order].astype(np.float32)  # (permutations, texts, labels)
        predicted = np.empty_like(moved)
        for fold in np.unique(folds):
            predicted[:, folds == fold] = _ridge_predictions(points, moved, folds == fold, balanced)
        chunks.append(figures_with(targets.kind, predicted, moved, balanced, judged[order]))
    return np.concatenate(chunks)


def _ridge_predictions(points: Array, moved: Array, own: Array, balanced: bool) -> Array:
    """What ridge regression says of one fold after it has learnt the others, as `moved`."""
    learnt, held_out = points[~own], points[own]
    middle = learnt.mean(0)
    learnt, held_out = learnt - middle, held_out - middle
    gram = learnt.T @ learnt + np.eye(points.shape[1], dtype=np.float32) * _RIDGE
    known = moved[:, ~own]
    mean = known.mean(1, keepdims=True)
    flat = (known - mean).transpose(1, 0, 2).reshape(len(learnt), -1)
    held_out = np.linalg.solve(gram, held_out.T).T
    # Of many texts, all pairs would not fit into memory; of few, they are the shorter way.
    is_small = len(held_out) * len(learnt) < points.size
    predicted = (held_out @ learnt.T) @ flat if is_small else held_out @ (learnt.T @ flat)
    shaped: Array = predicted.reshape(len(held_out), len(moved), -1).transpose(1, 0, 2) + mean
    return shaped / np.maximum(mean, 1e-9) / 2 if balanced else shaped

"""Semantic search: the texts whose embeddings are nearest to that of a query."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import ShapeError
from pellucid.tasks.whole_numbers import check_whole


@dataclass(frozen=True, slots=True)
class Match:
    """A text and its similarity to the query."""

    index: int
    """Of the text."""
    score: float
    """The cosine similarity of the two embeddings, from -1 to 1."""


def similar(query: Tensor, embeddings: Tensor, top: int | None = None) -> list[Match]:
    """The texts in order of cosine similarity, the nearest first; ties keep their input order.

    Args:
        query: the embedding of the query, (width,).
        embeddings: (texts, width).
        top: the number of matches to return; all by default.

    Raises:
        ShapeError: the widths differ.
        ArgumentError: top is below 1.
        TypeMismatchError: top is not an int.
    """
    if embeddings.ndim != 2 or query.shape != embeddings.shape[1:]:
        raise ShapeError(
            f"query must be (width,) and embeddings (texts, width); got {tuple(query.shape)} and "
            f"{tuple(embeddings.shape)}"
        )
    if top is not None:
        check_whole("top", top)
    scores = F.normalize(embeddings, dim=-1) @ F.normalize(query, dim=-1)
    order = scores.argsort(descending=True, stable=True)[:top].tolist()
    return [Match(number, min(1.0, float(scores[number]))) for number in order]


SCANNED = 2**16
"""Embeddings that are compared at a time."""


def nearest(query: Tensor, embeddings: np.ndarray[Any, Any], top: int) -> list[Match]:
    """As `similar`, exact too, of embeddings in a file: they are read once, a part at a time.

    Args:
        query: the embedding of the query, (width,).
        embeddings: (texts, width), such as `numpy.memmap`.
        top: the number of matches to return.

    Raises:
        ShapeError: the widths differ.
    """
    if query.shape != embeddings.shape[1:]:
        raise ShapeError(
            f"query must be (width,) and embeddings (texts, width); got {tuple(query.shape)} and "
            f"{tuple(embeddings.shape)}"
        )
    direction = F.normalize(query.float(), dim=-1).numpy()
    scores: np.ndarray[Any, Any] = np.empty(0, np.float32)
    found: np.ndarray[Any, Any] = np.empty(0, np.int64)
    for start in range(0, len(embeddings), SCANNED):
        part = embeddings[start : start + SCANNED]
        lengths = np.sqrt(np.einsum("tw,tw->t", part, part))
        scores = np.concatenate([scores, part @ direction / np.maximum(lengths, 1e-12)])
        found = np.concatenate([found, np.arange(start, start + len(part))])
        # The best of this part and so far; of equal ones the first.
        if len(scores) > top:
            good = np.flatnonzero(scores >= -np.partition(-scores, top - 1)[top - 1])
            scores, found = scores[good], found[good]
        best = np.argsort(-scores, kind="stable")[:top]
        scores, found = scores[best], found[best]
    pairs = zip(found.tolist(), scores.tolist(), strict=True)
    return [Match(number, min(1.0, score)) for number, score in pairs]

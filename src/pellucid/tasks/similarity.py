"""Semantic search: the texts whose embeddings are nearest to that of a query.

An embedding with a number that is not finite is near to nothing: it is left out, with a warning.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.common.wording import count
from pellucid.errors import ArgumentError, ShapeError
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

    Embeddings with numbers that are not finite are left out, with a warning.

    Args:
        query: the embedding of the query, (width,).
        embeddings: (texts, width).
        top: the number of matches to return; all by default.

    Raises:
        ShapeError: the widths differ.
        ArgumentError: top is below 1, or the query has numbers that are not finite.
        TypeMismatchError: top is not an int.
    """
    _check(query, tuple(embeddings.shape))
    if top is not None:
        check_whole("top", top)
    is_finite = torch.isfinite(embeddings).all(dim=-1)
    if not is_finite.all():
        wrong = torch.nonzero(~is_finite).flatten()
        tell_left_out(len(wrong), int(wrong[0]))
    scores = F.normalize(embeddings, dim=-1) @ F.normalize(query, dim=-1)
    order = scores.masked_fill(~is_finite, -torch.inf).argsort(descending=True, stable=True)
    best = order[: int(is_finite.sum())][:top].tolist()
    return [Match(number, min(1.0, float(scores[number]))) for number in best]


def _check(query: Tensor, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or tuple(query.shape) != shape[1:]:
        raise ShapeError(
            f"query must be (width,) and embeddings (texts, width); got {tuple(query.shape)} and "
            f"{shape}"
        )
    if not torch.isfinite(query).all():
        raise ArgumentError("query has numbers that are not finite")


_LONG = 1e15
"""Lengths beyond this, and below its inverse, are computed in float64."""


def tell_left_out(number: int, first: int) -> None:
    """Warn that so many embeddings, the first in row `first` from 0, are left out."""
    warnings.warn(
        f"{count(number, 'embedding')} with numbers that are not finite left out; the first is in "
        f"row {first + 1:,}",
        stacklevel=3,
    )


def lengths_of(
    embeddings: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The length of each of (texts, width) embeddings, and which have finite numbers only.

    The square of a length may be too small or too large for float32 where the length is not.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("tw,tw->t", embeddings, embeddings)
    lengths = np.sqrt(squares)
    unsure = np.flatnonzero(~((squares > _LONG**-2) & (squares < _LONG**2)))
    rows = embeddings[unsure].astype(np.float64)
    is_finite = np.ones(len(embeddings), bool)
    is_finite[unsure] = np.isfinite(rows).all(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = lengths.astype(np.float64)
        lengths[unsure] = np.sqrt(np.einsum("tw,tw->t", rows, rows))
    return lengths, is_finite


def _cosines(
    embeddings: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any], direction: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The cosine of the angle of each of (texts, width) embeddings with a direction, (texts,)."""
    divisors = np.where(lengths == 0, 1, lengths)
    with np.errstate(over="ignore", invalid="ignore"):
        cosines: np.ndarray[Any, Any] = (embeddings @ direction / divisors).astype(np.float32)
    extreme = np.flatnonzero((lengths > _LONG) | (lengths < 1 / _LONG))
    cosines[extreme] = embeddings[extreme] / divisors[extreme, None] @ direction.astype(np.float64)
    return cosines


SCANNED = 2**16
"""Embeddings that are compared at a time."""


def nearest(query: Tensor, embeddings: np.ndarray[Any, Any], top: int) -> list[Match]:
    """As `similar`, exact too, of embeddings in a file: they are read once, a part at a time.
    Those with numbers that are not finite are left out as well.

    Args:
        query: the embedding of the query, (width,).
        embeddings: (texts, width), such as `numpy.memmap`.
        top: the number of matches to return.

    Raises:
        ShapeError, ArgumentError: as `similar`.
    """
    _check(query, embeddings.shape)
    direction = F.normalize(query.float(), dim=-1).numpy()
    scores: np.ndarray[Any, Any] = np.empty(0, np.float32)
    indices: np.ndarray[Any, Any] = np.empty(0, np.int64)
    left_out, first = 0, 0
    for start in range(0, len(embeddings), SCANNED):
        part = embeddings[start : start + SCANNED]
        lengths, is_finite = lengths_of(part)
        rows = np.arange(start, start + len(part))
        if not is_finite.all():
            first = first if left_out else int(rows[~is_finite][0])
            left_out += int((~is_finite).sum())
            part, lengths, rows = part[is_finite], lengths[is_finite], rows[is_finite]
        scores = np.concatenate([scores, _cosines(part, lengths, direction)])
        indices = np.concatenate([indices, rows])
        # The best of this part and so far; of equal ones the first.
        if len(scores) > top:
            good = np.flatnonzero(scores >= -np.partition(-scores, top - 1)[top - 1])
            scores, indices = scores[good], indices[good]
        best = np.argsort(-scores, kind="stable")[:top]
        scores, indices = scores[best], indices[best]
    if left_out:
        tell_left_out(left_out, first)
    pairs = zip(indices.tolist(), scores.tolist(), strict=True)
    return [Match(number, min(1.0, score)) for number, score in pairs]

"""Semantic search: the texts whose embeddings are nearest to that of a query."""

from dataclasses import dataclass

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

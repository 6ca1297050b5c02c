"""The texts that are nearest in meaning to a query."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import ShapeError
from pellucid.tasks.whole_numbers import check_whole


@dataclass(frozen=True, slots=True)
class Match:
    """One text beside the query."""

    index: int
    """Its place among the texts."""
    score: float
    """The cosine of the two embeddings, from -1 to 1."""


def similar(query: Tensor, embeddings: Tensor, top: int | None = None) -> list[Match]:
    """The texts by cosine similarity, the nearest first; of equals the one that came first.

    Args:
        query: (width,) the embedding of the query.
        embeddings: (texts, width).
        top: how many; all of them unless given.

    Raises:
        ShapeError: the two do not fit together.
        ArgumentError: top is below 1.
        TypeMismatchError: top is no int.
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

"""The argument `queries=`: which rows of the weights are meant."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.attention import indexing
from pellucid.errors import OutOfRangeError

Queries = slice | Sequence[int] | Tensor | None
"""A slice or several ints, from the end if negative; None = all."""


def query_positions(queries: int | Queries, size: int) -> Tensor:
    """(chosen,) int64 positions from 0 to size - 1, on the CPU.

    Raises:
        OutOfRangeError: a position past the end.
        TypeMismatchError: queries are of another type.
    """
    if queries is None or isinstance(queries, slice):
        return torch.arange(size)[slice(None) if queries is None else queries]
    positions = indexing.as_positions("queries", queries).cpu().reshape(-1)
    if bool(((positions < -size) | (positions >= size)).any()):
        raise OutOfRangeError(f"queries must be from {-size} to {size - 1}, got {queries}")
    return positions % size

"""How much attention each key will receive from the tokens that are still to come."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights, indexing
from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError
from pellucid.lens.real_tokens import real_tokens, with_query_positions
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording

__all__ = ["future_mass", "future_masses"]

Steps = int | Sequence[int] | Tensor


@overload
def future_mass(seen: Record, steps: Steps) -> Tensor: ...


@overload
def future_mass(seen: Recording, steps: Steps) -> dict[str, Tensor]: ...


def future_mass(seen: Record | Recording, steps: Steps) -> Tensor | dict[str, Tensor]:
    """The attention that each key will receive after a step, exact.

        mass[j] = sum over the queries i >= step of weights[i, j],    for the keys j < step

    After step t, t tokens have been read and their keys are in the cache: this is what a method
    that evicts keys at that moment would need to know. In cross-attention, steps count queries, and
    every key is in the cache from the start.

    One pass over the weights of the queries from the first step on, for all steps together, in O(n)
    memory per step and head; `future_masses` gives every step. Padding queries do not count, as far
    as the mask tells them.

    Args:
        seen: a record; or a recording, for the masses of each module's latest call by name.
        steps: from 1 to the position of the last query: one, or several in any order.

    Returns:
        (..., heads, keys), or (steps, ..., heads, keys) for several; 0 for keys that are not in the
        cache yet. Or a dict of these by module name.

    Raises:
        OutOfRangeError: a step with no query after it.
        TypeMismatchError: steps are no integers, or seen is of another type.
    """
    if isinstance(seen, Recording):
        return {record.name: future_mass(record, steps) for record in seen.latest()}
    weights, own = _weights(seen)
    chosen = indexing.as_positions("steps", steps)
    last = int(own.max())
    outside = (chosen < 1) | (chosen > last)
    if bool(outside.any()):
        raise OutOfRangeError(
            f"steps of '{seen.name}' must be from 1 to {last}, the last query's position; got "
            f"{int(chosen[outside].flatten()[0])}"
        )
    if not chosen.numel():
        shape = (*chosen.shape, *weights.shape[:-2], weights.shape[-1])
        return torch.zeros(shape, dtype=weights.dtype, device=weights.device)
    flat = chosen.reshape(-1).to(weights.device)
    ordered, place = flat.unique(return_inverse=True)
    real = _real_queries(seen)
    is_one = bool((own == own[:1]).all())
    if real is None and is_one:
        masses = _by_ranges(weights, own[0], ordered.tolist())
    else:
        counted = own.unsqueeze(-1) >= ordered  # (batch, queries, steps)
        if real is not None:
            counted = counted & real.unsqueeze(-1)
        shape = (*weights.shape[:-3], 1, *counted.shape[1:])
        masses = (weights.T @ counted.to(weights.dtype).reshape(shape)).movedim(-1, 0)
    if not seen.is_cross:
        later = torch.arange(weights.shape[-1], device=weights.device) >= ordered.unsqueeze(-1)
        masses = masses.masked_fill(later.reshape(len(ordered), *[1] * (masses.ndim - 2), -1), 0)
    return masses[place].reshape(*chosen.shape, *masses.shape[1:])


def future_masses(record: Record) -> Iterator[tuple[int, Tensor]]:
    """The masses of every step, from the last to the first: see `future_mass`.

    Exact, in one pass over the weights and O(n) memory per head: the mass of step t is that of step
    t + 1 and row t. Sums are float64.

    Args:
        record: of an attention whose items begin at one position.

    Yields:
        step, and (..., heads, step) masses in the dtype of the weights; for cross-attention, (...,
        heads, keys). Steps go down from the position of the last query to that of the first, or 1.

    Raises:
        ArgumentError: the items of the batch begin at different positions.
        TypeMismatchError: record is of another type.
    """
    weights, own = _weights(record)
    if not bool((own == own[:1]).all()):
        raise ArgumentError(f"the items of '{record.name}' begin at different positions")
    real = _real_queries(record)
    return _stream(weights.detach(), own[0].tolist(), real, record.is_cross)


def _stream(
    weights: AttentionWeights, own: list[int], real: Tensor | None, is_cross: bool
) -> Iterator[tuple[int, Tensor]]:
    *outer, queries, keys = weights.shape
    running = torch.zeros(*outer, keys, dtype=torch.float64, device=weights.device)
    height = max(1, BLOCK_NUMBERS // (torch.Size(outer).numel() * keys))
    _ = weights.logsumexp  # of all rows at once
    for stop in range(queries, 0, -height):
        start = max(0, stop - height)
        width = keys if is_cross else min(keys, max(1, own[stop - 1]))  # no later step shows more
        with torch.no_grad():
            rows = weights.rows(slice(start, stop))[..., :width]
        if real is not None:
            counted = real[:, start:stop].reshape(*outer[:-1], 1, stop - start, 1)
            rows = rows * counted
        for row in reversed(range(start, stop)):
            if (step := own[row]) < 1:
                return
            running[..., :width] += rows[..., row - start, :]
            yield step, running[..., : keys if is_cross else step].to(weights.dtype)


def _by_ranges(weights: AttentionWeights, own: Tensor, steps: list[int]) -> Tensor:
    """(steps, ..., heads, keys), of steps in order: suffix sums of what ranges of rows give."""
    queries, first = len(own), int(own[0])
    edges = [min(max(0, step - first), queries) for step in steps]
    parts = [
        weights.received(slice(start, stop)) if stop > start else None
        for start, stop in pairwise([*edges, queries])
    ]
    total = weights.logsumexp.new_zeros(*weights.shape[:-2], weights.shape[-1]).double()
    masses = []
    for part in reversed(parts):
        total = total if part is None else total + part
        masses.append(total.to(weights.dtype))
    return torch.stack(masses[::-1])


def _real_queries(record: Record) -> Tensor | None:
    """(batch, queries) bool: the queries that are not padding; None if all are."""
    visibility = record.visibility
    if record.mask is None or (
        visibility.grows and visibility.present is None and visibility.uniform is None
    ):
        return None
    real = real_tokens(record)[1]
    return None if bool(real.all()) else real


def _weights(record: Record) -> tuple[AttentionWeights, Tensor]:
    if not isinstance(record, Record):
        raise TypeMismatchError(
            f"seen must be a Record or a Recording, got {type(record).__name__}"
        )
    return with_query_positions(record)

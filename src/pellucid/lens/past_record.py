"""A record as it was when its model had read fewer tokens."""

from dataclasses import replace
from typing import Any

from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record


def past_record(record: Record, step: int) -> Record:
    """The record of a causal attention after its first `step` keys, and their queries.

    Its tensors are views.

    Raises:
        ArgumentError: the attention is not causal, so that it would have been another one.
        OutOfRangeError: no query is left, or there are fewer keys.
    """
    queries, first = record.shape[-2], first_position(record)
    rows = step - first
    if not first < step <= first + queries:
        raise OutOfRangeError(
            f"steps of '{record.name}' must be from {first + 1} to {first + queries}, got {step}"
        )
    bias = record.bias
    cut: dict[str, Any] = {
        name: Pieces(pieces.tensor.narrow(axis, 0, length), axis)
        for name, axis, length in (
            ("queries", -2, rows),
            ("keys", -2, step),
            ("values", -2, step),
            ("contexts", -2, rows),
            ("logsumexps", -1, rows),
            ("sink_weights", -1, rows),
            ("query_tokens", -1, rows),
            ("key_tokens", -1, step),
        )
        if (pieces := getattr(record, name)) is not None
    }
    past = replace(
        record,
        **cut,
        biases=[] if bias is None else [Pieces(bias[..., :rows, :step])],
        latest_queries=rows,
        _weights=None,
    )
    if record.kept == "weights":
        weights = record.queries.tensor[..., :rows, :]
        if bool(weights[..., step:].any()):
            raise _not_causal(record)
        past.queries = Pieces(weights[..., :step])
        past.visibility = replace(record.visibility, first=(rows, step))
    return past


def first_position(record: Record) -> int:
    """The position of the first query of a causal attention among the keys.

    Raises:
        ArgumentError: the attention is not causal.
    """
    queries, keys = record.shape[-2:]
    if record.is_cross:
        raise _not_causal(record)
    if record.kept == "weights":
        return keys - queries
    band = record.visibility.band
    if not record.visibility.grows or band is None or record.visibility.looks_ahead:
        raise _not_causal(record)
    return int(band.offset)


def _not_causal(record: Record) -> ArgumentError:
    return ArgumentError(
        f"'{record.name}' is no causal attention, in which a token sees none that come later"
    )

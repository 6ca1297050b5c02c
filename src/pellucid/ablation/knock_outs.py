"""What is done to heads while a model runs: each item of the batch has edits of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, NamedTuple

from torch import Tensor, nn

from pellucid.lens.interventions import intervene
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record

By = Literal["zero", "mean"]


class Edit(NamedTuple):
    """The output of one head is replaced."""

    name: str
    """The module that attends."""
    head: int
    by: By | Record
    """Zeros, the mean over the queries, or the output in a record of one item."""


@contextmanager
def edited(model: nn.Module, items: Sequence[Sequence[Edit]]) -> Iterator[None]:
    """Inside, item i of every batch runs with the edits `items[i]`."""
    with intervene(model) as edit:
        for item, edits in enumerate(items):
            for change in edits:
                edit.knock_out(change.name, change.head, items=item, by=change.by)
        yield


def giving(record: Record, output: Tensor) -> Record:
    """The record with another output, (queries, value_dim), of every head."""
    assert record.context is not None
    shape = record.context.shape
    return replace(record, contexts=Pieces(output.expand(1, *shape[1:])))

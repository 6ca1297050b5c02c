"""Where replacements come from: tensors that the user gives, or the recording of another run."""

from typing import Protocol

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError
from pellucid.lens.interventions.regions import Region
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording


class Source(Protocol):
    """What replaces weights, inputs or outputs of heads."""

    def weights(
        self, region: Region, size: torch.Size, items: Tensor, heads: Tensor, rows: Tensor
    ) -> Tensor:
        """(pairs, rows, keys): weights for (pairs,) items and heads, and (rows,) queries."""

    def inputs(
        self, region: Region, part: str, items: Tensor, heads: Tensor, positions: Tensor
    ) -> Tensor:
        """(pairs, positions, dim): "query", "key" or "value" at positions of the text."""

    def contexts(self, region: Region, rows: Tensor) -> Tensor:
        """(items, heads, rows, value_dim): outputs of the region's items and heads."""


class GivenWeights:
    """Weights that the user gives, (items, heads, queries, keys) of those that are chosen."""

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    def weights(
        self, region: Region, size: torch.Size, items: Tensor, heads: Tensor, rows: Tensor
    ) -> Tensor:
        given = self._weights
        positions = []
        for axis, (chosen, wanted) in enumerate(((region.items, items), (region.heads, heads))):
            count = given.shape[axis]
            if count not in (1, len(chosen)):
                what = ("items", "heads")[axis]
                raise ShapeError(
                    f"weights are for {count} {what}, and {len(chosen)} are chosen in "
                    f"'{region.name}'"
                )
            at = torch.searchsorted(chosen, wanted).clamp_max(len(chosen) - 1)
            positions.append(at if count > 1 else torch.zeros_like(at))
        last = region.first_key + size[3]
        if given.shape[3] < last:
            raise ShapeError(
                f"weights are for {given.shape[3]} keys, and '{region.name}' reads {last}"
            )
        given = given[..., region.first_key : last].to(rows.device)
        at = self._rows(region, rows)
        return given[positions[0][:, None], positions[1][:, None], at]

    def _rows(self, region: Region, rows: Tensor) -> Tensor:
        """Which rows of the weights are for these queries."""
        count = self._weights.shape[2]
        if count == 1:
            return torch.zeros_like(rows)
        chosen = region.edit.queries.within(0, region.query_total, region.query_total)
        at = rows + region.first_query
        if chosen is not None:
            chosen = chosen.to(rows.device)
            is_chosen = torch.isin(at, chosen)
            at = torch.searchsorted(chosen, at)
        else:
            is_chosen = torch.ones_like(at, dtype=torch.bool)
        if bool((at[is_chosen] >= count).any()):
            raise ShapeError(
                f"weights are for {count} queries, and {int(at[is_chosen].max()) + 1} are chosen "
                f"in '{region.name}'"
            )
        return at.clamp_max(count - 1)

    def inputs(
        self, region: Region, part: str, items: Tensor, heads: Tensor, positions: Tensor
    ) -> Tensor:
        raise NotImplementedError

    def contexts(self, region: Region, rows: Tensor) -> Tensor:
        raise NotImplementedError


class Recorded:
    """The recording of another run of the same model: item for item, or its only item for all.

    Positions are those of the text. Of a module's calls, the latest one counts that was recorded
    when the edit was made: a watch that is still open records the runs that are edited, too.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._records = {record.name: record for record in recording.latest()}

    def _of(self, region: Region) -> Record:
        record = self._records.get(region.name) or self._recording.record(region.name)
        if region.name in self._recording.in_pieces:
            raise ArgumentError(
                f"the recording of '{region.name}' is in pieces, since "
                f"{self._recording.in_pieces[region.name]}; record one pass over the whole text"
            )
        region.edit.heads.among(record.shape[-3], f"the recording of '{region.name}'")
        return record

    def _item(self, region: Region, record: Record, items: Tensor) -> Tensor:
        """The items of the record for some items of the batch."""
        batch = record.shape[:-3].numel()
        if batch != 1 and int(region.items.max()) >= batch:
            raise ShapeError(
                f"the recording of '{region.name}' has {batch} items, and item "
                f"{int(region.items.max())} is to be replaced; record one item, or as many"
            )
        return items.clamp_max(batch - 1)  # those that are not chosen do not matter

    def _heads(self, record: Record, heads: Tensor) -> list[int]:
        """Heads of the record; those that are not chosen do not matter."""
        numbers: list[int] = heads.clamp_max(record.shape[-3] - 1).tolist()
        return numbers

    def weights(
        self, region: Region, size: torch.Size, items: Tensor, heads: Tensor, rows: Tensor
    ) -> Tensor:
        record = self._of(region)
        weights = record.weights
        at, chosen = _at(region, rows, region.rows, record.shape[-2], "query")
        items = self._item(region, record, items)
        last = region.first_key + size[3]
        shared = min(last, record.shape[-1])
        recorded = torch.stack(
            [
                weights[(*_place(item, record), head)][at.to(weights.device)]
                for item, head in zip(items.tolist(), self._heads(record, heads), strict=True)
            ]
        ).detach()
        recorded = recorded.to(rows.device)
        if bool(recorded[:, chosen, shared:].any()):
            raise ShapeError(
                f"the recorded weights of '{region.name}' are for {record.shape[-1]} keys, and "
                f"{last} are read"
            )
        if record.shape[-1] < last and region.first_query == 0:
            raise ShapeError(
                f"the recorded weights of '{region.name}' are for {record.shape[-1]} keys, and "
                f"{last} are read"
            )
        recorded = recorded[..., region.first_key : shared]
        return torch.nn.functional.pad(recorded, (0, size[3] - recorded.shape[-1]))

    def inputs(
        self, region: Region, part: str, items: Tensor, heads: Tensor, positions: Tensor
    ) -> Tensor:
        record = self._of(region)
        tensor = {"query": lambda: record.query, "key": lambda: record.key}.get(
            part, lambda: _known(record.value, region, "values")
        )()
        chosen = region.rows if part == "query" else region.cols
        at, _ = _at(region, positions, chosen, tensor.shape[-2], part)
        tensor = tensor.reshape(-1, *tensor.shape[-3:]).detach()
        group = record.shape[-3] // tensor.shape[1]
        items = self._item(region, record, items)
        heads = torch.tensor(self._heads(record, heads), device=heads.device)
        place = items[:, None], (heads // group)[:, None], at
        return tensor[tuple(x.to(tensor.device) for x in place)].to(positions.device)

    def contexts(self, region: Region, rows: Tensor) -> Tensor:
        record = self._of(region)
        context = record.context
        if context is None and record.output_weight is not None and record.value is not None:
            context = record.weights @ record.value  # it returned what its projection made of it
        context = _known(context, region, "contexts")
        context = context.reshape(-1, *context.shape[-3:]).detach()
        at, _ = _at(region, rows, region.rows, context.shape[-2], "query")
        items = self._item(region, record, region.items)
        place = items[:, None, None], region.heads[:, None], at
        return context[tuple(x.to(context.device) for x in place)].to(rows.device)


def _place(item: int, record: Record) -> tuple[int, ...]:
    """The place of an item along the batch dimensions of a record."""
    place = []
    for size in reversed(record.shape[:-3]):
        item, at = divmod(item, size)
        place.append(at)
    return tuple(reversed(place))


def _at(
    region: Region, positions: Tensor, chosen: Tensor | None, count: int, what: str
) -> tuple[Tensor, Tensor]:
    """Where positions of a call are in a record of `count` positions, and which are chosen."""
    first = region.first_query if what == "query" else region.first_key
    at = positions + first
    flags = torch.ones_like(at, dtype=torch.bool)
    if chosen is not None:
        flags = torch.isin(positions, chosen)
    if bool((at[flags] >= count).any()):
        raise OutOfRangeError(
            f"the recording of '{region.name}' has no position {int(at[flags].max())}: it has "
            f"{count}, numbered from 0; choose queries that it has"
        )
    return at.clamp_max(count - 1), flags


def _known(tensor: Tensor | None, region: Region, what: str) -> Tensor:
    if tensor is None:
        raise ArgumentError(
            f"the recording of '{region.name}' keeps no {what}: record it with "
            "pellucid.watch(model, values=True)"
        )
    return tensor

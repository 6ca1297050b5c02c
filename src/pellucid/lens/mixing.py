"""Rows of a record as mixtures of values: their shares of the keys, and their contexts.

    context_i = total_i * sum_j share_ij v_j

The shares of a row, with that of any sink, sum to one. The total is 1, except where a record holds
weights whose rows do not sum to one. Batch dimensions are flattened into one.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from pellucid.attention.backends.blockwise import finite
from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.lens.contributions import value_of
from pellucid.lens.record import Record

FULL = (torch.float32, torch.float64)


class Mixing:
    """What each row of a record mixes. No gradients."""

    def __init__(self, record: Record) -> None:
        """Raises ArgumentError for a record without values."""
        self._record = record
        self.weights = record.weights
        self.operands = self.weights.operands
        self.outer = self.weights.shape[:-3]
        value = value_of(record).detach().to(self.weights.dtype)
        value = value.expand(*self.outer, *value.shape[-3:])
        self.value = value.reshape(-1, *value.shape[-3:])
        """(batch, kv_heads, keys, value_dim)"""
        self.group = self.weights.shape[-3] // self.value.shape[1]
        """Query heads for each head of the values."""

    @cached_property
    def is_exact(self) -> bool:
        """Whether the recorded contexts are those of the weights, to the rounding of float32."""
        record = self._record
        if record.has_edited_outputs:
            return False
        proven = record.proof is None or bool(record.proof.rows)  # not where there is dropout
        dtypes = (record.queries.dtype, None if record.context is None else record.context.dtype)
        return proven and all(dtype in FULL for dtype in dtypes)

    @cached_property
    def total(self) -> Tensor | None:
        """(batch, heads, queries): the sums of rows that are kept as weights; None where 1."""
        if self._record.kept != "weights":
            return None
        total = self.weights.sum(-1)
        if self._record.sink_weight is not None:
            total = total + self._record.sink_weight.to(total)
        return total.reshape(self.operands.shape[:3]).detach()

    def total_at(self, positions: Tensor) -> Tensor:
        """(rows, 1) of positions (rows, 3): item, head, query."""
        if self.total is None:
            return self.value.new_ones(1, 1).expand(len(positions), 1)
        return self.total[tuple(positions.T)].unsqueeze(-1)

    def values_at(self, positions: Tensor, keys: Tensor) -> Tensor:
        """(links, value_dim)"""
        item, head, _ = positions.T
        return self.value[item, head // self.group, keys]

    def contexts(self, rows: slice) -> Tensor:
        """(batch, heads, rows, value_dim), in one fused pass where they are not recorded."""
        context = self._record.context
        if context is not None and self.is_exact:
            context = context[..., rows, :]
        else:
            value = self.value
            if value.shape[1] != self.weights.kv_heads:  # kept weights have no grouped heads
                value = value.repeat_interleave(self.group, 1)
            value = value.reshape(*self.outer, *value.shape[1:])
            context = self.weights.rows(rows) @ value
        return (
            context.detach().reshape(*self.operands.shape[:2], *context.shape[-2:]).to(self.value)
        )

    def means(self, positions: Tensor) -> Tensor:
        """(rows, value_dim): context / total, of rows at positions (rows, 3)."""
        if self.is_exact:
            context = self.contexts(slice(None))[tuple(positions.T)]
            return context / nonzero(self.total_at(positions))
        means = self.value.new_zeros(len(positions), self.value.shape[-1])
        for at, item, head in self.by_head(positions):
            means[at] = self.mix(item, head, *self.logs(item, head, positions[at, 2]))[0]
        return means

    def shares(self, positions: Tensor, keys: Tensor) -> Tensor:
        """(links,) shares of links, given the place of each one's row (links, 3) and its key."""
        if self.is_exact:
            items = unravelled(positions[:, 0], self.outer)
            picked = self.weights[(*items, positions[:, 1], positions[:, 2], keys)]
            return picked / nonzero(self.total_at(positions)[:, 0])
        gathered = self.value.new_zeros(len(positions))
        for at, item, head in self.by_head(positions):
            rows, row = positions[at, 2].unique(return_inverse=True)
            shares = self.mix(item, head, *self.logs(item, head, rows))[1]
            gathered[at] = shares[row, keys[at]]
        return gathered

    def by_head(self, positions: Tensor) -> Iterator[tuple[Tensor, int, int]]:
        """Positions in parts of one head, each with item and head; a part's rows fit a block."""
        step = max(1, BLOCK_NUMBERS // self.operands.shape[3])
        code = positions[:, 0] * self.operands.shape[1] + positions[:, 1]
        order = code.argsort(stable=True)
        heads, counts = code[order].unique_consecutive(return_counts=True)
        for head, part in zip(heads.tolist(), order.split(counts.tolist()), strict=True):
            for at in part.split(step):
                yield at, *divmod(head, self.operands.shape[1])

    def logs(self, item: int, head: int, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Masked scores of some rows, (rows, keys), and of their sink, (rows, 1), if they have one.

        For kept weights they are logarithms.
        """
        place = unravelled(torch.tensor(item), self.outer)
        scores = self.weights.head(*map(int, place), head).masked[0, rows].detach()
        sink = self._record.sink_weight
        if sink is not None:
            return scores, sink.reshape(self.operands.shape[:3])[item, head, rows, None].log()
        sinks = self.operands.sinks
        if sinks is None:
            return scores, None
        return scores, sinks[head].detach().to(scores).expand(len(rows), 1)

    def mix(self, item: int, head: int, logs: Tensor, sink: Tensor | None) -> tuple[Tensor, Tensor]:
        """context / total (rows, value_dim) and shares (rows, keys); 0 where all is hidden."""
        whole = logs if sink is None else torch.cat([logs, sink.to(logs)], -1)
        shares = torch.exp(logs - finite(whole.logsumexp(-1)).unsqueeze(-1))
        return shares @ self.value[item, head // self.group], shares


def nonzero(total: Tensor) -> Tensor:
    """A divisor for numbers that are 0 where it is."""
    return total.masked_fill(total == 0, 1)


def unravelled(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The positions along axes of these sizes of positions in all of them flattened into one.

    As torch.unravel_index, which imports a second's worth of other packages.
    """
    coordinates: list[Tensor] = []
    for size in reversed(sizes):
        coordinates.insert(0, flat % size)
        flat = flat // size
    return coordinates

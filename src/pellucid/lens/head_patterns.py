"""Which place stands for what: the position before a query's, its token's last occurrence, ...

Where the weights of single places are asked for, only those are computed; the share that goes to
other positions with the same token takes blocks of equal tokens, sorted next to each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.block_pool import each
from pellucid.attention.masks import Spans
from pellucid.attention.scores import BLOCK_NUMBERS

ROWS_TOGETHER = 128
"""Queries of one block, of different tokens where each stands there seldom."""


@dataclass(frozen=True, eq=False)
class Places:
    """The positions of one attention whose queries stand among its keys.

    Batch dimensions are flattened into one; an answer for places is (batch, heads, queries).
    """

    weights: AttentionWeights
    own: Tensor
    """(batch, queries) int64: where each query stands among the keys."""
    real: Tensor
    """(batch, keys) bool: those that are no padding."""

    def shown(self, places: Tensor) -> Tensor:
        """(batch, heads, queries) bool: whether each query may see the key at its place.

        places is (batch, queries) int64; a place outside the keys is not seen.
        """
        of = self.weights.operands
        batch, heads, queries, keys = of.shape
        inside = (places >= 0) & (places < keys)
        places = places.clamp(0, keys - 1)
        seen = (inside & self.real.gather(-1, places)).unsqueeze(1)
        if of.mask is not None:
            item, head, row = (torch.arange(n, device=of.query.device) for n in of.shape[:3])
            seen = seen & of.mask.sees(item[:, None, None], head[:, None], row, places.unsqueeze(1))
        return seen.expand(batch, heads, queries)

    def at(self, places: Tensor) -> Tensor:
        """(batch, heads, queries): the weight that each query gives to the key at its place."""
        batch, heads, queries, keys = self.weights.operands.shape
        item = torch.arange(batch, device=places.device)[:, None].expand(batch, queries)
        row = torch.arange(queries, device=places.device).expand(batch, queries)
        outer = self.weights.shape[:-3]
        items = torch.unravel_index(item.flatten(), outer) if outer else ()
        index = (*items, slice(None), row.flatten(), places.clamp(0, keys - 1).flatten())
        found = self.weights[index]  # (picked, heads), or (heads, picked) without a batch
        found = found if outer else found.T
        return found.reshape(batch, queries, heads).transpose(1, 2)

    def after_last_occurrence(self, ids: Tensor) -> Tensor:
        """(batch, queries) int64: the place after the last earlier one with the query's token.

        That is what an induction head looks at. -1 where there is none, or where it would be the
        query itself.

        Args:
            ids: (batch, keys) tokens.
        """
        batch, keys = ids.shape
        place = torch.arange(keys, device=ids.device)
        told = ids.unique(return_inverse=True)[1].masked_fill(~self.real, -1)
        order = told.sort(dim=-1, stable=True).indices
        ordered = told.gather(-1, order)
        same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        last = ids.new_full((batch, keys), -1, dtype=torch.int64)
        last.scatter_(-1, order[:, 1:], order[:, :-1].masked_fill(~same, -1))
        target = (last + 1).masked_fill((last < 0) | (last + 1 >= place), -1)
        inside = (self.own >= 0) & (self.own < keys)
        return target.gather(-1, self.own.clamp(0, keys - 1)).masked_fill(~inside, -1)

    def duplicates(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What goes to other positions with the query's token, and whether it sees any.

        Exact, at the cost of the pairs of equal tokens: n² only where all tokens are the same.

        Args:
            ids: (batch, keys) tokens.

        Returns:
            The share, (batch, heads, queries), and flags of the same shape.
        """
        batch, heads, queries, _ = self.weights.operands.shape
        share = self.weights.logsumexp.new_zeros(batch, heads, queries)
        seen = torch.zeros(batch, heads, queries, dtype=torch.bool, device=ids.device)
        for item in range(batch):
            equal = _Equal(self, item, ids[item])
            found = each(equal.block, equal.blocks(), ids.device, differentiable=False)
            for (rows, _, _), (part, flags) in found:
                place = equal.rows[rows]
                share[item][:, place], seen[item][:, place] = part, flags
        return share, seen


Block = tuple[slice, slice, bool]
"""Rows, columns, and whether all of them have the same token."""


class _Equal:
    """The queries and keys of one item, sorted by token; tokens that stand there once left out."""

    def __init__(self, places: Places, item: int, ids: Tensor) -> None:
        self.of = places.weights.operands
        mask = self.of.mask
        self.mask = mask if mask is None or mask.batch is None else mask.at(item)
        self.logsumexp = finite(places.weights.logsumexp.reshape(self.of.shape[:3])[item])
        self.item = item
        keys, own, real = len(ids), places.own[item], places.real[item]
        token = ids.unique(return_inverse=True)[1]
        counts = token[real].bincount(minlength=int(token.max()) + 1)
        token = token.masked_fill(~real | (counts[token] < 2), -1)
        of_query = token[own.clamp(0, keys - 1)].masked_fill((own < 0) | (own >= keys), -1)
        self.rows, self.token_of_row = _sorted(of_query)
        self.cols, self.token_of_col = _sorted(token)
        self.own = own[self.rows]

    @cached_property
    def query(self) -> Tensor:
        """(heads, rows, key_dim)"""
        return self.of.query[self.item].index_select(-2, self.rows)

    @cached_property
    def key(self) -> Tensor:
        """(kv_heads, cols, key_dim)"""
        return self.of.key[self.item].index_select(-2, self.cols)

    def blocks(self) -> Iterator[Block]:
        """Rows and columns that hold all pairs of equal tokens."""
        if not len(self.rows):
            return
        groups = int(self.token_of_col.max()) + 1
        sizes = (self.token_of_row.bincount(minlength=groups), self.token_of_col.bincount())
        ends = zip(*(accumulate(size.tolist()) for size in sizes), strict=True)
        start = before = (0, 0)
        for end in ends:
            if end[0] - start[0] > ROWS_TOGETHER and before[0] > start[0]:
                yield from self._cut(start, before)
                start = before
            before = end
        yield from self._cut(start, before)

    def _cut(self, start: tuple[int, int], end: tuple[int, int]) -> Iterator[Block]:
        """One rectangle in blocks of bounded size."""
        if start[0] == end[0]:
            return
        alike = bool(self.token_of_col[start[1]] == self.token_of_col[end[1] - 1])
        for first in range(start[0], end[0], ROWS_TOGETHER):
            rows, cols = slice(first, min(first + ROWS_TOGETHER, end[0])), slice(start[1], end[1])
            if alike and self.mask is not None:
                some = self._spans(rows).some
                cols = self._columns(cols, some[0][0], some[-1][1]) if some else slice(0, 0)
            yield rows, cols, alike

    def _spans(self, rows: slice) -> Spans:
        """What the range from the first to the last of these queries, in their order, can see."""
        assert self.mask is not None
        first, last = int(self.rows[rows.start]), int(self.rows[rows.stop - 1])
        return self.mask.spans(first, last + 1, self.of.shape[3])

    def _columns(self, cols: slice, start: int, stop: int) -> slice:
        """Those columns of one token that stand from start up to stop."""
        ends = self.cols.new_tensor([start, stop])
        low, high = torch.searchsorted(self.cols[cols], ends).tolist()
        return slice(cols.start + low, cols.start + high)

    def _hidden(self, rows: slice, cols: slice, alike: bool) -> Iterator[tuple[slice, Tensor]]:
        """Ranges among the columns, with flags (heads or 1, rows, columns) of what is hidden."""
        parts = [cols]
        if alike:
            if self.mask is None:
                return
            clear = slice(cols.stop, cols.stop)
            for start, stop in self._spans(rows).every[:1]:
                clear = self._columns(cols, start, stop)
            parts = [slice(cols.start, clear.start), slice(clear.stop, cols.stop)]
        for part in parts:
            if part.start < part.stop:
                hidden = ~self._sees(self.rows[rows, None], self.cols[part])
                if not alike:
                    hidden = hidden | (self.token_of_col[part] != self.token_of_row[rows, None])
                yield slice(part.start - cols.start, part.stop - cols.start), hidden

    def _sees(self, row: Tensor, col: Tensor) -> Tensor:
        """(heads or 1, rows, columns) bool for positions that broadcast to (rows, columns)."""
        whole = torch.broadcast_shapes((1, 1, 1), row.shape, col.shape)
        if self.mask is None:
            return torch.ones(whole, dtype=torch.bool, device=row.device)
        head = torch.arange(self.of.shape[1], device=row.device)[:, None, None]
        seen = self.mask.sees(torch.zeros_like(head), head, row, col)
        return seen.expand(torch.broadcast_shapes(whole, seen.shape))

    def block(self, block: Block) -> tuple[Tensor, Tensor]:
        """The share of each row, (heads, rows), and whether it sees a column, likewise."""
        rows, cols, alike = block
        of, height, width = self.of, rows.stop - rows.start, cols.stop - cols.start
        heads, row, col = of.shape[1], self.rows[rows], self.cols[cols]
        share = self.logsumexp.new_zeros(heads, height)
        if not width:
            return share, torch.zeros_like(share, dtype=torch.bool)
        hidden = list(self._hidden(rows, cols, alike))
        own = (col == self.own[rows, None]).nonzero()
        seen = share.new_full((heads, height), width)
        for _, flags in hidden:
            seen -= flags.sum(-1)
        seen[:, own[:, 0]] -= self._sees(row[own[:, 0], None], col[own[:, 1], None])[..., 0].int()
        step = max(1, BLOCK_NUMBERS // (height * width))
        for first in range(0, heads, step):
            some = slice(first, min(first + step, heads))
            key = of.of_heads(self.key[:, cols].unsqueeze(0), some)[0]
            bias = None
            if of.bias is not None:
                bias = of.bias[self.item, some][:, row[:, None], col]
            masked = of.compute(self.query[some, rows], key, bias, None)
            for part, flags in hidden:
                masked[..., part].masked_fill_(
                    flags if len(flags) == 1 else flags[some], -torch.inf
                )
            masked[:, own[:, 0], own[:, 1]] = -torch.inf
            weights = masked.sub_(self.logsumexp[some, row].unsqueeze(-1)).exp_()
            share[some] = weights.sum(-1)
        return share, seen > 0


def _sorted(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Positions sorted by token, then place, without negative tokens; and their tokens."""
    order = tokens.sort(stable=True).indices
    order = order[int((tokens < 0).sum()) :]
    return order, tokens[order]

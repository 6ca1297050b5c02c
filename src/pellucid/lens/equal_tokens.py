"""Attention to other positions with the query's token, in blocks of tokens sorted by id."""

from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.masks import Spans
from pellucid.attention.scores import BLOCK_NUMBERS

ROWS_TOGETHER = 128
"""Queries of one block, which holds several tokens if each occurs seldom."""

Block = tuple[slice, slice, bool]
"""Rows, columns, and whether they all have one token."""


class EqualTokens:
    """The queries and keys of one item, sorted by token; tokens that occur once are left out."""

    def __init__(
        self, weights: AttentionWeights, item: int, ids: Tensor, own: Tensor, real: Tensor
    ) -> None:
        """Sort the tokens of an item.

        Args:
            weights: those of the whole batch.
            item: which item of the flattened batch.
            ids: (keys,) tokens.
            own: (queries,) int64, the position of each query among the keys.
            real: (keys,) bool, the keys that are not padding.
        """
        self.of = weights.operands
        mask = self.of.mask
        self.mask = mask if mask is None or mask.batch is None else mask.at(item)
        self.logsumexp = finite(weights.logsumexp.reshape(self.of.shape[:3])[item])
        self.item = item
        keys = len(ids)
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
        """Blocks that cover all pairs of equal tokens."""
        if not len(self.rows):
            return
        groups = int(self.token_of_col.max()) + 1
        sizes = (self.token_of_row.bincount(minlength=groups), self.token_of_col.bincount())
        ends = zip(*(accumulate(size.tolist()) for size in sizes), strict=True)
        start = before = (0, 0)
        for end in ends:
            if end[0] - start[0] > ROWS_TOGETHER and before[0] > start[0]:
                yield from self._split(start, before)
                start = before
            before = end
        yield from self._split(start, before)

    def _split(self, start: tuple[int, int], end: tuple[int, int]) -> Iterator[Block]:
        """A rectangle of rows and columns, in blocks of bounded size."""
        if start[0] == end[0]:
            return
        one_token = bool(self.token_of_col[start[1]] == self.token_of_col[end[1] - 1])
        for first in range(start[0], end[0], ROWS_TOGETHER):
            rows, cols = slice(first, min(first + ROWS_TOGETHER, end[0])), slice(start[1], end[1])
            if one_token and self.mask is not None:
                some = self._spans(rows).some
                cols = self._columns(cols, some[0][0], some[-1][1]) if some else slice(0, 0)
            yield rows, cols, one_token

    def _spans(self, rows: slice) -> Spans:
        """The keys that queries see, from the first to the last of these rows."""
        assert self.mask is not None
        first, last = int(self.rows[rows.start]), int(self.rows[rows.stop - 1])
        return self.mask.spans(first, last + 1, self.of.shape[3])

    def _columns(self, cols: slice, start: int, stop: int) -> slice:
        """The columns, all of one token, whose positions are in [start, stop)."""
        ends = self.cols.new_tensor([start, stop])
        low, high = torch.searchsorted(self.cols[cols], ends).tolist()
        return slice(cols.start + low, cols.start + high)

    def _hidden(self, rows: slice, cols: slice, one_token: bool) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of the columns with hidden pairs, and their (heads or 1, rows, columns) flags."""
        parts = [cols]
        if one_token:
            if self.mask is None:
                return
            clear = slice(cols.stop, cols.stop)
            for start, stop in self._spans(rows).every[:1]:
                clear = self._columns(cols, start, stop)
            parts = [slice(cols.start, clear.start), slice(clear.stop, cols.stop)]
        for part in parts:
            if part.start < part.stop:
                hidden = ~self._sees(self.rows[rows, None], self.cols[part])
                if not one_token:
                    hidden = hidden | (self.token_of_col[part] != self.token_of_row[rows, None])
                yield slice(part.start - cols.start, part.stop - cols.start), hidden

    def _sees(self, row: Tensor, col: Tensor) -> Tensor:
        """(heads or 1, rows, columns) bool, for positions that broadcast to (rows, columns)."""
        whole = torch.broadcast_shapes((1, 1, 1), row.shape, col.shape)
        if self.mask is None:
            return torch.ones(whole, dtype=torch.bool, device=row.device)
        head = torch.arange(self.of.shape[1], device=row.device)[:, None, None]
        seen = self.mask.sees(torch.zeros_like(head), head, row, col)
        return seen.expand(torch.broadcast_shapes(whole, seen.shape))

    def share(self, block: Block) -> tuple[Tensor, Tensor]:
        """The share of each row, and whether it sees a column, both (heads, rows)."""
        rows, cols, one_token = block
        of, height, width = self.of, rows.stop - rows.start, cols.stop - cols.start
        heads, row, col = of.shape[1], self.rows[rows], self.cols[cols]
        share = self.logsumexp.new_zeros(heads, height)
        if not width:
            return share, torch.zeros_like(share, dtype=torch.bool)
        hidden = list(self._hidden(rows, cols, one_token))
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
    """Positions sorted by token and position, without negative tokens; and their tokens."""
    order = tokens.sort(stable=True).indices
    order = order[int((tokens < 0).sum()) :]
    return order, tokens[order]

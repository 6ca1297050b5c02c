"""The matrix of scores, of which any part can be computed and which is never formed whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.energies import Energy, mapped, tensors_of
from pellucid.attention.intervals import Intervals
from pellucid.attention.masks import Mask

Stage = Literal["scores", "scaled", "capped", "masked"]

BLOCK_NUMBERS = 2**21
"""Scores in one block on the CPU, 8 MiB in float32: thin blocks waste the matrix product, which
packs all its columns each time, and large ones the cache."""
NUMBERS_AT_ONCE = 2**25
"""Scores in all blocks computed at the same time, 128 MiB in float32: those of many cores, or the
one block of an accelerator."""
LEAST_ROWS = 32
"""Fewest rows of a block, however long: thinner matrix products are slow."""
MASKED_ROWS = 128
"""Most rows of a block under a mask, which computes every key that any of them sees."""
MOST_PARTS = 8
"""Most ranges masked one by one; above, masking all columns at once is cheaper."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of some heads, with the columns that any of them may see."""

    items: slice
    heads: slice
    rows: slice
    cols: Intervals
    mask: Mask | None
    """The mask of this item."""
    masked: Intervals
    """The columns that only some of the rows see, to which the mask must be applied."""

    def spans(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """The first column that each row sees and the one after the last, counted among the
        block's, each int64 (rows,); None where a row or a head has more than one range.
        """
        rows, width = self.rows.stop - self.rows.start, intervals.length(self.cols)
        begins = torch.full((rows,), width, device=device)
        ends, seen = torch.zeros_like(begins), torch.zeros_like(begins)
        keys = self.cols[-1][1]
        for part, is_masked in (
            (self.masked, True),
            (intervals.complement(self.masked, keys), False),
        ):
            for start, stop in intervals.intersection(self.cols, part):
                at = intervals.length(intervals.intersection(self.cols, ((0, start),)))
                if not is_masked:
                    begins, ends = begins.clamp_max(at), ends.clamp_min(at + stop - start)
                    seen += stop - start
                    continue
                assert self.mask is not None
                tile = self.mask.tile(self.heads, self.rows, slice(start, stop), device)
                if len(tile) > 1:
                    return None
                flags = tile[0].byte()
                count = tile[0].sum(-1)
                first, last = at + flags.argmax(-1), at + stop - start - flags.flip(-1).argmax(-1)
                begins = begins.minimum(first.where(count > 0, width))
                ends = ends.maximum(last.where(count > 0, 0))
                seen += count
        return (begins, ends) if bool((seen == (ends - begins).clamp_min(0)).all()) else None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Query, key and the options of their scores; batch dimensions flattened into one."""

    query: Tensor
    """(batch, heads, queries, d), as the energy projects it."""
    key: Tensor
    """(batch, kv_heads, keys, d)."""
    energy: Energy
    scale: float
    softcap: float | None
    bias: Tensor | None
    """(batch, heads, queries, keys), expanded."""
    mask: Mask | None
    """Bound to these sizes."""
    sinks: Tensor | None
    """(heads,)."""
    batch_shape: torch.Size
    """The batch dimensions as the user gave them."""

    @property
    def shape(self) -> torch.Size:
        """(batch, heads, queries, keys)."""
        return torch.Size((*self.query.shape[:3], self.key.shape[2]))

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.query.shape[1] // self.key.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of scores and weights: float32 or better."""
        return torch.promote_types(self.query.dtype, torch.float32)

    @property
    def requires_grad(self) -> bool:
        tensors = (self.query, self.key, self.bias, self.sinks)
        return self.energy.requires_grad or any(t is not None and t.requires_grad for t in tensors)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Scores":
        """The same with `change` applied to each tensor; an expanded one is expanded again."""
        return mapped(self, lambda tensor: change(unexpanded(tensor)).expand(tensor.shape))

    def detach(self) -> "Scores":
        return replace(self.map(torch.Tensor.detach), energy=self.energy.detach())

    @property
    def bytes_held(self) -> int:
        """Bytes of all its tensors, without the repetitions of expanded ones."""
        return sum(unexpanded(tensor).nbytes for tensor in tensors_of(self))

    def at(self, item: int) -> "Scores":
        """The scores of one batch item, (1, heads, queries, keys)."""
        items = slice(item, item + 1)
        return replace(
            self,
            query=self.query[items],
            key=self.key[items],
            bias=None if self.bias is None else self.bias[items],
            mask=None if self.mask is None else self.mask.at(item),
            batch_shape=torch.Size(()),
        )

    def compute(
        self,
        query: Tensor,
        key: Tensor,
        bias: Tensor | None,
        visible: Tensor | None,
        stage: Stage = "masked",
    ) -> Tensor:
        """Scores of (..., rows, d) and (..., cols, d), up to a stage of the formula.

        bias and visible broadcast to (..., rows, cols).
        """
        with torch.autocast(query.device.type, enabled=False):
            return self._compute(query.to(self.dtype), key.to(self.dtype), bias, visible, stage)

    def _compute(
        self, query: Tensor, key: Tensor, bias: Tensor | None, visible: Tensor | None, stage: Stage
    ) -> Tensor:
        rows, kv_heads = query.shape[-2], key.shape[-3]
        if stage == "masked" and visible is not None and torch.is_grad_enabled():
            # Queries and keys that no pair shows may hold NaN, and 0 * NaN would reach gradients.
            used = visible.any(-2)
            if used.ndim > 1 and used.shape[-2] != kv_heads:
                used = used.any(-2, keepdim=True)
            key = key.masked_fill(~used.unsqueeze(-1), 0)
            query = query.masked_fill(~visible.any(-1, keepdim=True), 0)
        group = query.shape[-3] // max(1, kv_heads)  # an index may select no heads
        if group > 1:  # heads that share a key become more rows of one product
            query = query.unflatten(-3, (kv_heads, group)).flatten(-3, -2)
        if self.energy.is_dot_product and stage != "scores":
            scores = (query * self.scale) @ key.mT
        else:
            scores = self.energy.score(query, key)
            scores = scores if stage == "scores" else scores * self.scale
        if group > 1:
            scores = scores.unflatten(-2, (group, rows)).flatten(-4, -3)
        if stage in ("scores", "scaled"):
            return scores
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if stage == "capped":
            return scores
        if bias is not None:
            scores = scores + bias
        if visible is not None:
            scores = scores.masked_fill(~visible, -torch.inf)
        return scores

    def blocks(self, queries: slice | None = None, keys: slice | None = None) -> Iterator[Block]:
        """Cover what is visible in a range of queries and keys with blocks of bounded size."""
        batch, _, all_queries, all_keys = self.shape
        queries = slice(0, all_queries) if queries is None else queries
        keys = slice(0, all_keys) if keys is None else keys
        mask = self.mask
        if mask is None or mask.batch is None:
            yield from self._blocks_of_items(slice(0, batch), queries, keys, mask)
        else:
            for item in range(batch):
                part = slice(item, item + 1)
                yield from self._blocks_of_items(part, queries, keys, mask.at(item))

    def _blocks_of_items(
        self, items: slice, queries: slice, keys: slice, mask: Mask | None
    ) -> Iterator[Block]:
        heads, all_keys = self.shape[1], self.shape[3]
        numbers = NUMBERS_AT_ONCE
        if self.query.device.type == "cpu":
            numbers = min(BLOCK_NUMBERS, NUMBERS_AT_ONCE // torch.get_num_threads())
        numbers = max(1, numbers // self.energy.numbers_per_score)
        step = max(LEAST_ROWS, numbers // max(1, keys.stop - keys.start))
        step = step if mask is None else min(step, MASKED_ROWS)
        for rows in steps(queries, step):
            cols: Intervals = ((keys.start, keys.stop),)
            masked: Intervals = ()
            if mask is not None:
                some, every = mask.spans(rows.start, rows.stop, all_keys)
                cols = intervals.intersection(cols, some)
                masked = intervals.intersection(cols, intervals.complement(every, all_keys))
                masked = masked if len(masked) <= MOST_PARTS else cols
            per_head = (rows.stop - rows.start) * intervals.length(cols)
            if not per_head:
                continue
            for some_items in steps(items, numbers // (heads * per_head)):
                for some_heads in steps(slice(0, heads), numbers // per_head):
                    yield Block(some_items, some_heads, rows, cols, mask, masked)

    def of_block(self, block: Block, hide: bool = True) -> Tensor:
        """Masked scores, (items, heads, rows, cols), the block's columns adjacent.

        Without `hide`, a hidden key has any score.
        """
        query = self.query[block.items, block.heads, block.rows]
        key = pick_columns(self.of_heads(self.key[block.items], block.heads), block.cols, -2)
        bias = None
        if self.bias is not None:
            bias = pick_columns(self.bias[block.items, block.heads, block.rows], block.cols, -1)
        device = query.device
        if hide and torch.is_grad_enabled() and block.mask is not None:
            tiles = [
                block.mask.tile(block.heads, block.rows, slice(*span), device)
                for span in block.cols
            ]
            return self.compute(query, key, bias, torch.cat(tiles, -1))
        scores = self.compute(query, key, bias, None)
        for start, stop in block.masked if hide else ():
            assert block.mask is not None
            tile = block.mask.tile(block.heads, block.rows, slice(start, stop), device)
            at = intervals.length(intervals.intersection(block.cols, ((0, start),)))
            scores[..., at : at + stop - start].masked_fill_(~tile, -torch.inf)
        return scores

    def of_heads(self, tensor: Tensor, heads: slice) -> Tensor:
        """The part of a (batch, kv_heads, ...) tensor that a range of query heads reads."""
        if self.group == 1 or tensor.shape[1] == self.query.shape[1]:
            return tensor[:, heads]
        if (heads.stop - 1) // self.group == heads.start // self.group:
            first = heads.start // self.group
            return tensor[:, first : first + 1]  # they all share one key head
        index = torch.arange(heads.start, heads.stop, device=tensor.device) // self.group
        return tensor[:, index]


def unexpanded(tensor: Tensor) -> Tensor:
    """A view of an expanded tensor without its repetitions."""
    return tensor[tuple(slice(0, 1 if stride == 0 else None) for stride in tensor.stride())]


def pick_columns(tensor: Tensor, cols: Intervals, dim: int) -> Tensor:
    """Some ranges of one dimension; a view where there is only one."""
    parts = [tensor.narrow(dim, start, stop - start) for start, stop in cols]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def steps(whole: slice, step: int) -> list[slice]:
    """A range in parts of `step`, at least 1; the last may be shorter."""
    step = max(1, step)
    starts = range(whole.start, whole.stop, step)
    return [slice(start, min(start + step, whole.stop)) for start in starts]

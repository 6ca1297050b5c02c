"""What the weights of one call are computed from, for any heads, rows and columns of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attention.masks import Extent, Mask
from pellucid.lens.interception.calls import Call
from pellucid.lens.interventions.edits import Stage
from pellucid.lens.interventions.regions import Region
from pellucid.lens.mask_reader import MaskReader

LARGE = 2**14
"""Links of a head from which on the mask makes a tile of its own for each."""


@dataclass(frozen=True, eq=False, slots=True)
class Operands:
    """Query, key, value and the rule of one call, and a part of it where asked."""

    query: Tensor
    """(batch, heads, queries, key_dim)"""
    key: Tensor
    """(batch, kv_heads, keys, key_dim)"""
    value: Tensor
    """(batch, kv_heads, keys, value_dim)"""
    scale: float
    softcap: float | None
    sinks: Tensor | None
    """(heads,)"""
    mask: Mask | None
    """Bound to these sizes."""
    bias: Tensor | None
    """Broadcasts to (batch, heads, queries, keys)."""
    uniform: Tensor | None
    """(batch or 1, queries) bool: rows whose scores are all equal."""

    @classmethod
    def of(cls, call: Call, masks: MaskReader) -> "Operands":
        query, key, value = call.query, call.key, call.value
        assert isinstance(query, Tensor)
        assert isinstance(key, Tensor)
        assert isinstance(value, Tensor)
        batch, heads, queries, dim = query.shape
        keys = key.shape[-2]
        visibility, bias = masks.rule_of(call, queries, keys)
        rule, extent = visibility.fixed, Extent(query.shape[:1], heads, queries, keys, query.device)
        return cls(
            query=query,
            key=key.expand(batch, *key.shape[1:]),
            value=value.expand(batch, *value.shape[1:]),
            scale=dim**-0.5 if call.scale is None else call.scale,
            softcap=call.softcap,
            sinks=call.sinks,
            mask=None if rule is None else rule.bind(extent),
            bias=None if bias is None else bias.tensor,
            uniform=visibility.uniform_rows(queries),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of scores and weights: float32 or better."""
        return torch.promote_types(self.query.dtype, torch.float32)

    @property
    def shape(self) -> torch.Size:
        """(batch, heads, queries, keys)"""
        return torch.Size((*self.query.shape[:3], self.key.shape[2]))

    def values(
        self, regions: Sequence[Region], items: Tensor, heads: Tensor, cols: Tensor | None = None
    ) -> Tensor:
        """(pairs, cols, value_dim): the values that (pairs,) items and heads read."""
        return self._of_keys("value", regions, items, heads, cols)

    def scores(
        self,
        regions: Sequence[Region],
        items: Tensor,
        heads: Tensor,
        rows: Tensor,
        cols: Tensor | None = None,
    ) -> Tensor:
        """(pairs, rows, cols): masked scores of some pairs of an item and a head.

        Args:
            regions: edits, of which those of queries and keys apply.
            items, heads: (pairs,)
            rows, cols: (n,) queries and keys; None = all keys.
        """
        query = self.query[items[:, None], heads[:, None], rows].to(self.dtype)
        query = _patched(query, "query", regions, items, heads, rows)
        key = self._of_keys("key", regions, items, heads, cols)
        if key.numel() < query.numel():
            key = key * self.scale
        else:
            query = query * self.scale
        scores = query @ key.mT
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        at = (items[:, None, None], heads[:, None, None], rows[:, None])
        col = self._columns(cols)
        if self.bias is not None:
            scores = scores + self.bias.expand(self.shape)[(*at, col)]
        if self.uniform is not None:
            blank = self.uniform.expand(self.shape[0], -1)[at[0], at[2]]
            scores = scores.masked_fill(blank, 0)
        if self.mask is not None:
            tiles = self._tiles(items, heads, rows) if cols is None else None
            visible = self.mask.sees(*at, col) if tiles is None else tiles
            scores = scores.masked_fill(~visible, -torch.inf)
        return scores

    def _tiles(self, items: Tensor, heads: Tensor, rows: Tensor) -> Tensor | None:
        """(pairs, rows, keys) bool: what rows in a row see; None where asking for each link is
        faster.
        """
        count, keys = len(rows), self.shape[3]
        if count * keys < LARGE or int(rows[-1] - rows[0]) + 1 != count or self.mask is None:
            return None
        start, tiles = int(rows[0]), []
        for item, head in zip(items.tolist(), heads.tolist(), strict=True):
            mask = self.mask if self.mask.batch is None else self.mask.at(item)
            place = slice(head, head + 1), slice(start, start + count), slice(0, keys)
            tiles.append(mask.tile(*place, rows.device)[0])
        return torch.stack(tiles)

    def _of_keys(
        self,
        part: str,
        regions: Sequence[Region],
        items: Tensor,
        heads: Tensor,
        cols: Tensor | None,
    ) -> Tensor:
        """(pairs, cols, dim): the keys or values that heads read."""
        tensor = self.key if part == "key" else self.value
        of_heads = heads // (self.query.shape[1] // tensor.shape[1])
        at = (items, of_heads) if cols is None else (items[:, None], of_heads[:, None], cols)
        return _patched(tensor[at].to(self.dtype), part, regions, items, heads, self._columns(cols))

    def _columns(self, cols: Tensor | None) -> Tensor:
        return torch.arange(self.shape[3], device=self.key.device) if cols is None else cols


def _patched(
    tensor: Tensor,
    part: str,
    regions: Sequence[Region],
    items: Tensor,
    heads: Tensor,
    positions: Tensor,
) -> Tensor:
    """(pairs, positions, dim): a query, key or value with what edits put in its place."""
    for region in regions:
        if region.edit.stage == Stage.INPUT and region.edit.part == part:
            chosen = region.flags(items, heads)[:, None]
            of_edit = region.rows if part == "query" else region.cols
            if of_edit is not None:
                chosen = chosen & torch.isin(positions, of_edit)
            given = region.edit.source.inputs(region, part, items, heads, positions).to(tensor)
            tensor = torch.where(chosen.unsqueeze(-1), given, tensor)
    return tensor

"""What the weights of one call are computed from, for any heads, rows and columns of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attention.masks import Extent, Mask
from pellucid.lens.interception.calls import Call
from pellucid.lens.mask_reader import MaskReader


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

    def keys_of(self, tensor: Tensor, items: Tensor, heads: Tensor) -> Tensor:
        """(pairs, keys, dim): the part of a (batch, kv_heads, keys, dim) tensor that heads read."""
        return tensor[items, heads // (self.query.shape[1] // tensor.shape[1])]

    def scores(
        self, items: Tensor, heads: Tensor, rows: Tensor, cols: Tensor | None = None
    ) -> Tensor:
        """(pairs, rows, cols): masked scores of some pairs of an item and a head.

        Args:
            items, heads: (pairs,)
            rows, cols: (n,) queries and keys; None = all keys.
        """
        query = self.query[items[:, None], heads[:, None], rows].to(self.dtype)
        key = self.keys_of(self.key, items, heads).to(self.dtype)
        key = key if cols is None else key[:, cols]
        scores = (query * self.scale) @ key.mT
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        at = (items[:, None, None], heads[:, None, None], rows[:, None])
        col = torch.arange(self.shape[3], device=scores.device) if cols is None else cols
        if self.bias is not None:
            bias = self.bias.expand(*self.bias.shape[: self.bias.ndim - 4], *self.shape)
            scores = scores + bias[(*at, col)]
        if self.uniform is not None:
            blank = self.uniform.expand(self.shape[0], -1)[at[0], at[2]]
            scores = scores.masked_fill(blank, 0)
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask.sees(*at, col), -torch.inf)
        return scores

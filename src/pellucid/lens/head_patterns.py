"""The positions that head patterns are about, and the weights that queries give to them.

Weights at single positions are computed alone. Attention to equal tokens is computed in blocks of
equal tokens (see `EqualTokens`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.block_pool import each
from pellucid.lens.equal_tokens import EqualTokens


@dataclass(frozen=True, eq=False)
class Positions:
    """The positions of one attention, of the queries among the keys.

    Batch dimensions are flattened into one. `targets` hold a key position for each query, (batch,
    queries) int64; what is returned for them is (batch, heads, queries).
    """

    weights: AttentionWeights
    own: Tensor
    """(batch, queries) int64: the position of each query among the keys."""
    real: Tensor
    """(batch, keys) bool: the keys that are not padding."""

    def visible(self, targets: Tensor) -> Tensor:
        """Whether each query sees the real key at its target; False outside the keys."""
        of = self.weights.operands
        batch, heads, queries, keys = of.shape
        inside = (targets >= 0) & (targets < keys)
        targets = targets.clamp(0, keys - 1)
        seen = (inside & self.real.gather(-1, targets)).unsqueeze(1)
        if of.mask is not None:
            item, head, row = (torch.arange(n, device=of.query.device) for n in of.shape[:3])
            columns = targets.unsqueeze(1)
            seen = seen & of.mask.sees(item[:, None, None], head[:, None], row, columns)
        return seen.expand(batch, heads, queries)

    def weights_at(self, targets: Tensor) -> Tensor:
        """The weight that each query gives to the key at its target."""
        batch, heads, queries, keys = self.weights.operands.shape
        item = torch.arange(batch, device=targets.device)[:, None].expand(batch, queries)
        row = torch.arange(queries, device=targets.device).expand(batch, queries)
        outer = self.weights.shape[:-3]
        items = torch.unravel_index(item.flatten(), outer) if outer else ()
        index = (*items, slice(None), row.flatten(), targets.clamp(0, keys - 1).flatten())
        picked = self.weights[index]  # (picked, heads), or (heads, picked) without a batch
        picked = picked if outer else picked.T
        return picked.reshape(batch, queries, heads).transpose(1, 2)

    def after_last_occurrence(self, ids: Tensor) -> Tensor:
        """(batch, queries) int64: the position after the last earlier occurrence of the token.

        This is the target of an induction head. -1 if there is none, or if it is the query itself.

        Args:
            ids: (batch, keys) tokens.
        """
        batch, keys = ids.shape
        position = torch.arange(keys, device=ids.device)
        token = ids.unique(return_inverse=True)[1].masked_fill(~self.real, -1)
        order = token.sort(dim=-1, stable=True).indices
        ordered = token.gather(-1, order)
        same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        last = ids.new_full((batch, keys), -1, dtype=torch.int64)
        last.scatter_(-1, order[:, 1:], order[:, :-1].masked_fill(~same, -1))
        target = (last + 1).masked_fill((last < 0) | (last + 1 >= position), -1)
        inside = (self.own >= 0) & (self.own < keys)
        return target.gather(-1, self.own.clamp(0, keys - 1)).masked_fill(~inside, -1)

    def duplicates(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The share of attention on other positions with the query's token.

        Exact; costs the pairs of equal tokens, which is n² only if all tokens are equal.

        Args:
            ids: (batch, keys) tokens.

        Returns:
            The share, and whether the query sees any such position, both (batch, heads, queries).
        """
        batch, heads, queries, _ = self.weights.operands.shape
        share = self.weights.logsumexp.new_zeros(batch, heads, queries)
        seen = torch.zeros(batch, heads, queries, dtype=torch.bool, device=ids.device)
        for item in range(batch):
            equal = EqualTokens(self.weights, item, ids[item], self.own[item], self.real[item])
            results = each(equal.share, equal.blocks(), ids.device, differentiable=False)
            for (rows, _, _), (part, flags) in results:
                row = equal.rows[rows]
                share[item][:, row], seen[item][:, row] = part, flags
        return share, seen

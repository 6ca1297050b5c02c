"""Scores that hide keys by a large negative number, scanned once: their mask, and their sums."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.lens.mask_tensor import all_true

SCAN_NUMBERS = 2**19
"""Scores that are scanned together, so that they stay in the CPU's cache."""
SCAN_COLUMNS = 512
"""Scores of a row that are added up in their own dtype."""
HIDDEN = -9000.0
"""A score at most this is that of a hidden key: models add -1e4, -1e9 or the lowest number."""


@dataclass(frozen=True, eq=False)
class ScoreScan:
    """The result of a scan of all scores of a call."""

    scores: Tensor
    """(batch, heads, queries, keys), float."""
    seen: Tensor
    """(batch, 1 or heads, queries, keys) bool: which keys are seen; 1 if all heads see the same."""
    sums: Tensor | None
    """(batch, heads, queries) float64: the sum of each row's visible scores times factors."""


def scan_scores(scores: Tensor, factors: Tensor | None = None) -> ScoreScan:
    """Scan scores that hide keys by a large negative number.

    Args:
        scores: (batch, heads, queries, keys), float.
        factors: (keys,) of the dtype of the scores, for the sums; None = no sums.
    """
    batch, heads, queries, keys = scores.shape
    seen = torch.empty(batch, 1, queries, keys, dtype=torch.bool, device=scores.device)
    sums = None
    if factors is not None:
        sums = torch.zeros(batch, heads, queries, dtype=torch.float64, device=scores.device)
    items = max(1, SCAN_NUMBERS // max(1, heads * queries * keys))
    rows = max(1, SCAN_NUMBERS // max(1, heads * keys))
    same_heads = True
    room = scores.new_empty(
        0 if factors is None else min(items, batch) * heads * min(rows, queries) * keys
    )
    for item in range(0, batch if scores.numel() else 0, items):
        for row in range(0, queries, rows):
            place = slice(item, item + items), slice(None), slice(row, row + rows)
            block = scores[place]
            if same_heads:  # NaN counts as seen, but is neither above nor below
                every = torch.gt(block.amin(1, keepdim=True), HIDDEN, out=seen[place])
                same_heads = all_true(every ^ (block.amax(1, keepdim=True) <= HIDDEN))
            if factors is not None and sums is not None:
                shown = room[: block.numel()].view(block.shape)
                torch.threshold(block, HIDDEN, 0, out=shown)
                for start in range(0, keys, SCAN_COLUMNS):
                    columns = slice(start, start + SCAN_COLUMNS)
                    some = shown.view(-1, keys)[:, columns].mv(factors[columns])
                    sums[place] += some.view(block.shape[:3])
    return ScoreScan(scores, seen if same_heads else ~(scores <= HIDDEN), sums)

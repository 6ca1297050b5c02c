"""A mask tensor, or scores, compared with a rule: whether the rule is exactly the tensor."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.masks import Mask

CHUNK_NUMBERS = 2**22
"""The most numbers that are compared together."""
CHUNK_ROWS = 256
"""The most rows of a chunk: of a triangle, that much of every row is compared one by one."""
LOWEST = -1e8
"""A number in a mask hides if it is at most this: next to it, float32 cannot tell scores apart."""


class MaskTensor:
    """A mask, (items, heads, rows, keys), as bool, as float, or as the bool mask of scores."""

    def __init__(self, whole: Tensor, scores: Tensor | None = None) -> None:
        self.whole = whole
        self.additive = whole.dtype != torch.bool
        self.numbers = whole if self.additive else scores
        """The numbers that hide keys, if any."""
        self.limit = max(torch.finfo(whole.dtype).min / 2, LOWEST) if self.additive else 0.0
        self.biased = False
        """Whether a visible key with a number other than 0 was found."""
        self.uneven = False
        """Whether a row was found whose keys are hidden by different numbers, some finite."""

    def chunks(self, items: int = 1, heads: int = 1) -> Iterator[slice]:
        """Slices of rows to compare together, for these numbers of items and heads."""
        rows, keys = self.whole.shape[-2:]
        step = max(1, min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, items * heads * keys)))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))

    def seen(self, block: Tensor) -> Tensor:
        return ~(block <= self.limit) if self.additive else block

    def _is_hidden(self, block: Tensor) -> bool:
        if not block.numel():
            return True
        if self.additive:
            return bool(block.amax() <= self.limit)
        return not block.view(torch.uint8).amax()

    def _is_seen(self, block: Tensor) -> bool:
        if not block.numel():
            return True
        if not self.additive:
            return bool(block.view(torch.uint8).amin())
        low, high = block.aminmax()
        if bool((low == 0) & (high == 0)):
            return True
        if not all_true(self.seen(block)):
            return False
        self.biased = True
        return True

    def agrees(self, block: Tensor, expected: Tensor) -> bool:
        if self.additive and not self.biased:
            zero = block == 0
            if all_true(zero ^ (block <= self.limit)):  # every visible key has 0
                return all_true(zero == expected)
            self.biased = True
        return all_true(self.seen(block) == expected)

    def equals(self, mask: Mask | None, holes: Tensor | None = None) -> bool:
        """Whether the tensor is the mask and the flags of keys in `holes`, (items or 1, keys)."""
        heads = self.whole.shape[1]
        flags = None if holes is None else holes[:, None, None]
        parts = [(self.whole, mask, flags)]
        if mask is not None and mask.batch is not None:
            parts = [
                (part, mask.at(item), flags if flags is None or len(flags) == 1 else flags[item])
                for item, part in enumerate(self.whole.split(1))
            ]
        return all(
            self._rows_equal(whole[:, :, rows], rule, of_keys, rows)
            for whole, rule, of_keys in parts
            for rows in self.chunks(len(whole), heads)
        )

    def _rows_equal(
        self, block: Tensor, rule: Mask | None, flags: Tensor | None, rows: slice
    ) -> bool:
        """`equals` for some rows, and a rule without items."""
        keys = self.whole.shape[-1]
        everything = intervals.clip(0, keys, keys)
        some, every = everything, everything
        if rule is not None:
            some, every = rule.spans(rows.start, rows.stop, keys)
        for start, stop in intervals.complement(some, keys):
            if not self._is_hidden(block[..., start:stop]):
                return False
        for start, stop in every:
            part = block[..., start:stop]
            if not (
                self._is_seen(part) if flags is None else self.agrees(part, flags[..., start:stop])
            ):
                return False
        for start, stop in intervals.intersection(some, intervals.complement(every, keys)):
            assert rule is not None
            tile = rule.tile(slice(0, 1), rows, slice(start, stop), block.device)
            tile = tile if flags is None else tile & flags[..., start:stop]
            if not self.agrees(block[..., start:stop], tile):
                return False
        return True


def all_true(flags: Tensor) -> bool:
    """As `flags.all()`, which is slow on the CPU."""
    return not flags.numel() or bool(flags.view(torch.uint8).amin())

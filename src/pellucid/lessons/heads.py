"""Which head is worth looking at?

Many heads show little: they rest on [CLS] or [SEP], on the token itself, spread evenly over all, or
copy one fixed neighbour (Clark et al. 2019, "What Does BERT Look At?", section 3). The measure here
takes away for each of these, and is a product of two numbers that a reader can check by eye.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.common.wording import percent


@dataclass(frozen=True, slots=True)
class Worth:
    """How much a head has to show, from 0 to 1."""

    to_others: float
    """The share of its attention that words give to other words, on average."""
    evenness: float
    """The entropy of a word's weights over the most it could be: 0 = one key, 1 = all alike."""

    @property
    def total(self) -> float:
        """to_others * 4 * evenness * (1 - evenness): zero for any head described above."""
        return self.to_others * 4 * self.evenness * (1 - self.evenness)

    def why(self) -> str:
        """The reason in words."""
        return (
            f"worth {self.total:.2f} of 1, since words give {percent(self.to_others)} of their "
            f"attention to other words, spread {percent(self.evenness)} of the way from one token "
            "to all alike"
        )


def worth(weights: Tensor, visible: Tensor, words: Tensor) -> list[Worth]:
    """How much each head of a layer has to show; empty where no word sees another.

    Args:
        weights: (heads, tokens, tokens).
        visible: (heads, tokens, tokens) bool, False where a mask hides the key.
        words: (tokens,) bool, False for punctuation and the model's own marks such as [CLS].
    """
    others = words & ~torch.eye(len(words), dtype=torch.bool, device=words.device)
    rows = words & (visible.any(dim=0) & others).any(dim=-1)
    if not rows.any():
        return []
    entropy = torch.special.entr(weights).sum(dim=-1)
    most = visible.sum(dim=-1).clamp(min=2).log()
    to_others = (weights * others).sum(dim=-1)[:, rows].mean(dim=-1)
    evenness = (entropy / most)[:, rows].mean(dim=-1)
    return [
        Worth(share, even)
        for share, even in zip(to_others.tolist(), evenness.tolist(), strict=True)
    ]


def telling_word(weights: Tensor, words: Tensor) -> int:
    """The word that gives most to other words, which has most to tell.

    Args:
        weights: (tokens, tokens), of one head.
        words: as in `worth`.
    """
    others = words & ~torch.eye(len(words), dtype=torch.bool)
    return int(((weights * others).sum(dim=-1) + words).argmax())

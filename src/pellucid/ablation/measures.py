"""What a knock-out changes: distributions over tokens, or a text's answer (a logit, an embedding).

Of distributions, all positions are measured, a few at a time: all logits of all items would be
items x tokens x vocabulary numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

UNKNOWN = -100
"""The target of a position whose next token is not known, as in `torch.nn.CrossEntropyLoss`."""
MOST_LOGITS = 2**23
"""Logits computed at once: 32 MiB, a few times over."""
ABOUT = {
    "kl": "KL divergence of the next token's distribution from the plain run's, mean over the "
    "positions, in nats",
    "loss": "rise of the cross-entropy of the next token, mean over the positions, in nats",
    "logprob": "fall of the log-probability of the translation, in nats",
    "logit": "fall of the log-odds of the label that the plain run gives",
    "cosine": "cosine distance of the embedding from the plain run's",
}
"""What each measure is, for people."""
MEASURES = tuple(ABOUT)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a knock-out is measured."""

    name: str
    """The figure by which heads are ranked."""
    about: str
    """What it is, for people."""


@dataclass(frozen=True, kw_only=True)
class Distributions(Measure):
    """The distributions of the next token, at each position.

    Figures: "kl", the divergence KL(plain || knocked out) in nats, its mean over positions, and
    "kl_last", at the last one; "loss", by how much the mean cross-entropy of the next token
    rises; "logprob", by how much the log-probability of all of them falls.
    """

    targets: Tensor
    """(positions,) the token that follows each, or `UNKNOWN`."""

    @property
    def known(self) -> int:
        """How many positions have a target."""
        return int((self.targets != UNKNOWN).sum())

    def changes(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The divergence and the rise of the loss at some positions, (items, positions) each.

        Args:
            logits: (1 + items, positions, vocabulary), the plain ones first.
            start: the first position.
        """
        targets = self.targets[start : start + logits.shape[1]].to(logits.device)
        plain = logits[0].float().log_softmax(-1)
        # In differences, small changes keep their digits: with d = logits - plain logits,
        # KL = log E[exp(d - E[d])], and the loss rises by E[d] + KL - d[target].
        share = plain.exp()
        difference = (logits[1:] - logits[0]).float()
        difference -= _expected(difference, share).unsqueeze(-1)
        at = targets.clamp(min=0).expand(len(difference), -1).unsqueeze(-1)
        of_target = difference.gather(-1, at).squeeze(-1)
        divergence = _expected(difference.expm1_(), share).log1p()
        far = ~divergence.isfinite()
        if bool(far.any()):  # exp of a large difference
            item, position = far.nonzero(as_tuple=True)
            change = (logits[1 + item, position] - logits[0, position]).float()
            change -= (share[position] * change).sum(-1, keepdim=True)
            divergence[far] = (plain[position] + change).logsumexp(-1)
        rise = (divergence - of_target).masked_fill(targets == UNKNOWN, 0.0)
        return divergence.double(), rise.double()

    def figures(self, divergence: Tensor, rise: Tensor) -> list[dict[str, float]]:
        """Of each item, from `changes` at all positions."""
        known = self.known
        found = []
        for one, more in zip(divergence.clamp(min=0), rise, strict=True):
            figures = {"kl": float(one.mean()), "kl_last": float(one[-1])}
            if known:
                total = float(more.sum())
                figures |= {"loss": total / known, "logprob": total}
            found.append(figures)
        return found


def _expected(values: Tensor, share: Tensor) -> Tensor:
    """(items, positions): means of (items, positions, tokens) under (positions, tokens)."""
    return torch.bmm(values.transpose(0, 1), share.unsqueeze(-1)).squeeze(-1).T


@dataclass(frozen=True, kw_only=True)
class Answer(Measure):
    """What a model says of a whole text."""

    read: Callable[[Any], Tensor] = lambda output: output
    """From the model's output to (items, numbers)."""
    change: Callable[[Tensor, Tensor], Tensor]
    """From the plain answer, (1, numbers), and those of the items to (items,)."""

    def figures(self, plain: Tensor, changed: Tensor) -> list[dict[str, float]]:
        """Of each item; arguments as of `change`."""
        effects = self.change(plain.double(), changed.double())
        return [{self.name: float(effect)} for effect in effects]


def fall(plain: Tensor, changed: Tensor) -> Tensor:
    """By how much one number falls."""
    return plain[:, 0] - changed[:, 0]


def log_odds(logits: Tensor, label: int) -> Tensor:
    """(items, 1): the log-odds of a label against all others, from the logits of a softmax."""
    others = [number for number in range(logits.shape[-1]) if number != label]
    rest = logits[:, others].logsumexp(-1)
    return (logits[:, label] - rest).unsqueeze(-1)

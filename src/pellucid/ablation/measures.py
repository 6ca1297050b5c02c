"""What a knock-out changes: distributions over tokens, or a text's answer (a logit, an embedding).

Of distributions, all positions are measured, a few at a time: all logits of all items would be
items x tokens x vocabulary numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.readers.divergence import divergence

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

    def changes(self, plain: Tensor, changed: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The divergence and the rise of the loss at some positions, (items, positions) each.

        Args:
            plain: (positions, vocabulary) logits.
            changed: (items, positions, vocabulary) logits.
            start: the first position.
        """
        targets = self.targets[start : start + len(plain)].to(plain.device)
        divergences, change = divergence(plain, changed)
        at = targets.clamp(min=0).unsqueeze(-1)
        before = plain.gather(-1, at)
        after = changed.gather(-1, at.expand(len(changed), -1, -1))
        rise = change - (after - before).squeeze(-1)
        return divergences, rise.masked_fill(targets == UNKNOWN, 0.0)

    def figures(self, far: Tensor, rise: Tensor) -> list[dict[str, float]]:
        """Of each item, from `changes` at all positions."""
        known = self.known
        rows = []
        for distance, more in zip(far, rise, strict=True):
            figures = {"kl": float(distance.mean()), "kl_last": float(distance[-1])}
            if known:
                total = float(more.sum())
                figures |= {"loss": total / known, "logprob": total}
            rows.append(figures)
        return rows


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

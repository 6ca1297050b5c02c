"""Texts made for a purpose: which links a head's score is read from, and what a model should know.

Each experiment has texts with a pattern and, where that can be left out, as many controls: texts
that differ in nothing but the pattern, with the links and the predictions at the same positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """Texts of one length, which the model reads as one batch."""

    ids: Tensor
    """(items, tokens) int64."""
    links: Mapping[str, Tensor]
    """By probe: (links, 3) int64, the item, the query and the key of each link."""
    predicted: Tensor
    """(predictions, 3) int64: an item, a position, and the token that should follow it."""
    rather_than: Tensor | None = None
    """(predictions,) int64: tokens that should not follow; None is all others."""

    def behaviour(self, logits: Tensor) -> Tensor:
        """(predictions,) float64: the log-probability of each token that should follow, in nats; or
        how far its logit is above that of the token that should not.

        Args:
            logits: (items, tokens, vocabulary)
        """
        item, position, _ = self.predicted.to(logits.device).unbind(-1)
        return self._of_rows(logits[item, position], slice(None))

    def positions(self, item: int) -> Tensor:
        """(predictions,) int64: where an item predicts."""
        return self.predicted[self.predicted[:, 0] == item, 1]

    def behaviour_of(self, item: int, rows: Tensor) -> Tensor:
        """The same of one item, given its logits, (predictions, vocabulary), at `positions`."""
        return self._of_rows(rows, self.predicted[:, 0] == item)

    def _of_rows(self, rows: Tensor, which: slice | Tensor) -> Tensor:
        rows = rows.double()
        if self.rather_than is None:
            rows = rows.log_softmax(-1)
        token = self.predicted[which, 2].to(rows.device)
        wanted = rows.gather(-1, token[:, None])[:, 0]
        if self.rather_than is None:
            return wanted
        other = self.rather_than[which].to(rows.device)
        return wanted - rows.gather(-1, other[:, None])[:, 0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Experiment:
    """Trials with a pattern and, for each, one without."""

    behaviour: str
    """What the model does with the pattern, and its unit."""
    trials: list[Trial]
    controls: list[Trial] = field(default_factory=list)
    """As many as trials, or none."""
    in_every_text: frozenset[str] = frozenset()
    """The probes whose links no control is without; their baseline is to look at all alike."""

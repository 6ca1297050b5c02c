"""Statistics of the heads of one module, added up over many calls without keeping any."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import pad


class HeadTotals:
    """Statistics of each head over all calls so far; each None unless it is collected."""

    def __init__(self) -> None:
        self.calls = 0
        self.max_logit: Tensor | None = None
        """(heads,) the largest logit of all calls; -inf where every key was hidden."""
        self.entropy: Tensor | None = None
        """(heads,) the mean over all queries, in nats; 0 of a query that sees no key."""
        self.received: Tensor | None = None
        """(heads, keys) the attention that each key position gets from a text, mean over texts; 0
        from a text that does not reach it."""
        self._queries = self._texts = 0

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Add a call's.

        Args:
            figures: as from `AttentionWeights.collect`.
        """
        self.calls += 1
        if (largest := figures.get("max_logit")) is not None:
            largest = largest.flatten(0, -2).amax(0)
            self.max_logit = largest if self.max_logit is None else largest.maximum(self.max_logit)
        if (entropy := figures.get("entropy")) is not None:
            entropy = entropy.movedim(-2, 0).flatten(1)
            before, self._queries = self._queries, self._queries + entropy.shape[1]
            self.entropy = _mean(self.entropy, before, entropy.double().sum(1), self._queries)
        if (received := figures.get("received")) is not None:
            received = received.flatten(0, -3)
            before, self._texts = self._texts, self._texts + len(received)
            self.received = _mean(self.received, before, received.double().sum(0), self._texts)

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name} {tuple(figure.shape)}"
            for name in ("max_logit", "entropy", "received")
            if (figure := getattr(self, name)) is not None
        )
        return f"HeadTotals({self.calls} calls: {shapes})"


def _mean(mean: Tensor | None, before: int, total: Tensor, count: int) -> Tensor:
    """The mean of `before` numbers, with those of the total; `count` are both together."""
    if mean is None:
        return total / count
    width = max(mean.shape[-1], total.shape[-1])
    mean, total = (pad(x, (0, width - x.shape[-1])) for x in (mean, total))
    return (mean * before + total) / count

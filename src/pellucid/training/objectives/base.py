"""The interface of an objective."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.models import load
from pellucid.models.architectures import Transformer
from pellucid.training.attention_snapshot import Glance, glance
from pellucid.training.losses import cross_entropy

Part = Sequence[int]
"""The input of one forward pass: numbers of texts, or starts of windows."""
Progress = Callable[[int, int], None]
"""Called with the amount done and the total."""

LINE = 60
"""Characters of a text in a sample."""


def typical(lengths: np.ndarray) -> float:
    """The mean, over tokens, of the length of their text."""
    return float((lengths.astype(float) ** 2).sum() / lengths.sum())


class Objective(nn.Module):
    """A model with its training and held-out data.

    `forward` computes the loss, so that a wrapper of the module (data parallelism, sharding,
    compilation) covers all of it.
    """

    model: Transformer
    judged_by: str
    """The measure that chooses the best weights."""
    higher_is_better = False
    tie_broken_by: str | None = None
    """A measure, lower if better, that chooses among equally good weights."""

    def batch(self, step: int) -> Part:
        """The batch of an update."""
        raise NotImplementedError

    def cut(self, part: Part, most: int) -> list[Part]:
        """Divide a batch into forward passes of at most `most` tokens."""
        raise NotImplementedError

    def targets(self, part: Part) -> int:
        """The number of losses that `forward` sums."""
        raise NotImplementedError

    def tokens(self, part: Part) -> int:
        """The number of tokens that `forward` reads."""
        raise NotImplementedError

    def lengths(self) -> tuple[float, ...]:
        """The typical length of a text, or of a source and a target (see `typical`)."""
        raise NotImplementedError

    def forward(self, part: Part) -> Tensor:
        """The sum of the losses, in nats."""
        raise NotImplementedError

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """Evaluate the model quickly on held-out data."""
        raise NotImplementedError

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        """Evaluate a trained model in full, however long it takes."""
        return self.measure(progress)

    def example(self) -> tuple[Tensor, ...]:
        """The ids, (tokens,), of a short held-out text, always the same; or of a source and a
        target, which includes its start token.
        """
        raise NotImplementedError

    def sample(self) -> str:
        """The model's output on held-out texts, for people who follow the run."""
        return ""

    def glance(self) -> Glance | None:
        """The attention of one head on `example`; an error is only a warning."""
        try:
            return glance(self.model, *self.example())
        except Exception as error:
            reason = str(error) or type(error).__name__
            warnings.warn(f"no attention is shown: {reason}", stacklevel=2)
            return None

    def save(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Save the model for `pellucid.load`, with these weights of the objective."""
        model = type(self.model)(self.model.config)
        model.load_state_dict(
            {
                name.removeprefix("model."): weight
                for name, weight in weights.items()
                if name.startswith("model.")
            }
        )
        model.tokenizer, model.generation = self.model.tokenizer, self.model.generation
        model.save(directory, overwrite=True)

    def finish(self, directory: Path) -> None:
        """Save what `examine` has found out, next to the model."""

    def restore(self, directory: Path) -> None:
        """Replace the model with the one that `save` wrote."""
        self.model = load(directory)


def perplexity(loss: float) -> float:
    """The perplexity of a loss in nats; inf instead of an overflow."""
    return math.exp(loss) if loss < 700 else math.inf


def output(model: Any, x: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy of hidden states, (..., width), and targets, (...)."""
    head = model.decoder.tokens if model.head is None else model.head
    if model.config.logit_scale != 1:
        x = x * model.config.logit_scale
    return cross_entropy(
        x.flatten(0, -2), head.weight, targets.flatten(), bias=model.bias, smoothing=smoothing
    )

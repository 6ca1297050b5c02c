"""What training asks of an objective."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.models import load
from pellucid.models.stacks import Transformer
from pellucid.training.attention_snapshot import Glance, glance
from pellucid.training.losses import cross_entropy

Part = Sequence[int]
"""What one forward pass reads: numbers of texts, or places where stretches begin."""
Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

LINE = 60
"""Letters of a text in a sample."""


def typical(lengths: np.ndarray) -> float:
    """The length of the text that a token is of, in the mean over tokens."""
    return float((lengths.astype(float) ** 2).sum() / lengths.sum())


class Objective(nn.Module):
    """A model, the texts it learns from, and those it is judged by.

    `forward` is what training makes small, so that whatever wraps a module (data parallel,
    sharding, compiling) wraps all of it.
    """

    model: Transformer
    judged_by: str
    """The measure that says which weights are the best."""
    higher_is_better = False

    def batch(self, step: int) -> Part:
        """What an update reads."""
        raise NotImplementedError

    def cut(self, part: Part, most: int) -> list[Part]:
        """The same in forward passes of at most so many tokens."""
        raise NotImplementedError

    def targets(self, part: Part) -> int:
        """How many losses `forward` adds up."""
        raise NotImplementedError

    def tokens(self, part: Part) -> int:
        """How many tokens `forward` reads."""
        raise NotImplementedError

    def lengths(self) -> tuple[float, ...]:
        """Tokens of a text as attention sees them, the sum of their squares over their sum; of a
        source and of a target where there are both.
        """
        raise NotImplementedError

    def forward(self, part: Part) -> Tensor:
        """The sum of the losses, in nats."""
        raise NotImplementedError

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """How good the model is on texts that it did not learn from; quick."""
        raise NotImplementedError

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        """All that can be said of a model that is done, however long it takes."""
        return self.measure(progress)

    def example(self) -> tuple[Tensor, ...]:
        """Ids (tokens,) of a short text that is held out, the same each time; of a source and a
        target, with its start, where there are both.
        """
        raise NotImplementedError

    def sample(self) -> str:
        """What the model makes of held-out texts, for people to see how it comes along."""
        return ""

    def glance(self) -> Glance | None:
        """What one head sees in `example`; it is for people to watch, and never ends a run."""
        try:
            return glance(self.model, *self.example())
        except Exception as error:
            reason = str(error) or type(error).__name__
            warnings.warn(f"no attention is shown: {reason}", stacklevel=2)
            return None

    def save(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Write the model as `pellucid.load` reads it, with these weights of the objective."""
        model = type(self.model)(self.model.config)
        own = {name: one for name, one in weights.items() if name.startswith("model.")}
        model.load_state_dict({name.removeprefix("model."): one for name, one in own.items()})
        model.tokenizer, model.generation = self.model.tokenizer, self.model.generation
        model.save(directory, overwrite=True)

    def restore(self, directory: Path) -> None:
        """Go on with the model that `save` wrote, in place of the one there is."""
        self.model = load(directory)


def perplexity(loss: float) -> float:
    """Of a loss in nats; inf, and no error, where a run has gone astray."""
    return math.exp(loss) if loss < 700 else math.inf


def output(model: Any, x: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of what a model's last block made, (..., width), and the targets (...)."""
    head = model.decoder.tokens if model.head is None else model.head
    if model.config.logit_scale != 1:
        x = x * model.config.logit_scale
    return cross_entropy(
        x.flatten(0, -2), head.weight, targets.flatten(), bias=model.bias, smoothing=smoothing
    )

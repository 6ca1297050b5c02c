"""What each kind of model is trained for, and by what it is judged."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.models import Decoder
from pellucid.models.stacks import Transformer
from pellucid.training.batches import Packed, Windows
from pellucid.training.losses import IGNORED, cross_entropy
from pellucid.training.sequences import Sequences

Part = Sequence[int]
"""What one forward pass reads: numbers of texts, or places where stretches begin."""


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

    def forward(self, part: Part) -> Tensor:
        """The sum of the losses, in nats."""
        raise NotImplementedError

    def measure(self, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """How good the model is on texts that it did not learn from."""
        raise NotImplementedError

    def sample(self) -> str:
        """Something that the model makes, for people to see how it comes along."""
        return ""

    def save(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Write the model with these weights as `pellucid.load` reads it."""
        model = type(self.model)(self.model.config)
        model.load_state_dict(weights)
        model.tokenizer = self.model.tokenizer
        model.save(directory)


def output(model: Any, x: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of what a model's last block made, (..., width), and the targets (...)."""
    head = model.decoder.tokens if model.head is None else model.head
    if model.config.logit_scale != 1:
        x = x * model.config.logit_scale
    return cross_entropy(
        x.flatten(0, -2), head.weight, targets.flatten(), bias=model.bias, smoothing=smoothing
    )


class NextToken(Objective):
    """A decoder says at each place what comes next (Radford et al. 2018, section 3.1)."""

    judged_by = "bits_per_byte"

    def __init__(
        self,
        model: Decoder,
        texts: Sequences,
        held_out: Sequences,
        *,
        batch_tokens: int,
        seed: int = 0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        assert model.config.positions is not None
        self.context = min(model.config.positions, len(texts.ids) - 1)
        rows = max(1, batch_tokens // self.context)
        self.windows = Windows(texts, self.context, rows, seed)
        self.held_out, self.smoothing = held_out, smoothing

    def batch(self, step: int) -> Part:
        return self.windows.starts(step)

    def cut(self, part: Part, most: int) -> list[Part]:
        rows = max(1, most // self.context)
        return [part[first : first + rows] for first in range(0, len(part), rows)]

    def targets(self, part: Part) -> int:
        return len(part) * self.context

    tokens = targets

    def forward(self, part: Part) -> Tensor:
        packed, targets = self.windows.read(part)
        return output(self.model, self._through(packed), targets.to(self.model.device), self.smoothing)

    def _through(self, packed: Packed) -> Tensor:
        model = self.model
        packed = packed.to(model.device)
        x: Tensor = model.decoder(packed.ids, mask=packed.mask, positions=packed.positions)
        return x

    def measure(self, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Every held-out token is judged once, with at least half a context before it where there
        is so much.
        """
        last = len(self.held_out.ids) - 1
        context = min(self.context, last)
        windows, half = Windows(self.held_out, context, 1, 0), max(1, context // 2)
        nats = 0.0
        done = 0
        starts = [*range(0, last - context, half), last - context]
        for start in starts:
            packed, targets = windows.read([start])
            targets = targets.clone()
            targets[:, : done - start] = IGNORED
            with torch.no_grad():
                nats += float(output(self.model, self._through(packed), targets))
            done = start + context
            if progress is not None:
                progress(done, last)
        return {
            "loss": nats / last,
            "perplexity": math.exp(nats / last),
            "bits_per_byte": nats / math.log(2) / self.held_out.bytes,
        }

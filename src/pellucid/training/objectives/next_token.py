"""Next-token prediction by a decoder."""

import math

import torch
from torch import Tensor

from pellucid.models import Decoder
from pellucid.training.attention_snapshot import MOST, short_one
from pellucid.training.batches import Packed, Windows
from pellucid.training.losses import IGNORED
from pellucid.training.objectives.base import Objective, Part, Progress, output, perplexity
from pellucid.training.sequences import Sequences

SHOWN = 24
"""Tokens that a sample adds."""
PENALTY = 1.0
"""Subtracted from the logits of tokens already in a sample, which would otherwise repeat itself."""


class NextToken(Objective):
    """Language modelling (Radford et al. 2018, section 3.1)."""

    model: Decoder
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

    def lengths(self) -> tuple[float, ...]:
        return (float(self.context),)

    def forward(self, part: Part) -> Tensor:
        packed, targets = self.windows.read(part)
        return output(
            self.model, self._hidden(packed), targets.to(self.model.device), self.smoothing
        )

    def _hidden(self, packed: Packed) -> Tensor:
        model = self.model
        packed = packed.to(model.device)
        x: Tensor = model.decoder(packed.ids, mask=packed.mask, positions=packed.positions)
        return x

    def example(self) -> tuple[Tensor]:
        return (self.held_out[short_one(self.held_out.lengths)][: min(MOST, self.context)],)

    def sample(self) -> str:
        """A greedy continuation of the example, with a penalty for repetition."""
        (prompt,) = self.example()
        tokenizer, ids = self.model.tokenizer, prompt.to(self.model.device)
        if tokenizer is None:
            return ""
        while len(ids) < min(len(prompt) + SHOWN, self.context):
            logits = self.model(ids[None], last=True)[0]
            logits[ids] -= PENALTY
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)])
            if int(ids[-1]) in self.model.config.stop:
                break
        continuation = " ".join(tokenizer.decode(ids[len(prompt) :].tolist()).split())
        return f"{tokenizer.decode(prompt.tolist())}  -> {continuation}"

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """The loss of every held-out token, with at least half a context before it if possible."""
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
                nats += float(output(self.model, self._hidden(packed), targets))
            done = start + context
            if progress is not None:
                progress(done, last)
        return {
            "loss": nats / last,
            "perplexity": perplexity(nats / last),
            "bits_per_byte": nats / math.log(2) / self.held_out.bytes,
        }

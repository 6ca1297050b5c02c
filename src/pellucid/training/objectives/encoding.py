"""Objectives of encoders: what they share, and masked tokens."""

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.common.wording import short
from pellucid.models import Encoder
from pellucid.training.attention_snapshot import MOST, short_one
from pellucid.training.batches import LengthBatches, Packed, cut, pack
from pellucid.training.losses import IGNORED, cross_entropy
from pellucid.training.objectives.base import LINE, Objective, Part, Progress, perplexity, typical
from pellucid.training.sequences import Sequences

HIDDEN = 0.15
"""The share of tokens that a masked encoder predicts (Devlin et al. 2019, section 3.1)."""
JUDGED_TOKENS = 8192
SHOWN, GUESSES = 3, 3
"""Texts of a sample, and predictions of a masked token."""


class PackedTexts(Objective):
    """The base class of objectives on packed texts."""

    model: Encoder

    def __init__(
        self,
        model: Encoder,
        lengths: np.ndarray,
        batch_tokens: int,
        seed: int,
        shown: Sequences,
    ) -> None:
        """Train on texts of these lengths; samples come from `shown`."""
        super().__init__()
        self.model, self.each = model, np.minimum(lengths, model.config.longest or lengths)
        self.shown = shown
        self.batches = LengthBatches(self.each, batch_tokens, seed)

    def batch(self, step: int) -> Part:
        texts: Part = self.batches.texts(step).tolist()
        return texts

    def cut(self, part: Part, most: int) -> list[Part]:
        return [piece.tolist() for piece in cut(np.array(part), self.each, most)]

    def targets(self, part: Part) -> int:
        return len(part)

    def tokens(self, part: Part) -> int:
        return int(self.each[part].sum())

    def lengths(self) -> tuple[float, ...]:
        return (typical(self.each),)

    def example(self) -> tuple[Tensor]:
        ids = self.shown[short_one(self.shown.lengths)]
        return (ids[: min(MOST, self.model.config.longest or MOST)],)

    def text(self, ids: Tensor) -> str:
        """The start of a text, for a line; "" if there is no tokenizer."""
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            return ""
        return short(" ".join(tokenizer.decode(ids[:LINE].tolist()).split()), LINE)

    def packed(self, texts: Sequences, part: Part) -> Packed:
        """Pack texts, truncated to the model's maximum length."""
        return pack([texts[number][: self.model.config.longest] for number in part])

    def encoded(self, packed: Packed) -> Tensor:
        """(tokens, width)"""
        packed = packed.to(self.model.device)
        x: Tensor = self.model.encoder(packed.ids, mask=packed.mask, positions=packed.positions)
        return x.squeeze(0)

    def pooled(self, packed: Packed) -> Tensor:
        """The embeddings of texts, (texts, numbers), as `pellucid.tasks.embed` computes them."""
        assert packed.texts is not None
        return self.model.embeddings(self.encoded(packed), packed.texts[0].bincount())


class Masked(PackedTexts):
    """Masked language modelling (Devlin et al. 2019, section 3.1)."""

    judged_by = "loss"

    def __init__(
        self,
        model: Encoder,
        texts: Sequences,
        held_out: Sequences,
        *,
        mask: int,
        batch_tokens: int,
        seed: int = 0,
    ) -> None:
        """Train on texts; `mask` is the id of the mask token."""
        super().__init__(model, texts.lengths, batch_tokens, seed, held_out)
        self.texts, self.held_out, self.mask = texts, held_out, mask
        self.bias = nn.Parameter(torch.zeros(model.config.vocabulary))

    def targets(self, part: Part) -> int:
        # The expected number, which needs no random numbers.
        return max(1, round(HIDDEN * self.tokens(part)))

    def forward(self, part: Part) -> Tensor:
        loss, _ = self._loss(self.packed(self.texts, part), None)
        return loss

    def _loss(self, packed: Packed, generator: torch.Generator | None) -> tuple[Tensor, int]:
        ids = packed.ids
        chosen = torch.rand(ids.shape, generator=generator) < HIDDEN
        targets = ids.where(chosen, IGNORED)
        # Of the chosen tokens, 80% are masked, 10% are replaced, and 10% are left unchanged.
        fate = torch.rand(ids.shape, generator=generator)
        others = torch.randint(self.model.config.vocabulary, ids.shape, generator=generator)
        ids = ids.where(~(chosen & (fate < 0.8)), self.mask)
        ids = ids.where(~(chosen & (fate >= 0.9)), others)
        shown = Packed(ids=ids, texts=packed.texts, positions=packed.positions)
        x = self.encoded(shown)
        loss = cross_entropy(
            x[chosen[0].to(x.device)],
            self.model.encoder.tokens.weight,
            targets[chosen].to(x.device),
            bias=self.bias,
        )
        return loss, int(chosen.sum())

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)  # the same tokens each time
        nats, count, done = 0.0, 0, 0
        lengths = np.minimum(self.held_out.lengths, self.model.config.longest or 2**62)
        for part in cut(np.arange(len(lengths)), lengths, JUDGED_TOKENS):
            with torch.no_grad():
                loss, hidden = self._loss(self.packed(self.held_out, part.tolist()), generator)
            nats, count, done = nats + float(loss), count + hidden, done + len(part)
            if progress is not None:
                progress(done, len(lengths))
        loss_each = nats / max(count, 1)
        return {"loss": loss_each, "perplexity": perplexity(loss_each)}

    def sample(self) -> str:
        """The likeliest tokens in the middle of the example, which is masked."""
        (ids,) = self.example()
        place = len(ids) // 2
        hidden = ids.clone()
        hidden[place] = self.mask
        x = self.encoded(pack([hidden]))[place]
        likely = (self.model.encoder.tokens.weight @ x + self.bias).topk(GUESSES).indices
        if self.model.tokenizer is None:
            return ""
        guesses = " | ".join(self.text(token) for token in likely[:, None])
        before, wanted, after = map(self.text, (ids[:place], ids[place, None], ids[place + 1 :]))
        return f"{before} [{guesses}] {after}  <- {wanted}"


def prediction(predicted: str, target: str, text: str) -> str:
    return f"{predicted}{'' if predicted == target else f' (wrong: {target})'}  <- {text}"

"""Objectives of encoders: masked tokens, contrastive pairs, and classification."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.common.wording import short
from pellucid.layers.dropout import Dropout
from pellucid.models import Encoder
from pellucid.tasks.classify import FILE, Head
from pellucid.training.attention_snapshot import MOST, short_one
from pellucid.training.batches import LengthBatches, Packed, cut, pack
from pellucid.training.losses import IGNORED, cross_entropy
from pellucid.training.objectives.base import LINE, Objective, Part, Progress, perplexity, typical
from pellucid.training.sequences import Sequences

HIDDEN = 0.15
"""The share of tokens that a masked encoder predicts (Devlin et al. 2019, section 3.1)."""
TEMPERATURE = 0.05
"""Of similarities (Gao et al. 2021, "SimCSE", section 3)."""
JUDGED_TOKENS = 8192
SHOWN, AMONG, GUESSES = 3, 64, 3
"""Texts of a sample, candidates that a text is searched in, and predictions of a masked token."""


class _Texts(Objective):
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
        """The embeddings of texts, (texts, width), as `pellucid.tasks.embed` computes them."""
        x = self.encoded(packed)
        assert packed.texts is not None
        assert packed.positions is not None
        if self.model.config.pooling == "first":
            return x[packed.positions[0].to(x.device) == 0]
        texts = packed.texts[0].to(x.device)
        sums = x.new_zeros(int(texts[-1]) + 1, x.shape[-1]).index_add(0, texts, x)
        return sums / texts.bincount()[:, None]


class Masked(_Texts):
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


class Contrastive(_Texts):
    """Contrastive learning with in-batch negatives, in both directions (Gao et al. 2021, "SimCSE",
    equation 5; van den Oord et al. 2018).
    """

    judged_by = "found_first"
    higher_is_better = True

    def __init__(
        self,
        model: Encoder,
        pairs: tuple[Sequences, Sequences],
        held_out: tuple[Sequences, Sequences],
        *,
        batch_tokens: int,
        seed: int = 0,
    ) -> None:
        lengths = pairs[0].lengths + pairs[1].lengths
        super().__init__(model, lengths, batch_tokens, seed, held_out[0])
        self.pairs, self.held_out = pairs, held_out

    def forward(self, part: Part) -> Tensor:
        sides = [F.normalize(self.pooled(self.packed(texts, part)), dim=-1) for texts in self.pairs]
        # In float32, since the low temperature multiplies rounding errors by 20.
        with torch.autocast(sides[0].device.type, enabled=False):
            similar = sides[0].float() @ sides[1].float().T / TEMPERATURE
        own = torch.arange(len(similar), device=similar.device)
        both = F.cross_entropy(similar, own, reduction="sum") + F.cross_entropy(
            similar.T, own, reduction="sum"
        )
        return both / 2

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """How often the partner of a held-out text is the most similar of all, and the mean
        reciprocal rank.
        """
        sides = [self._embedded(texts, progress) for texts in self.held_out]
        similar = sides[0] @ sides[1].T
        # The rank counts all that are not less similar, so ties and NaN rank last.
        places = (~(similar < similar.diagonal()[:, None])).sum(1)
        return {
            "found_first": float((places == 1).float().mean()),
            "reciprocal_rank": float((1 / places).mean()),
        }

    def sample(self) -> str:
        """The nearest candidates of the first held-out texts."""
        queries, others = (
            F.normalize(self.pooled(self.packed(texts, range(min(most, len(texts))))), dim=-1)
            for texts, most in zip(self.held_out, (SHOWN, AMONG), strict=True)
        )
        nearest = (queries @ others.T).argmax(-1).tolist()
        return "\n".join(
            _prediction(self.text(self.held_out[1][match]), self.text(self.held_out[1][own]), text)
            for own, match in enumerate(nearest)
            if (text := self.text(self.held_out[0][own]))
        )

    def _embedded(self, texts: Sequences, progress: Progress | None) -> Tensor:
        embeddings = []
        with torch.no_grad():
            for part in cut(np.arange(len(texts)), texts.lengths, JUDGED_TOKENS):
                pooled = self.pooled(self.packed(texts, part.tolist()))
                embeddings.append(F.normalize(pooled, dim=-1))
                if progress is not None:
                    progress(int(part[-1]) + 1, len(texts))
        return torch.cat(embeddings)


class Classification(_Texts):
    """Classification of embeddings: softmax(embedding @ weight.T + bias)."""

    judged_by = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        model: Encoder,
        texts: Sequences,
        labels: np.ndarray,
        held_out: tuple[Sequences, np.ndarray],
        names: tuple[str, ...],
        *,
        batch_tokens: int,
        seed: int = 0,
        smoothing: float = 0.0,
    ) -> None:
        """Train on labelled texts.

        Args:
            model: an encoder; `config.pooling` defines the embeddings.
            texts: the training texts.
            labels: the index of each text's label in `names`.
            held_out: texts and labels for evaluation.
            names: of the labels.
            batch_tokens: of an update.
            seed: of the order.
            smoothing: label smoothing.
        """
        super().__init__(model, texts.lengths, batch_tokens, seed, held_out[0])
        self.texts, self.labels, self.held_out, self.names = texts, labels, held_out, names
        self.smoothing = smoothing
        self.head = nn.Linear(model.config.width, len(names))
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.02)
        self.dropout = Dropout(model.config.dropout)

    def _logits(self, texts: Sequences, part: Part) -> Tensor:
        pooled = self.pooled(self.packed(texts, part))
        if self.model.config.normalised:
            pooled = F.normalize(pooled, dim=-1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def forward(self, part: Part) -> Tensor:
        logits = self._logits(self.texts, part)
        labels = torch.from_numpy(self.labels[part]).to(logits.device)
        return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.smoothing)

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """Accuracy, the mean F1 of the labels, and the mean loss in nats."""
        return self._measures(*self._judged(progress))

    def _measures(self, table: np.ndarray, nats: float) -> dict[str, float]:
        right = table.diagonal()
        f1 = 2 * right / np.maximum(table.sum(0) + table.sum(1), 1)
        return {
            "accuracy": float(right.sum() / table.sum()),
            "macro_f1": float(f1.mean()),
            "loss": nats / float(table.sum()),
        }

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        table, nats = self._judged(progress)
        measures = self._measures(table, nats)
        return {**measures, "labels": list(self.names), "confusion": table.tolist()}

    def sample(self) -> str:
        texts, labels = self.held_out
        predictions = self._logits(texts, range(min(SHOWN, len(texts)))).argmax(-1).tolist()
        return "\n".join(
            _prediction(self.names[label], self.names[labels[number]], text)
            for number, label in enumerate(predictions)
            if (text := self.text(texts[number]))
        )

    def save(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Save the model, and its head for `pellucid classify`."""
        super().save(directory, weights)
        head = Head(labels=self.names, weight=weights["head.weight"], bias=weights["head.bias"])
        head.save(directory / FILE, overwrite=True)

    def restore(self, directory: Path) -> None:
        super().restore(directory)
        kept = Head.load(directory / FILE)
        self.head = nn.Linear(self.model.config.width, len(self.names))
        self.head.load_state_dict({"weight": kept.weight, "bias": kept.bias})

    def _judged(self, progress: Progress | None) -> tuple[np.ndarray, float]:
        """The confusion matrix, (true labels, predicted labels), and the sum of the losses."""
        texts, labels = self.held_out
        table = np.zeros((len(self.names), len(self.names)), np.int64)
        nats, done = 0.0, 0
        lengths = np.minimum(texts.lengths, self.model.config.longest or 2**62)
        for part in cut(np.argsort(lengths, kind="stable"), lengths, JUDGED_TOKENS):
            with torch.no_grad():
                logits = self._logits(texts, part.tolist()).float()
            targets = torch.from_numpy(labels[part]).to(logits.device)
            nats += float(F.cross_entropy(logits, targets, reduction="sum"))
            np.add.at(table, (labels[part], logits.argmax(-1).cpu().numpy()), 1)
            done += len(part)
            if progress is not None:
                progress(done, len(lengths))
        return table, nats


def _prediction(predicted: str, target: str, text: str) -> str:
    return f"{predicted}{'' if predicted == target else f' (wrong: {target})'}  <- {text}"

"""The objective of a classifier: one label a text, several labels, or a number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.layers.dropout import Dropout
from pellucid.models import Encoder
from pellucid.tasks import figures
from pellucid.tasks.classify import FILE, Head
from pellucid.tasks.evaluation import Evaluation, figures_with, of_labels, of_numbers, of_several
from pellucid.tasks.targets import Kind
from pellucid.training.batches import cut
from pellucid.training.objectives.base import Part, Progress
from pellucid.training.objectives.encoding import JUDGED_TOKENS, SHOWN, PackedTexts, prediction
from pellucid.training.sequences import Sequences

FOLDS = 5
"""Of the held-out texts: each is judged with the temperature of the others."""
OF_PROBABILITIES = ("calibration_error", "brier_score")
"""Figures that only calibrated probabilities have."""
PERMUTATIONS = 1000
SMALL = 20_000_000
"""The most labels of all permutations together, so that there are fewer of many texts."""


class Classification(PackedTexts):
    """A linear head on embeddings, as `pellucid.tasks.classify` has it.

    The loss is the cross-entropy of a softmax over labels; of a sigmoid for each of several labels,
    summed; or half the squared error of a number in units of its standard deviation.
    """

    tie_broken_by = "loss"

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
        kind: Kind = "label",
        balanced: bool = False,
        keys: np.ndarray | None = None,
    ) -> None:
        """Train on labelled texts.

        Args:
            model: an encoder; `config.pooling` defines the embeddings.
            texts: the training texts.
            labels: the index of each text's label in `names`, (texts,); or whether it has each of
                several labels, (texts, labels); or its number, (texts,).
            held_out: texts and labels for evaluation.
            names: of the labels.
            batch_tokens: of an update.
            seed: of the order.
            smoothing: label smoothing, of one label a text.
            kind: what the labels are.
            balanced: whether each label weighs the same, however frequent: by the number of its
                texts, as scikit-learn's "balanced".
            keys: of the held-out texts, (texts,), which equal texts share.
        """
        super().__init__(model, texts.lengths, batch_tokens, seed, held_out[0])
        self.texts, self.labels, self.held_out, self.names = texts, labels, held_out, names
        self.smoothing, self.kind, self.balanced, self.seed = smoothing, kind, balanced, seed
        self.groups = np.arange(len(held_out[0])) if keys is None else np.asarray(keys)
        evenly = balanced and kind == "label"
        name = {"label": "accuracy", "labels": "micro_f1", "number": "mean_absolute_error"}[kind]
        self.judged_by = "balanced_accuracy" if evenly else name
        self.higher_is_better = kind != "number"
        self.head = nn.Linear(model.config.embedding_numbers, 1 if kind == "number" else len(names))
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.02)
        self.dropout = Dropout(model.config.dropout)
        self.middle, self.unit, self.weights = 0.0, 1.0, torch.empty(0)
        if kind == "number":
            self.middle, self.unit = float(labels.mean()), float(labels.std()) or 1.0
        elif balanced:
            self.weights = self._weights()
        self.temperature, self.margin = 1.0, None
        """What `examine` found out."""

    def _weights(self) -> Tensor:
        """The weight of each label; or, of several, that of a text that has it."""
        total, names = len(self.labels), len(self.names)
        if self.kind == "labels":
            counts = np.maximum(self.labels.sum(0), 1)
            shares = (total - counts) / counts
        else:
            counts = np.maximum(np.bincount(self.labels, minlength=names), 1)
            shares = total / counts / names
        return torch.from_numpy(np.maximum(shares, 1e-3)).float()

    def _scores(self, texts: Sequences, part: Part) -> Tensor:
        """(texts, labels); of a number in units of its standard deviation."""
        pooled = self.pooled(self.packed(texts, part))
        scores: Tensor = self.head(self.dropout(pooled))
        return scores

    def forward(self, part: Part) -> Tensor:
        return self._loss(
            self._scores(self.texts, part), self.labels[part], self.smoothing, self.weights
        )

    def _loss(
        self,
        scores: Tensor,
        labels: np.ndarray,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The sum of the losses of texts, in nats or squared units."""
        targets = torch.from_numpy(np.ascontiguousarray(labels)).to(scores.device)
        given = weights is not None and weights.numel()
        weights = weights.to(scores) if weights is not None and given else None
        if self.kind == "label":
            loss = F.cross_entropy(
                scores, targets, weights, reduction="sum", label_smoothing=smoothing
            )
            return loss
        if self.kind == "labels":
            return F.binary_cross_entropy_with_logits(
                scores, targets.to(scores), reduction="sum", pos_weight=weights
            )
        wanted = ((targets - self.middle) / self.unit).to(scores)
        return F.mse_loss(scores[:, 0], wanted, reduction="sum") / 2

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """The figure, its companions, and the mean loss."""
        return self._measures(self._held_out_scores(progress))

    def _measures(self, scores: Tensor) -> dict[str, float]:
        loss = {"loss": float(self._loss(scores, self.held_out[1])) / len(scores)}
        measured = self._evaluation_fields(self._predictions(scores))
        others = {name: x for name, x in measured["others"].items() if name not in OF_PROBABILITIES}
        return {measured["figure"].lower().replace(" ", "_"): measured["value"], **others, **loss}

    def _predictions(self, scores: Tensor) -> np.ndarray:
        """The probabilities, (texts, labels), or the numbers, (texts, 1), that scores mean."""
        numbers: np.ndarray = scores.double().numpy()
        if self.kind == "number":
            return numbers * self.unit + self.middle
        return figures.sigmoid(numbers) if self.kind == "labels" else figures.softmax(numbers)

    def _targets(self) -> np.ndarray:
        """(texts, labels) 0 or 1; or (texts, 1) numbers."""
        labels = self.held_out[1]
        if self.kind == "label":
            one_hot: np.ndarray = np.eye(len(self.names))[labels]
            return one_hot
        return labels.astype(float).reshape(len(labels), -1)

    def _evaluation_fields(self, predicted: np.ndarray) -> dict[str, Any]:
        """Fields of an `Evaluation`."""
        targets = self._targets()
        if self.kind == "number":
            return of_numbers(predicted[:, 0], targets[:, 0], self.groups)
        if self.kind == "labels":
            return of_several(predicted, targets, self.names, targets.sum(0) > 0, self.groups)
        return of_labels(predicted, targets, self.groups, self.balanced)

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        """The measures, and all of an `Evaluation`, with calibrated probabilities."""
        scores = self._held_out_scores(progress)
        targets, predicted = self._targets(), self._predictions(scores)
        left_out: tuple[str, ...] = ()
        if self.kind != "number":
            folds = np.unique(self.groups, return_inverse=True)[1].reshape(-1) % FOLDS
            several = self.kind == "labels"
            numbers = scores.double().numpy()
            self.temperature, predicted = figures.cross_calibrated(
                numbers, targets, folds, several=several
            )
            absent = np.flatnonzero(targets.sum(0) == 0)
            left_out = tuple(self.names[number] for number in absent)
        measured = self._evaluation_fields(predicted)
        self.margin = measured.get("margin")
        times = int(np.clip(SMALL / targets.size, 100, PERMUTATIONS))
        orders = figures.permutations(self.groups, np.zeros(len(targets)), times, self.seed)
        # Labels without held-out texts are not judged; of one label a text they have no part.
        kept = slice(None) if self.kind != "labels" else targets.sum(0) > 0
        shown, predicted = targets[:, kept], predicted[:, kept]
        permuted = [
            figures_with(self.kind, predicted[None], shown[None, order], self.balanced)[0]
            for order in orders
        ]
        chance = figures.Chance.of(
            np.array([measured["value"]]), np.array(permuted), lower_is_better=self.kind == "number"
        )
        if self.kind != "number":
            measured["temperature"] = self.temperature
        evaluation = Evaluation(
            kind=self.kind,
            labels=self.names,
            examples=len(targets),
            texts=len(np.unique(self.groups)),
            folds=0,
            chance=chance,
            labels_left_out=left_out,
            **measured,
        )
        return evaluation.data() | self._measures(scores)

    def sample(self) -> str:
        texts, _ = self.held_out
        part = range(min(SHOWN, len(texts)))
        predictions = self._predictions(self._scores(texts, part).float().cpu())
        return "\n".join(
            prediction(self._label_text(predicted), self._label_text(label), text)
            for predicted, label, number in zip(predictions, self._targets(), part, strict=False)
            if (text := self.text(texts[number]))
        )

    def _label_text(self, predicted: np.ndarray) -> str:
        """The label, labels or number that probabilities, (labels,), or numbers, (1,), mean."""
        if self.kind == "number":
            return f"{predicted[0]:.4g}"
        if self.kind == "label":
            return self.names[int(predicted.argmax())]
        has = np.flatnonzero(predicted >= 0.5)
        return ", ".join(self.names[number] for number in has) or "none"

    def save(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Save the model, and its head for `pellucid classify`."""
        super().save(directory, weights)
        head = Head(
            labels=self.names,
            weight=weights["head.weight"] * self.unit,
            bias=weights["head.bias"] * self.unit + self.middle,
            kind=self.kind,
        )
        head.save(directory / FILE, overwrite=True)

    def restore(self, directory: Path) -> None:
        super().restore(directory)
        kept = Head.load(directory / FILE)
        self.head = nn.Linear(self.model.config.embedding_numbers, len(kept.weight))
        bias = (kept.bias - self.middle) / self.unit
        self.head.load_state_dict({"weight": kept.weight / self.unit, "bias": bias})

    def finish(self, directory: Path) -> None:
        """Save the temperature and the margin with the head."""
        head = replace(
            Head.load(directory / FILE), temperature=self.temperature, margin=self.margin
        )
        head.save(directory / FILE, overwrite=True)

    def _held_out_scores(self, progress: Progress | None) -> Tensor:
        """The scores of the held-out texts, (texts, labels), float32 on the CPU."""
        texts, _ = self.held_out
        scores = torch.empty(len(texts), self.head.out_features)
        done = 0
        lengths = np.minimum(texts.lengths, self.model.config.longest or 2**62)
        for part in cut(np.argsort(lengths, kind="stable"), lengths, JUDGED_TOKENS):
            with torch.no_grad():
                scores[part] = self._scores(texts, part.tolist()).float().cpu()
            done += len(part)
            if progress is not None:
                progress(done, len(lengths))
        return scores

"""A linear head on embeddings, fitted on a few examples.

    scores = embedding @ weight.T + bias
    one label        softmax(scores / temperature), by multinomial logistic regression
    several labels   sigmoid(scores / temperature), by a logistic regression for each label
    a number         the score, by ridge regression

It is saved as safetensors with the labels in the metadata; nothing is unpickled.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.common.files import reason_of, written_whole
from pellucid.common.wording import short
from pellucid.errors import ArgumentError, FileError, ShapeError
from pellucid.models import Encoder
from pellucid.tasks.clustering import one_thread, require_sklearn
from pellucid.tasks.embedding import is_same, name_of
from pellucid.tasks.targets import KINDS, Given, Kind, Targets

FORMAT = "pellucid head 1"
FORMAT_OF_KINDS = "pellucid head 2"
"""Of heads that predict anything but one label, which readers of the first format would misread."""
FILE = "head.safetensors"
"""The head's file in the directory of a model that was trained with it."""
INVERSE_REGULARISATION = 10.0
"""scikit-learn's C. Its default of 1 regularises too much for embeddings of unit length."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Head:
    """A linear predictor from embeddings."""

    labels: tuple[str, ...]
    """None if it predicts a number."""
    weight: Tensor
    """(labels, width); (1, width) for a number."""
    bias: Tensor
    """(labels,)."""
    kind: Kind = "label"
    temperature: float = 1.0
    """What scores are divided by before they become probabilities."""
    margin: float | None = None
    """90% of held-out numbers were within this of the prediction."""
    model: str | None = None
    """The encoder of the embeddings, as the user named it; None for the default encoder."""
    probe: Tensor | None = None
    """The encoder's embedding of `PROBE`, (width,), by which `check_head` recognises it."""

    @classmethod
    def fit(
        cls, embeddings: Tensor, labels: Given | Targets, *, balanced: bool = False, **about: Any
    ) -> "Head":
        """Fit a head to embeddings, (texts, width).

        Args:
            embeddings: (texts, width).
            labels: for each text a label, a collection of labels, or a number.
            balanced: whether each label weighs the same, however many examples it has.
            about: other fields.

        Raises:
            ShapeError: the numbers of embeddings and labels differ.
            ArgumentError: there are fewer than two different labels or numbers.
            TypeMismatchError: labels are of no kind, or of several.
            MissingExtraError: scikit-learn is not installed.
        """
        require_sklearn()
        targets = targets_for(embeddings, labels)
        points, values = embeddings.float().numpy(), targets.values
        with one_thread():
            if targets.kind == "label":
                weight, bias = _logistic(points, values.argmax(1), balanced)
                if len(weight) == 1:  # two labels: softmax(-s/2, s/2) is sigmoid(s)
                    weight, bias = (np.concatenate([-x / 2, x / 2]) for x in (weight, bias))
            elif targets.kind == "labels":
                parts = [_binary(points, column, balanced) for column in values.T]
                weight, bias = (np.concatenate(each) for each in zip(*parts, strict=True))
            else:
                weight, bias = _ridge(points, values[:, 0])
        return cls(
            labels=targets.names,
            weight=torch.from_numpy(weight).float(),
            bias=torch.from_numpy(bias).float(),
            kind=targets.kind,
            **about,
        )

    def scores(self, embeddings: Tensor) -> Tensor:
        """Scores, (texts, labels), for embeddings, (texts, width); numbers are (texts, 1).

        Raises:
            ShapeError: the embeddings have another width.
        """
        width = self.weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise ShapeError(
                f"embeddings must be (texts, {width}), like those the head was fitted on; got "
                f"{tuple(embeddings.shape)}"
            )
        return embeddings @ self.weight.T + self.bias

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Probabilities, (texts, labels), for embeddings, (texts, width).

        Raises:
            ShapeError: the embeddings have another width.
            ArgumentError: the head predicts a number.
        """
        if self.kind == "number":
            raise ArgumentError("a head that predicts a number has no probabilities; use scores")
        scores = self.scores(embeddings) / self.temperature
        return scores.sigmoid() if self.kind == "labels" else scores.softmax(-1)

    def predictions(self, embeddings: Tensor) -> Tensor:
        """Probabilities, (texts, labels); or numbers, (texts, 1), of a head that predicts them.

        Raises:
            ShapeError: the embeddings have another width.
        """
        is_number = self.kind == "number"
        return self.scores(embeddings) if is_number else self.probabilities(embeddings)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a safetensors file.

        Raises:
            ExistsError: the file exists and is not a head, or `overwrite` is false.
            FileError: the file cannot be written.
        """
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        if self.probe is not None:
            tensors["probe"] = self.probe.contiguous()
        format = FORMAT if self.kind == "label" else FORMAT_OF_KINDS
        metadata = {"format": format, "labels": json.dumps(self.labels), "model": self.model or ""}
        metadata |= {"kind": self.kind, "temperature": repr(self.temperature)}
        if self.margin is not None:
            metadata["margin"] = repr(self.margin)
        with written_whole(path, "head", overwrite=overwrite) as aside:
            try:
                save_file(tensors, aside, metadata=metadata)
            except SafetensorError as error:
                raise FileError(f"cannot write '{path}': {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Head":
        """Read a head that `save` wrote.

        Raises:
            FileError: the file does not exist or is not a head.
        """
        name = short(str(path), 200)
        if not Path(path).is_file():
            raise FileError(f"there is no file '{name}'")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except OSError as error:
            raise FileError(f"cannot read '{name}': {reason_of(error)}") from error
        except SafetensorError as error:
            raise FileError(f"'{name}' is not a head: {error}") from error
        if metadata.get("format") not in (FORMAT, FORMAT_OF_KINDS):
            raise FileError(f"'{name}' is not a head that `pellucid classify` saved")
        try:
            labels = tuple(str(label) for label in json.loads(metadata["labels"]))
            weight, bias = tensors["weight"], tensors["bias"]
            temperature = float(metadata.get("temperature", 1))
            margin = float(metadata["margin"]) if "margin" in metadata else None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FileError(f"'{name}' is a damaged head: {error}") from error
        kind = metadata.get("kind", "label")
        if kind not in KINDS or not 0 < temperature < math.inf:
            raise FileError(f"'{name}' is a damaged head: of a kind or temperature that is none")
        rows = 1 if kind == "number" else len(labels)
        if weight.ndim != 2 or len(weight) != rows or bias.shape != (rows,):
            raise FileError(f"'{name}' is a damaged head: its labels do not match its weights")
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise FileError(f"'{name}' is a damaged head: its weights are not floats")
        return cls(
            labels=labels,
            weight=weight,
            bias=bias,
            kind=kind,
            temperature=temperature,
            margin=margin,
            model=metadata.get("model") or None,
            probe=tensors.get("probe"),
        )


@dataclass(frozen=True, kw_only=True)
class OwnClassifier:
    """What the classifier of a model predicts, which `pellucid.tasks.predict` asks."""

    labels: tuple[str, ...]
    kind: Kind
    margin: None = None

    @classmethod
    def of(cls, model: Encoder) -> "OwnClassifier":
        """The classifier of a model.

        Raises:
            ArgumentError: the model has none, or one of several numbers.
        """
        shape = model.config.classifier
        if shape is None:
            raise ArgumentError("the model has no classifier")
        if shape.scores == "none" and len(shape.labels) > 1:
            raise ArgumentError(
                f"the model predicts {len(shape.labels)} numbers, not one or labels"
            )
        kinds: dict[str, Kind] = {"softmax": "label", "sigmoid": "labels", "none": "number"}
        return cls(labels=shape.labels, kind=kinds[shape.scores])


def columns_of(head: Head | OwnClassifier, predictions: Tensor) -> dict[str, list[Any]]:
    """Predictions, (texts, labels), as columns: a label, labels or a number for each text."""
    if head.kind == "number":
        return {"number": predictions[:, 0].tolist()}
    best, labels = predictions.max(-1)
    if head.kind == "labels":
        chosen = ["; ".join(likely(head.labels, shares)) for shares in predictions.tolist()]
        return {"labels": chosen, "probability": best.tolist()}
    named = [head.labels[number] for number in labels.tolist()]
    return {"label": named, "probability": best.tolist()}


def likely(labels: Sequence[str], shares: Sequence[float]) -> list[str]:
    """The labels of a text that are likelier than not, the likeliest first."""
    ranked = sorted(zip(shares, labels, strict=True), key=lambda pair: -pair[0])
    return [label for share, label in ranked if share >= 0.5]


def check_head(head: Head, probe: Tensor, model: str | None) -> None:
    """Check that a head was fitted on the embeddings of this encoder.

    Raises:
        ArgumentError: it was fitted on those of another encoder.
    """
    if head.probe is None:
        return
    if not is_same(head.probe, probe):
        raise ArgumentError(
            f"the head was fitted on embeddings of {name_of(head.model)}, which differ from those "
            f"of {name_of(model)}"
        )


def targets_for(embeddings: Tensor, labels: Given | Targets) -> Targets:
    """The targets of embeddings, (texts, width).

    Raises:
        ShapeError: the numbers of embeddings and labels differ.
        ArgumentError, TypeMismatchError: as `Targets.of`.
    """
    count = len(labels.values if isinstance(labels, Targets) else labels)
    if embeddings.ndim != 2 or len(embeddings) != count:
        raise ShapeError(
            f"embeddings must be (texts, width) with one label per text; got "
            f"{tuple(embeddings.shape)} and {count} labels"
        )
    return labels if isinstance(labels, Targets) else Targets.of(labels)


def _logistic(points: Any, classes: Any, balanced: bool) -> tuple[Any, Any]:
    """The weight and bias of each class, or of the second of two."""
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if balanced else None
    regression = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight=weights)
    regression.fit(points, classes)
    return regression.coef_, regression.intercept_


def _binary(points: Any, has: Any, balanced: bool) -> tuple[Any, Any]:
    """The weight and bias of one label of several."""
    if has.all() or not has.any():  # as sure as one more example of the contrary allows
        sure = math.log(1 + 2 * len(has)) * (1 if has.all() else -1)
        return np.zeros((1, points.shape[1])), np.array([sure])
    return _logistic(points, has.astype(int), balanced)


def _ridge(points: Any, numbers: Any) -> tuple[Any, Any]:
    """The weight and bias of a number, whose unit does not matter."""
    from sklearn.linear_model import Ridge

    middle, unit = numbers.mean(), numbers.std() or 1.0
    regression = Ridge(alpha=1 / INVERSE_REGULARISATION).fit(points, (numbers - middle) / unit)
    return regression.coef_[None] * unit, np.array([regression.intercept_ * unit + middle])

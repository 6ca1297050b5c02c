"""A classification head on embeddings, fitted on a few examples by multinomial logistic regression.

    probabilities = softmax(embedding @ weight.T + bias)

It is saved as safetensors with the labels in the metadata; nothing is unpickled.
"""

import json
import math
from collections import Counter
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
from pellucid.tasks.clustering import SEEDS, one_thread, require_sklearn
from pellucid.tasks.embedding import name_of
from pellucid.tasks.whole_numbers import check_whole

FORMAT = "pellucid head 1"
FILE = "head.safetensors"
"""The head's file in the directory of a model that was trained with it."""
FOLDS = 5
INVERSE_REGULARISATION = 10.0
"""scikit-learn's C. Its default of 1 regularises too much for embeddings of unit length."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Head:
    """A linear classifier of embeddings."""

    labels: tuple[str, ...]
    weight: Tensor
    """(labels, width)."""
    bias: Tensor
    """(labels,)."""
    model: str | None = None
    """The encoder of the embeddings, as the user named it; None for the default encoder."""
    probe: Tensor | None = None
    """The encoder's embedding of `PROBE`, (width,), by which `check_head` recognises it."""

    @classmethod
    def fit(cls, embeddings: Tensor, labels: Sequence[str], **about: Any) -> "Head":
        """Fit a head to embeddings, (texts, width), and one label per text.

        Raises:
            ShapeError: the numbers of embeddings and labels differ.
            ArgumentError: there are fewer than two different labels.
            MissingExtraError: scikit-learn is not installed.
        """
        _check(embeddings, labels)
        with one_thread():
            fitted = _regression().fit(embeddings.numpy(), list(labels))
        weight, bias = (torch.from_numpy(x).float() for x in (fitted.coef_, fitted.intercept_))
        if len(weight) == 1:  # two labels: softmax(-s/2, s/2) is sigmoid(s)
            weight, bias = (torch.cat([-x / 2, x / 2]) for x in (weight, bias))
        return cls(labels=tuple(map(str, fitted.classes_)), weight=weight, bias=bias, **about)

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Probabilities, (texts, labels), for embeddings, (texts, width).

        Raises:
            ShapeError: the embeddings have another width.
        """
        width = self.weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise ShapeError(
                f"embeddings must be (texts, {width}), like those the head was fitted on; got "
                f"{tuple(embeddings.shape)}"
            )
        return torch.softmax(embeddings @ self.weight.T + self.bias, -1)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a safetensors file.

        Raises:
            ExistsError: the file exists and is not a head, or `overwrite` is false.
            FileError: the file cannot be written.
        """
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        if self.probe is not None:
            tensors["probe"] = self.probe.contiguous()
        metadata = {"format": FORMAT, "labels": json.dumps(self.labels), "model": self.model or ""}
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
        if metadata.get("format") != FORMAT:
            raise FileError(f"'{name}' is not a head that `pellucid classify` saved")
        try:
            labels = tuple(str(label) for label in json.loads(metadata["labels"]))
            weight, bias = tensors["weight"], tensors["bias"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FileError(f"'{name}' is a damaged head: {error}") from error
        if weight.ndim != 2 or len(weight) != len(labels) or bias.shape != (len(labels),):
            raise FileError(f"'{name}' is a damaged head: its labels do not match its weights")
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise FileError(f"'{name}' is a damaged head: its weights are not floats")
        model, probe = metadata.get("model") or None, tensors.get("probe")
        return cls(labels=labels, weight=weight, bias=bias, model=model, probe=probe)


PROBE = "Which encoder is this?"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of a head on held-out examples."""

    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Numbers of examples: rows are true labels, columns predicted labels."""
    folds: int

    @property
    def examples(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        return sum(row[n] for n, row in enumerate(self.confusion)) / self.examples

    @property
    def baseline(self) -> float:
        """The accuracy of always predicting the most frequent label."""
        return max(map(sum, self.confusion)) / self.examples

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the accuracy (Wilson 1927)."""
        n, p, z = self.examples, self.accuracy, 1.96
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def evaluate(embeddings: Tensor, labels: Sequence[str], seed: int = 0) -> Evaluation | None:
    """Held-out accuracy by stratified cross-validation.

    There are 5 folds, or as many as the rarest label has examples. The result is None if a label
    has a single example, since a head fitted without it cannot predict that label.

    Raises:
        ShapeError, ArgumentError, MissingExtraError: as `Head.fit`.
        ArgumentError, TypeMismatchError: seed is not an int from 0 to 2**32 - 1.
    """
    check_whole("seed", seed, 0, SEEDS)
    _check(embeddings, labels)
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = min(FOLDS, *Counter(labels).values())
    if folds < 2:
        return None
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with one_thread():
        predictions = cross_val_predict(_regression(), embeddings.numpy(), list(labels), cv=split)
    names = tuple(sorted(set(labels)))
    pairs = Counter(zip(labels, map(str, predictions), strict=True))
    confusion = tuple(tuple(pairs[true, predicted] for predicted in names) for true in names)
    return Evaluation(labels=names, confusion=confusion, folds=folds)


def check_head(head: Head, probe: Tensor, model: str | None) -> None:
    """Check that a head was fitted on the embeddings of this encoder.

    Raises:
        ArgumentError: it was fitted on those of another encoder.
    """
    if head.probe is None:
        return
    is_same_shape = head.probe.shape == probe.shape
    if not is_same_shape or not np.allclose(head.probe, probe, atol=1e-3):
        raise ArgumentError(
            f"the head was fitted on embeddings of {name_of(head.model)}, which differ from those "
            f"of {name_of(model)}"
        )


def _check(embeddings: Tensor, labels: Sequence[str]) -> None:
    require_sklearn()
    if embeddings.ndim != 2 or len(embeddings) != len(labels):
        raise ShapeError(
            f"embeddings must be (texts, width) with one label per text; got "
            f"{tuple(embeddings.shape)} and {len(labels)} labels"
        )
    different = sorted(set(labels))
    if len(different) < 2:
        problem = f"all are '{short(different[0], 40)}'" if different else "there are none"
        raise ArgumentError(f"examples must have at least two different labels; {problem}")


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000)

"""A head on embeddings, fitted on a few labelled examples: multinomial logistic regression.

    probabilities = softmax(embedding @ weight.T + bias)

It is saved as safetensors, with its labels beside the two tensors; nothing is unpickled.
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
"""Of a model that was trained with it."""
FOLDS = 5
STRENGTH = 10.0
"""How little the weights are held back: scikit-learn's C. Embeddings of length 1 need more than
its 1 to be told apart."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Head:
    """What tells labels apart, by the embedding of a text."""

    labels: tuple[str, ...]
    weight: Tensor
    """(labels, width)."""
    bias: Tensor
    """(labels,)."""
    model: str | None = None
    """The encoder it was fitted on, as it was asked for; None = the default one."""
    probe: Tensor | None = None
    """The embedding of `PROBE` by that encoder, (width,), which tells it from others."""

    @classmethod
    def fit(cls, embeddings: Tensor, labels: Sequence[str], **about: Any) -> "Head":
        """Fit on (texts, width) embeddings and the label of each.

        Raises:
            ShapeError: there is not one label for each.
            ArgumentError: there are fewer than two different labels.
            MissingExtraError: scikit-learn is not installed.
        """
        _check(embeddings, labels)
        with one_thread():
            fitted = _regression().fit(embeddings.numpy(), list(labels))
        weight, bias = (torch.from_numpy(x).float() for x in (fitted.coef_, fitted.intercept_))
        if len(weight) == 1:  # of two labels: softmax(-s/2, s/2) is sigmoid(s)
            weight, bias = (torch.cat([-x / 2, x / 2]) for x in (weight, bias))
        return cls(labels=tuple(map(str, fitted.classes_)), weight=weight, bias=bias, **about)

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """(texts, labels) of (texts, width) embeddings.

        Raises:
            ShapeError: they are of another width.
        """
        width = self.weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise ShapeError(
                f"embeddings must be (texts, {width}), as those that the head was fitted on; got "
                f"{tuple(embeddings.shape)}"
            )
        return torch.softmax(embeddings @ self.weight.T + self.bias, -1)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a safetensors file.

        Raises:
            ExistsError: there is a file that is no head, or one and not `overwrite`.
            FileError: it cannot be written there.
        """
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        if self.probe is not None:
            tensors["probe"] = self.probe.contiguous()
        said = {"format": FORMAT, "labels": json.dumps(self.labels), "model": self.model or ""}
        with written_whole(path, "head", overwrite=overwrite) as aside:
            try:
                save_file(tensors, aside, metadata=said)
            except SafetensorError as error:
                raise FileError(f"cannot write '{path}': {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Head":
        """Read what `save` wrote.

        Raises:
            FileError: there is no such file, or it is no head.
        """
        name = short(str(path), 200)
        if not Path(path).is_file():
            raise FileError(f"there is no file '{name}'")
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except OSError as error:
            raise FileError(f"cannot read '{name}': {reason_of(error)}") from error
        except SafetensorError as error:
            raise FileError(f"'{name}' is no head: {error}") from error
        if said.get("format") != FORMAT:
            raise FileError(f"'{name}' is no head that `pellucid classify` saved")
        try:
            labels = tuple(str(label) for label in json.loads(said["labels"]))
            weight, bias = tensors["weight"], tensors["bias"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FileError(f"'{name}' is a damaged head: {error}") from error
        if weight.ndim != 2 or len(weight) != len(labels) or bias.shape != (len(labels),):
            raise FileError(f"'{name}' is a damaged head: its labels and weights do not fit")
        if not all(one.is_floating_point() for one in tensors.values()):
            raise FileError(f"'{name}' is a damaged head: its weights are no floats")
        model, probe = said.get("model") or None, tensors.get("probe")
        return cls(labels=labels, weight=weight, bias=bias, model=model, probe=probe)


PROBE = "Which encoder is this?"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a head does on examples that it has not seen."""

    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """How many examples of each label (rows) were given each label (columns)."""
    folds: int

    @property
    def examples(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        return sum(row[n] for n, row in enumerate(self.confusion)) / self.examples

    @property
    def baseline(self) -> float:
        """The accuracy of always saying the most frequent label."""
        return max(map(sum, self.confusion)) / self.examples

    @property
    def interval(self) -> tuple[float, float]:
        """Where the accuracy is with 95% confidence (Wilson 1927)."""
        n, p, z = self.examples, self.accuracy, 1.96
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def evaluate(embeddings: Tensor, labels: Sequence[str], seed: int = 0) -> Evaluation | None:
    """Held-out accuracy by cross-validation: each example is judged by a head fitted without it.

    There are 5 folds with the same share of each label, or as many as the rarest label has
    examples. None where a label has a single example: without it nobody can know that label.

    Raises:
        ShapeError, ArgumentError, MissingExtraError: as `Head.fit`.
        ArgumentError, TypeMismatchError: seed is no int from 0 to 2**32 - 1.
    """
    check_whole("seed", seed, 0, SEEDS)
    _check(embeddings, labels)
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = min(FOLDS, *Counter(labels).values())
    if folds < 2:
        return None
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with one_thread():
        said = cross_val_predict(_regression(), embeddings.numpy(), list(labels), cv=split)
    names = tuple(sorted(set(labels)))
    pairs = Counter(zip(labels, map(str, said), strict=True))
    confusion = tuple(tuple(pairs[true, given] for given in names) for true in names)
    return Evaluation(labels=names, confusion=confusion, folds=folds)


def check_head(head: Head, probe: Tensor, model: str | None) -> None:
    """Refuse a head that was fitted on the embeddings of another encoder.

    Raises:
        ArgumentError: it was.
    """
    if head.probe is None:
        return
    same = head.probe.shape == probe.shape
    if not same or not np.allclose(head.probe, probe, atol=1e-3):
        fitted = name_of(head.model)
        raise ArgumentError(
            f"the head was fitted on embeddings of {fitted}, and {name_of(model)} gives others"
        )


def _check(embeddings: Tensor, labels: Sequence[str]) -> None:
    require_sklearn()
    if embeddings.ndim != 2 or len(embeddings) != len(labels):
        raise ShapeError(
            f"embeddings must be (texts, width) with a label each; got {tuple(embeddings.shape)} "
            f"and {len(labels)} labels"
        )
    different = sorted(set(labels))
    if len(different) < 2:
        told = f"all are '{short(different[0], 40)}'" if different else "there are none"
        raise ArgumentError(f"examples must have at least two different labels; {told}")


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, max_iter=1000)

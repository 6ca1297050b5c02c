"""What is told of predictions on held-out texts: one label, several labels or a number each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from pellucid.common.wording import plain
from pellucid.tasks import figures
from pellucid.tasks.figures import Array, Chance, Interval
from pellucid.tasks.targets import Kind

OTHERS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "all_labels_right", "r2", "rank_correlation"),
    *("calibration_error", "brier_score"),
)
"""The names of figures that accompany the figure."""
SURE = 0.9
"""The share of held-out numbers that are within a head's margin."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of a head on held-out examples."""

    kind: Kind
    labels: tuple[str, ...]
    examples: int
    """Those that were judged."""
    texts: int
    """How many of them differ."""
    folds: int
    """Of the cross-validation; 0 for held-out texts that no head has seen."""
    figure: str
    """The name of the figure: accuracy, balanced accuracy, micro F1 or mean absolute error."""
    value: float
    interval: Interval
    """The 95% confidence interval of the value."""
    baseline: float
    """The best value of whoever says the same of every text."""
    chance: Chance
    """The value with permuted labels."""
    labels_left_out: tuple[str, ...] = ()
    """Labels with too few different texts to be both learnt and held out."""
    others: dict[str, float] = field(default_factory=dict)
    """More figures, by name."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Numbers of examples: rows are true labels, columns predicted labels; of one label a text."""
    each: tuple[dict[str, Any], ...] = ()
    """Of each of several labels: its examples, precision, recall and F1."""
    temperature: float = 1.0
    """What the scores are divided by to be calibrated."""
    margin: float | None = None
    """90% of the errors of numbers are below it."""

    def data(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        data = asdict(self)
        others = data.pop("others")
        kept = {name: value for name, value in data.items() if value not in (None, ())}
        document: dict[str, Any] = plain(kept | others | {self.name: self.value})
        return document

    @property
    def name(self) -> str:
        """The name of the figure as a key, such as "micro_f1"."""
        return self.figure.lower().replace(" ", "_")

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> "Evaluation":
        """From what `data` returned, and whatever else is there."""
        names = {item.name for item in fields(cls)} & data.keys()
        values = {name: data[name] for name in names if name not in ("chance", "others")}
        values.setdefault("labels", ())
        evaluation = cls(chance=Chance(**data["chance"]), **values)
        others = {x: data[x] for x in OTHERS if x in data and x != evaluation.name}
        return replace(evaluation, others=others)


def figures_with(
    kind: Kind, predicted: Array, moved: Array, balanced: bool, judged: Array | None = None
) -> Array:
    """The figure with each permutation of the labels, (permutations,).

    Args:
        kind: of the labels.
        said: (permutations or 1, texts, labels) scores, of which 0.5 and more is a yes.
        moved: (permutations, texts, labels) the labels.
        balanced: whether the figure of one label a text is the balanced accuracy.
        judged: (permutations, texts) whether each text counts; all by default.
    """
    if judged is None:
        judged = np.ones(moved.shape[:2], bool)
    if kind == "number":
        error: Array = np.abs(predicted - moved).mean((1, 2))
        return error
    if kind == "labels":
        yes = predicted >= 0.5
        hits = (yes * moved).sum((1, 2))
        f1: Array = 2 * hits / np.maximum(yes.sum((1, 2)) + moved.sum((1, 2)), 1)
        return f1
    right = (predicted.argmax(2) == moved.argmax(2)) & judged
    if not balanced:
        accuracy: Array = right.sum(1) / np.maximum(judged.sum(1), 1)
        return accuracy
    own = moved * judged[..., None]
    each = (own * right[..., None]).sum(1) / np.maximum(own.sum(1), 1)
    has = own.any(1)
    mean: Array = each.sum(1) / np.maximum(has.sum(1), 1)
    return mean


def of_labels(
    shares: Array, targets: Array, groups: Array, balanced: bool, seed: int = 0
) -> dict[str, Any]:
    """Figures of one label a text, as fields of `Evaluation`.

    Args:
        shares: (texts, labels) probabilities.
        targets: (texts, labels) 1 for the label of each, else 0.
        groups: (texts,) the group of equal texts of each.
        balanced: whether the figure is the balanced accuracy.
        seed: of the bootstrap.
    """
    true, predicted = targets.argmax(1), shares.argmax(1)
    labels = targets.shape[1]
    confusion = np.zeros((labels, labels), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    right = true == predicted
    accuracy, evenly = float(right.mean()), figures.balanced_accuracy(confusion)
    others = {
        "macro_f1": figures.macro_f1(confusion),
        "calibration_error": figures.calibration_error(shares.max(1), right),
        "brier_score": figures.brier_score(shares, targets),
    }
    common: dict[str, Any] = {"confusion": tuple(tuple(map(int, row)) for row in confusion)}
    if not balanced:
        return common | {
            "figure": "accuracy",
            "value": accuracy,
            "interval": figures.share_interval(right, groups),
            "baseline": float(confusion.sum(1).max() / len(true)),
            "others": {"balanced_accuracy": evenly} | others,
        }

    def mean_recall(sums: Array) -> Array:
        hits, counts = sums[:, :labels], sums[:, labels:]
        each = np.divide(hits, counts, out=np.zeros_like(hits, float), where=counts > 0)
        mean: Array = each.sum(1) / np.maximum((counts > 0).sum(1), 1)
        return mean

    sums = np.concatenate([targets * right[:, None], targets], 1)
    return common | {
        "figure": "balanced accuracy",
        "value": evenly,
        "interval": figures.bootstrap(sums, groups, mean_recall, seed),
        "baseline": 1 / int((confusion.sum(1) > 0).sum()),
        "others": {"accuracy": accuracy} | others,
    }


def of_several(
    shares: Array,
    targets: Array,
    names: Sequence[str],
    kept: Array,
    groups: Array,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of several labels a text, as fields of `Evaluation`.

    Args:
        shares: (texts, labels) probabilities.
        targets: (texts, labels) 1 for each label of a text, else 0.
        names: of the labels.
        kept: (labels,) bool, those that are judged.
        groups: (texts,) the group of equal texts of each.
        seed: of the bootstrap.
    """
    shares, targets = shares[:, kept], targets[:, kept]
    names = [name for name, is_kept in zip(names, kept, strict=True) if is_kept]
    yes, has = shares >= 0.5, targets > 0
    hits, predicted, true = (yes & has).sum(0), yes.sum(0), has.sum(0)
    f1 = 2 * hits / np.maximum(predicted + true, 1)
    each = tuple(
        {
            "label": name,
            "examples": int(true[n]),
            "precision": float(hits[n] / max(1, predicted[n])),
            "recall": float(hits[n] / max(1, true[n])),
            "f1": float(f1[n]),
        }
        for n, name in enumerate(names)
    )

    def micro_f1(sums: Array) -> Array:
        f1: Array = 2 * sums[:, 0] / np.maximum(sums[:, 1], 1)
        return f1

    sums = np.stack([(yes & has).sum(1), yes.sum(1) + has.sum(1)], 1)
    often = np.sort(true)[::-1]
    # Whoever says the same labels of every text says the most frequent ones.
    constant = 2 * np.cumsum(often) / (len(has) * np.arange(1, len(often) + 1) + true.sum())
    return {
        "figure": "micro F1",
        "value": float(micro_f1(sums.sum(0)[None])[0]),
        "interval": figures.bootstrap(sums, groups, micro_f1, seed),
        "baseline": float(constant.max()),
        "others": {
            "macro_f1": float(f1.mean()),
            "all_labels_right": float((yes == has).all(1).mean()),
            "calibration_error": figures.calibration_error(shares.ravel(), has.ravel()),
            "brier_score": figures.brier_score(shares, targets) / len(names),
        },
        "each": each,
    }


def of_numbers(predicted: Array, true: Array, groups: Array, seed: int = 0) -> dict[str, Any]:
    """Figures of predicted numbers, (texts,), as fields of `Evaluation`."""
    error = np.abs(predicted - true)
    spread = float(((true - true.mean()) ** 2).sum())
    sums = np.stack([error, np.ones_like(error)], 1)
    return {
        "figure": "mean absolute error",
        "value": float(error.mean()),
        "interval": figures.bootstrap(sums, groups, lambda x: x[:, 0] / x[:, 1], seed),
        "baseline": float(np.abs(true - np.median(true)).mean()),
        "margin": float(np.quantile(error, SURE, method="higher")),
        "others": {
            "r2": 1 - float((error**2).sum()) / max(spread, 1e-300),
            "rank_correlation": figures.rank_correlation(predicted, true),
        },
    }

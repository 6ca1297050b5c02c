"""What comes after an encoder: layers that label a text, or change its embedding."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.arguments import positive_size

TokenPooling = Literal["first", "mean", "last"]
HeadActivation = Literal["tanh", "relu", "gelu", "gelu_tanh", "silu", "none"]
Scores = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """A linear layer on the embedding of a text, and its activation.

    Raises:
        ArgumentError: the width is below 1, or the activation unknown.
        TypeMismatchError: the width is not an int, or bias not a bool.
    """

    width: int
    """Of its output."""
    activation: HeadActivation = "tanh"
    bias: bool = True

    def __post_init__(self) -> None:
        positive_size("width", self.width)
        _check_choice("activation", self.activation, get_args(HeadActivation))
        _check_flag("bias", self.bias)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The shape of a classifier. The defaults are those of BERT.

    Raises:
        ArgumentError: there are no labels, or an unknown choice.
        TypeMismatchError: the labels are not a tuple of str, or a flag is no bool.
    """

    labels: tuple[str, ...]
    scores: Scores = "softmax"
    """Softmax for one label a text, sigmoid for any number, none for a regression."""
    pooling: TokenPooling = "first"
    late: bool = False
    """Whether the scores of all tokens are pooled, rather than their hidden states."""
    hidden: bool = True
    """Whether a layer of the model's width comes before the scores."""
    hidden_bias: bool = True
    activation: HeadActivation = "tanh"
    """After the hidden layer."""
    norm: bool = False
    """Whether a norm follows the activation."""
    bias: bool = True
    """Of the scores."""

    def __post_init__(self) -> None:
        is_valid = isinstance(self.labels, tuple) and all(isinstance(x, str) for x in self.labels)
        if not is_valid:
            raise TypeMismatchError(f"labels must be a tuple of str, not {self.labels!r:.80}")
        if not self.labels:
            raise ArgumentError("a classifier needs at least one label")
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in ("late", "hidden", "hidden_bias", "norm", "bias"):
            _check_flag(name, getattr(self, name))


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}, not {value!r:.80}")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeMismatchError(f"{name} must be True or False, not {value!r:.80}")


_CHOICES: dict[str, tuple[str, ...]] = {
    "scores": get_args(Scores),
    "pooling": get_args(TokenPooling),
    "activation": get_args(HeadActivation),
}

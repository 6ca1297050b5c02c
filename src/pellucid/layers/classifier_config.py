"""How an encoder labels texts: the labels, and the layers that score them."""

from dataclasses import dataclass
from typing import Literal, get_args

from pellucid.errors import ArgumentError, TypeMismatchError

TokenPooling = Literal["first", "mean", "last"]
HeadActivation = Literal["tanh", "relu", "gelu", "gelu_tanh", "silu", "none"]
Scores = Literal["softmax", "sigmoid", "none"]


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
            if getattr(self, name) not in choices:
                raise ArgumentError(
                    f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r:.80}"
                )
        for name in ("late", "hidden", "hidden_bias", "norm", "bias"):
            if not isinstance(getattr(self, name), bool):
                raise TypeMismatchError(
                    f"{name} must be True or False, not {getattr(self, name)!r:.80}"
                )


_CHOICES: dict[str, tuple[str, ...]] = {
    "scores": get_args(Scores),
    "pooling": get_args(TokenPooling),
    "activation": get_args(HeadActivation),
}

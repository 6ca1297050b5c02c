"""What is asked about a prediction: one logit of a model's output, or the difference of two."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.lens.tracing.frozen_hooks import ratio, with_gradient_of

Logits = Callable[[Any], Tensor]
"""From a model's output to logits, (1, tokens, vocabulary) or (1, labels)."""
Chosen = tuple[int | None, int | None]
"""The logit that is asked about, None for the largest, and the one that is subtracted from it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One logit, or the difference of two, of the output of a model."""

    model: nn.Module
    run: Callable[[], tuple[Tensor, int | None]]
    """Runs the model on one text, and gives logits, (choices,), in the graph; and the position of
    the token whose stream they are read from, None if it is that of all."""
    choose: Callable[[Tensor], Chosen]
    """Called with the logits."""
    bias: Tensor | None = None
    """(choices,), if it is added to the logits by no module."""

    def ask(self, *, is_linear: bool = False) -> "Answer":
        """Run the model.

        Args:
            is_linear: whether a cap on logits is a factor, constant to gradients.

        Raises:
            OutOfRangeError: there is no such choice.
            ArgumentError: the two choices are the same.
        """
        row, position = self.run()
        row = uncapped(row, self.model) if is_linear else row
        token, against = self.choose(row.detach())
        token = int(row.argmax()) if token is None else token
        token = index_of("token", token, len(row), from_end=False)
        number, bias = row[token], 0.0 if self.bias is None else float(self.bias[token])
        if against is not None:
            against = index_of("against", against, len(row), from_end=False)
            if against == token:
                raise ArgumentError(f"against is the token itself, {token}; name another")
            number = number - row[against]
            bias -= 0.0 if self.bias is None else float(self.bias[against])
        return Answer(number, row.detach(), token, against, position, bias)


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What the model said."""

    number: Tensor
    """The logit, or the difference of two, in the graph."""
    row: Tensor
    """(choices,): the logits of the vocabulary or of all labels."""
    token: int
    against: int | None
    position: int | None
    """None if the logits are read from the streams of all tokens."""
    bias: float
    """What `Question.bias` adds to the number."""

    @property
    def queries(self) -> slice:
        """The tokens whose streams the logits are read from."""
        if self.position is None:
            return slice(None)
        return slice(self.position, self.position + 1)


def uncapped(row: Tensor, model: nn.Module) -> Tensor:
    """The same logits, with a factor that is constant to gradients in place of their cap.

    y = cap * tanh(x / cap) = x * (y / x), of which the factor is what the model observed.
    """
    config = getattr(model, "config", None)
    caps = (getattr(config, name, None) for name in ("final_logit_softcapping", "logit_softcap"))
    cap = next((cap for cap in caps if cap is not None), None)
    if cap is None:
        return row
    before = cap * torch.atanh((row / cap).clamp(-1 + 1e-7, 1 - 1e-7))
    return with_gradient_of(row, before * ratio(row, before))


def output_of(
    model: nn.Module, inputs: Tensor | Mapping[str, Any], position: int, logits: Logits | None
) -> tuple[Tensor, int | None]:
    """Run a model: the logits, (choices,), and the position that they are of.

    Args:
        model: any.
        inputs: ids, or named arguments.
        position: of the token after which a prediction is made.
        logits: from the output to logits; None takes the output, or its attribute `logits`.

    Raises:
        ShapeError, TypeMismatchError: the output is no logits of one text.
        OutOfRangeError: there is no such position.
    """
    output = model(inputs) if isinstance(inputs, Tensor) else model(**in_graph(inputs))
    scores = getattr(output, "logits", output) if logits is None else logits(output)
    if not isinstance(scores, Tensor):
        raise TypeMismatchError(
            "the model gives no logits; say with logits= how they come from its output"
        )
    if scores.ndim not in (2, 3) or len(scores) != 1:
        raise ShapeError(
            "logits must be (1, tokens, vocabulary) or (1, labels), one text at a time; got "
            f"{tuple(scores.shape)}"
        )
    if scores.ndim == 2:
        return scores[0], None
    position = index_of("position", position, scores.shape[1])
    return scores[0, position], position


def in_graph(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same inputs; vectors in place of ids begin a graph, as those of a table do."""
    vectors = inputs.get("inputs_embeds")
    if not isinstance(vectors, Tensor) or vectors.requires_grad:
        return inputs
    return {**inputs, "inputs_embeds": vectors.detach().requires_grad_()}


def index_of(name: str, index: Any, size: int, *, from_end: bool = True) -> int:
    """An index from 0 to size - 1.

    Raises:
        TypeMismatchError: it is no int.
        OutOfRangeError: there is no such entry.
    """
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeMismatchError(f"{name} must be an int, got {index!r}")
    first = -size if from_end else 0
    if not first <= index < size:
        raise OutOfRangeError(f"{name} must be from {first} to {size - 1}, got {index}")
    return index % size

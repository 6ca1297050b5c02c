"""What is asked about a prediction: one logit of a model's output, or the difference of two."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError

Logits = Callable[[Any], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One logit, or the difference of two, of the output of a model."""

    model: nn.Module
    inputs: Tensor | Mapping[str, Any]
    token: int | None
    """None is the likeliest."""
    against: int | None
    """The logit that is subtracted."""
    position: int
    logits: Logits | None
    """From the model's output to logits; None takes the output, or its attribute `logits`."""

    def ask(self) -> "Answer":
        """Run the model.

        Raises:
            ShapeError, TypeMismatchError: the output is no logits of one text.
            OutOfRangeError: there is no such position or token.
        """
        if isinstance(self.inputs, Tensor):
            output = self.model(self.inputs)
        else:
            output = self.model(**self.inputs)
        if self.logits is not None:
            output = self.logits(output)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise TypeMismatchError(
                "the model gives no logits; say with logits= how they come from its output"
            )
        if logits.ndim not in (2, 3) or len(logits) != 1:
            raise ShapeError(
                "logits must be (1, tokens, vocabulary) or (1, labels), one text at a time; got "
                f"{tuple(logits.shape)}"
            )
        position = None
        row = logits[0]
        if logits.ndim == 3:
            position = index_of("position", self.position, logits.shape[1])
            row = row[position]
        token = int(row.argmax()) if self.token is None else self.token
        token = index_of("token", token, len(row), from_end=False)
        number = row[token]
        if self.against is not None:
            against = index_of("against", self.against, len(row), from_end=False)
            if against == token:
                raise ArgumentError(f"against is the token itself, {token}; name another")
            number = number - row[against]
        return Answer(number, row.detach(), token, self.against, position)


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What the model said."""

    number: Tensor
    """The logit, or the difference of two, in the graph."""
    row: Tensor
    """(vocabulary,) or (labels,): the logits of all choices."""
    token: int
    against: int | None
    position: int | None
    """None if the logits are those of the whole text."""

    @property
    def queries(self) -> slice:
        """The tokens whose stream the logits are read from."""
        if self.position is None:
            return slice(None)
        return slice(self.position, self.position + 1)


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

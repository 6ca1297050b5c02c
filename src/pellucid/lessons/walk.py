"""A walk: the way of the numbers through attention, one step after another, ready to be shown.

Lessons build walks, renderers show them; neither knows the other. All numbers here are plain
Python.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import Tensor

from pellucid.common import files
from pellucid.common.wording import percent
from pellucid.errors import UnknownNameError

Kind = Literal["number", "percent", "count"]
ROLES = {"query": "Q", "key": "K", "value": "V"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Numbers with a name on each row and column."""

    name: str
    values: tuple[tuple[float, ...], ...]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    kind: Kind = "number"
    """number: shown with decimals; percent: fractions of one, shown as such; count: whole."""
    decimals: int = 4
    hidden: tuple[tuple[bool, ...], ...] | None = None
    """Where a mask hides the key, so that there is no weight; None hides nothing."""

    def texts(self) -> tuple[tuple[str, ...], ...]:
        """All its numbers, as a person reads them; a dash where a key is hidden."""
        hidden = self.hidden or ((False,) * len(self.column_labels),) * len(self.values)
        return tuple(
            tuple("–" if off else self.text(number) for number, off in zip(*row, strict=True))
            for row in zip(self.values, hidden, strict=True)
        )

    def text(self, number: float) -> str:
        """One of its numbers, as a person reads it."""
        if self.kind == "percent":
            return percent(number)
        if self.kind == "count":
            return f"{number:.0f}"
        return "−∞" if number == -math.inf else f"{number:z.{self.decimals}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what is computed, and what came out."""

    name: str
    formula: str
    sentence: str
    """What the numbers say, in plain words."""
    matrices: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A whole way, from tokens to context."""

    title: str
    about: tuple[str, ...]
    """Where the numbers come from, a line each."""
    tokens: tuple[str, ...]
    steps: tuple[Step, ...]
    picture: str | None = None
    """The step that is drawn; unless named, the first that has percentages."""
    facts: dict[str, str | int | float] = field(default_factory=dict)
    """The choices behind the walk, for scripts: model, layer, head, ..."""

    @property
    def heat(self) -> tuple[Step, Matrix]:
        """The step and matrix that make the picture."""
        return next(
            (step, matrix)
            for step in self.steps
            for matrix in step.matrices
            if matrix.kind == "percent" and self.picture in (None, step.name)
        )


def to_json(walk: Walk) -> str:
    """The whole walk as JSON; null where a mask hides a score, since JSON has no infinity."""
    return files.to_json(asdict(walk), indent=2)


def matrix(
    name: str,
    values: Tensor,
    row_labels: tuple[str, ...],
    column_labels: tuple[str, ...] | None = None,
    *,
    kind: Kind = "number",
    decimals: int = 4,
    visible: Tensor | None = None,
) -> Matrix:
    """A Matrix of a (rows, columns) tensor; columns are numbered unless they are named.

    `visible`, a bool tensor of the same shape, is False where a mask hides the key.
    """
    return Matrix(
        name=name,
        values=tuple(tuple(row) for row in values.tolist()),
        row_labels=row_labels,
        column_labels=column_labels or tuple(str(column) for column in range(values.shape[1])),
        kind=kind,
        decimals=decimals,
        hidden=None if visible is None else tuple(map(tuple, (~visible).tolist())),
    )


def find_token(tokens: tuple[str, ...], word: str) -> tuple[int, ...]:
    """The positions of a token, letter case aside.

    Raises:
        UnknownNameError: it is not among the tokens; the message lists them.
    """
    positions = tuple(i for i, token in enumerate(tokens) if token.casefold() == word.casefold())
    if not positions:
        raise UnknownNameError(f"query '{word}' is not among the tokens: {', '.join(tokens)}")
    return positions


def rows_shown(
    tokens: tuple[str, ...], focus: tuple[int, ...]
) -> tuple[list[int], tuple[str, ...]]:
    """The rows of a matrix that are shown, all without a focus, and what they are called.

    Among all rows a word that stands twice is known by its place; alone it needs its position.
    """
    if not focus:
        return list(range(len(tokens))), tokens
    twice = {token for token in tokens if tokens.count(token) > 1}
    names = (f"{tokens[i]} ({i})" if tokens[i] in twice else tokens[i] for i in focus)
    return list(focus), tuple(names)

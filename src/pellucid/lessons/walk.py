"""A walk: the way of the numbers through attention, one step after another, ready to be shown.

Lessons build walks, renderers show them; neither knows the other. All numbers here are plain
Python, and the steps from scores to context come from the readable reference.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import Tensor

from pellucid.attention.reference import stages
from pellucid.common import files
from pellucid.common.wording import percent
from pellucid.errors import UnknownNameError
from pellucid.lessons.sentences import Speaker

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
    facts: dict[str, str | int | float] = field(default_factory=dict)
    """The choices behind the walk, for scripts: model, layer, head, ..."""

    @property
    def heat(self) -> tuple[Step, Matrix]:
        """The step and matrix that make the picture: the first percentages."""
        return next(
            (step, matrix)
            for step in self.steps
            for matrix in step.matrices
            if matrix.kind == "percent"
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
) -> Matrix:
    """A Matrix of a (rows, columns) tensor; columns are numbered unless they are named."""
    return Matrix(
        name=name,
        values=tuple(tuple(row) for row in values.tolist()),
        row_labels=row_labels,
        column_labels=column_labels or tuple(str(column) for column in range(values.shape[1])),
        kind=kind,
        decimals=decimals,
    )


def find_token(tokens: tuple[str, ...], word: str) -> tuple[int, ...]:
    """The positions of a token, letter case aside.

    Raises:
        UnknownNameError: it is not among the tokens; the message lists them.
    """
    found = tuple(i for i, token in enumerate(tokens) if token.casefold() == word.casefold())
    if not found:
        raise UnknownNameError(f"query '{word}' is not among the tokens: {', '.join(tokens)}")
    return found


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


def attention_steps(
    tokens: tuple[str, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    focus: tuple[int, ...] = (),
    speaker: int = 0,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sink: Tensor | None = None,
    decimals: int = 4,
) -> tuple[Step, ...]:
    """The steps from scores to context, for one head of self-attention.

    Args:
        tokens: a label each.
        query: (tokens, key_dim).
        key: (tokens, key_dim).
        value: (tokens, value_dim).
        focus: the positions whose rows are shown; all of them if empty.
        speaker: the position that the sentences speak of.
        mask: (tokens, tokens) bool, True = may be seen.
        bias: (tokens, tokens), added after scale and softcap.
        scale: 1/sqrt(key_dim) unless given.
        softcap: see `reference.stages`.
        sink: one number, the logit of the head's sink.
        decimals: how many to show.
    """
    found = stages(
        query[None],
        key[None],
        value[None],
        mask,
        bias=bias,
        scale=scale,
        softcap=softcap,
        sinks=None if sink is None else sink.reshape(1),
    )
    shown, labels = rows_shown(tokens, focus)
    say = Speaker(tokens, speaker)

    def rows(name: str, numbers: Tensor, columns: tuple[str, ...] | None = tokens) -> Matrix:
        return matrix(name, numbers[0, shown], labels, columns, decimals=decimals)

    key_dim = query.shape[-1]
    factor = key_dim**-0.5 if scale is None else scale
    steps = [
        Step(
            name="score",
            formula="scores = Q · Kᵀ",
            sentence=say.score(found.scores[0]),
            matrices=(rows("scores", found.scores),),
        ),
        Step(
            name="scale",
            formula="scaled = scores / √d_k" if scale is None else "scaled = scores · scale",
            sentence=say.scale(found.scores[0], factor, key_dim),
            matrices=(rows("scaled", found.scaled),),
        ),
    ]
    if softcap is not None:
        steps.append(
            Step(
                name="cap",
                formula="capped = softcap · tanh(scaled / softcap)",
                sentence=f"No score can leave the range from {-softcap:g} to {softcap:g}.",
                matrices=(rows("capped", found.capped),),
            )
        )
    steps.append(
        Step(
            name="mask",
            formula="masked = scaled, −∞ where hidden"
            if bias is None
            else "masked = scaled + position bias, −∞ where hidden",
            sentence=say.mask(mask),
            matrices=(rows("masked", found.masked),),
        )
    )
    weights = found.weights[0]
    steps += [
        Step(
            name="softmax",
            formula="weights = exp(masked) / sum of exp(masked) along the row"
            if sink is None
            else "weights = exp(masked) / (exp(sink) + sum of exp(masked) along the row)",
            sentence=say.softmax(weights),
            matrices=(matrix("weights", weights[shown], labels, tokens, kind="percent"),),
        ),
        Step(
            name="mix",
            formula="context = weights · V",
            sentence=say.mix(weights, found.context[0]),
            matrices=(rows("context", found.context, None),),
        ),
    ]
    return tuple(steps)

"""The notes' own examples, from the encodings on: embed, project, score, scale, mask, softmax, mix.

Encodings are copied facts. The weight matrices come from PyTorch's generator under the notes' own
seeds, so that the numbers are exactly theirs; the global generator is left as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.common.wording import count, percent
from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lessons import lookup
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.walk import ROLES, Step, Walk, attention_steps, find_token, matrix

Weights = Literal["parameters", "linear"]
Projections = tuple[Tensor, Tensor, Tensor]
"""W_query, W_key, W_value, each (d_in, d_out); a projection is encodings @ W."""


@dataclass(frozen=True)
class Example:
    """One of the notes' examples."""

    tokens: tuple[str, ...]
    encodings: Callable[[], Tensor]
    """(tokens, d_in)"""
    weights: dict[Weights, tuple[str, Callable[[], Projections]]]
    """Each way to make the weights: how it is done, in words, and the doing."""
    speaker: int
    """The token that the notes speak of."""


def _parameters(seed: int, d_in: int, d_out: int) -> tuple[str, Callable[[], Projections]]:
    """The notes' first form: three bare parameters from torch.rand."""

    def make() -> Projections:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return torch.rand(d_in, d_out), torch.rand(d_in, d_out), torch.rand(d_in, d_out)

    return f"torch.manual_seed({seed}); three torch.rand({d_in}, {d_out})", make


def _linear(seed: int, d_in: int, d_out: int) -> tuple[str, Callable[[], Projections]]:
    """The notes' second form: three linear layers, whose W is the transposed weight."""

    def make() -> Projections:
        with torch.random.fork_rng(devices=()), torch.no_grad():
            torch.manual_seed(seed)
            query, key, value = (torch.nn.Linear(d_in, d_out, bias=False) for _ in range(3))
            return query.weight.T, key.weight.T, value.weight.T

    how = f"torch.manual_seed({seed}); three torch.nn.Linear({d_in}, {d_out}, bias=False)"
    return how, make


def _random_encodings() -> Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(2017))


EXAMPLES = {
    "poem": Example(
        tokens=("write", "a", "poem"),
        encodings=lambda: torch.tensor([[1.16, 0.23], [0.57, 1.36], [4.41, -2.16]]),
        weights={"linear": _linear(42, 2, 2)},
        speaker=0,
    ),
    "journey": Example(
        tokens=("your", "journey", "starts", "with", "one", "step"),
        encodings=lambda: torch.tensor(
            [
                [0.43, 0.15, 0.89],
                [0.55, 0.87, 0.66],
                [0.57, 0.85, 0.64],
                [0.22, 0.58, 0.33],
                [0.77, 0.25, 0.10],
                [0.05, 0.80, 0.55],
            ]
        ),
        weights={"parameters": _parameters(123, 3, 2), "linear": _linear(789, 3, 2)},
        speaker=1,
    ),
    "bright": Example(
        tokens=("The", "next", "day", "is", "bright"),
        # The notes give shapes alone here; the numbers are ours.
        encodings=_random_encodings,
        weights={"parameters": _parameters(2017, 8, 4)},
        speaker=4,
    ),
}
NAMES = (*EXAMPLES, "lookup")


def walk_example(
    name: str, *, causal: bool = False, weights: Weights | None = None, query: str | None = None
) -> Walk:
    """The walk of one example.

    Args:
        name: one of `NAMES`.
        causal: hide from each token those after it.
        weights: how the weights are made, for an example that has more than one way.
        query: show one token's rows alone; for lookup, the word that is looked up.
    """
    if name == "lookup":
        if causal or weights:
            given = "causal" if causal else "weights"
            raise ArgumentError(f"{given} has no meaning for the example 'lookup'")
        return lookup.walk_lookup(query or "orange")
    if name not in EXAMPLES:
        raise UnknownNameError(f"no example '{name}'; there are: {', '.join(NAMES)}")
    example = EXAMPLES[name]
    weights = weights or next(iter(example.weights))
    if weights not in example.weights:
        ways = ", ".join(example.weights)
        raise ArgumentError(f"weights must be one of {ways} for '{name}', not '{weights}'")
    how, make = example.weights[weights]

    tokens = example.tokens
    focus = find_token(tokens, query) if query else ()
    # Under a causal mask the last token has most to tell.
    teller = len(tokens) - 1 if causal else example.speaker
    speaker = focus[0] if focus else teller
    encodings = example.encodings()
    projections = make()
    projected = [encodings @ W for W in projections]
    mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril() if causal else None

    steps = attention_steps(tokens, *projected, focus=focus, speaker=speaker, mask=mask, decimals=4)
    if name == "poem" and not causal:
        steps = tuple(map(_in_the_notes_words, steps))
    random = " The encodings and weights are random: only the shapes matter here."
    return Walk(
        title=" ".join(tokens),
        about=(
            f"The notes' example '{name}'" + (", with a causal mask" if causal else ""),
            f"Weights: {how}" + (random if name == "bright" else ""),
        ),
        tokens=tokens,
        steps=(
            _embed(tokens, encodings, speaker),
            *_project(tokens, encodings, projections, speaker),
            *steps,
        ),
        facts={"example": name, "weights": weights, "causal": causal},
    )


def _embed(tokens: tuple[str, ...], encodings: Tensor, speaker: int) -> Step:
    numbers = ", ".join(f"{number:.2f}" for number in encodings[speaker, :3].tolist())
    more = ", …" if encodings.shape[1] > 3 else ""
    return Step(
        name="embed",
        formula="X = encodings of the tokens",
        sentence=f"Each token is {count(encodings.shape[1], 'number')}: "
        f"'{tokens[speaker]}' is ({numbers}{more}).",
        matrices=(matrix("X", encodings, tokens, decimals=2),),
    )


def _project(
    tokens: tuple[str, ...], encodings: Tensor, projections: Projections, speaker: int
) -> tuple[Step, ...]:
    inputs = tuple(f"x{i}" for i in range(encodings.shape[1]))
    say = Speaker(tokens, speaker)
    return tuple(
        Step(
            name=role,
            formula=f"{letter} = X · W_{role}",
            sentence=say.vectors(role, encodings @ W),
            matrices=(matrix(f"W_{role}", W, inputs), matrix(letter, encodings @ W, tokens)),
        )
        for (role, letter), W in zip(ROLES.items(), projections, strict=True)
    )


def _in_the_notes_words(step: Step) -> Step:
    if step.name != "softmax":
        return step
    weights = step.matrices[0]
    word = weights.row_labels[0]
    share = weights.values[0][weights.column_labels.index(word)]
    said = f'The word "{word}" is {percent(share)} similar to itself.'
    return replace(step, sentence=f"{step.sentence} {said}")

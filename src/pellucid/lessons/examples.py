"""The notes' own examples, from the embeddings to the context.

Embeddings are copied facts. The weight matrices come from PyTorch's generator under the notes' own
seeds, so that the numbers are exactly theirs; the global generator is left as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.common.wording import percent
from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lessons import context, lookup, next_token
from pellucid.lessons.lesson import Form, Lesson
from pellucid.lessons.steps import walk_lesson
from pellucid.lessons.walk import Step, Walk

Projections = tuple[Tensor, Tensor, Tensor]
"""W_query, W_key, W_value, each (width, size); a projection is embeddings @ W."""


@dataclass(frozen=True)
class Example:
    """One of the notes' examples."""

    tokens: tuple[str, ...]
    embeddings: Callable[[], Tensor]
    """(tokens, width)"""
    weights: dict[Form, tuple[str, Callable[[], Projections]]]
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


def _random_embeddings() -> Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(2017))


EXAMPLES = {
    "poem": Example(
        tokens=("write", "a", "poem"),
        embeddings=lambda: torch.tensor([[1.16, 0.23], [0.57, 1.36], [4.41, -2.16]]),
        weights={"linear": _linear(42, 2, 2)},
        speaker=0,
    ),
    "journey": Example(
        tokens=("your", "journey", "starts", "with", "one", "step"),
        embeddings=lambda: torch.tensor(
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
        embeddings=_random_embeddings,
        weights={"parameters": _parameters(2017, 8, 4)},
        speaker=4,
    ),
}
WITHOUT_WEIGHTS: dict[str, Callable[..., Walk]] = {
    "lookup": lambda query=None, text=None: lookup.walk_lookup(query or "orange"),
    "context": lambda query=None, text=None: context.walk_context(
        text or context.BANKS, word=query or "bank"
    ),
    "verdict": lambda query=None, text=None: context.walk_verdict(
        _single_text(text, context.VERDICT)
    ),
    "next": lambda query=None, text=None: next_token.walk_next_token(
        _single_text(text, next_token.PROMPT), pick=query
    ),
}
"""The examples in which no number is drawn: a query and texts are all that they take."""
NAMES = (*EXAMPLES, *WITHOUT_WEIGHTS)


def example_lesson(name: str, *, causal: bool = False, weights: Form | None = None) -> Lesson:
    """One of `EXAMPLES` as a lesson, each number of which can be changed.

    Args:
        name: one of `EXAMPLES`.
        causal: hide from each token those after it.
        weights: how the weights are made, for an example that has more than one way.
    """
    if name not in EXAMPLES:
        raise UnknownNameError(f"no example '{name}'; there are: {', '.join(NAMES)}")
    example = EXAMPLES[name]
    weights = weights or next(iter(example.weights))
    if weights not in example.weights:
        ways = ", ".join(example.weights)
        raise ArgumentError(f"weights must be one of {ways} for '{name}', not '{weights}'")
    how, make = example.weights[weights]
    # The notes worked in float32, and these are their numbers.
    W_query, W_key, W_value = make()
    random = ". The embeddings and weights are random: only the shapes matter here."
    tokens = example.tokens
    return Lesson.of(
        tokens=tokens,
        title=" ".join(tokens),
        about=(
            f"Example '{name}' of the students' notes that Pellucid grew from"
            + (", with a causal mask" if causal else ""),
            f"Weights: {how}" + (random if name == "bright" else ""),
        ),
        # Under a causal mask the last token has most to tell.
        speaker=len(tokens) - 1 if causal else example.speaker,
        embeddings=example.embeddings(),
        W_query=W_query,
        W_key=W_key,
        W_value=W_value,
        mask="causal" if causal else "none",
    )


def walk_example(
    name: str,
    *,
    causal: bool = False,
    weights: Form | None = None,
    query: str | None = None,
    text: Sequence[str] | None = None,
) -> Walk:
    """The walk of one example.

    Args:
        name: one of `NAMES`.
        causal: as in `example_lesson`.
        weights: likewise.
        query: show one token's rows alone; for lookup, the word that is looked up; for context, the
            word that is compared; for next, the token to go on with.
        text: your own sentences for context, text for verdict, or prompt for next.
    """
    if name in WITHOUT_WEIGHTS:
        if causal or weights:
            given = "causal" if causal else "weights"
            raise ArgumentError(f"{given} has no meaning for the example '{name}'")
        return WITHOUT_WEIGHTS[name](query=query, text=text)
    if text is not None:
        raise ArgumentError(f"text has no meaning for the example '{name}'")
    walk = walk_lesson(example_lesson(name, causal=causal, weights=weights), query=query)
    if name == "poem" and not causal:
        walk = replace(walk, steps=tuple(map(_in_the_notes_words, walk.steps)))
    form: str = weights or next(iter(EXAMPLES[name].weights))
    return replace(walk, facts={"example": name, "weights": form, "causal": causal})


def _single_text(texts: Sequence[str] | None, default: str) -> str:
    if not texts:
        return default
    if len(texts) > 1:
        raise ArgumentError(f"this example takes one text, not {len(texts)}")
    return texts[0]


def _in_the_notes_words(step: Step) -> Step:
    if step.name != "softmax":
        return step
    weights = step.matrices[0]
    word = weights.row_labels[0]
    share = weights.values[0][weights.column_labels.index(word)]
    quote = (
        f'In the notes\' words: The word "{word}" is {percent(share)} similar to itself. '
        "Strictly, that is a share of attention and no similarity."
    )
    return replace(step, sentence=f"{step.sentence} {quote}")

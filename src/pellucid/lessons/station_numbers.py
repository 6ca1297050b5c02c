"""What each station shows: a walk, the same walk after a change, and the numbers in its text."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pellucid.attention.reference import Stages
from pellucid.common.wording import percent
from pellucid.lessons.computation import attend, project, scale_of
from pellucid.lessons.examples import example_lesson
from pellucid.lessons.lesson import Lesson, random_lesson
from pellucid.lessons.lookup import lookup_lesson, walk_lookup
from pellucid.lessons.model import walk_model
from pellucid.lessons.next_token import PROMPT, walk_next_token
from pellucid.lessons.scaling import measure_scaling
from pellucid.lessons.steps import walk_lesson
from pellucid.lessons.walk import Walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one station shows, before and after its change."""

    walk: Walk
    changed_walk: Walk
    lesson: Lesson | None = None
    """What the walk was computed from; None where a trained model's is shown."""
    changed_lesson: Lesson | None = None
    call: str = ""
    """The Python that computes the walk where there is no lesson."""
    changed_call: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What stands in the braces of the text."""
    right: int | None = None
    """The right answer to the first question, where it is computed."""


def _lessons(
    lesson: Lesson,
    changed: Lesson,
    *,
    walk: Walk | None = None,
    right: int | None = None,
    **values: Any,
) -> Shown:
    return Shown(
        walk=walk_lesson(lesson) if walk is None else walk,
        changed_walk=walk_lesson(changed),
        lesson=lesson,
        changed_lesson=changed,
        values=values,
        right=right,
    )


def _lookup() -> Shown:
    lesson, walk = lookup_lesson(["amber"]), walk_lookup("amber")
    return _lessons(
        lesson,
        lesson.change(scale=100.0),
        walk=walk,
        answer=walk.steps[-1].matrices[1].values[-1][0],
        mean=sum(row[0] for row in lesson.value or ()) / len(lesson.keys),
    )


def _projections() -> Shown:
    lesson = example_lesson("poem")
    x, y = lesson.matrix("embeddings")[0].tolist()
    return _lessons(lesson, lesson.change(W_query=torch.eye(2)), x=x, y=y)


def _scores() -> Shown:
    lesson = example_lesson("poem")
    query, key, _ = (part[0] for part in project(lesson))
    row = _attended(lesson).scores[0].tolist()
    q, keys, words = query[0].tolist(), key[:3].tolist(), lesson.tokens[:3]
    return _lessons(
        lesson,
        lesson.change(W_key=lesson.matrix("W_key") * 2),
        right=max(range(3), key=lambda i: row[i]),
        query=_bracketed(q),
        keys=", ".join(f"{word} {_bracketed(k)}" for word, k in zip(words, keys, strict=True)),
        words=words,
        products=[
            f"q · k = {q[0]:.4f} × {k[0]:.4f} + {q[1]:.4f} × {k[1]:.4f} = {score:.4f}"
            for k, score in zip(keys, row, strict=False)
        ],
    )


def _scale() -> Shown:
    drawn = random_lesson(
        "we divide by the square root", width=16, size=64, form="linear", positions=False, seed=2
    )
    # Queries and keys as the paper supposes: independent, with mean 0 and variance 1.
    generator = torch.Generator().manual_seed(5)
    n = len(drawn.tokens)
    vectors = {name: torch.randn(n, 64, generator=generator) for name in ("query", "key")}
    lesson = Lesson.of(
        tokens=drawn.tokens,
        title=drawn.title,
        about=("Queries and keys drawn from a standard normal, seed 5: 64 numbers each.",),
        value=torch.eye(n),
        **vectors,
    )
    unscaled = lesson.change(scale=1.0)
    (row,) = measure_scaling((64,)).rows
    return _lessons(
        lesson,
        unscaled,
        usual=percent(max(_attended(lesson).weights[0].tolist())),
        largest=percent(max(_attended(unscaled).weights[0].tolist())),
        deviation=math.sqrt(row.unscaled.variance),
    )


def _softmax() -> Shown:
    lesson = example_lesson("poem")
    attended, cold = _attended(lesson), lesson.change(temperature=0.1)
    weights = attended.weights[0].tolist()
    best = max(range(3), key=lambda i: weights[i])
    return _lessons(
        lesson,
        cold,
        word=lesson.tokens[best],
        share=percent(weights[best]),
        cold_share=percent(_attended(cold).weights[0].tolist()[best]),
        scaled=", ".join(f"{score:.2f}" for score in attended.scaled[0].tolist()),
    )


def _mask() -> Shown:
    lesson = example_lesson("journey", causal=True).change(speaker=0)
    n = len(lesson.tokens)
    finite = torch.zeros(n, n) + torch.full((n, n), -2.0).triu(1)
    changed = lesson.change(mask=finite)
    return _lessons(lesson, changed, equal=percent(1 / n), tokens=n, scaled=2 * scale_of(lesson))


def _heads() -> Shown:
    lesson = random_lesson("the cat sat on it", width=6, size=2, heads=3, form="linear", seed=4)
    return _lessons(lesson, lesson.change(W_output=torch.eye(6)))


def _positions() -> Shown:
    drawn = random_lesson("dog bites man", width=4, size=3, seed=7)
    turned = drawn.change(
        tokens=drawn.tokens[::-1], embeddings=drawn.matrix("embeddings").flip(0), speaker=2
    )
    return _lessons(
        drawn.change(positions=None),
        drawn,
        first=_bracketed(_attended(drawn).context[0].tolist()),
        last=_bracketed(_attended(turned).context[2].tolist()),
    )


def _stacks() -> Shown:
    sentence = "the servant of the king"
    return Shown(
        walk=walk_model(sentence, model="decoder"),
        changed_walk=walk_model(sentence, model="sentiment"),
        call=f"walk_model({sentence!r}, model='decoder')",
        changed_call=f"walk_model({sentence!r}, model='sentiment')",
        values={"sentence": sentence},
    )


def _generation() -> Shown:
    walk = walk_next_token(PROMPT)
    names = walk.tokens
    return Shown(
        walk=walk,
        changed_walk=walk_next_token(PROMPT, pick=names[1]),
        call=f"walk_next_token({PROMPT!r})",
        changed_call=f"walk_next_token({PROMPT!r}, pick={names[1]!r})",
        values={
            "prompt": PROMPT,
            "names": names,
            "shares": [percent(share) for share in walk.heat[1].values[0]],
        },
    )


def _attended(lesson: Lesson) -> Stages:
    return attend(lesson, *(part[0] for part in project(lesson)))


def _bracketed(numbers: list[float]) -> str:
    return f"({', '.join(f'{number:.2f}' for number in numbers)})"


NUMBERS: dict[str, Callable[[], Shown]] = {
    "lookup": _lookup,
    "projections": _projections,
    "scores": _scores,
    "scale": _scale,
    "softmax": _softmax,
    "mask": _mask,
    "heads": _heads,
    "positions": _positions,
    "stacks": _stacks,
    "generation": _generation,
}
"""What computes each station."""

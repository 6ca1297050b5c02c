"""The database analogy: attention is a table looked up softly.

A database compares the query with every key, and gives the value of the one that is equal. So does
attention, with two changes: it measures how alike query and key are, and mixes the values by that.
Sharpen the softmax, and the second becomes the first.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from pellucid.attention.reference import stages
from pellucid.common.wording import count, listing
from pellucid.errors import ArgumentError
from pellucid.lessons.lesson import MOST_TOKENS, Lesson
from pellucid.lessons.walk import Step, Walk, matrix
from pellucid.models import Encoder, load
from pellucid.tasks import embed

WHEEL = {
    "red": 0, "vermilion": 15, "orange": 30, "amber": 45, "yellow": 60, "lime": 90, "green": 120,
    "turquoise": 165, "cyan": 180, "azure": 210, "blue": 240, "violet": 270, "magenta": 300,
    "pink": 330,
}  # fmt: skip
"""Colours by their angle on the colour wheel, in degrees."""
TABLE = {"red": 680.0, "orange": 610.0, "yellow": 580.0, "green": 530.0, "blue": 470.0}
"""A wavelength, in nanometres, that looks like each colour."""
SHARPNESS = (0, 1, 3, 10, 30, 100, 300)


def lookup_lesson(words: Sequence[str] = ("orange",), table: Mapping[str, float] = TABLE) -> Lesson:
    """The lesson that looks words up in a table: each word is a query, each row a key and a value.

    Keys and queries are directions on the colour wheel if all of them are colours, else sentence
    embeddings of all-MiniLM-L6-v2, which are alike where meanings are.

    Args:
        words: what is looked up; letter case aside.
        table: a value for each key.

    Raises:
        ArgumentError: no words, or a table that is empty or too long.
        MissingExtraError: a word is no colour, and all-MiniLM-L6-v2 is not installed.
    """
    words, keys = [word.casefold() for word in words], list(table)
    if not words or not 1 <= len(keys) <= MOST_TOKENS:
        raise ArgumentError(f"a lookup needs a word, and a table of 1 to {MOST_TOKENS} rows")
    is_coloured = all(name.casefold() in WHEEL for name in (*words, *keys))
    vectors = (_directions if is_coloured else _embeddings)([*words, *keys])
    about = (
        "The database analogy: a table of colours. Each key is a direction on the colour wheel, "
        "each value a wavelength in nanometres; the query is a direction too."
        if is_coloured and table is TABLE
        else "The database analogy. Keys and queries are "
        + ("directions on the colour wheel." if is_coloured else "embeddings by all-MiniLM-L6-v2.")
    )
    return Lesson.of(
        tokens=tuple(words),
        source=tuple(keys),
        title=f"Looking up '{words[0]}'",
        about=(about,),
        query=vectors[: len(words)],
        key=vectors[len(words) :],
        value=torch.tensor([[value] for value in table.values()]),
        scale=1.0,
    )


def walk_lookup(word: str = "orange", table: Mapping[str, float] = TABLE) -> Walk:
    """Look one word up, as a database and as attention does; arguments as in `lookup_lesson`."""
    lesson = lookup_lesson([word], table)
    (word,), names = lesson.tokens, lesson.keys
    query, key, value = (lesson.matrix(name) for name in ("query", "key", "value"))
    unit = "nm" if table is TABLE else "value"

    likeness = query @ key.T
    best = likeness.max()
    nearest = [f"'{names[i]}'" for i in (likeness[0] > best - 1e-9).nonzero()[:, 0]]
    sweeps = [stages(query[None], key[None], value[None], scale=beta) for beta in SHARPNESS]
    weights = torch.cat([sweep.weights[0] for sweep in sweeps])
    answers = torch.cat([sweep.context[0] for sweep in sweeps])
    size = key.shape[1]
    vector = partial(
        matrix, column_labels=("x", "y") if size == 2 else tuple(map(str, range(size))), decimals=3
    )
    query_text = (
        f"'{word}', at {WHEEL[word]}°" if size == 2 else f"'{word}', {count(size, 'number')}"
    )
    return Walk(
        title=lesson.title,
        about=lesson.about,
        tokens=names,
        steps=(
            Step(
                name="table",
                formula="key → value",
                sentence=f"{count(len(names), 'row')}; the query is {query_text}.",
                matrices=(
                    vector("keys", key, names),
                    matrix("values", value, names, (unit,), decimals=0 if table is TABLE else 2),
                    vector("query", query, (word,)),
                ),
            ),
            _exact(word, names, value),
            Step(
                name="score",
                formula="scores = query · keysᵀ",
                sentence=f"Attention measures likeness instead: '{word}' is most like "
                f"{listing(nearest)}, with a product of {best:.3f}.",
                matrices=(matrix("scores", likeness, (word,), names, decimals=3),),
            ),
            Step(
                name="sharpen",
                formula="answer = softmax(sharpness · scores) · values",
                sentence=_sharpened(
                    nearest, answers, word in names, f" {unit}" if unit == "nm" else ""
                ),
                matrices=(
                    matrix("weights", weights, _rows(), names, kind="percent"),
                    matrix("answer", answers, _rows(), (unit,), decimals=1),
                ),
            ),
        ),
        facts={"example": "lookup", "query": word},
    )


def _directions(names: Sequence[str]) -> Tensor:
    """(names, 2): where each colour lies on the wheel."""
    angles = [math.radians(WHEEL[name.casefold()]) for name in names]
    return torch.tensor([(math.cos(a), math.sin(a)) for a in angles], dtype=torch.float64)


def _embeddings(names: Sequence[str]) -> Tensor:
    """(names, 384): unit vectors."""
    model = load("minilm")
    assert isinstance(model, Encoder)
    return embed(model, names).double()


def _rows() -> tuple[str, ...]:
    return tuple(f"×{beta}" for beta in SHARPNESS)


def _exact(word: str, names: tuple[str, ...], value: Tensor) -> Step:
    match = torch.tensor([[float(name == word) for name in names]], dtype=torch.float64)
    if word in names:
        matched = value[names.index(word), 0]
        sentence = f"A database finds the one key that is equal, '{word}': {matched:g}."
    else:
        sentence = f"A database finds no key equal to '{word}', and answers nothing."
    return Step(
        name="exact match",
        formula=f"SELECT value WHERE key = '{word}'",
        sentence=sentence,
        matrices=(matrix("match", match, (word,), names, kind="count"),),
    )


def _sharpened(nearest: list[str], answers: Tensor, present: bool, unit: str) -> str:
    mixed, sharp = answers[1, 0].item(), answers[-1, 0].item()
    database = "as a database answers" if present else "where a database answers nothing"
    return (
        f"Attention answers {sharp:.1f}{unit}, {database}: at sharpness {SHARPNESS[-1]} nearly all "
        f"weight is on {listing(nearest)}. At {SHARPNESS[1]} the answer is a mix, "
        f"{mixed:.1f}{unit}, and at {SHARPNESS[0]} every row counts alike."
    )

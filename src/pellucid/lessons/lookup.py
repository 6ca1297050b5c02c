"""The database analogy: attention is a table looked up softly.

A database compares the query with every key, and gives the value of the one that is equal. So does
attention, with two changes: it measures how alike query and key are, and mixes the values by that.
Sharpen the softmax, and the second becomes the first.
"""

import math

import torch
from torch import Tensor

from pellucid.attention.reference import stages
from pellucid.common.wording import listing
from pellucid.errors import UnknownNameError
from pellucid.lessons.walk import Matrix, Step, Walk, matrix

# Colours by their angle on the colour wheel, and a wavelength that looks so.
TABLE = {"red": (0, 680), "orange": (30, 610), "yellow": (60, 580), "green": (120, 530)}
ABSENT = {"amber": 45}
"""What one can ask for that the table does not have."""
SHARPNESS = (0, 1, 3, 10, 30, 100, 300)


def _direction(angle: float) -> tuple[float, float]:
    return math.cos(math.radians(angle)), math.sin(math.radians(angle))


def walk_lookup(word: str = "orange") -> Walk:
    """Look a colour's wavelength up, letter case aside, as a database and as attention does.

    Raises:
        UnknownNameError: not a colour that has a place on the wheel here.
    """
    angles = {name: angle for name, (angle, _) in TABLE.items()} | ABSENT
    given, word = word, word.casefold()
    if word not in angles:
        raise UnknownNameError(f"query '{given}' is not a colour here: {', '.join(angles)}")
    names = tuple(TABLE)
    key = torch.tensor([_direction(angles[name]) for name in names], dtype=torch.float64)
    value = torch.tensor([[TABLE[name][1]] for name in names], dtype=torch.float64)
    query = torch.tensor([_direction(angles[word])], dtype=torch.float64)

    likeness = query @ key.T
    best = likeness.max()
    nearest = [f"'{names[i]}'" for i in (likeness[0] > best - 1e-9).nonzero()[:, 0]]
    sweeps = [stages(query[None], key[None], value[None], scale=beta) for beta in SHARPNESS]
    weights = torch.cat([sweep.weights[0] for sweep in sweeps])
    answers = torch.cat([sweep.context[0] for sweep in sweeps])
    return Walk(
        title=f"Looking up '{word}'",
        about=(
            "The database analogy: a table of colours. Each key is a direction on the colour "
            "wheel, each value a wavelength in nanometres; the query is a direction too.",
        ),
        tokens=names,
        steps=(
            Step(
                name="table",
                formula="key → value",
                sentence=f"{len(names)} rows; the query is '{word}', at {angles[word]}°.",
                matrices=(
                    matrix("keys", key, names, ("x", "y"), decimals=3),
                    matrix("values", value, names, ("nm",), kind="count"),
                    matrix("query", query, (word,), ("x", "y"), decimals=3),
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
                sentence=_sharpened(nearest, answers, word in names),
                matrices=(
                    matrix("weights", weights, _rows(), names, kind="percent"),
                    matrix("answer", answers, _rows(), ("nm",), decimals=1),
                ),
            ),
        ),
        facts={"example": "lookup", "query": word},
    )


def _rows() -> tuple[str, ...]:
    return tuple(f"×{beta}" for beta in SHARPNESS)


def _exact(word: str, names: tuple[str, ...], value: Tensor) -> Step:
    match = torch.tensor([[float(name == word) for name in names]], dtype=torch.float64)
    if word in names:
        answer = value[names.index(word), 0]
        said = f"A database finds the one key that is equal, '{word}': {answer:.0f}."
    else:
        said = f"A database finds no key equal to '{word}', and answers nothing."
    found: Matrix = matrix("match", match, (word,), names, kind="count")
    return Step(
        name="exact match",
        formula=f"SELECT value WHERE key = '{word}'",
        sentence=said,
        matrices=(found,),
    )


def _sharpened(nearest: list[str], answers: Tensor, present: bool) -> str:
    mixed, sharp = answers[1, 0].item(), answers[-1, 0].item()
    end = "the database's" if present else "there where the database had none"
    return (
        f"At sharpness {SHARPNESS[0]} every row counts alike; at {SHARPNESS[1]} the answer is a "
        f"mix, {mixed:.1f} nm; at {SHARPNESS[-1]} all weight is on {listing(nearest)}, "
        f"and the answer, {sharp:.1f} nm, is {end}."
    )

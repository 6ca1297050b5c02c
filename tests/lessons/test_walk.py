"""A walk as JSON, and the small words of its sentences."""

import json
import math

import pytest
import torch

from pellucid.common.wording import count, listing, percent, short
from pellucid.lessons.examples import walk_example
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.walk import to_json


def test_json_holds_every_number_and_null_for_infinity():
    walk = walk_example("poem", causal=True)
    parsed = json.loads(to_json(walk))
    assert parsed["tokens"] == ["write", "a", "poem"]
    assert parsed["facts"] == {"example": "poem", "weights": "linear", "causal": True}
    for step, found in zip(walk.steps, parsed["steps"], strict=True):
        for matrix, plain in zip(step.matrices, found["matrices"], strict=True):
            for row, numbers in zip(matrix.values, plain["values"], strict=True):
                assert numbers == [None if math.isinf(x) else x for x in row]
    assert "null" in to_json(walk)


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (0, "0%"),
        (0.004, "<1%"),
        (0.006, "1%"),
        (0.357, "36%"),
        (0.994, "99%"),
        (0.997, ">99%"),
        (1, "100%"),
    ],
)
def test_percent_never_rounds_to_nothing_or_to_all(fraction, shown):
    assert percent(fraction) == shown


def test_small_words():
    assert [listing(list("abc"[:size])) for size in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert (count(1, "head"), count(2, "head")) == ("1 head", "2 heads")
    assert (short("abcdef", 6), short("abcdef", 5)) == ("abcdef", "abcd…")


def test_the_speaker_tells_of_its_own_row():
    say = Speaker(("the", "cat", "the"), 0)
    weights = torch.tensor([[0.1, 0.6, 0.3], [0, 1, 0], [0, 0, 1]])
    assert say.softmax(weights) == (
        "'the' (0) gives 10% of its attention to itself, 60% to 'cat' and 30% to 'the' (2)."
    )
    context = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert say.mix(weights, context) == (
        "The context of 'the' (0) is a mix of values: 60% that of 'cat', 30% that of 'the' (2) and "
        "10% its own: (1.00, 2.00, 3.00, …)."
    )
    spread = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert Speaker(("a", "b", "c", "d"), 0).softmax(spread) == (
        "'a' gives 10% of its attention to itself, 40% to 'd', 30% to 'c' and 20% to 'b'."
    )
    assert Speaker(("a", "b", "c", "d"), 3).softmax(spread.expand(4, 4)) == (
        "'d' gives 40% of its attention to itself, 30% to 'c', 20% to 'b' and 10% to the rest."
    )
    scores = torch.tensor([[4.0, -8.0, 2.0]])
    assert "its own key best: their score is 4.00" in say.score(scores)
    assert "from -8.00 to -4.00" in say.scale(scores, 0.5, 4)
    assert say.scale(scores, 0.5, 4).startswith("Divided by √4 = 2.00")

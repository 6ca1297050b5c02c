"""The steps against the reference, and what the sentences say of them."""

import json
import math

import pytest
import torch

from pellucid.attention.reference import stages
from pellucid.common.wording import count, listing, percent, short
from pellucid.lessons.examples import walk_example
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.walk import attention_steps, to_json

TOKENS, KEY_DIM, VALUE_DIM = 5, 3, 7
LABELS = tuple("abcde")


def given(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(TOKENS, KEY_DIM, generator=generator, dtype=torch.float64),
        torch.randn(TOKENS, KEY_DIM, generator=generator, dtype=torch.float64),
        torch.randn(TOKENS, VALUE_DIM, generator=generator, dtype=torch.float64),
    )


def test_every_option_reaches_the_numbers():
    query, key, value = given()
    bias = torch.arange(25.0, dtype=torch.float64).view(TOKENS, TOKENS) / 10
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(1)
    sink = torch.tensor(0.7, dtype=torch.float64)
    options = {"mask": mask, "bias": bias, "scale": 0.3, "softcap": 2.0}
    steps = attention_steps(LABELS, query, key, value, sink=sink, **options)
    expected = stages(query[None], key[None], value[None], sinks=sink[None], **options)
    shown = {step.matrices[0].name: torch.tensor(step.matrices[0].values) for step in steps}
    assert list(shown) == ["scores", "scaled", "capped", "masked", "weights", "context"]
    for name, actual in shown.items():
        torch.testing.assert_close(actual, getattr(expected, name)[0].float())
    said = {step.name: step.sentence for step in steps}
    assert said["scale"].startswith("Multiplied by 0.3")
    assert said["mask"].startswith("6 of the 25 scores become −∞: the model")
    assert "sink" in steps[-2].formula


def test_only_the_rows_in_focus_are_shown():
    whole = attention_steps(LABELS, *given())
    focus = attention_steps(LABELS, *given(), focus=(1, 3), speaker=1)
    for all_rows, chosen in zip(whole, focus, strict=True):
        assert chosen.matrices[0].row_labels == ("b", "d")
        assert chosen.matrices[0].values == (
            all_rows.matrices[0].values[1],
            all_rows.matrices[0].values[3],
        )


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
        "What 'the' (0) takes along is 60% of the value of 'cat', 30% of the value of 'the' (2) "
        "and 10% of its own value: (1.00, 2.00, 3.00, …)."
    )
    spread = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert Speaker(("a", "b", "c", "d"), 0).softmax(spread) == (
        "'a' gives 10% of its attention to itself, 40% to 'd', 30% to 'c' and 20% to 'b'."
    )
    assert Speaker(("a", "b", "c", "d"), 3).softmax(spread.expand(4, 4)) == (
        "'d' gives 40% of its attention to itself, 30% to 'c', 20% to 'b' and 10% to the rest."
    )
    scores = torch.tensor([[4.0, -8.0, 2.0]])
    assert "key of itself best: their product is 4.00" in say.score(scores)
    assert "from size 8.00 to 4.00" in say.scale(scores, 0.5, 4)
    assert say.scale(scores, 0.5, 4).startswith("Divided by √4 = 2.00")

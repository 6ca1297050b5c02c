"""The notes' own numbers, copied, at the decimals they are printed with."""

import pytest
import torch

from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lessons.examples import NAMES, walk_example
from pellucid.lessons.lookup import walk_lookup
from pellucid.lessons.walk import Walk

POEM = {
    "W_query": [[0.5406, -0.1657], [0.5869, 0.6496]],
    "W_key": [[-0.1549, -0.3443], [0.1427, 0.4153]],
    "W_value": [[0.6233, 0.6146], [-0.5188, 0.1323]],
    "Q": [[0.7621, -0.0428], [1.1063, 0.7890], [1.1164, -2.1336]],
    "K": [[-0.1469, -0.3038], [0.1057, 0.3685], [-0.9914, -2.4152]],
    "V": [[0.6038, 0.7434], [-0.3502, 0.5303], [3.8695, 2.4246]],
    "scores": [[-0.0990, 0.0648, -0.6523], [-0.4022, 0.4078, -3.0024], [0.4842, -0.6683, 4.0461]],
    "weights": [[0.3573, 0.4011, 0.2416], [0.3410, 0.6047, 0.0542], [0.0722, 0.0320, 0.8959]],
    "context": [[1.0100, 1.0641], [0.2040, 0.7057], [3.4989, 2.2427]],
}
POEM_CAUSAL = {
    "weights": [[1.0, 0.0, 0.0], [0.3606, 0.6394, 0.0], [0.0722, 0.0320, 0.8959]],
    "context": [[0.6038, 0.7434], [-0.0062, 0.6072], [3.4989, 2.2427]],
}
JOURNEY_PARAMETERS = {
    "Q": {1: [0.4306, 1.4551]},
    "scores": {1: [1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.5440]},
    "weights": {1: [0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820]},
    "context": {
        0: [0.2996, 0.8053],
        1: [0.3061, 0.8210],
        2: [0.3058, 0.8203],
        3: [0.2948, 0.7939],
        4: [0.2927, 0.7891],
        5: [0.2990, 0.8040],
    },
}
JOURNEY_LINEAR = [
    [-0.0739, 0.0713],
    [-0.0748, 0.0703],
    [-0.0749, 0.0702],
    [-0.0760, 0.0685],
    [-0.0763, 0.0679],
    [-0.0754, 0.0693],
]
JOURNEY_LINEAR_CAUSAL = {
    2: [0.3800, 0.3097, 0.3103, 0.0, 0.0, 0.0],
    5: [0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529],
}


def numbers(walk: Walk, name: str) -> list[list[float]]:
    found = [matrix for step in walk.steps for matrix in step.matrices if matrix.name == name]
    assert len(found) == 1
    return [list(row) for row in found[0].values]


def agree(actual: list[float], printed: list[float]) -> None:
    """The same at four decimals, up to the last one's rounding."""
    assert actual == pytest.approx(printed, abs=0.51e-4)


@pytest.mark.parametrize("name", POEM)
def test_poem(name):
    actual = numbers(walk_example("poem"), name)
    assert len(actual) == len(POEM[name])
    for row, printed in zip(actual, POEM[name], strict=True):
        agree(row, printed)


@pytest.mark.parametrize("name", POEM_CAUSAL)
def test_poem_causal(name):
    for row, printed in zip(
        numbers(walk_example("poem", causal=True), name), POEM_CAUSAL[name], strict=True
    ):
        agree(row, printed)


def test_poem_says_the_notes_sentence():
    sentences = [step.sentence for step in walk_example("poem").steps]
    assert any('The word "write" is 36% similar to itself.' in said for said in sentences)
    assert any(
        "'write' gives 36% of its attention to itself, 40% to 'a'" in said for said in sentences
    )


@pytest.mark.parametrize("name", JOURNEY_PARAMETERS)
def test_journey_with_bare_parameters(name):
    actual = numbers(walk_example("journey"), name)
    for row, printed in JOURNEY_PARAMETERS[name].items():
        agree(actual[row], printed)


def test_journey_with_linear_layers():
    walk = walk_example("journey", weights="linear")
    for row, printed in zip(numbers(walk, "context"), JOURNEY_LINEAR, strict=True):
        agree(row, printed)


def test_journey_with_linear_layers_causal():
    actual = numbers(walk_example("journey", weights="linear", causal=True), "weights")
    for row, printed in JOURNEY_LINEAR_CAUSAL.items():
        agree(actual[row], printed)


@pytest.mark.parametrize(
    ("name", "shape"),
    {"X": (5, 8), "W_query": (8, 4), "W_key": (8, 4), "W_value": (8, 4), "scores": (5, 5)}.items(),
)
def test_bright_has_the_notes_shapes(name, shape):
    walk = walk_example("bright")
    values = numbers(walk, name)
    assert (len(values), len(values[0])) == shape
    assert "random" in " ".join(walk.about)
    assert walk == walk_example("bright")


def test_the_way_is_the_notes_way():
    steps = [step.name for step in walk_example("bright", causal=True).steps]
    assert steps == ["embed", "query", "key", "value", "score", "scale", "mask", "softmax", "mix"]


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_left_as_it_was(name):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    walk_example(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_word_alone():
    whole, alone = walk_example("journey"), walk_example("journey", query="Starts")
    assert numbers(alone, "weights") == [numbers(whole, "weights")[2]]
    assert numbers(alone, "context") == [numbers(whole, "context")[2]]
    assert numbers(alone, "K") == numbers(whole, "K")


def test_lookup_turns_into_the_database():
    walk = walk_example("lookup")
    weights, answers = numbers(walk, "weights"), numbers(walk, "answer")
    assert weights[0] == pytest.approx([0.2] * 5)  # sharpness 0: all rows alike
    assert answers[0] == pytest.approx([(680 + 610 + 580 + 530 + 470) / 5])
    assert weights[-1] == pytest.approx([0, 1, 0, 0, 0], abs=1e-9)
    assert answers[-1] == pytest.approx([610])
    largest = [max(row) for row in weights]
    assert largest == sorted(largest)
    assert numbers(walk, "match") == [[0, 1, 0, 0, 0]]


def test_lookup_of_what_is_not_there():
    walk = walk_example("lookup", query="amber")
    assert numbers(walk, "match") == [[0, 0, 0, 0, 0]]
    assert numbers(walk, "answer")[-1] == pytest.approx([595], abs=0.01)  # between its neighbours
    said = " ".join(step.sentence for step in walk.steps)
    assert "answers nothing" in said
    assert "'orange' and 'yellow'" in said


def test_lookup_in_a_table_of_ones_own_goes_by_meaning():
    walk = walk_lookup("kitten", {"cat": 9, "lorry": 2, "banana": 5})
    weights, answers = numbers(walk, "weights"), numbers(walk, "answer")
    assert max(weights[3]) == weights[3][0]
    assert answers[-1] == pytest.approx([9])
    assert numbers(walk, "match") == [[0, 0, 0]]


def test_lookup_needs_rows():
    with pytest.raises(ArgumentError, match="1 to 64 rows"):
        walk_lookup("red", {})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "sonnet"}, UnknownNameError, "no example 'sonnet'; there are: poem, journey"),
        ({"name": "poem", "query": "cat"}, UnknownNameError, "'cat' is not .*: write, a, poem"),
        ({"name": "poem", "weights": "parameters"}, ArgumentError, "weights must be .*linear"),
        ({"name": "lookup", "causal": True}, ArgumentError, "causal has no meaning"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        walk_example(**arguments)

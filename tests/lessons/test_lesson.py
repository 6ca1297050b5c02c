"""A lesson as a document: read back as it was written, and refused where it does not fit."""

import json
import math

import numpy
import pytest
import torch

from pellucid.errors import ArgumentError, FileError, ShapeError, TooLargeError
from pellucid.lessons.examples import EXAMPLES, example_lesson
from pellucid.lessons.lesson import Lesson, from_json, from_tensors, random_lesson, read_lesson

GIVEN = {
    "tokens": ["a", "b"],
    "query": [[1, 2], [3, 4]],
    "key": [[1, 0], [0, 1]],
    "value": [[5], [6]],
}
PROJECTED = {
    "tokens": ["a", "b"],
    "embeddings": [[1, 2, 3], [4, 5, 6]],
    "W_query": [[1, 2]] * 3,
    "W_key": [[1, 2]] * 3,
    "W_value": [[1, 2, 3, 4]] * 3,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_back_as_it_was_written(name):
    lesson = example_lesson(name, causal=True)
    assert from_json(json.loads(lesson.to_json())) == lesson


def test_a_number_is_written_as_short_as_it_was_typed():
    typed = [[1.36, -0.1], [4.41, 1e-7]]
    lesson = from_tensors(*(torch.tensor(typed, dtype=torch.float32).double() for _ in range(3)))
    assert lesson.query != tuple(map(tuple, typed))  # float64 is kept to the digit
    lesson = Lesson.of(
        tokens=("a", "b"), **dict.fromkeys(("query", "key", "value"), torch.tensor(typed))
    )
    assert json.loads(lesson.to_json())["query"] == typed
    drawn = random_lesson("one two three", source="four five", heads=2)
    for name in ("embeddings", "positions", "source_embeddings", "W_query", "W_output"):
        assert all(len(repr(abs(one))) <= 15 for row in getattr(drawn, name) for one in row)


def test_a_hidden_key_is_null_in_a_file(tmp_path):
    mask = torch.tensor([[0, -math.inf], [-1.5, 0]])
    lesson = from_tensors(torch.eye(2), torch.eye(2), torch.eye(2), mask=mask, temperature=2.0)
    path = tmp_path / "my.json"
    path.write_text(lesson.to_json(), encoding="utf-8")
    assert json.loads(path.read_text())["mask"] == [[0, None], [-1.5, 0]]
    assert read_lesson(path) == lesson


def test_words_have_one_embedding_wherever_they_stand():
    lesson = random_lesson("to be or not to be", seed=3)
    assert lesson.embeddings[0] == lesson.embeddings[4]
    assert lesson.positions[0] != lesson.positions[4]
    assert random_lesson("to be or not to be", seed=3) == lesson
    assert random_lesson("to be or not to be", seed=4) != lesson


def test_a_change_is_checked():
    lesson = example_lesson("poem")
    assert lesson.change(W_query=torch.eye(2)).W_query == ((1.0, 0.0), (0.0, 1.0))
    with pytest.raises(ShapeError, match=r"W_query must have 2 rows of one length, not 3 of"):
        lesson.change(W_query=torch.eye(3))


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ([], ArgumentError, "JSON object"),
        (
            {"tokens": ["a"], "Wquery": []},
            ArgumentError,
            "'Wquery' is not a field of a lesson; did you mean 'W_query'",
        ),
        ({}, ArgumentError, "tokens are missing"),
        ({"tokens": "abc"}, ArgumentError, "tokens must be a list of texts"),
        ({"tokens": []}, ArgumentError, "1 to 64 tokens, not 0"),
        ({"tokens": ["a"] * 65}, ArgumentError, "1 to 64 tokens, not 65"),
        ({"tokens": ["a"]}, ArgumentError, "either embeddings or query"),
        (GIVEN | {"query": [[1, "x"], [3, 4]]}, ArgumentError, "query is 'x', not a number"),
        (GIVEN | {"query": [[1, float("inf")], [3, 4]]}, ArgumentError, "not finite"),
        (
            GIVEN | {"query": [[1, 2], [3]]},
            ShapeError,
            r"query must have 2 rows of one length, not 2 of 1 and 2",
        ),
        (
            GIVEN | {"key": [[1, 0, 0], [0, 1, 0]]},
            ShapeError,
            r"key must have the shape \(2, 2\), not \(2, 3\)",
        ),
        (GIVEN | {"value": [[1]]}, ShapeError, "value must have 2 rows of one length, not 1 of 1"),
        (GIVEN | {"value": [[1] * 40000] * 2}, TooLargeError, "more than 65536"),
        (GIVEN | {"heads": 2}, ArgumentError, "heads go with embeddings"),
        (GIVEN | {"heads": True}, ArgumentError, "heads is True, not a whole number"),
        (GIVEN | {"speaker": 2}, ArgumentError, "speaker must be from 0 to 1"),
        (GIVEN | {"scale": -1.0}, ArgumentError, "scale must be from 1e-6"),
        (GIVEN | {"temperature": 0}, ArgumentError, "temperature must be from 1e-6"),
        (GIVEN | {"energy": "magic"}, ArgumentError, "energy must be one of dot product"),
        (GIVEN | {"energy": "bilinear"}, ArgumentError, "W_energy is missing"),
        (GIVEN | {"mask": "diagonal"}, ArgumentError, "mask must be one of none, causal, window"),
        (
            GIVEN | {"mask": [[0, 0]]},
            ShapeError,
            r"mask must have the shape \(2, 2\), not \(1, 2\)",
        ),
        (GIVEN | {"source": ["x", "y"], "mask": "causal"}, ArgumentError, "no meaning in cross"),
        (GIVEN | {"W_query": [[1]]}, ArgumentError, "W_query goes with embeddings"),
        (PROJECTED | {"W_key": [[1, 2, 3]] * 3}, ShapeError, r"W_key must have the shape \(3, 2\)"),
        (PROJECTED | {"heads": 4}, ShapeError, "W_query has 2 columns, which 4 heads cannot share"),
        (PROJECTED | {"positions": [[1, 2, 3]]}, ShapeError, "positions must have the shape"),
        (PROJECTED | {"source": ["x"]}, ArgumentError, "go together"),
        (PROJECTED | {"W_output": [[1]]}, ShapeError, "W_output must have 4 rows"),
    ],
)
def test_bad_documents(document, error, message):
    with pytest.raises(error, match=message):
        from_json(document)


def test_a_lesson_of_both_forms_is_checked_whole():
    assert from_json(PROJECTED).is_projected
    assert not from_json(GIVEN).is_projected


def test_the_error_names_the_file(tmp_path):
    path = tmp_path / "my.json"
    path.write_text('{"tokens": ["a"]')
    with pytest.raises(FileError, match=r"my\.json"):
        read_lesson(path)
    path.write_text('{"tokens": ["a"]}')
    with pytest.raises(FileError, match=r"my\.json' is not a lesson: a lesson has either"):
        read_lesson(path)
    with pytest.raises(FileError, match=r"none\.json"):
        read_lesson(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": " "}, "words are missing"),
        ({"words": "a", "width": 0}, "width must be from 1 to 64"),
        ({"words": "a", "heads": 99}, "heads must be from 1 to 64"),
        ({"words": "a", "source": ""}, "words are missing"),
    ],
)
def test_bad_words(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        random_lesson(**arguments)


def test_vectors_must_be_matrices():
    with pytest.raises(ShapeError, match=r"query must have the shape \(tokens, dim\), got \(2,\)"):
        from_tensors(torch.ones(2), torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ShapeError, match="key must be rows of numbers, one length each"):
        from_tensors([[1, 2]], [[1, 2], [3]], [[1], [2]])
    with pytest.raises(ShapeError, match="value must be rows of numbers"):
        from_tensors([[1, 2]], [[1, 2]], [["a"]])
    given = [[1.0, 2.0], [0.5, 0.25]]
    for whole in (numpy.array(given), torch.tensor(given, dtype=torch.bfloat16)):
        assert from_tensors(whole, given, given) == from_tensors(given, given, given)
    lesson = Lesson.of(
        tokens=("a",),
        source=("k0", "k1"),
        query=torch.ones(1, 2),
        key=torch.eye(2),
        value=torch.eye(2),
    )
    assert lesson.keys == ("k0", "k1")

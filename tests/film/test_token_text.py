"""Tokens and the text that they stand in."""

import pytest

from pellucid.errors import UnknownNameError
from pellucid.film.token_text import clean, glued, positions_of, runs_left, spans

TEXT = "The animal did not cross because it was tired"
TOKENS = (
    "<|end|>",
    "The",
    "animal",
    "did",
    "not",
    "c",
    "ross",
    "because",
    "it",
    "was",
    "t",
    "ired",
)


def test_where_tokens_stand():
    found = spans(TEXT, TOKENS)
    assert found[0] is None
    assert [TEXT[slice(*place)] for place in found[1:]] == list(TOKENS[1:])


def test_pieces_go_on_a_word():
    assert [TOKENS[n] for n, joins in enumerate(glued(TEXT, TOKENS)) if joins] == ["ross", "ired"]
    assert glued("unhappy cats", ("[CLS]", "un", "##happy", "cats", "[SEP]")) == (
        False, False, True, False, False,
    )  # fmt: skip
    assert glued("x", ("▁el", "▁re", "y", ".", "</s>")) == (False, False, True, True, False)


def test_tokens_that_are_pieces_of_a_letter():
    text = "é שa b"
    tokens = ("é 1/2", "é 2/2", "ש 1/2", "ש 2/2", "a", "b")
    assert spans(text, tokens) == [(0, 1), (0, 1), (2, 3), (2, 3), (3, 4), (5, 6)]
    assert glued(text, tokens) == (False, True, False, True, True, False)


def test_what_is_not_found_does_not_lose_the_rest():
    assert spans("?? the cat", ("x", "the", "cat")) == [None, (3, 6), (7, 10)]


def test_where_a_text_runs():
    assert runs_left("«שלום» world")
    assert not runs_left("12 hello שלום")
    assert not runs_left("...")


def test_phrases():
    assert positions_of("the ANIMAL", TEXT, TOKENS) == (1, 2)
    assert positions_of("tired", TEXT, TOKENS) == (10, 11)
    assert positions_of("it", TEXT, TOKENS) == (8,)  # and no part of a word
    assert positions_of("<|end|>", TEXT, TOKENS) == (0,)
    with pytest.raises(
        UnknownNameError, match=r"'the cat' is not in the sentence; its tokens: <\|end"
    ):
        positions_of("the cat", TEXT, TOKENS)


def test_what_is_shown_of_a_token():
    assert list(map(clean, ("▁el", "##ing", "a b", "▁", "<s>"))) == ["el", "ing", "a b", "▁", "<s>"]

"""Tokens and the text that they stand in."""

import pytest

from pellucid.errors import UnknownNameError
from pellucid.film.spelling import clean, glued, places_of, spans

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


def test_phrases():
    assert places_of("the ANIMAL", TEXT, TOKENS) == (1, 2)
    assert places_of("tired", TEXT, TOKENS) == (10, 11)
    assert places_of("it", TEXT, TOKENS) == (8,)  # and no part of a word
    assert places_of("<|end|>", TEXT, TOKENS) == (0,)
    with pytest.raises(
        UnknownNameError, match=r"'the cat' is not in the sentence; its tokens: <\|end"
    ):
        places_of("the cat", TEXT, TOKENS)


def test_what_is_shown_of_a_token():
    assert list(map(clean, ("▁el", "##ing", "a b", "▁", "<s>"))) == ["el", "ing", "a b", "▁", "<s>"]

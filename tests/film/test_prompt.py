"""Prompts in words: what they ask for, and what is said to those that are not understood."""

import pytest

from pellucid.errors import ArgumentError
from pellucid.film.prompt import GRAMMAR, Wish, looks_like_one, understood


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("Write a poem", Wish(sentence="Write a poem")),
        ("Show me the way", Wish(sentence="Show me the way")),
        ("He said 'no'", Wish(sentence="He said 'no'")),
        ("show 'It didn't cross'", Wish(sentence="It didn't cross")),
        ('Film "a b", quickly', Wish(sentence="a b", pace=1.25)),
        ("show how ‘it’ reads", None),
        (
            "show how 'it' finds 'the animal' in 'The animal did not cross because it was tired', "
            "slowly, with a mask",
            Wish(
                sentence="The animal did not cross because it was tired",
                query="it",
                finds="the animal",
                pace=0.8,
                causal=True,
            ),
        ),
        ("show how 'a' looks at 'b' in 'a b'", Wish(sentence="a b", query="a", finds="b")),
        ("show 'b' in 'a b'", Wish(sentence="a b", query="b")),
        ("translate 'a b'", Wish(sentence="a b", translate=True)),
        ("show 'b' in 'a b', translated", Wish(sentence="a b", query="b", translate=True)),
        ("show “a b” going on", Wish(sentence="a b", generate=True)),
        ("show 'slowly loudly'", Wish(sentence="slowly loudly")),
    ],
)
def test_what_is_understood(text, wish):
    if wish is None:
        with pytest.raises(ArgumentError, match="'reads'"):
            understood(text)
    else:
        assert understood(text) == wish


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("show 'a b' loudly", "prompt is not understood at 'loudly'"),
        ("explain 'a b' to my dog", "at 'to', 'my' and 'dog'"),
        ("show 'a' 'b'", "2 quoted parts in an order"),
        ("show 'a' finds 'b'", "2 quoted parts in an order"),
        ("show 'a' in 'b' in 'c'", "3 quoted parts in an order"),
        ("show 'a' slowly, quickly", "slowly and quickly"),
        ("translate 'a', going on", "to translate and to go on"),
    ],
)
def test_what_is_not_is_said(text, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        understood(text)


def test_the_grammar_is_told():
    with pytest.raises(ArgumentError) as told:
        understood("show 'a' loudly")
    assert GRAMMAR in str(told.value)


def test_a_text_that_may_be_meant_as_a_prompt():
    assert looks_like_one("show how it finds the animal")
    assert not looks_like_one("Write a poem")
    assert not looks_like_one("showers are 'wet'")

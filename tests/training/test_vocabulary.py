"""Byte pairs: nothing is lost, and as many as were asked for."""

import random
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pellucid.errors import ArgumentError
from pellucid.training import vocabulary
from pellucid.training.vocabulary import (
    END,
    LEAST,
    MASK,
    MOST,
    byte_pairs,
    sampled,
    suggested_size,
)

BEGINS = f"{END} $A"
TEXT = "the cat sat on the mat, and the dog on the log; " * 3


@pytest.fixture(scope="module")
def tokenizer():
    return byte_pairs([TEXT], ends=BEGINS, marks=[MASK])


@given(st.text(st.characters(codec="utf-8")))
@example("\x00\ufeff \r\n\t<|end|\u1100\u1161\u0323\u0301\U0010ffff")
def test_nothing_is_lost(tokenizer, text):
    text = unicodedata.normalize("NFC", text)
    assume(END not in text and MASK not in text)
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids[1:]) == text
    assert tokenizer.token(ids[0]) == END


def test_what_spells_a_mark_is_one(tokenizer):
    assert tokenizer.encode([f"a{MASK}"], special=False)[0][1:] == [1]


def test_letters_and_their_accents_are_one(tokenizer):
    assert tokenizer.encode(["e\u0301"]) == tokenizer.encode(["\xe9"])


def test_common_words_are_tokens(tokenizer):
    (ids,) = tokenizer.encode(["the cat"], special=False)
    assert [tokenizer.token(number) for number in ids] == ["the", "Ġcat"]
    assert [tokenizer.token(number) for number in (0, 1)] == [END, MASK]


def test_the_same_text_gives_the_same_vocabulary(tokenizer):
    again = byte_pairs(iter([TEXT]), ends=BEGINS, marks=[MASK], characters=len(TEXT))
    assert again.inner.to_str() == tokenizer.inner.to_str()


def test_sizes():
    assert len(byte_pairs([TEXT], 260, ends=BEGINS)) == 260
    with pytest.raises(ArgumentError, match=r"at least 257, every byte and <.end.>, not 5"):
        byte_pairs([TEXT], 5, ends=BEGINS)
    most = len(byte_pairs([TEXT], ends=BEGINS))
    told = f"vocabulary must be at most {most} for these texts, not 9,000"
    with pytest.raises(ArgumentError, match=told):
        byte_pairs([TEXT], 9000, ends=BEGINS)


@pytest.mark.parametrize(
    ("characters", "size"), [(1, LEAST), (10**6, 1024), (10**8, 9984), (10**12, MOST)]
)
def test_more_text_has_more_tokens(characters, size):
    assert suggested_size(characters) == size


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 600))
def test_a_sample_is_from_all_over(lengths, most):
    kept = list(sampled(["a" * length for length in lengths], sum(lengths), most))
    total = sum(map(len, kept))
    assert total <= most + 50
    if sum(lengths) <= most:
        assert total == sum(lengths)
    else:
        assert total >= most - 50
    half = sampled([str(number) for number in range(100, 200)], 300, 150)
    assert list(half) == [str(number) for number in range(100, 200, 2)]


def test_a_vocabulary_of_a_sample(monkeypatch):
    monkeypatch.setattr(vocabulary, "READ", 100)
    made = byte_pairs(["aaaa " * 20, "bbbb " * 20], ends=BEGINS)
    tokens = {made.token(number) for number in range(len(made))}
    assert "aaaa" in tokens
    assert "bbbb" not in tokens


def test_a_word_of_a_million_letters():
    text = "".join(random.Random(0).choices("ACGT", k=10**6))
    made = byte_pairs([text], 300, ends=BEGINS)
    assert made.decode(made.encode([text])[0]) == text

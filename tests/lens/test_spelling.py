"""Tokens to words: each convention by hand, and every token in exactly one word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.lens.spelling import Word, is_punctuation, is_special, running, texts, words

BY_HAND = {
    "WordPiece": (
        ["[CLS]", "un", "##believ", "##able", "!", "don", "'", "t", "[SEP]"],
        "[CLS] unbelievable ! don ' t [SEP]",
    ),
    "SentencePiece": (["▁Hello", "▁wor", "ld", ",", "▁don", "'", "t", "</s>"],
                      "Hello world , don't </s>"),
    "a space that is a token": (["▁", "Hello", "▁", "▁x", "▁"], "Hello   x  "),
    "bytes in SentencePiece": (["▁five", "<0xE2>", "<0x82>", "<0xAC>", "<s>"], "five€ <s>"),
    "byte-level": (
        ["Hello", "Ġca", "f", "Ã©", "Ċ", "The", "Ġx", "'t", ".", "<|endoftext|>"],
        "Hello café \n The x't . <|endoftext|>",
    ),
    "a letter in two tokens": (["Ġsaid", "Ġ", "âĢ", "ľ", "yes", "âĢĿ"], "said “ yes ”"),
    "byte-level without a space": (["caf", "Ã©"], "café"),
    "no marks": (["[CLS]", "write", "a", "café", "[SEP]"], "[CLS] write a café [SEP]"),
    "Chinese": (["▁", "你", "好", "▁abc"], "你 好 abc"),
    "a hyphen inside": (["Ġwell", "-", "known", "Ġ-", "Ġx", "-"], "well-known - x -"),
    "number signs in byte-level": (["##", "Ġ##", "Ġa", "##x"], "## ## a##x"),
}  # fmt: skip


def test_tokens_in_a_running_text():
    pieces = ["[CLS]", "he", "sing", "##s", "(", "well", ")", ".", "[SEP]"]
    assert "".join(running(pieces)) == "[CLS] he sings (well). [SEP]"
    assert "".join(running(["<s>", "▁He", "▁sing", "s", "."])) == "<s> He sings."
    letters = ["He", "Ġsings", ".", "ĊĊ", "CafÃ©"]
    assert running(letters) == ["He", " sings", ".", "\n\n", "Café"]


@pytest.mark.parametrize(("tokens", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_by_hand(tokens, expected):
    found = words(tokens)
    assert " ".join(word.text for word in found) == expected
    assert [place for word in found for place in word.positions] == list(range(len(tokens)))


def test_a_word_knows_its_tokens():
    assert words(["[CLS]", "po", "##em"]) == [Word("[CLS]", (0,)), Word("poem", (1, 2))]
    assert [word.is_special for word in words(["[CLS]", "po", "##em"])] == [True, False]
    assert words([]) == []


def test_bytes_that_are_no_letter_are_shown_as_such():
    assert [word.text for word in words(["Ġa", "Ã"])] == ["a\ufffd"]


@pytest.mark.parametrize("first", ["Ġa", "▁a", "##a", "a"])
def test_half_a_letter_is_shown_as_such(first):
    assert [word.text for word in words([first, "\ud800"])][-1].endswith("?")
    assert running([first, "\ud800"])[-1].strip() == "?"


PIECES = [
    "a",
    "##b",
    "▁",
    "▁c",
    "Ġ",
    "Ġd",
    "Ċ",
    "Ã",
    "©",
    "<0xE2>",
    "<s>",
    "[SEP]",
    ",",
    "'",
    "你",
    "",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=13))
def test_every_token_is_in_one_word_and_in_order(tokens):
    places = [place for word in words(tokens) for place in word.positions]
    assert places == list(range(len(tokens)))
    assert len(texts(tokens)) == len(tokens)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=29))
def test_what_byte_level_writes_is_read_back(text):
    from tokenizers.pre_tokenizers import ByteLevel

    written = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(" " + text)
    letters = "".join(token for token, _ in written)
    assert "".join(word.text for word in words(["Ġx", *letters])).replace(" ", "") == (
        "x" + " " + text
    ).replace(" ", "")


def test_texts_of_single_tokens():
    assert texts(["[CLS]", "##em", "."]) == ["[CLS]", "em", "."]
    assert texts(["▁poem", "<0x0A>", "</s>"]) == ["poem", "\n", "</s>"]
    assert texts(["Ġpoem", "Ã", "Ġ"]) == ["poem", "\ufffd", ""]


@pytest.mark.parametrize(
    "token", ["[CLS]", "[MASK]", "[unused7]", "<s>", "</s>", "<|endoftext|>", "<extra_id_0>",
              "<｜begin▁of▁sentence｜>", "<pad>"]
)  # fmt: skip
def test_special_tokens(token):
    assert is_special(token)


@pytest.mark.parametrize("token", ["a", "[]", "<", "<0x0A>", "[a]", "<>", "< s >"])
def test_other_tokens(token):
    assert not is_special(token)


@pytest.mark.parametrize("text", [".", "...", "“", "\n", "$", "—", "、"])
def test_punctuation(text):
    assert is_punctuation(text)


@pytest.mark.parametrize("text", ["", "a.", "7", "é", "\ufffd", "你", "\N{GRINNING FACE}"])
def test_no_punctuation(text):
    assert not is_punctuation(text)


def test_a_letter_in_several_tokens_stands_at_the_first():
    # "é" and "👑" are two bytes and four; "Ã", "ð" and so on are how bytes are written.
    tokens = ["Ġ", "Ã", "©", "t", "Ã©", "Ġð", "Ł", "ĳ", "ĳ", "!"]
    found = running(tokens, whole=len(tokens))
    assert found == ["", "é", "", "t", "é", " 👑", "", "", "", "!"]
    assert running(tokens)[1:3] == ["\ufffd", "\ufffd"]
    broken = ["Ġt", "Ã", "t", "©", "Ã"]  # no text
    assert running(broken, whole=5) == ["t", "\ufffd", "t", "\ufffd", "\ufffd"]

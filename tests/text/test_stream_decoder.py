"""Text that comes a token at a time reads as it does at the end, and no letter is broken."""

import random

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests import writers

from pellucid.text.stream_decoder import Unfolding
from pellucid.text.tokenizer import Tokenizer

ODD = "naïve 日本語 👩‍👩‍👧 e\u0301 \ufffd  two  spaces\n"


def byte_level():
    return writers.tokenizer()


def sentence_piece():
    """As Llama 2's: "▁" for spaces, and a token a byte for what is not in the vocabulary."""
    pieces = ["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdeghinoprstuv"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [],
            byte_fallback=True,
            unk_token="<s>",
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    return Tokenizer(tokenizer)


def unfolded(tokenizer, ids, before=(), stop=()):
    unfolding = Unfolding(tokenizer, before, stop)
    pieces = []
    for number in ids:
        pieces.append(unfolding.add(number))
        if unfolding.is_stopped:
            break
    return [*pieces, unfolding.end()]


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_pieces_are_the_text_and_none_breaks_a_letter(make):
    tokenizer = make()
    for text in (ODD, writers.TEXT, "Once upon a time", " leading and trailing ", "\n\n"):
        [ids] = tokenizer.encode([text], special=False)
        for cut in range(0, len(ids), 7):
            before = tokenizer.decode(ids[:cut])
            pieces = unfolded(tokenizer, ids[cut:], ids[:cut])
            if not before.endswith("\ufffd"):
                assert before + "".join(pieces) == tokenizer.decode(ids)
                assert "".join(pieces).count("\ufffd") == text[len(before) :].count("\ufffd")


@given(st.lists(st.integers(1, writers.VOCABULARY - 1), max_size=40))
def test_any_bytes_read_as_they_do_together(ids):
    tokenizer = byte_level()
    pieces = unfolded(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)


def test_sentence_pieces_of_broken_letters_spoil_none_that_are_out():
    tokenizer = sentence_piece()
    ids = [tokenizer.inner.token_to_id(f"<0x{byte:02X}>") for byte in "日".encode() + b"\xe6"]
    assert tokenizer.decode([*ids]) == "\ufffd" * 4  # all bytes of a run, where one is wrong
    assert "".join(unfolded(tokenizer, [*ids, tokenizer.inner.token_to_id("a")])) == "日\ufffda"


def test_text_comes_as_soon_as_it_is_certain():
    tokenizer = byte_level()
    [ids] = tokenizer.encode(["a日b"], special=False)
    assert unfolded(tokenizer, ids) == ["a", "", "", "日", "b", ""]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (["."], "Once upon a time there was a little girl who had a red ball"),
        (["red", "girl"], "Once upon a time there was a little "),
        (["\n"], "Once upon a time there was a little girl who had a red ball."),
        (["upon", "pon a t"], "Once "),
        (["nothing of it", "ballet"], writers.TEXT),
    ],
)
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(stop, expected):
    tokenizer = byte_level()
    [ids] = tokenizer.encode([writers.TEXT], special=False)
    pieces = unfolded(tokenizer, ids, stop=stop)
    found = "".join(pieces)
    assert found.startswith(expected)
    assert not any(one in found for one in stop)


def test_what_may_become_a_stop_string_is_held_back():
    tokenizer = byte_level()
    [ids] = tokenizer.encode(["<<en<end"], special=False)
    assert len(ids) == 8
    assert unfolded(tokenizer, ids, stop=["<end>"]) == [
        "", "<", "", "", "<en", "", "", "", "<end"
    ]  # fmt: skip


@given(st.randoms(), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_are_found_wherever_the_tokens_end(chance: random.Random, stop):
    tokenizer = byte_level()
    text = "".join(chance.choice("abc") for _ in range(30))
    [ids] = tokenizer.encode([text], special=False)
    unfolding = Unfolding(tokenizer, (), stop)
    found = ""
    for number in ids:
        found += unfolding.add(number)
        if unfolding.is_stopped:
            break
    found += unfolding.end()
    assert text.startswith(found)
    assert not any(one in found for one in stop)
    assert unfolding.is_stopped == any(one in text for one in stop)
    if unfolding.is_stopped:
        assert any(text[len(found) :].startswith(one) for one in stop)

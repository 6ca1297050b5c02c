"""A tokenizer makes no more of a text than a few times as much."""

import pytest
from tests import translators
from tests.checkpoints import byte_pairs
from tokenizers import Regex, decoders, normalizers, processors

from pellucid.errors import FileError
from pellucid.text.sentence_pieces import read_pieces
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_growth import FREE, check_pieces

MANY = [normalizers.Replace("a", "a" * 16)] * 5
USUAL = {
    "nothing": None,
    "BERT": normalizers.BertNormalizer(),
    "Llama": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "ALBERT": normalizers.Sequence(
        [
            *(normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents()),
            *(normalizers.Lowercase(), normalizers.Replace(Regex(" {2,}"), "▁")),
        ]
    ),
    "many signs by name, which no text has all of": normalizers.Sequence(
        [normalizers.Replace(sign, f" {name} ") for sign, name in zip("€$£¥", "abcd", strict=True)]
        + [normalizers.Replace(Regex(r"\s+"), " ")] * 9
    ),
}
BOMBS = {
    "strings": normalizers.Sequence(MANY),
    "in sequences": normalizers.Sequence([normalizers.Sequence(MANY), normalizers.NFC()]),
    "patterns": normalizers.Sequence([normalizers.Replace(Regex("a?"), "aaaa")] * 20),
    "one long content": normalizers.Replace("a", "a" * 2 * FREE),
    "prepended": normalizers.Sequence([normalizers.Prepend("a" * 99), *MANY[:4]]),
}

MANY_MARKS = {"ids": [3] * 700, "tokens": ["b"] * 700}


def tokenizer(normalizer=None, decoder=None, post_processor=None):
    inner = byte_pairs().backend_tokenizer
    if normalizer is not None:
        inner.normalizer = normalizer
    if decoder is not None:
        inner.decoder = decoder
    if post_processor is not None:
        inner.post_processor = post_processor
    return Tokenizer(inner)


@pytest.mark.parametrize("case", USUAL)
def test_what_models_have_is_left_alone(case):
    made = tokenizer(USUAL[case])
    for text in ("a  b \ufdfa€ ''" * 5000, "", "\ud800"[:0], "€" * 9999):
        made.growth.check([text])
    assert made.encode(["a b"]) == [made.inner.encode("a b").ids]


@pytest.mark.parametrize("case", BOMBS)
def test_what_multiplies_a_text_is_refused_before_it_does(case):
    made = tokenizer(BOMBS[case])
    with pytest.raises(FileError, match="makes more than 64 times as much of a text"):
        made.encode(["b", "a"])
    for read in (lambda: made.encode_cut("aa", 5), lambda: made.offsets("aa")):
        with pytest.raises(FileError, match="64 times"):
            read()


def test_texts_that_do_not_grow_are_read():
    made = tokenizer(BOMBS["strings"])
    assert made.encode(["b c"]) == [byte_pairs().encode("b c")]


def test_a_decoder_that_multiplies_tokens_is_refused():
    steps = [decoders.ByteLevel(), *[decoders.Replace("a", "a" * 16)] * 2]
    with pytest.raises(FileError, match="decoder may make tokens 256 times as long; 64 times is"):
        tokenizer(decoder=decoders.Sequence(steps))
    usual = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    assert tokenizer(decoder=decoders.Sequence(usual)).decode([5])


def test_too_many_special_tokens_around_a_text_are_refused():
    marks = processors.TemplateProcessing(
        single="<m> <m> $A", pair="$A $B", special_tokens=[{"id": "<m>", **MANY_MARKS}]
    )
    with pytest.raises(FileError, match="its tokenizer adds 1,400 special tokens to each text"):
        tokenizer(post_processor=marks)


def test_a_table_of_sentencepiece_has_a_longest_text(tmp_path):
    from sentencepiece import sentencepiece_model_pb2 as form

    model = form.ModelProto()
    model.ParseFromString((translators.marian(tmp_path) / "source.spm").read_bytes())
    table = model.normalizer_spec.precompiled_charsmap
    usual = tokenizer(normalizers.Precompiled(table))
    usual.growth.check(["a\ufdfa" * 999])
    check_pieces(model.SerializeToString())
    model.normalizer_spec.precompiled_charsmap += b"a" * 200 + b"\0"
    (tmp_path / "long.spm").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="makes 200 bytes of a character; 64 is the most"):
        read_pieces(tmp_path, "long.spm")
    longer = tokenizer(normalizers.Precompiled(table + b"a" * 200 + b"\0"))
    longer.growth.check(["a"])
    with pytest.raises(FileError, match="64 times"):
        longer.growth.check(["a" * FREE])

"""Translations are those of transformers, and their alignment is its cross-attention."""

import itertools
import math
import re

import pytest
import torch
import transformers
from tests import translators, writers
from tests.translators import PREFIX

import pellucid
from pellucid.errors import ArgumentError, TooLargeError, TypeMismatchError
from pellucid.models import Config, Encoder, EncoderDecoder
from pellucid.tasks.translation import ROWS, translate
from pellucid.tasks.word_alignment import alignment

LEARNT = translators.ENGLISH.splitlines()
TEXTS = [
    "The birds laughed in the house and the river carried the lamp.",
    *LEARNT[:3],
    "The bread was white.",
    *LEARNT[3:],
    "Nobody",  # which goes on and on
]
SENTENCE, TRANSLATED = LEARNT[0], translators.SPANISH.splitlines()[0]

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    directory = translators.marian(tmp_path_factory.mktemp("marian"))
    theirs = transformers.MarianMTModel.from_pretrained(directory, attn_implementation="eager")
    tokenizer = transformers.MarianTokenizer.from_pretrained(directory)
    return pellucid.load(directory), theirs.eval(), tokenizer


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    directory = translators.t5(tmp_path_factory.mktemp("t5"))
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(
        directory, attn_implementation="eager"
    )
    return pellucid.load(directory), theirs.eval()


def generated(theirs, ids, padding, **options):
    """Ids that transformers writes, without the start, up to the stop."""
    tensors = [torch.tensor(one) for one in ids]
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(one) for one in ids])
    seen = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    rows = theirs.generate(input_ids=padded, attention_mask=seen, **options)[:, 1:].tolist()
    stop = theirs.config.eos_token_id
    return [row[: row.index(stop) + 1] if stop in row else row for row in rows]


def test_what_it_has_learnt(marian):
    model, *_ = marian
    found = translate(model, LEARNT)
    assert [one.text for one in found] == translators.SPANISH.splitlines()
    assert [one.source for one in found] == LEARNT
    assert all(-0.1 < one.score < 0 for one in found)
    assert all(one.ids[-1] == 0 for one in found)


def test_the_same_as_transformers_with_what_its_checkpoint_says(marian):
    """Its generation_config.json has four beams, no padding and a stop at the end, as Marian's."""
    model, theirs, tokenizer = marian
    texts = TEXTS[:-1]
    found = translate(model, texts)
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = theirs.generate(**inputs)
    assert [one.text for one in found] == tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert [one.source_ids for one in found] == tokenizer(texts)["input_ids"]


def options():
    """Each number of beams with each penalty and each length; all together in `make slow`."""
    values = [1, 2, 5], [0.4, 1.0, -0.5], [9, 41]
    for number in itertools.product(*(range(len(one)) for one in values)):
        chosen = [one[place] for one, place in zip(values, number, strict=True)]
        yield pytest.param(*chosen, marks=[pytest.mark.slow] * (sum(number) % 2))


@pytest.mark.parametrize(("beams", "penalty", "most"), [*options()])
def test_the_same_as_transformers_with_other_options(marian, beams, penalty, most):
    model, theirs, _ = marian
    found = translate(model, TEXTS, beams=beams, length_penalty=penalty, max_tokens=most)
    options = {} if beams == 1 else {"length_penalty": penalty}
    sources = [one.source_ids for one in found]
    padding = model.config.padding
    expected = generated(
        theirs, sources, padding, num_beams=beams, max_length=None, max_new_tokens=most, **options
    )
    assert [one.ids for one in found] == expected
    assert {len(one.ids) for one in found} == {9} if most == 9 else len(found[0].ids) < most


@pytest.mark.parametrize("beams", [1, 3])
def test_t5(t5, beams):
    """It begins with its padding, which nothing else is to write."""
    model, theirs = t5
    assert model.config.start == model.config.padding == 0
    texts = [PREFIX + text for text in TEXTS]
    found = translate(model, texts, beams=beams, max_tokens=23)
    expected = generated(
        theirs,
        [one.source_ids for one in found],
        0,
        num_beams=beams,
        max_new_tokens=23,
        bad_words_ids=[[0]],
        renormalize_logits=True,
        forced_eos_token_id=1,
    )
    assert [one.ids for one in found] == expected
    assert len({tuple(one.ids) for one in found}) == len(TEXTS)
    assert [one.text for one in found] == [model.tokenizer.decode(one.ids).strip() for one in found]


def test_a_text_becomes_the_same_in_every_batch(marian):
    model, *_ = marian
    together = translate(model, TEXTS)
    for others in (translate(model, TEXTS, batch_tokens=1), translate(model, TEXTS[::-1])[::-1]):
        assert [one.ids for one in others] == [one.ids for one in together]
        scores = torch.tensor([[one.score for one in some] for some in (others, together)])
        torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-5)
    # A translation that does not end has a limit of its own, whatever is beside it.
    [alone] = translate(model, TEXTS[-1:])
    assert alone.ids == together[-1].ids


def test_progress_goes_by_batches(marian):
    model, *_ = marian
    calls = []
    note = {"progress": lambda *done: calls.append(done)}
    translate(model, TEXTS, **note)
    assert calls == [(len(TEXTS), len(TEXTS))]
    calls.clear()
    translate(model, LEARNT[:3], batch_tokens=1, **note)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    calls.clear()
    # Not more at once than there is room for scores of every token.
    translate(model, LEARNT[:3], beams=ROWS // 2, max_tokens=2, **note)
    assert calls == [(2, 3), (3, 3)]
    assert translate(model, []) == []


# What it was made of


def cross_attention(theirs, source, target):
    """(target tokens, source tokens), the mean over layers and heads."""
    with torch.no_grad():
        found = theirs(
            input_ids=torch.tensor([source]),
            decoder_input_ids=torch.tensor([target]),
            output_attentions=True,
        )
    return torch.stack(found.cross_attentions).mean(0)[0].mean(0)


def by_words(weights, source, target):
    """Sums over the tokens of a source word, means over those of a target word."""
    columns = torch.stack([weights[:, places].sum(-1) for places in source], -1)
    return torch.stack([columns[places].mean(0) for places in target])


def places_of(pieces):
    """Numbers of the tokens of each word, where all punctuation stands alone."""
    found = []
    for number, piece in enumerate(pieces):
        if piece.startswith("▁") or piece in ".,:" or not found:
            found.append([])
        found[-1].append(number)
    return found


def test_alignment(marian):
    model, theirs, tokenizer = marian
    [one] = translate(model, [SENTENCE])
    found = alignment(model, one)
    assert found.source == [*SENTENCE[:-1].split(), "."]
    assert found.target == [*TRANSLATED[:-1].split(), "."]
    assert found.weights.shape == (len(found.target), len(found.source))

    weights = cross_attention(theirs, one.source_ids, [model.config.start, *one.ids[:-1]])
    # Row i wrote token i; the last of both sides is the stop.
    source = places_of(tokenizer.convert_ids_to_tokens(one.source_ids[:-1]))
    target = places_of(tokenizer.convert_ids_to_tokens(one.ids[:-1]))
    expected = by_words(weights, source, target)
    torch.testing.assert_close(found.weights, expected, rtol=1e-4, atol=1e-6)
    assert torch.all(found.weights.sum(-1) < 1)  # the stop has the rest


def test_alignment_of_t5(t5):
    model, theirs = t5
    [one] = translate(model, [PREFIX + SENTENCE], max_tokens=23)
    found = alignment(model, one)
    assert found.source == [*PREFIX.replace(":", " :").split(), *SENTENCE[:-1].split(), "."]
    weights = cross_attention(theirs, one.source_ids, [0, *one.ids[:-1]])
    source = places_of([model.tokenizer.token(number) for number in one.source_ids[:-1]])
    columns = torch.stack([weights[:, places].sum(-1) for places in source], -1)
    rows = columns[: len(one.ids) - 1]  # the mean over words of means over tokens, the stop's apart
    assert torch.all(found.weights >= rows.min(0).values - 1e-6)
    assert torch.all(found.weights <= rows.max(0).values + 1e-6)


def test_alignment_of_a_text_that_was_cut(marian):
    model, *_ = marian
    [whole, cut] = [translate(model, [SENTENCE], max_tokens=most)[0] for most in (41, 9)]
    assert cut.ids[:-1] == whole.ids[:8]
    some = alignment(model, cut)
    full = len(some.target) - 1  # the last word may be part of one
    assert some.target[:full] == alignment(model, whole).target[:full]
    torch.testing.assert_close(
        some.weights[:full], alignment(model, whole).weights[:full], rtol=1e-4, atol=1e-6
    )


def test_alignment_leaves_out_what_the_tokenizer_does_not_know(marian):
    model, *_ = marian
    [one] = translate(model, ["The \u4e2d sun \u4e2d\u4e2d"])
    assert one.source_ids.count(1) >= 2
    assert alignment(model, one).source == ["The", "sun"]


def test_an_empty_translation_has_no_words(marian):
    model, *_ = marian
    [one] = translate(model, [SENTENCE], max_tokens=1)
    assert (one.ids, one.text) == ([0], "")
    with pytest.raises(ArgumentError, match="no words of the target remain"):
        alignment(model, one)


# What cannot be


LONG = "the sun came up over the hill and the birds began to sing, " * 9


def test_too_long(marian):
    """A sentence is cut at commas, and all of it is translated; a text left whole is cut short."""
    model, *_ = marian
    for options, complaint in (
        ({}, r"^texts\[1\] has a sentence of more than 61 tokens, the most that the model reads$"),
        ({"names": ["line 3", "line 7"]}, "^line 7 has a sentence"),
        ({"whole": True}, r"^texts\[1\] has \d+ tokens, but the model reads at most 61$"),
    ):
        with pytest.raises(ArgumentError, match=complaint):
            translate(model, [SENTENCE, LONG], strict=True, **options)
    with pytest.warns(UserWarning, match="^1 sentence of more than 61 tokens") as caught:
        found = translate(model, [SENTENCE, LONG])
    assert caught[0].filename == __file__
    assert found[0].text == TRANSLATED
    parts = [LONG[slice(*one.source)] for one in found[1].sentences]
    assert " ".join(parts) == LONG.strip()
    assert all(part.endswith(",") for part in parts)
    assert all(len(one.source_ids) <= 61 for one in found[1].sentences)
    with pytest.warns(UserWarning, match="^1 text of 2 truncated to 61 tokens") as caught:
        found = translate(model, [SENTENCE, LONG], whole=True)
    assert caught[0].filename == __file__
    assert len(found[1].source_ids) == 61
    assert found[1].source_ids[-1] == 0  # the stop is kept


# Sentences


def test_sentences_one_by_one(marian):
    """Joined with the spaces of the text; the score is of all tokens together."""
    model, *_ = marian
    text = f"{LEARNT[0]}  {LEARNT[1]}\n{LEARNT[2]}"
    [one] = translate(model, [text])
    alone = translate(model, LEARNT[:3])
    assert one.text == "{}  {}\n{}".format(*translators.SPANISH.splitlines()[:3])
    assert [text[slice(*part.source)] for part in one.sentences] == LEARNT[:3]
    assert [one.text[slice(*part.text)] for part in one.sentences] == [x.text for x in alone]
    assert one.ids == [number for part in alone for number in part.ids]
    mean = sum(part.score * len(part.ids) for part in alone) / len(one.ids)
    assert one.score == pytest.approx(mean, rel=1e-4)


def test_the_alignment_of_sentences_is_in_blocks(marian):
    model, *_ = marian
    [one] = translate(model, [" ".join(LEARNT[:2])])
    found = alignment(model, one)
    first, second = (alignment(model, part) for part in translate(model, LEARNT[:2]))
    assert found.source == first.source + second.source
    assert found.target == first.target + second.target
    expected = torch.block_diag(first.weights, second.weights)
    torch.testing.assert_close(found.weights, expected, rtol=1e-3, atol=1e-5)


def test_what_the_tokenizer_cannot_spell_is_kept(marian):
    """Marian's small model has no digits and no slash; the names that stand for them it does not
    know either, so that only what is around is translated.
    """
    model, *_ = marian
    text = f"{LEARNT[0]} https://a.b/c?d=1 {LEARNT[2]}"
    [one] = translate(model, [text])
    assert one.protected == ("https://a.b/c?d=1",)
    assert one.text == "{} https://a.b/c?d=1 {}".format(*translators.SPANISH.splitlines()[0:3:2])
    [bare] = translate(model, ["https://a.b/c?d=1"])
    assert (bare.text, bare.ids, bare.score) == ("https://a.b/c?d=1", [], 0.0)
    assert translate(model, [text], protect="unknown")[0].text == one.text
    [lost] = translate(model, [text], protect="none")
    assert "https" not in lost.text
    with pytest.raises(ArgumentError, match="protect must be one of changed, unknown, all"):
        translate(model, [text], protect="no")


def test_nothing_kept_is_lost_however_much_there_is(marian):
    """More than there are short names; the model repeats none of them."""
    model, *_ = marian
    kept = [str(number) for number in range(13, 24)]
    text = "The child " + ", ".join(kept) + " laughed."
    [one] = translate(model, [text], protect="all", beams=1)
    assert one.protected == tuple(kept)
    assert re.findall(r"\b\d+\b", one.text) == kept  # none is glued to a word


def test_what_tells_a_model_its_language_is_told_for_each_sentence(t5):
    model, _ = t5
    [one] = translate(model, [PREFIX + " ".join(LEARNT[:2])], max_tokens=7)
    for part, sentence in zip(one.sentences, LEARNT, strict=False):
        assert part.source_ids == model.tokenizer.encode([PREFIX + sentence])[0]


@pytest.mark.parametrize("text", ["", " \n", "\u200b"])
def test_blank_texts(marian, text):
    with pytest.raises(ArgumentError, match=r"^texts\[1\] is empty$"):
        translate(marian[0], [SENTENCE, text])


def test_what_is_no_text(marian):
    model, *_ = marian
    with pytest.raises(TypeMismatchError, match=r"^texts\[0\] must be a str, not int$"):
        translate(model, [3])
    with pytest.raises(TypeMismatchError, match="not a single str"):
        translate(model, SENTENCE)
    with pytest.raises(ArgumentError, match=r"^texts\[0\] is not valid Unicode$"):
        translate(model, ["\ud800"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"beams": 0}, "beams must be from 1 to 512, not 0"),
        ({"beams": 513}, "beams must be from 1 to 512, not 513"),
        ({"beams": 2.0}, "beams must be an int, not 2.0"),
        ({"beams": True}, "beams must be an int, not True"),
        ({"max_tokens": 0}, "max_tokens must be from 1 to 2,147,483,647, not 0"),
        ({"max_tokens": 10**30}, "max_tokens must be from 1 to"),
        ({"batch_tokens": -1}, "batch_tokens must be from 1 to"),
        ({"length_penalty": math.nan}, "length_penalty must be from -10 to 10, not nan"),
        ({"length_penalty": 11}, "length_penalty must be from -10 to 10, not 11"),
        ({"length_penalty": "1"}, "length_penalty must be a number, not '1'"),
    ],
)
def test_numbers_out_of_range(marian, options, complaint):
    with pytest.raises((ArgumentError, TypeMismatchError), match=complaint):
        translate(marian[0], [SENTENCE], **options)


def test_no_memory(t5, monkeypatch):
    model, _ = t5

    def refuse(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model, "cache", refuse)
    with pytest.raises(TooLargeError, match="no memory for 1 text of 7,000 tokens; lower max_tok"):
        translate(model, [SENTENCE], max_tokens=7000)


def test_models_that_do_not_translate(t5):
    decoder = writers.writer()
    with pytest.raises(TypeMismatchError, match="EncoderDecoder, not Decoder"):
        translate(decoder, [SENTENCE])
    encoder = Encoder(Config(kind="encoder", vocabulary=5, width=16))
    with pytest.raises(TypeMismatchError, match=r"not Encoder$"):
        alignment(encoder, None)
    bare = EncoderDecoder(Config(kind="encoder-decoder", vocabulary=5, width=16))
    with pytest.raises(TypeMismatchError, match="with its tokenizer"):
        translate(bare, [SENTENCE])
    bare.tokenizer = t5[0].tokenizer
    with pytest.raises(ArgumentError, match="needs a start and a stop token"):
        translate(bare, [SENTENCE])

"""Multilingual models translate as they do in transformers, from and into each language."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tests import multilingual, translators
from tests.multilingual import TEXTS

import pellucid
from pellucid.errors import ArgumentError
from pellucid.tasks import alignment, translate
from pellucid.tasks.language_pair import pair_of

STARTS = {"NllbTokenizer": 2, "M2M100Tokenizer": 2, "MBart50Tokenizer": 2, "MBartTokenizer": None}
LANGUAGES = {
    "NllbTokenizer": ("spa_Latn", "fra_Latn"),
    "M2M100Tokenizer": ("es", "fr"),
    "MBart50Tokenizer": ("es_XX", "fr_XX"),
    "MBartTokenizer": ("es_XX", "fr_XX"),
}


@pytest.fixture(scope="module", params=STARTS)
def made(request, tmp_path_factory):
    """Ours, theirs and their tokenizer, of one kind, and the directory."""
    name, directory = request.param, tmp_path_factory.mktemp(request.param)
    tokenizer = multilingual.tokenizer(name, directory)
    theirs = multilingual.model(name, tokenizer, STARTS[name])
    theirs.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return pellucid.load(directory), theirs, tokenizer, directory


def generated(theirs, tokenizer, text, languages, beams):
    """The ids that transformers writes, without the start, up to the stop."""
    source, target = languages
    tokenizer.src_lang, before = source, tokenizer.src_lang
    inputs = tokenizer(text, return_tensors="pt")
    tokenizer.src_lang = before
    mark = getattr(tokenizer, "lang_code_to_id", {}).get(target)
    mark = tokenizer.convert_tokens_to_ids(target) if mark is None else mark
    told = "decoder_start_token_id" if theirs.config.decoder_start_token_id is None else None
    with torch.no_grad():
        row = theirs.generate(
            **inputs,
            **{told or "forced_bos_token_id": mark},
            num_beams=beams,
            max_new_tokens=17,
            bad_words_ids=[[1]],
            renormalize_logits=True,
            forced_eos_token_id=2,
        )[0, 1:].tolist()
    return row[: row.index(2) + 1] if 2 in row else row, mark


@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_as_transformers(made, beams):
    ours, theirs, tokenizer, _ = made
    languages = LANGUAGES[type(tokenizer).__name__]
    options = {"beams": beams, "max_tokens": 17, "whole": True}
    found = translate(ours, TEXTS, source="es", target=languages[1], **options)
    for one in found:
        expected, mark = generated(theirs, tokenizer, one.source, languages, beams)
        assert one.ids == expected
        assert mark == (one.start if ours.config.start is None else one.ids[0])
    other = translate(ours, TEXTS, source="en", target=languages[1], **options)
    assert [one.source_ids for one in other] != [one.source_ids for one in found]


def test_the_alignment_has_no_languages(made):
    ours, *_ = made
    [one] = translate(ours, TEXTS[:1], target="fr", max_tokens=17)
    language = [*ours.tokenizer.languages.ids.values()][3]
    words = ours.tokenizer.encode(["Nadie sabía"], special=False)[0]
    one = replace(one, ids=[language, *words, 2], sentences=())
    grid = alignment(ours, one)
    assert grid.source == [*TEXTS[0][:-1].split(), "."]
    assert grid.target == ["Nadie", "sabía"]


def test_the_target_must_be_named(made):
    ours, *_ = made
    with pytest.raises(ArgumentError, match=r"^target must be one of the languages of the mod"):
        translate(ours, TEXTS)
    with pytest.raises(ArgumentError, match=r"^target must be a language of the model, not 'tlh'"):
        translate(ours, TEXTS, target="tlh")
    with pytest.raises(ArgumentError, match=r"^source must be a language of the model, not 'tlh'"):
        translate(ours, TEXTS, source="tlh", target="fr")


def test_a_target_that_the_checkpoint_names(made, tmp_path):
    """As those of one language say, in generation_config.json or by the start of a target."""
    ours, *_, directory = made
    french = next(code for _, code in LANGUAGES.values() if code in ours.tokenizer.languages.ids)
    mark = ours.tokenizer.languages.ids[french]
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    key = "decoder_start_token_id" if ours.config.start is None else "forced_bos_token_id"
    path = tmp_path / "generation_config.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(said | {key: mark}))
    named = pellucid.load(tmp_path)
    expected = translate(ours, TEXTS, target="fr", max_tokens=9)
    assert [one.ids for one in translate(named, TEXTS, max_tokens=9)] == [
        one.ids for one in expected
    ]


def test_a_model_without_languages(tmp_path):
    t5 = pellucid.load(translators.t5(tmp_path))
    for name in ("source", "target"):
        with pytest.raises(
            ArgumentError, match=f"^{name} must be left out: the model has no choice"
        ):
            pair_of(t5, **{name: "en"})


def test_marian_reads_the_target_in_the_source(tmp_path):
    model = pellucid.load(translators.marian(tmp_path))
    text = translators.ENGLISH.splitlines()[0]
    [told] = translate(model, [text], target="es")
    [written] = translate(model, [f">>spa<< {text}"])
    assert told.source_ids == written.source_ids == [2, *translate(model, [text])[0].source_ids]
    assert (told.source, told.ids) == (text, written.ids)
    with pytest.raises(ArgumentError, match="source must be left out: the model is not told what"):
        translate(model, [text], source="en", target="es")
    with pytest.raises(ArgumentError, match="target must be a language of the model, not 'fr'"):
        translate(model, [text], target="fr")

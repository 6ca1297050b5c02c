"""The languages of multilingual tokenizers are marked as transformers marks them."""

import json
import shutil
import sys

import pytest
import sentencepiece
import transformers
from tests import multilingual
from tests.multilingual import TEXTS

from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.text import language_codes
from pellucid.text.languages import Languages, code_of
from pellucid.text.tokenizer_files import load_tokenizer

SPANISH = {
    "NllbTokenizer": "spa_Latn",
    "MBart50Tokenizer": "es_XX",
    "MBartTokenizer": "es_XX",
    "M2M100Tokenizer": "es",
}


@pytest.fixture(scope="module", params=SPANISH)
def made(request, tmp_path_factory):
    """A class, transformers' tokenizer of it, and a directory with the files of fairseq."""
    directory = tmp_path_factory.mktemp(request.param)
    return request.param, multilingual.tokenizer(request.param, directory), directory


def assert_same(ours, theirs, code):
    for text in TEXTS:
        for name in (theirs.src_lang, code):
            theirs.src_lang, before = name, theirs.src_lang
            expected = theirs(text)["input_ids"]
            theirs.src_lang = before
            [ids] = ours.encode([text])
            assert ours.languages.marked(ids, name) == expected
        assert ours.encode([text]) == [theirs(text)["input_ids"]]
        # That of M2M-100 does not take languages for special tokens.
        plain = [number for number in expected if number not in ours.languages.ids.values()]
        assert ours.decode(expected) == theirs.decode(plain, skip_special_tokens=True)
        assert len(ours.encode_cut(text, 5)) == min(5, len(expected))
    known = ours.languages.ids
    assert {one: theirs.convert_tokens_to_ids(token_of(theirs, one)) for one in known} == known


def token_of(theirs, code):
    return f"__{code}__" if type(theirs).__name__ == "M2M100Tokenizer" else code


def test_files_that_transformers_wrote(made, tmp_path):
    name, theirs, _ = made
    theirs.save_pretrained(tmp_path)
    if name != "M2M100Tokenizer":
        # Published files put the marks of the language elsewhere, and transformers minds its class.
        said = json.loads((tmp_path / "tokenizer.json").read_text())
        said["post_processor"] = None
        (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    ours = load_tokenizer(tmp_path)
    assert_same(ours, theirs, SPANISH[name])
    (tmp_path / "saved").mkdir()
    ours.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.encode(TEXTS) == ours.encode(TEXTS)
    assert again.languages == ours.languages


def test_another_language_that_the_settings_name(made, tmp_path):
    name, theirs, _ = made
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    said = {"src_lang": SPANISH[name], "tgt_lang": SPANISH[name]}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    ours = load_tokenizer(tmp_path)
    assert (ours.languages.source, ours.languages.target) == (SPANISH[name],) * 2
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode(TEXTS) == [again(text)["input_ids"] for text in TEXTS]


def test_a_model_of_pieces_alone(made, tmp_path):
    """The pieces are those of sentencepiece; transformers' own reader leaves spaces at the end."""
    name, theirs, directory = made
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    ours = load_tokenizer(tmp_path)
    assert_same(ours, theirs, SPANISH[name])
    assert ours.encode(["a "], special=False) == ours.encode(["a"], special=False)
    (tmp_path / "saved").mkdir()
    ours.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.encode(TEXTS) == ours.encode(TEXTS)
    assert again.languages == ours.languages


def test_the_kind_of_a_model_says_that_of_its_pieces(made, tmp_path):
    name, _, directory = made
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    kind = "mbart" if name.startswith("MBart") else "m2m_100"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    found = json.loads(load_tokenizer(tmp_path).files["tokenizer_config.json"])
    assert found["tokenizer_class"] == name.replace("50", "")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "camembert"}))
    if name != "M2M100Tokenizer":
        with pytest.raises(FileError, match=r"can only be read from tokenizer\.json; transformers"):
            load_tokenizer(tmp_path)


def test_pieces_of_xlm_r(tmp_path):
    content = multilingual.pieces("unigram")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(content)
    ours = load_tokenizer(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    for text in TEXTS:
        expected = [0, *(number + 1 if number else 3 for number in model.encode(text)), 2]
        assert ours.encode([text]) == [expected]
    assert ours.languages is None
    assert (len(ours), ours.token(len(ours) - 1)) == (model.get_piece_size() + 2, "<mask>")


def test_pieces_of_pegasus(tmp_path):
    content = multilingual.pieces("unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (tmp_path / "spiece.model").write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "pegasus"}')
    ours = load_tokenizer(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    names = [model.id_to_piece(number) for number in range(model.get_piece_size())]
    for text in TEXTS[:2]:
        assert ours.encode([text]) == [[number + 103 for number in model.encode(text)] + [1]]
        assert ours.decode(ours.encode([text])[0]) == text
    assert [ours.token(number) for number in (0, 1, 2, 3, 4, 104, 105)] == [
        *("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>"),
        names[2],
    ]


# Names of languages


@pytest.mark.parametrize(
    ("codes", "name", "expected"),
    [
        ("MBART_50", "en_XX", "en_XX"),
        ("MBART_50", "EN", "en_XX"),
        ("MBART_50", "pt-BR", "pt_XX"),
        ("MBART_50", "zh-Hans", "zh_CN"),
        ("M2M_100", "__fr__", "fr"),
        ("M2M_100", "nb", "no"),
        ("NLLB", "eng-Latn", "eng_Latn"),
        ("NLLB", "en", "eng_Latn"),
        ("NLLB", "fra", "fra_Latn"),
        ("NLLB", "ar", "arb_Arab"),
        ("NLLB", "fa", "pes_Arab"),
        ("NLLB", "ko", "kor_Hang"),
        ("NLLB", "zh", "zho_Hans"),
        ("NLLB", "zh-TW", "zho_Hant"),
        ("NLLB", "ger", "deu_Latn"),
    ],
)
def test_short_names(codes, name, expected):
    known = {code: number for number, code in enumerate(getattr(language_codes, codes))}
    assert Languages(known, "before").named(name, "--to") == expected


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("qq", "--to must be a language of the model, not 'qq'; it has af_ZA, ar_AR, az_AZ, "),
        ("bs", "--to must be a language of the model, not 'bs'; it has "),  # not Croatian
        ("English", "--to must be a language of the model, not 'English'"),
        ("", "--to must be a language of the model, not ''"),
    ],
)
def test_names_of_no_language(name, complaint):
    known = {code: number for number, code in enumerate(language_codes.MBART_50)}
    with pytest.raises(ArgumentError) as caught:
        Languages(known, "after").named(name, "--to")
    assert str(caught.value).startswith(complaint)


def test_a_name_of_two_languages():
    known = {code: number for number, code in enumerate(language_codes.NLLB)}
    with pytest.raises(ArgumentError, match="must be one of zho_Hans, zho_Hant, not 'zho'"):
        Languages(known, "before").named("zho", "--to")


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "langcodes", None)
    with pytest.raises(MissingExtraError, match=r"'en' is none of the model's own codes, such as"):
        Languages({"eng_Latn": 1}, "before").named("en", "--to")
    assert Languages({"en_XX": 1}, "before").named("en", "--to") == "en_XX"


def test_tokens_of_languages():
    tokens = [
        "__en__",
        "en_XX",
        "__en_XX__",
        "eng_Latn",
        ">>deu<<",
        "__unk__",
        "</s>",
        "▁en",
        "and",
    ]
    codes = ["en", "en_XX", "en_XX", "eng_Latn", "deu", None, None, None, None]
    assert [code_of(token) for token in tokens] == codes

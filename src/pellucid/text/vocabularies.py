"""Tokenizers of checkpoints with a vocabulary but no tokenizer.json.

vocab.txt                  WordPiece, as in BERT
vocab.json, merges.txt     byte-level BPE, as in GPT-2, RoBERTa and BART
added_tokens.json          tokens after those of either

The converters of transformers would do the same, but need transformers, which reading such a model
otherwise does not, and take seconds to import.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.untrusted import json_in
from pellucid.common.wording import short
from pellucid.errors import FileError

SETTINGS, ADDED = "tokenizer_config.json", "added_tokens.json"
MARKS = "special_tokens_map.json"
OWN = "pellucid"
"""The model_type of a model that no family has, which may have any tokenizer."""
ADVICE = (
    "transformers writes one: AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)"
)


def whole(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` from tokenizer.json."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def word_pieces(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` from vocab.txt.

    Raises:
        FileError: it belongs to another kind of tokenizer, or lacks special tokens of BERT.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    settings = settings_of(directory, ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"))
    # Only \n separates tokens: some tokens are other line separators.
    lines = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
    ids = {token: number for number, token in enumerate(lines[: -1 if lines[-1] == "" else None])}
    marks = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    _expect("vocab.txt", ids, marks[:3])
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([mark for mark in marks if mark in ids])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(mark, ids[mark]) for mark in ("[CLS]", "[SEP]")],
    )
    return with_added(tokenizer, directory)


def byte_pairs(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` from vocab.json and merges.txt.

    Raises:
        FileError: it belongs to another kind of tokenizer, or lacks special tokens of GPT-2 or
            RoBERTa.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    settings = settings_of(directory, ("GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer"))
    ids = json_in(directory, "vocab.json")
    is_gpt2 = "<|endoftext|>" in ids
    needed = ["<|endoftext|>"] if is_gpt2 else ["<s>", "</s>"]
    _expect("vocab.json", ids, needed)
    space = settings.get("add_prefix_space", False)
    files = (str(directory / name) for name in ("vocab.json", "merges.txt"))
    tokenizer = Tokenizer(models.BPE.from_file(*files))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    if is_gpt2:
        tokenizer.add_special_tokens(["<|endoftext|>"])
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        return with_added(tokenizer, directory)
    tokenizer.add_special_tokens(
        [mark for mark in ("<s>", "<pad>", "</s>", "<unk>") if mark in ids]
    )
    if "<mask>" in ids:
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    end, start = (("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, add_prefix_space=space)
    return with_added(tokenizer, directory)


def with_added(tokenizer: Any, directory: Path) -> Any:
    """The tokenizer with the tokens of added_tokens.json, which follow its vocabulary.

    Raises:
        FileError: they do not.
    """
    if not (directory / ADDED).is_file():
        return tokenizer
    from tokenizers import AddedToken

    special_tokens = json_in(directory, MARKS) if (directory / MARKS).is_file() else {}
    others = special_tokens.pop("additional_special_tokens", None) or []
    # A mark is a string, or an object with the string as its content.
    marks = {
        mark.get("content") if isinstance(mark, dict) else mark
        for mark in (*special_tokens.values(), *others)
    }
    ids = json_in(directory, ADDED)
    for token, number in sorted(ids.items(), key=lambda pair: untrusted.whole(pair[1], ADDED)):
        following = tokenizer.get_vocab_size()
        if tokenizer.token_to_id(token) not in (number, None) or number > following:
            raise FileError(f"its {ADDED} has '{short(token, 40)}' as {number}, not {following}")
        is_mark = token in marks
        added = AddedToken(token, normalized=not is_mark, special=is_mark)
        (tokenizer.add_special_tokens if is_mark else tokenizer.add_tokens)([added])
        if tokenizer.token_to_id(token) != number:
            raise FileError(f"its {ADDED} has '{short(token, 40)}' as {number}, not {following}")
    return tokenizer


def settings_of(directory: Path, known: tuple[str, ...]) -> dict[str, Any]:
    """The content of tokenizer_config.json, if any; refuses other tokenizers than `known`."""
    if not (directory / SETTINGS).is_file():
        return {}
    settings = json_in(directory, SETTINGS)
    name = str(settings.get("tokenizer_class", known[0])).removesuffix("Fast")
    if name not in known:
        raise FileError(
            f"its tokenizer is a {name}, which can only be read from tokenizer.json; {ADVICE}"
        )
    return settings


def class_of(directory: Path, classes: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """transformers' class of a tokenizer, and the content of tokenizer_config.json, if any.

    Args:
        directory: with the checkpoint.
        classes: those that are known, by model_type, which decides where tokenizer_config.json does
            not name one. The first is that of a directory without config.json.

    Raises:
        FileError: it is another.
    """
    names = tuple(dict.fromkeys(classes.values()))
    settings = settings_of(directory, names)
    name = settings.get("tokenizer_class")
    if name is None:
        has_config = (directory / "config.json").is_file()
        kind = json_in(directory, "config.json").get("model_type") if has_config else None
        if kind not in (None, OWN, *classes):
            raise FileError(f"its tokenizer can only be read from tokenizer.json; {ADVICE}")
        name = classes.get(str(kind), names[0])
    return str(name).removesuffix("Fast"), settings


def _expect(file: str, ids: dict[str, Any], marks: list[str]) -> None:
    missing = [mark for mark in marks if mark not in ids]
    if missing:
        raise FileError(f"its {file} has no {' and no '.join(missing)}")

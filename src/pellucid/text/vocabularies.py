"""Tokenizers of checkpoints that have a vocabulary and no tokenizer.json.

vocab.txt                  WordPiece, as in BERT
vocab.json, merges.txt     pairs of bytes, as in GPT-2, RoBERTa and BART
"""

from pathlib import Path
from typing import Any

from pellucid.common.untrusted import json_in
from pellucid.errors import FileError

SETTINGS = "tokenizer_config.json"
ADVICE = (
    "transformers writes one: AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)"
)


def whole(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` of tokenizer.json."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def word_pieces(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` of vocab.txt.

    Raises:
        FileError: another tokenizer's vocabulary, or one without the marks of BERT.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    settings = settings_of(directory, ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"))
    # Line ends alone part tokens: some tokens are other characters that end a line.
    lines = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
    ids = {token: number for number, token in enumerate(lines[: -1 if lines[-1] == "" else None])}
    marks = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    _expect("vocab.txt", ids, marks[:3])
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens([mark for mark in marks if mark in ids])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(mark, ids[mark]) for mark in ("[CLS]", "[SEP]")],
    )
    return made


def byte_pairs(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` of vocab.json and merges.txt.

    Raises:
        FileError: another tokenizer's vocabulary, or one with marks of neither GPT-2 nor RoBERTa.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    settings = settings_of(directory, ("GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer"))
    ids = json_in(directory, "vocab.json")
    is_text_alone = "<|endoftext|>" in ids
    needed = ["<|endoftext|>"] if is_text_alone else ["<s>", "</s>"]
    _expect("vocab.json", ids, needed)
    space = settings.get("add_prefix_space", False)
    files = (str(directory / name) for name in ("vocab.json", "merges.txt"))
    made = Tokenizer(models.BPE.from_file(*files))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    made.decoder = decoders.ByteLevel()
    if is_text_alone:
        made.add_special_tokens(["<|endoftext|>"])
        made.post_processor = processors.ByteLevel(trim_offsets=True)
        return made
    made.add_special_tokens([mark for mark in ("<s>", "<pad>", "</s>", "<unk>") if mark in ids])
    if "<mask>" in ids:
        made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    end, start = (("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
    made.post_processor = processors.RobertaProcessing(end, start, add_prefix_space=space)
    return made


def settings_of(directory: Path, known: tuple[str, ...]) -> dict[str, Any]:
    """tokenizer_config.json, if there is one and it is of a tokenizer that is known."""
    if not (directory / SETTINGS).is_file():
        return {}
    found = json_in(directory, SETTINGS)
    name = str(found.get("tokenizer_class", known[0])).removesuffix("Fast")
    if name not in known:
        raise FileError(
            f"its tokenizer is a {name}, which is read from tokenizer.json alone; {ADVICE}"
        )
    return found


def _expect(file: str, ids: dict[str, Any], marks: list[str]) -> None:
    missing = [mark for mark in marks if mark not in ids]
    if missing:
        raise FileError(f"its {file} has no {' and no '.join(missing)}")

"""Tokenizers of models that were trained with fairseq: one SentencePiece model for all languages.

sentencepiece.bpe.model                XLM-R, mBART, mBART-50, NLLB, PLBART
sentencepiece.bpe.model, vocab.json    M2M-100

fairseq numbers the pieces itself: four marks, the pieces, the languages, and <mask>.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pellucid.common.untrusted import json_in
from pellucid.errors import FileError
from pellucid.text import language_codes
from pellucid.text.languages import SUPPOSED, code_of
from pellucid.text.sentence_pieces import END, UNKNOWN, PieceTokenizer, read_pieces
from pellucid.text.vocabularies import SETTINGS, class_of

FILE = "sentencepiece.bpe.model"
MARKS = ("<s>", "<pad>", END, UNKNOWN)
MASK = "<mask>"
CLASSES = {
    "XLMRobertaTokenizer": (),
    "MBartTokenizer": language_codes.MBART,
    "MBart50Tokenizer": language_codes.MBART_50,
    "NllbTokenizer": language_codes.NLLB,
    "PLBartTokenizer": language_codes.PLBART,
    "M2M100Tokenizer": language_codes.M2M_100,
}
"""The classes of transformers, with their languages."""
OTHERS = {
    ("PLBartTokenizer", "multi"): language_codes.PLBART_MULTI,
    ("M2M100Tokenizer", "wmt21"): language_codes.WMT_21,
}
"""Languages by the class and its setting language_codes."""
OF_MODELS = {
    "xlm-roberta": "XLMRobertaTokenizer",
    "mbart": "MBartTokenizer",
    "plbart": "PLBartTokenizer",
    "mbart-50": "MBart50Tokenizer",  # whose checkpoints say that they are mBART
    "m2m_100": "NllbTokenizer",
    "m2m": "M2M100Tokenizer",  # as NLLB says that it is M2M-100
}
"""The class by the model_type, where tokenizer_config.json does not name it."""


class FairseqTokenizer(PieceTokenizer):
    """A `PieceTokenizer` whose special tokens are listed."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        model: Any,
        ids: Mapping[str, int],
        specials: Sequence[str],
        around: tuple[Sequence[str], Sequence[str]],
    ) -> None:
        """Make a tokenizer.

        Args:
            files: contents of the files to save, by name.
            model: the `sentencepiece.SentencePieceProcessor`.
            ids: of all tokens.
            specials: the special tokens.
            around: those before and after a text.
        """
        self.specials = frozenset(specials)
        mark = "|".join(map(re.escape, specials))
        super().__init__(files, model, model, ids, mark, *around)

    def _is_mark(self, token: str) -> bool:
        return token in self.specials

    @cached_property
    def all_special_ids(self) -> list[int]:
        return sorted(self.ids[token] for token in self.specials)


def fairseq(directory: Path) -> FairseqTokenizer:
    """The tokenizer of sentencepiece.bpe.model, with vocab.json if it is that of M2M-100.

    Raises:
        FileError: the files are damaged, or those of another tokenizer.
        MissingExtraError: sentencepiece is not installed.
    """
    name, settings = class_of(directory, OF_MODELS)
    if (directory / "vocab.json").is_file() and "tokenizer_class" not in settings:
        name = "M2M100Tokenizer"
    content, model = read_pieces(directory, FILE)
    files = {FILE: content}
    codes = OTHERS.get((name, str(settings.get("language_codes"))), CLASSES[name])
    languages = [_token(code, name) for code in codes]
    if name == "M2M100Tokenizer":
        files["vocab.json"] = (directory / "vocab.json").read_bytes()
        ids = json_in(directory, "vocab.json")
        missing = [mark for mark in MARKS if not isinstance(ids.get(mark), int)]
        if missing:
            raise FileError(f"its vocab.json has no id of {' and '.join(missing)}")
        # Languages follow the vocabulary; a few ids after them were never used.
        ids |= {token: len(ids) + number for number, token in enumerate(languages)}
        specials = [*MARKS, *languages]
    else:
        # The model's own first three are <unk>, <s> and </s>.
        pieces = [model.id_to_piece(number) for number in range(3, model.get_piece_size())]
        specials = [*MARKS, *languages, MASK]
        tokens = [*MARKS, *pieces, *languages, MASK]
        ids = {token: number for number, token in enumerate(tokens)}
    around = _marks(name, settings, ids)
    tokenizer_config = {"tokenizer_class": name} | {
        key: settings[key]
        for key in ("src_lang", "tgt_lang", "language_codes", "legacy_behaviour")
        if key in settings
    }
    files[SETTINGS] = json.dumps(tokenizer_config, indent=2).encode()
    return FairseqTokenizer(files, model, ids, specials, around)


def _token(code: str, name: str) -> str:
    """The token of a language."""
    return f"__{code}__" if name in ("M2M100Tokenizer", "PLBartTokenizer") else code


def _marks(
    name: str, settings: Mapping[str, Any], ids: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands before and after each text."""
    if name == "XLMRobertaTokenizer":
        return ("<s>",), (END,)
    language = settings.get("src_lang") or {"M2M100Tokenizer": "en", **SUPPOSED}.get(name)
    if name == "PLBartTokenizer" and settings.get("language_codes") == "multi":
        language = language or "en_XX"
    if language is None:
        return (), (END,)
    token = _token(code_of(str(language)) or str(language), name)
    if token not in ids:
        raise FileError(
            f"its {SETTINGS} has src_lang = {language!r}, which is not in the vocabulary"
        )
    is_after = name in ("MBartTokenizer", "PLBartTokenizer") or settings.get("legacy_behaviour")
    return ((), (END, token)) if is_after else ((token,), (END,))

"""Tokenizers from the files of a checkpoint, whatever their kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.untrusted import json_in
from pellucid.text import chat, fairseq_pieces, languages, sentence_pieces, vocabularies
from pellucid.text.tokenizer import FILE, Tokenizer

READERS: dict[str, Callable[[Path], Any]] = {
    FILE: vocabularies.whole,
    "source.spm": sentence_pieces.marian,
    "spiece.model": sentence_pieces.spiece,
    fairseq_pieces.FILE: fairseq_pieces.fairseq,
    "vocab.txt": vocabularies.word_pieces,
    "merges.txt": vocabularies.byte_pairs,
    "tokenizer.model": sentence_pieces.llama,
}
"""Readers by file; the first file that exists is used."""


def load_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint; None if it has none.

    Raises:
        FileError: its files are damaged.
        MissingExtraError: it needs sentencepiece, which is not installed.
    """
    file = tokenizer_file(directory)
    if file is None:
        return None
    with untrusted.guarded(f"its {file} cannot be read"):
        read = READERS[file](directory)
        tokenizer = read if isinstance(read, Tokenizer) else Tokenizer(read)
        has_settings = (directory / vocabularies.SETTINGS).is_file()
        settings = json_in(directory, vocabularies.SETTINGS) if has_settings else {}
        tokenizer.languages = languages.placed(tokenizer, settings)
        if tokenizer.inner is not None:
            chat.read_template(tokenizer, directory, settings)
        return tokenizer


def tokenizer_file(directory: Path) -> str | None:
    """The name of the tokenizer's file; None if there is none."""
    return next((name for name in READERS if (directory / name).is_file()), None)

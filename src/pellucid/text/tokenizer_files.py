"""Tokenizers from the files of a checkpoint, of whichever kind they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.text import sentence_pieces, vocabularies
from pellucid.text.tokenizer import FILE, Tokenizer

READERS: dict[str, Callable[[Path], Any]] = {
    FILE: vocabularies.whole,
    "source.spm": sentence_pieces.marian,
    "spiece.model": sentence_pieces.t5,
    "vocab.txt": vocabularies.word_pieces,
    "merges.txt": vocabularies.byte_pairs,
    "tokenizer.model": sentence_pieces.llama,
}
"""By the file that a tokenizer is read from; the first that there is counts."""


def load_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint, or None where it has none.

    Raises:
        FileError: its files are damaged.
        MissingExtraError: sentencepiece is needed, and not installed.
    """
    file = tokenizer_file(directory)
    if file is None:
        return None
    with untrusted.guarded(f"its {file} cannot be read"):
        made = READERS[file](directory)
        return made if isinstance(made, Tokenizer) else Tokenizer(made)


def tokenizer_file(directory: Path) -> str | None:
    """The name of the file that a tokenizer is read from; None where there is none."""
    return next((name for name in READERS if (directory / name).is_file()), None)

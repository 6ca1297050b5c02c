"""Tokenizers of checkpoints with SentencePiece models (Kudo and Richardson 2018).

spiece.model                           T5
source.spm, target.spm, vocab.json     Marian: a model per language, shared ids
tokenizer.model                        Llama: BPE, which becomes a `tokenizers.Tokenizer`

transformers has a converter for T5 and Llama, not for Marian, so that `PieceTokenizer` would stay.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from pellucid.common.files import written_whole
from pellucid.common.untrusted import json_in
from pellucid.errors import FileError, MissingExtraError
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.vocabularies import ADVICE, settings_of

END, UNKNOWN = "</s>", "<unk>"
MARKS = (END, UNKNOWN, "<pad>")
SPACE = "▁"
ODD = "é ﬁ 漢字  two spaces\ta tab\na line 🙂"
"""Text that other SentencePiece tokenizers normalize or do not know."""
EXTRA = 100
"""Sentinel tokens of T5, which follow the pieces of its model in reverse order."""


class PieceTokenizer(Tokenizer):
    """Encodes text of the source language, and decodes ids to text of the target language."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        source: Any,
        target: Any,
        ids: Mapping[str, int],
        mark: str,
    ) -> None:
        """Make a tokenizer of two models.

        Args:
            files: contents of the files to save, by name.
            source: the `sentencepiece.SentencePieceProcessor` that encodes.
            target: the one that decodes; may be the same.
            ids: of all tokens.
            mark: a regular expression for special tokens within a text.
        """
        self.files, self.source, self.target = files, source, target
        self.ids, self.tokens = ids, {number: token for token, number in ids.items()}
        self.mark = re.compile(f"({mark})")

    def save(self, directory: Path) -> None:
        for name, content in self.files.items():
            with written_whole(directory / name) as aside:
                aside.write_bytes(content)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        return [self._ids(text) + [self.ids[END]] * special for text in texts]

    def encode_cut(self, text: str, most: int) -> list[int]:
        return [*self._ids(text)[: most - 1], self.ids[END]]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return []

    marks = 1
    """The end token."""

    @property
    def unknown(self) -> int:
        return self.ids[UNKNOWN]

    @property
    def of_target(self) -> "PieceTokenizer":
        other = copy(self)
        other.source = self.target
        return other

    @cached_property
    def all_special_ids(self) -> list[int]:
        return [number for token, number in self.ids.items() if self._is_mark(token)]

    def _ids(self, text: str) -> list[int]:
        pieces: list[str] = []
        for part in self.mark.split(text):
            is_mark = self.mark.fullmatch(part)
            pieces += [part] if is_mark else self.source.encode(part, out_type=str)
        return [self.ids.get(piece, self.ids[UNKNOWN]) for piece in pieces]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        tokens = [self.token(number) for number in ids]
        if not special:
            tokens = [token for token in tokens if not self._is_mark(token)]
        texts: list[str] = []
        for is_mark, run in groupby(tokens, self._is_mark):
            pieces = list(run)
            texts += pieces if is_mark else [self._text(pieces)]
        return " ".join(texts)

    def _is_mark(self, token: str) -> bool:
        return token in MARKS or self.mark.fullmatch(token) is not None

    def _text(self, pieces: list[str]) -> str:
        # The target model leaves unknown pieces as they are, with their ▁.
        text: str = self.target.decode_pieces(pieces).replace(SPACE, " ")
        return text.strip()

    def token(self, number: int) -> str:
        return self.tokens.get(number, f"<{number}>")

    def __len__(self) -> int:
        return len(self.ids)


def t5(directory: Path) -> PieceTokenizer:
    """The tokenizer of T5, from spiece.model.

    Raises:
        FileError: it is damaged.
        MissingExtraError: sentencepiece is not installed.
    """
    content, model = _read(directory, "spiece.model")
    tokens = [model.id_to_piece(number) for number in range(model.get_piece_size())]
    tokens += [f"<extra_id_{number}>" for number in reversed(range(EXTRA))]
    ids = {token: number for number, token in enumerate(tokens)}
    _expect("spiece.model", ids)
    return PieceTokenizer({"spiece.model": content}, model, model, ids, r"<extra_id_\d+>")


def marian(directory: Path) -> PieceTokenizer:
    """The tokenizer of Marian, from source.spm, target.spm and vocab.json.

    Raises:
        FileError: they are damaged, or one is missing.
        MissingExtraError: sentencepiece is not installed.
    """
    ids = json_in(directory, "vocab.json")
    _expect("vocab.json", ids)
    source, encoder = _read(directory, "source.spm")
    target, decoder = _read(directory, "target.spm")
    vocabulary = (directory / "vocab.json").read_bytes()
    files = {"source.spm": source, "target.spm": target, "vocab.json": vocabulary}
    return PieceTokenizer(files, encoder, decoder, ids, "^>>.*?<<")  # the target language


def llama(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` equivalent to the model in tokenizer.model.

    Raises:
        FileError: the model is damaged, or of a kind that encodes an example differently.
        MissingExtraError: sentencepiece is not installed.
    """
    settings = settings_of(directory, ("LlamaTokenizer",))
    try:
        _, model = _read(directory, "tokenizer.model")
    except FileError as error:
        raise FileError(f"{error}; it has no tokenizer.json, and {ADVICE}") from error
    size = model.get_piece_size()
    ids = {model.id_to_piece(number): number for number in range(size)}
    unknown = model.id_to_piece(model.unk_id())
    # Pieces earlier in the vocabulary were merged first.
    tokenizer = pieces_of_bytes(ids, ids, unknown)
    plain = [piece for piece, number in ids.items() if not _is_mark_of(model, number)]
    text = "".join(plain).replace(SPACE, " ").strip() + ODD
    added = [int(number) for number in settings.get("added_tokens_decoder", {})]
    if tokenizer.encode(text).ids != model.encode(text) or any(number >= size for number in added):
        raise FileError(
            "its tokenizer.model is of a kind that can only be read from tokenizer.json, and there "
            f"is none; {ADVICE}"
        )
    _add_marks(tokenizer, model, settings)
    return tokenizer


def pieces_of_bytes(
    ids: Mapping[str, int], merged: Iterable[str], unknown: str | None, prefix: bool = True
) -> Any:
    """A `tokenizers.Tokenizer` of SentencePiece's BPE; other characters become bytes.

    Args:
        ids: of all pieces.
        merged: those that others merge into, the first to be merged first.
        unknown: the piece for what has none.
        prefix: whether a space is put before a text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    splits = ((piece[:place], piece[place:]) for piece in merged for place in range(1, len(piece)))
    merges = [(left, right) for left, right in splits if left in ids and right in ids]
    tokenizer = Tokenizer(
        models.BPE(dict(ids), merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    scheme = "first" if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        parts.append(decoders.Strip(" ", left=1, right=0))
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def _add_marks(tokenizer: Any, model: Any, settings: Mapping[str, Any]) -> None:
    """Add special tokens, and those that transformers puts around a text."""
    from tokenizers import processors

    numbers = [number for number in range(model.get_piece_size()) if model.is_control(number)]
    tokenizer.add_special_tokens(
        [model.id_to_piece(number) for number in (*numbers, model.unk_id())]
    )
    before, after = model.bos_id(), model.eos_id()
    parts, marks = ["$A"], []
    if settings.get("add_bos_token", True) and before >= 0:
        marks.append((model.id_to_piece(before), before))
        parts.insert(0, marks[-1][0])
    if settings.get("add_eos_token", False) and after >= 0:
        marks.append((model.id_to_piece(after), after))
        parts.append(marks[-1][0])
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(parts), special_tokens=marks
        )


def _is_mark_of(model: Any, number: int) -> bool:
    """Whether a piece has no characters of its own."""
    kinds = (model.is_control, model.is_unknown, model.is_byte, model.is_unused)
    return any(is_kind(number) for is_kind in kinds)


def _read(directory: Path, name: str) -> tuple[bytes, Any]:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError.of(f"its {name} needs sentencepiece", "hf") from error
    try:
        content = (directory / name).read_bytes()
        model = sentencepiece.SentencePieceProcessor()
        model.load_from_serialized_proto(content)
        return content, model
    except (OSError, RuntimeError) as error:
        raise FileError(f"its {name} cannot be read: {error}") from error


def _expect(file: str, ids: Mapping[str, Any]) -> None:
    for mark in (END, UNKNOWN):
        if not isinstance(ids.get(mark), int):
            raise FileError(f"its {file} has no id of {mark}")

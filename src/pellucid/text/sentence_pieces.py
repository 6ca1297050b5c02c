"""Tokenizers of checkpoints with SentencePiece models (Kudo and Richardson 2018).

spiece.model                           T5, Pegasus
source.spm, target.spm, vocab.json     Marian: a model per language, shared ids
tokenizer.model                        Llama: BPE, which becomes a `tokenizers.Tokenizer`

transformers has a converter for T5 and Llama, not for Marian, so that `PieceTokenizer` would stay.
"""

import json
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
from pellucid.text.tokenizer_growth import check_pieces
from pellucid.text.vocabularies import ADVICE, SETTINGS, class_of, settings_of

END, UNKNOWN = "</s>", "<unk>"
MARKS = (END, UNKNOWN, "<pad>")
SPACE = "▁"
ODD = "é ﬁ 漢字  two spaces\ta tab\na line 🙂"
"""Text that other SentencePiece tokenizers normalize or do not know."""
EXTRA = 100
"""Sentinel tokens of T5, which follow the pieces of its model in reverse order."""
OFFSET = 103
"""Ids of Pegasus before those of its model's pieces."""


class PieceTokenizer(Tokenizer):
    """Encodes text of the source language, and decodes ids to text of the target language."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        source: Any,
        target: Any,
        ids: Mapping[str, int],
        mark: str,
        before: Sequence[str] = (),
        after: Sequence[str] = (END,),
    ) -> None:
        """Make a tokenizer of two models.

        Args:
            files: contents of the files to save, by name.
            source: the `sentencepiece.SentencePieceProcessor` that encodes.
            target: the one that decodes; may be the same.
            ids: of all tokens.
            mark: a regular expression for special tokens within a text.
            before, after: the special tokens around a text.
        """
        self.files, self.source, self.target = files, source, target
        self.ids, self.tokens = ids, {number: token for token, number in ids.items()}
        self.mark = re.compile(f"({mark})")
        self.before, self.after = ([ids[token] for token in side] for side in (before, after))

    def save(self, directory: Path) -> None:
        for name, content in self.files.items():
            with written_whole(directory / name) as aside:
                aside.write_bytes(content)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        if not special:
            return [self._ids(text) for text in texts]
        return [[*self.before, *self._ids(text), *self.after] for text in texts]

    def encode_cut(self, text: str, most: int) -> list[int]:
        return [*self.before, *self._ids(text)[: most - self.marks], *self.after]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return []

    @property
    def marks(self) -> int:
        return len(self.before) + len(self.after)

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


def spiece(directory: Path) -> PieceTokenizer:
    """The tokenizer of T5 or Pegasus, from spiece.model.

    Raises:
        FileError: it is damaged, or that of another model.
        MissingExtraError: sentencepiece is not installed.
    """
    classes = dict.fromkeys(("t5", "umt5"), "T5Tokenizer")
    classes |= {"mt5": "MT5Tokenizer", "pegasus": "PegasusTokenizer"}
    name, settings = class_of(directory, classes)
    content, model = read_pieces(directory, "spiece.model")
    tokens = [model.id_to_piece(number) for number in range(model.get_piece_size())]
    if name == "PegasusTokenizer":
        # Masks and unused tokens of its training come first.
        marks = ["<pad>", END, "<mask_1>", "<mask_2>"]
        marks += [f"<unk_{number}>" for number in range(2, settings.get("offset", OFFSET))]
        tokens, mark = marks + tokens[2:], r"<(?:mask|unk)_\d+>"
    else:
        extra = settings.get("extra_ids", EXTRA)
        tokens += [f"<extra_id_{number}>" for number in reversed(range(extra))]
        mark = r"<extra_id_\d+>"
    ids = {token: number for number, token in enumerate(tokens)}
    _expect("spiece.model", ids)
    files = {"spiece.model": content}
    if settings:
        kept = ("tokenizer_class", "extra_ids", "offset")
        tokenizer_config = {key: settings[key] for key in kept if key in settings}
        files[SETTINGS] = json.dumps(tokenizer_config, indent=2).encode()
    return PieceTokenizer(files, model, model, ids, mark)


def marian(directory: Path) -> PieceTokenizer:
    """The tokenizer of Marian, from source.spm, target.spm and vocab.json.

    Raises:
        FileError: they are damaged, or one is missing.
        MissingExtraError: sentencepiece is not installed.
    """
    ids = json_in(directory, "vocab.json")
    _expect("vocab.json", ids)
    source, encoder = read_pieces(directory, "source.spm")
    target, decoder = read_pieces(directory, "target.spm")
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
        _, model = read_pieces(directory, "tokenizer.model")
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


def read_pieces(directory: Path, name: str) -> tuple[bytes, Any]:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError.of(f"its {name} needs sentencepiece", "hf") from error
    try:
        content = (directory / name).read_bytes()
        model = sentencepiece.SentencePieceProcessor()
        model.load_from_serialized_proto(content)
        check_pieces(content)
        return content, model
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise FileError(f"its {name} cannot be read: {error}") from error


def _expect(file: str, ids: Mapping[str, Any]) -> None:
    for mark in (END, UNKNOWN):
        if not isinstance(ids.get(mark), int):
            raise FileError(f"its {file} has no id of {mark}")

"""Tokenizers of checkpoints with models of SentencePiece (Kudo and Richardson 2018).

spiece.model                           T5
source.spm, target.spm, vocab.json     Marian: one model for each language, one set of ids
tokenizer.model                        Llama: pairs of pieces, which tokenizers can put together too
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
"""What other tokenizers of this kind change before they look for pieces, or do not know."""
EXTRA = 100
"""Marks of T5 for what is left out, after the pieces of its model, the last one first."""


class PieceTokenizer(Tokenizer):
    """Pieces of the source's language become ids, and ids become text of the target's."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        source: Any,
        target: Any,
        ids: Mapping[str, int],
        mark: str,
    ) -> None:
        """Put it together.

        Args:
            files: what to save, by name.
            source: a `sentencepiece.SentencePieceProcessor`.
            target: another, or the same.
            ids: of all tokens.
            mark: a regular expression of tokens that are no part of the text around them.
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
    """Its end."""

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
        for is_mark, some in groupby(tokens, self._is_mark):
            group = list(some)
            texts += group if is_mark else [self._text(group)]
        return " ".join(texts)

    def _is_mark(self, token: str) -> bool:
        return token in MARKS or self.mark.fullmatch(token) is not None

    def _text(self, pieces: list[str]) -> str:
        # A piece that the target's model does not know is left as it is, the mark of a space too.
        text: str = self.target.decode_pieces(pieces).replace(SPACE, " ")
        return text.strip()

    def token(self, number: int) -> str:
        return self.tokens.get(number, f"<{number}>")

    def __len__(self) -> int:
        return len(self.ids)


def t5(directory: Path) -> PieceTokenizer:
    """The tokenizer of spiece.model.

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
    """The tokenizer of source.spm, target.spm and vocab.json.

    Raises:
        FileError: they are damaged, or one is missing.
        MissingExtraError: sentencepiece is not installed.
    """
    ids = json_in(directory, "vocab.json")
    _expect("vocab.json", ids)
    source, reader = _read(directory, "source.spm")
    target, writer = _read(directory, "target.spm")
    vocabulary = (directory / "vocab.json").read_bytes()
    files = {"source.spm": source, "target.spm": target, "vocab.json": vocabulary}
    return PieceTokenizer(files, reader, writer, ids, "^>>.*?<<")  # the language that is wanted


def llama(directory: Path) -> Any:
    """A `tokenizers.Tokenizer` that does what the model in tokenizer.model does.

    Raises:
        FileError: the model is damaged, or does what this cannot, as shown by an example.
        MissingExtraError: sentencepiece is not installed.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    settings = settings_of(directory, ("LlamaTokenizer",))
    try:
        _, model = _read(directory, "tokenizer.model")
    except FileError as error:
        raise FileError(f"{error}; it has no tokenizer.json, and {ADVICE}") from error
    size = model.get_piece_size()
    ids = {model.id_to_piece(number): number for number in range(size)}
    # Those that come first in the vocabulary were put together first.
    splits = ((piece[:place], piece[place:]) for piece in ids for place in range(1, len(piece)))
    merges = [(left, right) for left, right in splits if left in ids and right in ids]
    unknown = model.id_to_piece(model.unk_id())
    made = Tokenizer(models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", left=1, right=0)])
    plain = [piece for piece, number in ids.items() if not _is_mark_of(model, number)]
    text = "".join(plain).replace(SPACE, " ").strip() + ODD
    added = [int(number) for number in settings.get("added_tokens_decoder", {})]
    if made.encode(text).ids != model.encode(text) or any(number >= size for number in added):
        raise FileError(
            "its tokenizer.model is of a kind that is read from tokenizer.json alone, and there "
            f"is none; {ADVICE}"
        )
    _add_marks(made, model, settings)
    return made


def _add_marks(made: Any, model: Any, settings: Mapping[str, Any]) -> None:
    """Pieces that are no text, and those of them that stand around one, as in transformers."""
    from tokenizers import processors

    numbers = [number for number in range(model.get_piece_size()) if model.is_control(number)]
    made.add_special_tokens([model.id_to_piece(one) for one in (*numbers, model.unk_id())])
    before, after = model.bos_id(), model.eos_id()
    parts, marks = ["$A"], []
    if settings.get("add_bos_token", True) and before >= 0:
        marks.append((model.id_to_piece(before), before))
        parts.insert(0, marks[-1][0])
    if settings.get("add_eos_token", False) and after >= 0:
        marks.append((model.id_to_piece(after), after))
        parts.append(marks[-1][0])
    if marks:
        made.post_processor = processors.TemplateProcessing(
            single=" ".join(parts), special_tokens=marks
        )


def _is_mark_of(model: Any, number: int) -> bool:
    """Whether a piece stands for no characters of its own."""
    return any(
        is_one(number)
        for is_one in (model.is_control, model.is_unknown, model.is_byte, model.is_unused)
    )


def _read(directory: Path, name: str) -> tuple[bytes, Any]:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError(
            f"its {name} needs sentencepiece: pip install 'pellucid[hf]'"
        ) from error
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

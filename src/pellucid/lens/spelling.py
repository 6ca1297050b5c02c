"""Tokens joined into words, for all common tokenizers."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Word", "is_punctuation", "is_special", "special_ids_of", "texts", "words"]

Convention = Literal["pieces", "spaces", "bytes", "none"]
"""How tokens mark words: "##" before a continuation (WordPiece; Wu et al. 2016), "▁" for a space
(SentencePiece; Kudo and Richardson 2018), a letter for each byte with "Ġ" for a space (byte-level
BPE; Radford et al. 2019), or not at all."""

_SPECIAL = re.compile(r"\[g?[A-Z]{3,}\]|\[unused\d+\]|<(?!0x[0-9A-F]{2}>)[^<>\s]+>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_INNER = "'’-‐"
"""Punctuation that belongs to a word if it stands between two letters."""


def _byte_letters() -> dict[str, int]:
    """The byte of each letter of byte-level BPE: the letter is the byte, or from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _byte_letters()
_OPENING = frozenset("([{«“‘¿¡")


@dataclass(frozen=True, slots=True)
class Word:
    """A word and the positions of its tokens."""

    text: str
    """The text without the tokenizer's marks."""
    positions: tuple[int, ...]
    """The positions of its tokens, in order."""

    @property
    def is_special(self) -> bool:
        """Whether it is a special token, such as [CLS]."""
        return is_special(self.text)


def words(tokens: Sequence[str]) -> list[Word]:
    """Join tokens into words; each token belongs to exactly one word.

    The convention (WordPiece "##", SentencePiece "▁", byte-level BPE "Ġ") is inferred from the
    tokens; without any marks, each token is a word. Special tokens and punctuation are words of
    their own (except an apostrophe or hyphen inside a word, if the marks show it), and so is each
    Chinese or Japanese token, since nothing marks where such words end.

    Args:
        tokens: (n,) as in the vocabulary.
    """
    kind = _convention(tokens)
    joined: list[Word] = []
    for run in _runs(tokens, kind):
        first = tokens[run[0]]
        if is_special(first):
            joined.append(Word(first, (run[0],)))
        else:
            joined.extend(_joined(list(_units(tokens, run, kind))))
    return joined


def texts(tokens: Sequence[str]) -> list[str]:
    """The text of each token without marks; part of a letter is U+FFFD."""
    kind = _convention(tokens)
    return [
        token if is_special(token) else _bytes(token, kind).decode(errors="replace").strip(" ")
        for token in tokens
    ]


def running(tokens: Sequence[str], whole: int = 0) -> list[str]:
    """The text of each token in a running text, with the space before it if there is one.

    WordPiece drops the spaces around punctuation: opening punctuation gets a space before it,
    closing punctuation gets none.

    Args:
        tokens: as the vocabulary spells them, (n,).
        whole: of so many from the first, a letter whose bytes are several tokens stands at the
            first of them, and nothing at the others; part of a letter is else shown as U+FFFD.
    """
    kind = _convention(tokens)
    spaced_texts = []
    letters = _whole([_bytes(token, kind) for token in tokens[:whole]])
    letters += [_bytes(token, kind).decode(errors="replace") for token in tokens[whole:]]
    for number, (token, text) in enumerate(zip(tokens, texts(tokens), strict=True)):
        if is_special(token):
            spaced = f" {token}"
        elif kind in ("bytes", "spaces"):
            spaced = letters[number]
        else:
            closes = is_punctuation(text) and text not in _OPENING
            joined = closes or (number and tokens[number - 1] in _OPENING)
            spaced = f" {text}" if _begins(token, kind) and not joined else text
        spaced_texts.append(spaced if number else spaced.lstrip(" "))
    return spaced_texts


def _whole(parts: Sequence[bytes]) -> list[str]:
    """The texts of the parts of one text; a letter in several parts stands at the first of them."""
    decoded = [part.decode(errors="replace") for part in parts]
    waiting, first = b"", 0
    for number, part in enumerate(parts):
        first = first if waiting else number
        waiting += part
        try:
            decoded[first : number + 1] = [waiting.decode()] + [""] * (number - first)
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                continue
        waiting = b""
    return decoded


def is_special(token: str) -> bool:
    """Whether a token is special, by its brackets: [SEP], </s>, <|im_end|>."""
    return _SPECIAL.fullmatch(token) is not None


def special_ids_of(tokenizer: Any) -> frozenset[int]:
    """The ids of the tokens that a tokenizer calls special.

    Besides those with a role, which `all_special_ids` lists (such as the beginning of a text), they
    are added tokens that are marked as special or look so, such as the marks of a chat's turns.

    Args:
        tokenizer: with the interface of transformers, as much of it as it has; or None.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(getattr(tokenizer, "all_special_ids", ())) | {
        number for number, token in added.items() if token.special or is_special(token.content)
    }


def is_punctuation(text: str) -> bool:
    """Whether a text consists of punctuation, spaces and line breaks.

    Punctuation is as BERT defines it: Unicode's, and all ASCII that is not a letter or digit.
    """
    return bool(text) and all(
        letter.isspace()
        or (letter.isascii() and not letter.isalnum())
        or unicodedata.category(letter).startswith("P")
        for letter in text
    )


def _convention(tokens: Sequence[str]) -> Convention:
    """The convention whose marks are the most frequent."""
    plain = [token for token in tokens if not is_special(token)]
    marks: dict[Convention, int] = {
        "bytes": sum(token[:1] in ("Ġ", "Ċ") for token in plain),
        "spaces": sum("▁" in token for token in plain),
        "pieces": sum(token.startswith("##") and len(token) > 2 for token in plain),
    }
    most = max(marks, key=lambda kind: marks[kind])
    if marks[most]:
        return most
    if any(_BYTE.fullmatch(token) for token in plain):
        return "spaces"
    return "bytes" if _reads_as_bytes("".join(plain)) else "none"


def _reads_as_bytes(text: str) -> bool:
    """Whether letters such as "Ã©" are valid UTF-8 as bytes, some of which are not ASCII."""
    if text.isascii() or not all(letter in _BYTE_OF for letter in text):
        return False
    try:
        bytes(_BYTE_OF[letter] for letter in text).decode()
    except UnicodeDecodeError:
        return False
    return True


def _runs(tokens: Sequence[str], kind: Convention) -> Iterator[list[int]]:
    """Runs of positions of tokens with no space between them; a special token is its own run."""
    run: list[int] = []
    for position, token in enumerate(tokens):
        alone = is_special(token) or (run and is_special(tokens[run[0]]))
        if run and (alone or _begins(token, kind)):
            yield run
            run = []
        run.append(position)
    if run:
        yield run


def _begins(token: str, kind: Convention) -> bool:
    if kind == "pieces":
        return not (token.startswith("##") and len(token) > 2)
    if kind == "spaces":
        return token.startswith("▁")
    return kind == "none" or _bytes(token, kind)[:1].isspace()


def _bytes(token: str, kind: Convention) -> bytes:
    """The text of a token, in UTF-8."""
    if kind == "pieces" and token.startswith("##") and len(token) > 2:
        token = token[2:]
    if kind == "spaces":
        byte = _BYTE.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else _utf8(token.replace("▁", " "))
    if kind == "bytes":
        parts = (_BYTE_OF.get(letter) for letter in token)
        return b"".join(
            _utf8(letter) if byte is None else bytes([byte])
            for letter, byte in zip(token, parts, strict=True)
        )
    return _utf8(token)


def _utf8(text: str) -> bytes:
    """UTF-8 with a question mark for half of a surrogate pair, which some vocabularies contain."""
    return text.encode(errors="replace")


def _units(
    tokens: Sequence[str], run: Iterable[int], kind: Convention
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Texts of whole letters, which may take several tokens, with the positions of these."""
    pending = b""
    positions: tuple[int, ...] = ()
    for position in run:
        pending, positions = pending + _bytes(tokens[position], kind), (*positions, position)
        try:
            text = pending.decode()
        except UnicodeDecodeError:
            continue
        yield text, positions
        pending, positions = b"", ()
    if positions:
        yield pending.decode(errors="replace"), positions


def _joined(units: list[tuple[str, tuple[int, ...]]]) -> list[Word]:
    """The words of a run."""
    joined: list[Word] = []
    spaces: tuple[int, ...] = ()  # a token that is a space belongs to the next word
    continues = False
    for number, (text, positions) in enumerate(units):
        bare, positions = text.strip(" "), (*spaces, *positions)
        after = units[number + 1][0] if number + 1 < len(units) else ""
        if not bare and after:
            spaces, continues = positions, False
            continue
        inner = continues and bare in tuple(_INNER) and after[:1].isalnum()
        alone = _is_ideograph(bare) or (is_punctuation(bare) and not inner)
        if continues and not alone:
            start = joined.pop()
            bare, positions = start.text + bare, (*start.positions, *positions)
        joined.append(Word(bare or text, positions))
        spaces, continues = (), not alone
    return joined


def _is_ideograph(text: str) -> bool:
    """Whether a text begins with a Chinese or Japanese character."""
    return "\u3040" <= text[:1] <= "\u30ff" or "\u3400" <= text[:1] <= "\u9fff"

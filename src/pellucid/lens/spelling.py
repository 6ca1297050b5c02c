"""From sub-tokens back to words, whatever marks a tokenizer leaves between them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Word", "is_punctuation", "is_special", "texts", "words"]

Convention = Literal["pieces", "spaces", "bytes", "none"]
"""How tokens say where words begin: "##" on what goes on (WordPiece; Wu et al. 2016), "▁" for a
space (SentencePiece; Kudo and Richardson 2018), a letter for each byte with "Ġ" for a space
(byte-level BPE; Radford et al. 2019), or not at all."""

_SPECIAL = re.compile(r"\[g?[A-Z]{3,}\]|\[unused\d+\]|<(?!0x[0-9A-F]{2}>)[^<>\s]+>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_INNER = "'’-‐"
"""Punctuation that is part of a word where it stands between two letters."""


def _byte_letters() -> dict[str, int]:
    """The letter that byte-level BPE writes for each byte: itself, or one from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_letters()


_OPENING = frozenset("([{«“‘¿¡")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, and the tokens that it is made of."""

    text: str
    """As it reads, without the tokenizer's marks."""
    positions: tuple[int, ...]
    """Where its tokens stand, in order."""

    @property
    def is_special(self) -> bool:
        """Whether it is a mark of the model's own, such as [CLS]."""
        return is_special(self.text)


def words(tokens: Sequence[str]) -> list[Word]:
    """Tokens joined to words, each token in exactly one of them.

    Which of WordPiece ("##"), SentencePiece ("▁") and byte-level BPE ("Ġ") it is, is read off the
    tokens; where there is no mark at all, each token is a word. Special tokens and punctuation
    stand alone (an apostrophe or hyphen inside a word does not, where the marks tell), and so does
    each Chinese or Japanese token, as nothing says where such words end.

    Args:
        tokens: as the vocabulary spells them, (n,).
    """
    kind = _convention(tokens)
    found: list[Word] = []
    for run in _runs(tokens, kind):
        first = tokens[run[0]]
        if is_special(first):
            found.append(Word(first, (run[0],)))
        else:
            found.extend(_joined(list(_units(tokens, run, kind))))
    return found


def texts(tokens: Sequence[str]) -> list[str]:
    """Each token alone as it reads, without marks; part of a letter is shown as U+FFFD."""
    kind = _convention(tokens)
    return [
        token if is_special(token) else _bytes(token, kind).decode(errors="replace").strip(" ")
        for token in tokens
    ]


def running(tokens: Sequence[str]) -> list[str]:
    """Each token as it stands in a running text, with the space before it where there is one.

    WordPiece has forgotten the spaces around punctuation: there is one before what opens, and none
    before what closes.
    """
    kind = _convention(tokens)
    found = []
    for number, (token, text) in enumerate(zip(tokens, texts(tokens), strict=True)):
        if is_special(token):
            spaced = f" {token}"
        elif kind in ("bytes", "spaces"):
            spaced = _bytes(token, kind).decode(errors="replace")
        else:
            closes = is_punctuation(text) and text not in _OPENING
            joined = closes or (number and tokens[number - 1] in _OPENING)
            spaced = f" {text}" if _begins(token, kind) and not joined else text
        found.append(spaced if number else spaced.lstrip(" "))
    return found


def is_special(token: str) -> bool:
    """Whether a token is a mark of the model's own, by its brackets: [SEP], </s>, <|im_end|>."""
    return _SPECIAL.fullmatch(token) is not None


def is_punctuation(text: str) -> bool:
    """Whether a text is made of punctuation, spaces and line breaks alone.

    Punctuation is what BERT takes for it: Unicode's, and all ASCII that is no letter or digit.
    """
    return bool(text) and all(
        letter.isspace()
        or (letter.isascii() and not letter.isalnum())
        or unicodedata.category(letter).startswith("P")
        for letter in text
    )


def _convention(tokens: Sequence[str]) -> Convention:
    """The one whose marks are there most often."""
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
    """Whether letters such as "Ã©" make sense as bytes, of which there are some above ASCII."""
    if text.isascii() or not all(letter in _BYTE_OF for letter in text):
        return False
    try:
        bytes(_BYTE_OF[letter] for letter in text).decode()
    except UnicodeDecodeError:
        return False
    return True


def _runs(tokens: Sequence[str], kind: Convention) -> Iterator[list[int]]:
    """Positions of tokens with no space between them; a special token by itself."""
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
    """What a token stands for, in UTF-8."""
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
    """A vocabulary may hold half a surrogate pair, which is no text: a question mark."""
    return text.encode(errors="replace")


def _units(
    tokens: Sequence[str], run: Iterable[int], kind: Convention
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Texts of whole letters with their positions: a letter may be spread over several tokens."""
    waiting = b""
    positions: tuple[int, ...] = ()
    for position in run:
        waiting, positions = waiting + _bytes(tokens[position], kind), (*positions, position)
        try:
            text = waiting.decode()
        except UnicodeDecodeError:
            continue
        yield text, positions
        waiting, positions = b"", ()
    if positions:
        yield waiting.decode(errors="replace"), positions


def _joined(units: list[tuple[str, tuple[int, ...]]]) -> list[Word]:
    """The words of a run."""
    found: list[Word] = []
    before: tuple[int, ...] = ()  # a space that is a token of its own belongs to what comes next
    goes_on = False
    for place, (text, positions) in enumerate(units):
        bare, positions = text.strip(" "), (*before, *positions)
        after = units[place + 1][0] if place + 1 < len(units) else ""
        if not bare and after:
            before, goes_on = positions, False
            continue
        inner = goes_on and bare in tuple(_INNER) and after[:1].isalnum()
        ends = _is_ideograph(bare) or (is_punctuation(bare) and not inner)
        if goes_on and not ends:
            start = found.pop()
            bare, positions = start.text + bare, (*start.positions, *positions)
        found.append(Word(bare or text, positions))
        before, goes_on = (), not ends
    return found


def _is_ideograph(text: str) -> bool:
    """Whether a text begins with a Chinese or Japanese letter, between which stand no spaces."""
    return "\u3040" <= text[:1] <= "\u30ff" or "\u3400" <= text[:1] <= "\u9fff"

"""How much longer a stranger's tokenizer.json may make a text, which nothing in it limits.

A few steps that replace "a" by sixteen of it turn one letter into millions. Steps that cannot make
a text more than `MOST_TIMES` as long are left alone; of others, each text is taken through the
steps one by one, and none is taken that could exceed the limit. Lengths are bytes of UTF-8.
"""

import base64
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from pellucid.errors import FileError

MOST_TIMES = 64
"""How many times as long as a text what a tokenizer makes of it may be."""
FREE = 2**16
"""Bytes that it may have in any case."""
MOST_MARKS = 2**10
"""Special tokens around a text; models have a few."""
TIMES = {
    **dict.fromkeys(("Nmt", "Strip", "StripAccents"), 1.0),
    **{"NFC": 3.0, "NFD": 3.0, "NFKC": 11.0, "NFKD": 11.0},
    **{"BertNormalizer": 5.0, "Lowercase": 1.5, "ByteLevel": 2.0},
}
"""The most that steps with a fixed meaning do: of Unicode's forms, U+FDFA makes 33 bytes of 3."""


class Growth:
    """The limits of a `tokenizers.Tokenizer`."""

    def __init__(self, inner: Any) -> None:
        """Read its steps.

        Raises:
            FileError: it adds, or writes, too much whatever the text.
        """
        marks = inner.num_special_tokens_to_add(is_pair=False)
        if marks > MOST_MARKS:
            raise FileError(f"its tokenizer adds {marks:,} special tokens to each text")
        steps = list(_steps(inner.decoder, "decoders"))
        writes = math.prod(_times(step) for step in steps if step["type"] == "Replace")
        if writes > MOST_TIMES:
            raise FileError(
                f"its tokenizer's decoder may make tokens {writes:,.0f} times as long; "
                f"{MOST_TIMES} times is the most"
            )
        steps = list(_steps(inner.normalizer, "normalizers"))
        self._steps: list[tuple[Callable[[str], float], Callable[[str], str]]] = []
        if math.prod(map(_times, steps)) > MOST_TIMES:
            self._steps = [(partial(_most_bytes, step), _applied(step)) for step in steps]

    def check(self, texts: Iterable[str]) -> None:
        """Refuse texts that would become too long.

        Raises:
            FileError: one would.
        """
        for text in texts if self._steps else ():
            most = max(FREE, MOST_TIMES * _size(text))
            for longest, apply in self._steps:
                if longest(text) > most:
                    raise FileError(
                        f"its tokenizer makes more than {MOST_TIMES} times as much of a text"
                    )
                text = apply(text)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _steps(part: Any, several: str) -> Iterable[Mapping[str, Any]]:
    """The steps of a normalizer or decoder, one by one."""
    if part is None:
        return
    pending = [json.loads(part.__getstate__())]
    while pending:
        step = pending.pop(0)
        if step.get("type") == "Sequence":
            pending = [*step[several], *pending]
        else:
            yield step


def _applied(config: Mapping[str, Any]) -> Callable[[str], str]:
    from tokenizers import normalizers

    step = normalizers.Sequence([])
    step.__setstate__(json.dumps(config).encode())
    apply: Callable[[str], str] = step.normalize_str
    return apply


def _most_bytes(step: Mapping[str, Any], text: str) -> float:
    """The most bytes that a step makes of a text."""
    size = _size(text)
    if step["type"] == "Replace" and step["pattern"].get("String"):
        old = step["pattern"]["String"]
        return size + text.count(old) * (_size(step["content"]) - _size(old))
    if step["type"] == "Prepend":
        return size + _size(step["prepend"])
    # A pattern may match between any two letters, and before the first.
    return size * _times(step) + _size(step.get("content", ""))


def _times(step: Mapping[str, Any]) -> float:
    """How many times as long a step makes a text, at the most."""
    kind = step["type"]
    if kind == "Replace":
        content, old = _size(step["content"]), step["pattern"].get("String")
        return max(1.0, content / _size(old)) if old else 1.0 + content
    if kind == "Prepend":
        return 1.0 + _size(step["prepend"])
    if kind == "Precompiled":
        return _longest_mapped(base64.b64decode(step["precompiled_charsmap"]))
    return TIMES.get(kind, 2.0)


def _longest_mapped(content: bytes) -> float:
    """The longest text that a table of SentencePiece has for one of at least one byte.

    The table is a trie, whose size in bytes comes first, and then texts that end with a zero.
    """
    if len(content) < 4:
        return 1.0
    [size] = struct.unpack_from("<I", content)
    return float(max(map(len, content[4 + size :].split(b"\0"))) or 1)


def check_pieces(model: bytes) -> None:
    """Refuse a model of SentencePiece whose table has too long a text for a character.

    Args:
        model: a serialized ModelProto of protobuf: its field 3 is the NormalizerSpec, whose field 2
            is the table (sentencepiece_model.proto).

    Raises:
        FileError: it has.
        ValueError, IndexError: it is no such model.
    """
    for spec in _fields(model, 3):
        for table in _fields(spec, 2):
            if (most := _longest_mapped(table)) > MOST_TIMES:
                raise FileError(
                    f"its tokenizer makes {most:,.0f} bytes of a character; {MOST_TIMES} is the "
                    "most"
                )


def _fields(message: bytes, wanted: int) -> Iterable[bytes]:
    """The contents of the fields with a number, of a message of protobuf."""
    place = 0
    while place < len(message):
        tag, place = _whole_number(message, place)
        kind = tag & 7
        if kind == 2:  # with a length
            length, place = _whole_number(message, place)
            if tag >> 3 == wanted:
                yield message[place : place + length]
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 0:
            _, place = _whole_number(message, place)
            length = 0
        else:
            raise ValueError(f"it has a field of wire type {kind}")
        place += length


def _whole_number(message: bytes, place: int) -> tuple[int, int]:
    """A varint of protobuf, and where it ends."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place

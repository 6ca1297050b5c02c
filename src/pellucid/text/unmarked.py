"""Bytes that are valid UTF-8 and yet no text: UTF-16 and UTF-32 without a mark, and binary files.

A letter of UTF-16 is two bytes, often both of ASCII, with NUL or a control character among them, of
which a text has none: "Да" is 14 04 30 04.
"""

import unicodedata

_CANDIDATES = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b")) + b"\x7f"
"""All but white space, the end of DOS files and the colours of terminals."""
_MANY, _MOST = 0.1, 0.4
"""The shares of control characters above which a file is tried as UTF-16, and is no text; texts
have none, and a table whose fields one of them separates has few."""
_TAR = slice(257, 262)


def no_text(head: bytes) -> str | None:
    """What a file is that begins so, for a message, and what to do; None if it may be UTF-8.

    Args:
        head: the first bytes.
    """
    if head[_TAR] == b"ustar":
        return "is a tar archive; unpack it"
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if 0 not in head and controls <= _MANY * len(head):
        return None
    encoding = _wide(head) if b"\n" in head or controls > _MANY * len(head) else None
    if encoding is not None:
        name = encoding[:6].upper()
        return (
            f"is not UTF-8 text: it looks like {name} without a mark; if it is: "
            f"--encoding {encoding}, and if not: --encoding utf-8"
        )
    if controls <= _MOST * len(head):
        return None  # what is odd in a text is noticed where it is read
    return (
        f"is no text: {controls} of its first {len(head)} bytes are control characters; if it is "
        "text all the same, say its encoding, as in --encoding utf-8"
    )


def _wide(head: bytes) -> str | None:
    """The encoding of two or four bytes a letter that reads as text; with the fewest scripts."""
    scripts = {}
    for encoding in _CANDIDATES:
        size = 4 if "32" in encoding else 2
        try:
            text = head[: len(head) // size * size].decode(encoding, errors="strict")
        except UnicodeDecodeError as error:
            if error.start < len(head) - size - 2:  # else a pair is cut
                continue
            text = head[: error.start].decode(encoding)
        if b"\n" in head and "\n" not in text:  # a table that a control character divides
            continue
        if text and all(map(_is_of_text, text)):
            scripts[encoding] = len({ord(letter) >> 8 for letter in text})
    return min(scripts, key=scripts.__getitem__, default=None)


def _is_of_text(letter: str) -> bool:
    return letter in "\t\n\v\f\r\ufeff" or unicodedata.category(letter) not in (
        "Cc", "Cn", "Co", "Cs",
    )  # fmt: skip

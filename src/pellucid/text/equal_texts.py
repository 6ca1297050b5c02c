"""Which texts are equal, so that no figure is measured on a text that was learnt.

Two texts are equal if they differ only in case, white space, punctuation, tags and entities of
HTML, invisible characters or Unicode spelling: composed or decomposed, full width or half
(compatibility caseless matching, Unicode 16, section 3.13, D146). Texts of punctuation alone must
have the same. Texts wrongly taken for equal cost nothing but a place on the same side.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from pellucid.common.files import without_invisible

TAG = re.compile(r"<[/!]?[A-Za-z][^<>]{0,500}>")
LEFT_OUT = ("P", "Z", "C", "Sm", "Sc", "Sk")
"""General categories of punctuation, spaces and signs; not of emoji, which may say something."""


class _KeptCharacters(dict[int, int | None]):
    """For `str.translate`: None for a character that is punctuation, and itself for others."""

    def __missing__(self, code: int) -> int | None:
        kept = None if unicodedata.category(chr(code)).startswith(LEFT_OUT) else code
        self[code] = kept
        return kept


_KEPT = _KeptCharacters()


def normalised(text: str) -> str:
    """The text without what equal texts may differ in."""
    plain = _folded(html.unescape(TAG.sub("", text)) if "<" in text or "&" in text else text)
    return plain.translate(_KEPT) or " ".join(_folded(text).split())


def _folded(text: str) -> str:
    """The text without what differs in case or in how Unicode spells it."""
    bare = without_invisible(text)
    if not bare.isascii():
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", bare).casefold())
        bare = unicodedata.normalize("NFKC", folded.casefold())
    return bare.casefold()


def fingerprint(text: str, key: bytes = b"") -> int:
    """A hash of 64 bits that equal texts share; `key` chooses one of many such hashes."""
    digest = hashlib.blake2b(normalised(text).encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest)


def groups(texts: Sequence[str]) -> np.ndarray:
    """The group of each text, (texts,) int64 from 0; equal texts have the same one."""
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(normalised(text), len(numbers)) for text in texts]
    return np.array(indices, np.int64)

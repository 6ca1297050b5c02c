"""Which texts are equal, so that no figure is measured on a text that was learnt.

Two texts are equal if they differ only in case, white space, invisible characters or Unicode
spelling: composed or decomposed, full width or half (compatibility caseless matching, Unicode 16,
section 3.13, D146). Texts wrongly taken for equal cost nothing but a place on the same side.
"""

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from pellucid.common.files import without_invisible


def normalised(text: str) -> str:
    """The text without what equal texts may differ in."""
    bare = without_invisible(text)
    if not bare.isascii():
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", bare).casefold())
        bare = unicodedata.normalize("NFKC", folded.casefold())
    return " ".join(bare.casefold().split())


def fingerprint(text: str, key: bytes = b"") -> int:
    """A hash of 64 bits that equal texts share; `key` chooses one of many such hashes."""
    digest = hashlib.blake2b(normalised(text).encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest)


def groups(texts: Sequence[str]) -> np.ndarray:
    """The group of each text, (texts,) int64 from 0; equal texts have the same one."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(normalised(text), len(numbers)) for text in texts]
    return np.array(found, np.int64)

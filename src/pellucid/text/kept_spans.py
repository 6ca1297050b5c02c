"""What a translation keeps as it is: addresses, tags, placeholders and numbers."""

import re
from collections.abc import Iterator

from pellucid.text.sentences import Span


def _in_brackets(opening: str, closing: str) -> str:
    """A part of an address in brackets, which may have others inside."""
    other = rf"[^\s<>\"“”\{opening}\{closing}]"
    inner = rf"\{opening}{other}*\{closing}"
    return rf"\{opening}(?:{other}|{inner})*\{closing}"


_BRACKETS = "|".join(_in_brackets(*pair) for pair in ("()", "[]", "{}"))
"""They may end an address; a closing bracket that it did not open does not."""
KINDS = {
    "url": (
        rf"(?:https?://|ftp://|www\.)(?>{_BRACKETS}|[^\s<>\"“”])*"
        rf"(?:{_BRACKETS}|[^\s<>\"“”.,;:!?)\]}}'»])"
    ),
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "tag": r"</?[A-Za-z][^<>]*>|<!--.*?-->|&\#?\w+;",
    "placeholder": (
        r"\{\{[^{}]+\}\}|\$?\{[^{}\s]*\}|%\(\w+\)[a-z]|(?<![\w%])%(?:\d+\$)?[sdif@](?!\w)"
        r"|\$\w*[A-Za-z_]\w*"
    ),
    "number": r"(?<![\w.,])[-+]?\d+(?:[.,:/]\d+)*(?:\s?%)?(?!\w)",
}
"""What a translation is to keep as it is, by kind."""
KEPT = re.compile("|".join(f"(?P<{kind}>{rule})" for kind, rule in KINDS.items()))


def kept_spans(text: str) -> Iterator[Span]:
    """Places of web and e-mail addresses, tags, placeholders and numbers."""
    return (match.span() for match in KEPT.finditer(text))


MAY_BE_A_WORD = 12
"""The largest number that languages write as a word: "2 dogs" may well be "dos perros"."""


def lost_spans(text: str, span: Span, translation: str) -> list[Span]:
    """Places within a span of a text of what its translation does not have as often.

    A number counts as kept if its digits come through, since languages put other marks between
    them; and one up to `MAY_BE_A_WORD`.
    """
    digits = re.sub(r"(?<=\d)[.,:/'\s](?=\d)", "", translation)
    lost = []
    for match in KEPT.finditer(text):
        if span[0] <= match.start() and match.end() <= span[1]:
            kept, within = match[0], translation
            if match.lastgroup == "number":
                kept, within = re.sub(r"\D", "", kept), digits
                if len(kept) <= 2 and int(kept) <= MAY_BE_A_WORD:
                    continue
            place = within.find(kept)
            if place < 0:
                lost.append(match.span())
            elif match.lastgroup != "number":  # each counts once
                translation = translation[:place] + translation[place + len(kept) :]
    return lost


def changed(text: str, translation: str) -> list[str]:
    """Addresses, tags and placeholders of a text that are not in its translation.

    Numbers are left out, since languages write them in different ways.
    """
    kept = (match for match in KEPT.finditer(text) if match.lastgroup != "number")
    return [match[0] for match in kept if match[0] not in translation]

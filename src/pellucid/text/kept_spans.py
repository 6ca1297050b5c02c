"""What a translation keeps as it is: addresses, tags, placeholders and numbers."""

import re
from collections.abc import Iterator

from pellucid.text.sentences import Span

KINDS = {
    "url": r"(?:https?://|ftp://|www\.)[^\s<>\"“”]*[^\s<>\"“”.,;:!?)\]}'»]",
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


def changed(text: str, translation: str) -> list[str]:
    """Addresses, tags and placeholders of a text that are not in its translation.

    Numbers are left out, since languages write them in different ways.
    """
    found = (match for match in KEPT.finditer(text) if match.lastgroup != "number")
    return [match[0] for match in found if match[0] not in translation]

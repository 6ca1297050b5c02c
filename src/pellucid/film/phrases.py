"""Words of the narration: tokens as they are said, and lines with numbers in them."""

import string
from collections.abc import Sequence

from pellucid.common.wording import listing
from pellucid.film.numbers import Number
from pellucid.film.script import Line
from pellucid.film.token_text import clean

_SIGNS = {
    ",": "a comma",
    ".": "a full stop",
    ";": "a semicolon",
    ":": "a colon",
    "!": "an exclamation mark",
    "?": "a question mark",
    "'": "an apostrophe",
    '"': "a quotation mark",
    "-": "a hyphen",
    "⏎": "a line break",
    "␣": "a space",
}


def quoted(tokens: Sequence[str], place: int) -> str:
    """A token in quotes, with its position where the word stands there more than once; or the name
    of a sign, which nobody could hear.
    """
    token = clean(tokens[place])
    if token in _SIGNS:
        return _SIGNS[token]
    return f"'{token}' ({place})" if list(tokens).count(tokens[place]) > 1 else f"'{token}'"


def shown_part(drawn: int, size: int) -> str:
    """What is said of a vector that is not drawn whole; nothing of one that is."""
    return f"the first {drawn} of {size} numbers" if 0 < drawn < size else ""


def phrase(tokens: Sequence[str], positions: Sequence[int], joins: Sequence[bool]) -> str:
    """The words that some tokens make up, quoted; what is not side by side in parts."""
    parts: list[str] = []
    for number, position in enumerate(positions):
        if number and position == positions[number - 1] + 1:
            parts[-1] += ("" if joins[position] else " ") + clean(tokens[position])
        else:
            parts.append(clean(tokens[position]))
    return listing([f"'{part}'" for part in parts])


def spoken(name: str, text: str, detail: int = 1, /, **parts: Number | str) -> Line:
    """A line whose {parts} are numbers, or names that are quoted."""
    fields = [field for _, field, *_ in string.Formatter().parse(text) if field]
    texts = {key: part.text if isinstance(part, Number) else part for key, part in parts.items()}
    return Line(
        name=name,
        text=text.format(**texts),
        numbers=tuple(part for field in fields if isinstance(part := parts[field], Number)),
        names=tuple(part for field in fields if isinstance(part := parts[field], str)),
        detail=detail,
    )

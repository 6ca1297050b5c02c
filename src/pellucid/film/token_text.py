"""Tokens in a text: where each stands, which go on a word, which make up a phrase."""

import re
import unicodedata

from pellucid.common.files import printable
from pellucid.errors import UnknownNameError

_PART = re.compile(r" (\d+)/(\d+)$")
"""Which piece of a letter a token is, after its name."""


def spans(text: str, tokens: tuple[str, ...]) -> list[tuple[int, int] | None]:
    """Where in its text each token stands; None for a mark that does not stand there."""
    ranges: list[tuple[int, int] | None] = []
    folded, at, is_lost = text.casefold(), 0, False
    if len(folded) != len(text):  # 'ß' becomes two letters, and places would be wrong
        folded = text
    for token in tokens:
        name = _PART.sub("", token.removeprefix("##")).strip("▁")
        start = folded.find(name.casefold(), at) if name else -1
        # Between two tokens there is white space alone, or what a token before was not found in.
        if start < 0 or (text[at:start].strip() and not is_lost):
            ranges.append(None)
            is_lost = True
            continue
        end = start + len(name)
        # The pieces of a letter all stand where that letter does.
        at = start if (part := _PART.search(token)) and part[1] != part[2] else end
        is_lost = False
        ranges.append((start, end))
    return ranges


def glued(text: str, tokens: tuple[str, ...]) -> tuple[bool, ...]:
    """Whether each token goes on where the one before ends, as a piece of a word does."""
    if any(token.startswith("▁") for token in tokens):
        return tuple(
            bool(place) and not token.startswith("▁") and token[0] not in "<["
            for place, token in enumerate(tokens)
        )
    ranges = spans(text, tokens)
    return tuple(
        index > 0
        and span is not None
        and ranges[index - 1] is not None
        and span[0] in ranges[index - 1]  # type: ignore[operator]
        for index, span in enumerate(ranges)
    )


def positions_of(words: str, text: str, tokens: tuple[str, ...]) -> tuple[int, ...]:
    """The tokens that make up some words, where they first stand in the text.

    Raises:
        UnknownNameError: they are not in it.
    """
    known = spans(text, tokens)
    match = re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", text, re.IGNORECASE)
    positions = tuple(
        number
        for number, place in enumerate(known)
        if match and place and place[0] < match.end() and match.start() < place[1]
    )
    positions = positions or tuple(
        number for number, token in enumerate(tokens) if token.casefold() == words.casefold()
    )
    if not positions:
        raise UnknownNameError(
            f"'{printable(words)}' is not in the sentence; its tokens: {', '.join(tokens)}"
        )
    return positions


def clean(token: str) -> str:
    """A token as it is shown: the signs with which a vocabulary joins pieces are left away."""
    return printable(token).removeprefix("##").strip("▁ ") or token


def is_word(token: str) -> bool:
    """Whether it is no mark of the model's own, and no punctuation."""
    return any(letter.isalnum() for letter in token) and token[0] not in "<["


def runs_left(text: str) -> bool:
    """Whether a text runs from right to left, as its first letter with a direction says (Unicode
    Standard Annex 9, rules P2 and P3).
    """
    kinds = (unicodedata.bidirectional(letter) for letter in text)
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"

"""Tokens in a text: where each stands, which go on a word, which make up a phrase."""

import re

from pellucid.common.files import printable
from pellucid.errors import UnknownNameError


def spans(text: str, tokens: tuple[str, ...]) -> list[tuple[int, int] | None]:
    """Where in its text each token stands; None for a mark that does not stand there."""
    found: list[tuple[int, int] | None] = []
    folded, at = text.casefold(), 0
    if len(folded) != len(text):  # 'ß' becomes two letters, and places would be wrong
        folded = text
    for token in tokens:
        name = token.removeprefix("##").strip("▁")
        place = folded.find(name.casefold(), at) if name else -1
        # Between two tokens there is at most white space: anything else is another place.
        if place < 0 or text[at:place].strip():
            found.append(None)
            continue
        at = place + len(name)
        found.append((place, at))
    return found


def glued(text: str, tokens: tuple[str, ...]) -> tuple[bool, ...]:
    """Whether each token goes on where the one before ends, as a piece of a word does."""
    if any(token.startswith("▁") for token in tokens):
        return tuple(
            bool(place) and not token.startswith("▁") and token[0] not in "<["
            for place, token in enumerate(tokens)
        )
    places = spans(text, tokens)
    return tuple(
        number > 0
        and place is not None
        and places[number - 1] is not None
        and places[number - 1][1] == place[0]  # type: ignore[index]
        for number, place in enumerate(places)
    )


def places_of(words: str, text: str, tokens: tuple[str, ...]) -> tuple[int, ...]:
    """The tokens that make up some words, where they first stand in the text.

    Raises:
        UnknownNameError: they are not in it.
    """
    known = spans(text, tokens)
    match = re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", text, re.IGNORECASE)
    found = tuple(
        number
        for number, place in enumerate(known)
        if match and place and place[0] < match.end() and match.start() < place[1]
    )
    found = found or tuple(
        number for number, token in enumerate(tokens) if token.casefold() == words.casefold()
    )
    if not found:
        raise UnknownNameError(
            f"'{printable(words)}' is not in the sentence; its tokens: {', '.join(tokens)}"
        )
    return found


def clean(token: str) -> str:
    """A token as it is shown: the signs with which a vocabulary joins pieces are left away."""
    return printable(token).removeprefix("##").strip("▁ ") or token


def is_word(token: str) -> bool:
    """Whether it is no mark of the model's own, and no punctuation."""
    return any(letter.isalnum() for letter in token) and token[0] not in "<["

"""Text that comes a token at a time: what is given out once never changes.

A letter may be made of several tokens, and what a token reads like may depend on the one before it.
"""

from collections.abc import Sequence

from pellucid.text.tokenizer import Tokenizer

CONTEXT = 8
"""Tokens before the new ones that are read with them, at the start."""
_BROKEN = "\ufffd"


class Unfolding:
    """Pieces of text from the ids of tokens.

    Put together, the pieces are what all tokens read like after those that came before; none ends
    inside a letter, nor with what may be the beginning of a stop string.
    """

    def __init__(
        self, tokenizer: Tokenizer, before: Sequence[int] = (), stop: Sequence[str] = ()
    ) -> None:
        """Begin.

        Args:
            tokenizer: of the ids.
            before: tokens that the new ones go on from.
            stop: strings, none empty, the first of which ends the text; it is no part of it.
        """
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids = list(before[-CONTEXT:])
        self._read = len(self._ids)
        """How many of the ids have been given out, or held back as text."""
        self._held = ""
        """Text that may be the beginning of a stop string."""
        self.is_stopped = False
        """Whether a stop string has come."""

    def add(self, number: int) -> str:
        """What one more token adds; nothing where that is not certain yet."""
        self._ids.append(number)
        new = self._new()
        if not new or new.endswith(_BROKEN):  # part of a letter, of which the rest may come
            return ""
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return self._unstopped(new)

    def end(self) -> str:
        """What is left when no token comes any more."""
        if self.is_stopped:
            return ""
        found = self._unstopped(self._new())
        rest, self._held = self._held, ""
        return found + rest

    def _new(self) -> str:
        """What the ids read like that have not been given out."""
        known = self._tokenizer.decode(self._ids[: self._read])
        whole = self._tokenizer.decode(self._ids)
        if whole.startswith(known):
            return whole[len(known) :]
        # Bytes that are no letter spoil the letters before them, with SentencePiece.
        return self._tokenizer.decode(self._ids[self._read :])

    def _unstopped(self, new: str) -> str:
        text = self._held + new
        places = [place for place in map(text.find, self._stop) if place >= 0]
        if places:
            self.is_stopped, self._held = True, ""
            return text[: min(places)]
        held = max((_overlap(text, one) for one in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many of the last letters may be the first of a stop string."""
    most = min(len(text), len(stop) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(stop[:count])), 0)

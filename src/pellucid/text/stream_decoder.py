"""Incremental detokenization: text from tokens, one at a time, without later corrections.

A character may span several tokens, and the text of a token may depend on the token before it.
"""

from collections.abc import Sequence

from pellucid.text.tokenizer import Tokenizer

CONTEXT = 8
"""Earlier tokens that are decoded with the first new ones."""
_BROKEN = "\ufffd"


class Unfolding:
    """Turns token ids into pieces of text.

    Joined, the pieces are the text of all tokens in context. No piece ends inside a character, or
    with a possible beginning of a stop string.
    """

    def __init__(
        self, tokenizer: Tokenizer, before: Sequence[int] = (), stop: Sequence[str] = ()
    ) -> None:
        """Begin after some tokens.

        Args:
            tokenizer: of the ids.
            before: the tokens before the new ones.
            stop: non-empty strings; the text ends before the first of them.
        """
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids = list(before[-CONTEXT:])
        self._read = len(self._ids)
        """How many of the ids have been decoded."""
        self._held = ""
        """Text held back because a stop string may begin with it."""
        self.is_stopped = False
        """Whether a stop string has been found."""

    def add(self, number: int) -> str:
        """The text that one more token adds; empty if it is not certain yet."""
        self._ids = [*self._ids, number]  # a copy of this object has its own
        new = self._new()
        if not new or new.endswith(_BROKEN):  # part of a character
            return ""
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return self._unstopped(new)

    def end(self) -> str:
        """The remaining text, after the last token."""
        if self.is_stopped:
            return ""
        text = self._unstopped(self._new())
        held, self._held = self._held, ""
        return text + held

    def _new(self) -> str:
        """The text of the ids that have not been decoded yet."""
        known = self._tokenizer.decode(self._ids[: self._read])
        whole = self._tokenizer.decode(self._ids)
        if whole.startswith(known):
            return whole[len(known) :]
        # In SentencePiece, invalid bytes change the characters before them.
        return self._tokenizer.decode(self._ids[self._read :])

    def _unstopped(self, new: str) -> str:
        text = self._held + new
        positions = [position for position in map(text.find, self._stop) if position >= 0]
        if positions:
            self.is_stopped, self._held = True, ""
            return text[: min(positions)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text may begin the stop string."""
    most = min(len(text), len(stop) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(stop[:count])), 0)

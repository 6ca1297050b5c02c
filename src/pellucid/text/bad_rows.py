"""Rows that cannot be read, where the rest of their file is read all the same.

A file that is read for its own sake must be whole: its first bad row is an error. In a corpus of
many files a bad row is set aside, and reading goes on with the next.
"""

from dataclasses import dataclass, field

from pellucid.common.files import reason_of
from pellucid.common.wording import short
from pellucid.errors import FileError, PellucidError
from pellucid.text.encodings import guessed, readable, unescaped, word_at

_SHOWN = 1000
"""Characters of a bad row that are kept."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row or a text that was set aside."""

    line: int
    """Where it begins, from 1."""
    text: str
    """How it begins, as far as it is text; "" if that is unknown."""
    reason: str


@dataclass(slots=True)
class BadRows:
    """The bad rows of a file, as they are met."""

    rows: list[BadRow] = field(default_factory=list)
    _guesses: list[str | None] = field(default_factory=list)
    """The encoding of the first wrong byte's text, as far as it can be told."""

    def add(self, line: int, text: str, error: PellucidError) -> None:
        """Set a row aside."""
        self.rows.append(BadRow(line, short(readable(text).strip(), _SHOWN), reason_of(error)))

    def taken(self, last: int | None) -> list[BadRow]:
        """The rows up to a line, or all, which are then forgotten here."""
        taken = [row for row in self.rows if last is None or row.line <= last]
        self.rows = [row for row in self.rows if last is not None and row.line > last]
        return taken

    def wrong_bytes(
        self, text: str, what: str, source: str, encoding: str | None
    ) -> FileError | None:
        """The error for a text with bytes that a `Decoder` escaped; None if it has none.

        Args:
            text: of a cell or a line.
            what: it is, and where, for the message.
            source: the file's name.
            encoding: that was asked for, if any.
        """
        escaped = unescaped(text)
        if escaped is None:
            return None
        data, start = escaped
        reason = (
            f"{what} of '{source}' is not {encoding or 'UTF-8'} text: it has the byte "
            f"0x{data[start]:02x}"
        )
        if encoding is None and not self._guesses:
            self._guesses.append(guessed(data))
        guess = next(iter(self._guesses), None)
        if guess is None:
            return FileError(reason)
        word = word_at(data, start, guess)
        return FileError(f"{reason}; if that is “{word}”, the file is read with --encoding {guess}")

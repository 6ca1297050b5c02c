"""Text files of any size, streamed a piece or a row at a time."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pellucid.common.files import is_blank
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, FileError
from pellucid.text.table_reading import Choose, has_columns, named, numbered, table
from pellucid.text.utf8_files import kind, name_of, nothing_in, text_blocks

PIECE = 2**17
"""Characters of a long document read at once: few, so that all cores share the work."""


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    begins: bool
    """Whether a document begins here."""


@dataclass(slots=True)
class Tally:
    """Counts of what was left out."""

    blank: int = 0
    """Blank documents and rows."""
    too_long: int = 0
    """Rows with a text of too many tokens."""
    held_out: int = 0
    """Training texts that are equal to a held-out one."""


def documents(
    files: Sequence[Path], column: str | int | None = None, tally: Tally | None = None
) -> Iterator[Piece]:
    r"""Stream the documents of files, in order.

    A file without columns is one document. It is divided after lines or before spaces, if there
    are any near; line ends become "\n".

    Args:
        files: to read.
        column: of the text, in files with columns: a name, or a number from 1 for files without a
            header. By default "text", "sentence" or the only column.
        tally: counts blank documents.

    Raises:
        FileError: a file cannot be read, is not UTF-8, is of another format than its name says, or
            is empty.
        ArgumentError: there is no such column.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    tally = Tally() if tally is None else tally
    for path in files:
        is_table = has_columns(path) or column is not None
        blank = tally.blank
        pieces = _rows_of_text(path, column, tally) if is_table else _plain_text(path)
        first = next(pieces, None)
        if first is None:
            raise _no_text(path, tally.blank - blank)
        yield first
        yield from pieces


def _no_text(path: Path, blank: int) -> FileError:
    """The error for a file without text, given its number of blank rows."""
    if blank:
        return FileError(f"'{name_of(path)}' has no text: {count(blank, 'row')}, all blank")
    if has_columns(path):
        return FileError(f"'{name_of(path)}' has a header but no rows")
    return nothing_in(path)


def _choose(path: Path, columns: Sequence[str | int | None]) -> Choose:
    """Choose columns by name or by number."""
    numbers = [column for column in columns if isinstance(column, int)]
    if numbers and kind(path) == ".jsonl":
        raise ArgumentError(f"the fields of '{name_of(path)}' have names, not numbers")
    names = [column for column in columns if not isinstance(column, int)]
    return numbered(path, *numbers) if numbers else named(path, *names)


def _rows_of_text(path: Path, column: str | int | None, tally: Tally) -> Iterator[Piece]:
    headed = not isinstance(column, int)
    for _, (text,) in table(path, _choose(path, [column]), headed=headed):
        if text is None or is_blank(text):
            tally.blank += 1
        else:
            begins = True
            while text:  # a long text is divided, too
                place = cut(text, PIECE) if len(text) > PIECE else len(text)
                yield Piece(text[:place], begins)
                text, begins = text[place:], False


def _plain_text(path: Path) -> Iterator[Piece]:
    begins = True
    for text in _parts(path):
        if not begins or not is_blank(text):
            yield Piece(text, begins)
            begins = False


def _parts(path: Path) -> Iterator[str]:
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    waiting = ""
    for block in chain(text_blocks(path), [""]):
        waiting += newlines.decode(block, final=not block)
        while len(waiting) > PIECE:
            place = cut(waiting, PIECE)
            yield waiting[:place]
            waiting = waiting[place:]
    if waiting:
        yield waiting


def cut(text: str, most: int) -> int:
    """Where to divide a text, at most `most` characters from its start: after a line or before a
    space, if there is one near.
    """
    least = most - most // 16
    line = text.rfind("\n", least, most)
    if line >= 0:
        return line + 1
    space = text.rfind(" ", least, most)
    return space if space > 0 else most


def rows(
    files: Sequence[Path],
    columns: Sequence[str | int],
    *,
    labelled: bool = False,
    tally: Tally | None = None,
) -> Iterator[tuple[str, ...]]:
    """Stream the rows of files, without those that have a blank text.

    Args:
        files: with columns. If columns are numbers, files of unknown types are tab-separated.
        columns: names in the header, or numbers from 1 for files without a header.
        labelled: whether the last column has labels, which no row with a text may lack.
        tally: counts blank rows.

    Raises:
        FileError: a file cannot be read, is not UTF-8, is of another format than its name says, or
            has no rows; or a label is missing.
        ArgumentError: there is no such column, or names and numbers are mixed.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    names = [column for column in columns if isinstance(column, str)]
    numbers = [column for column in columns if isinstance(column, int)]
    if names and numbers:
        raise ArgumentError(
            f"columns must be all names or all numbers, not '{names[0]}' and {numbers[0]}"
        )
    label = names[-1] if names else f"label in column {numbers[-1]}"
    tally = Tally() if tally is None else tally
    for path in files:
        before, is_empty = tally.blank, True
        for line, cells in table(path, _choose(path, columns), headed=bool(names)):
            blanks = [cell is None or is_blank(cell) for cell in cells]
            if labelled and blanks[-1] and not any(blanks[:-1]):
                raise FileError(f"'{name_of(path)}' has no {label} in line {line}")
            if any(blanks):
                tally.blank += 1
                continue
            is_empty = False
            values = [str(cell) for cell in cells]
            yield (*values[:-1], values[-1].strip()) if labelled else tuple(values)
        if is_empty:
            raise _no_text(path, tally.blank - before)

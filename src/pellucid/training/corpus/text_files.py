"""Files of text, of any size and perhaps packed, a piece or a row at a time."""

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
"""Characters of a long document that are read at once: small, so that all cores have some."""


class Piece(NamedTuple):
    """A document, or as much of a long one as is read at once."""

    text: str
    begins: bool
    """Whether a new document begins here."""


@dataclass(slots=True)
class Tally:
    """What was left out while files were read."""

    blank: int = 0
    """Documents and rows with nothing to see in them."""
    too_long: int = 0
    """Rows with a text of more tokens than there may be."""


def documents(
    files: Sequence[Path], column: str | int | None = None, tally: Tally | None = None
) -> Iterator[Piece]:
    r"""Documents of files in their order, as they are asked for.

    A file without columns is one document. It comes in pieces that end where a line does or before
    a space, if there is one near; its line ends become "\n".

    Args:
        files: to read.
        column: of the text, in files that have columns; "text" or "sentence", or the only one
            there is, unless given; or a number from 1, of files that have no header.
        tally: counts what is left out.

    Raises:
        FileError: a file cannot be read, is not UTF-8 or not what its name says, or is empty.
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
    """To raise of a file that is there, and has no text in so many rows."""
    if blank:
        return FileError(f"'{name_of(path)}' has no text: {count(blank, 'row')}, and all are blank")
    if has_columns(path):
        return FileError(f"'{name_of(path)}' has a header and no rows: there is nothing to read")
    return nothing_in(path)


def _choose(path: Path, columns: Sequence[str | int | None]) -> Choose:
    """Columns by their names or by their numbers."""
    numbers = [one for one in columns if isinstance(one, int)]
    if numbers and kind(path) == ".jsonl":
        raise ArgumentError(f"the fields of '{name_of(path)}' have names, and no numbers")
    names = [one for one in columns if not isinstance(one, int)]
    return numbered(path, *numbers) if numbers else named(path, *names)


def _rows_of_text(path: Path, column: str | int | None, tally: Tally) -> Iterator[Piece]:
    headed = not isinstance(column, int)
    for _, (text,) in table(path, _choose(path, [column]), headed=headed):
        if text is None or is_blank(text):
            tally.blank += 1
        else:
            begins = True
            while text:  # a long one in pieces too
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
    """Where to cut a text, at most `most` characters from its start: after a line or before a
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
    """What files have in some columns, row by row; those with a blank text are left out.

    Args:
        files: with columns. Where these have numbers, one without an ending that says so may have
            its fields between tabs.
        columns: names that the header has, or numbers from 1 of files that have no header.
        labelled: the last column holds labels, and a row with a text must have one.
        tally: counts what is left out.

    Raises:
        FileError: a file cannot be read, is not UTF-8 or not what its name says, or has no rows;
            or a label is missing.
        ArgumentError: there is no such column, or some have names and others numbers.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    names = [one for one in columns if isinstance(one, str)]
    numbers = [one for one in columns if isinstance(one, int)]
    if names and numbers:
        raise ArgumentError(
            f"columns are all names or all numbers, not '{names[0]}' and {numbers[0]}"
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
            found = [str(cell) for cell in cells]
            yield (*found[:-1], found[-1].strip()) if labelled else tuple(found)
        if is_empty:
            raise _no_text(path, tally.blank - before)

"""Text files of any size, streamed a piece or a row at a time."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from pellucid.common.files import is_blank
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, FileError
from pellucid.text.columns import chosen
from pellucid.text.noticed import Noticed
from pellucid.text.table_reading import PLAIN, Reading, Row, has_columns, table
from pellucid.text.text_inputs import no_label
from pellucid.text.utf8_files import name_of, nothing_in, text_blocks, text_lines

PARALLEL = ("source", "target")
"""The columns of pairs that may also be the lines of two files."""
PIECE = 2**17
"""Characters of a long document read at once: few, so that all cores share the work."""


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    begins: bool
    """Whether a document begins here."""


@dataclass(slots=True)
class Tally:
    """Counts of what was left out, and notes on what was read."""

    blank: int = 0
    """Blank documents and rows."""
    too_long: int = 0
    """Rows with a text of too many tokens."""
    held_out: int = 0
    """Training texts that are equal to a held-out one."""
    notes: list[str] = field(default_factory=list)
    """What was noticed in the files read so far and may not be meant, a line each."""


def documents(
    files: Sequence[Path],
    column: str | int | None = None,
    tally: Tally | None = None,
    reading: Reading = PLAIN,
) -> Iterator[Piece]:
    r"""Stream the documents of files, in order.

    A file without columns is one document. It is divided after lines or before spaces, if there
    are any near; line ends become "\n".

    Args:
        files: to read.
        column: of the text, in files with columns: a name, or a number from 1 for files without a
            header. By default "text", "sentence" or the only column.
        tally: counts blank documents.
        reading: how the files are written.

    Raises:
        FileError: a file cannot be read, has another encoding, is of another format than its name
            says, or is empty.
        ArgumentError: there is no such column.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    tally = Tally() if tally is None else tally
    noticed = Noticed()
    for path in files:
        is_table = has_columns(path, reading) or column is not None
        blank = tally.blank
        pieces = (
            _rows_of_text(path, column, tally, reading, noticed)
            if is_table
            else _plain_text(path, reading, noticed)
        )
        first = next(pieces, None)
        if first is None:
            raise _no_text(path, tally.blank - blank)
        yield first
        yield from pieces
        tally.notes = noticed.notes()


def _no_text(path: Path, blank: int) -> FileError:
    """The error for a file without text, given its number of blank rows."""
    if blank:
        return FileError(f"'{name_of(path)}' has no text: {count(blank, 'row')}, all blank")
    if has_columns(path):
        return FileError(f"'{name_of(path)}' has a header but no rows")
    return nothing_in(path)


def _rows_of_text(
    path: Path, column: str | int | None, tally: Tally, reading: Reading, noticed: Noticed
) -> Iterator[Piece]:
    choose, headed = chosen(path, [column])
    for line, (text,) in table(path, choose, headed=headed, reading=reading, noticed=noticed):
        if text is None or is_blank(text):
            tally.blank += 1
        else:
            noticed.look(text, name_of(path), line)
            begins = True
            while text:  # a long text is divided, too
                place = cut(text, PIECE) if len(text) > PIECE else len(text)
                yield Piece(text[:place], begins)
                text, begins = text[place:], False


def _plain_text(path: Path, reading: Reading, noticed: Noticed) -> Iterator[Piece]:
    begins = True
    for text in _parts(path, reading):
        if not begins or not is_blank(text):
            if begins:
                noticed.look(text.splitlines()[0], name_of(path), 1, is_line=True)
            yield Piece(text, begins)
            begins = False


def _parts(path: Path, reading: Reading) -> Iterator[str]:
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    waiting = ""
    for block in chain(text_blocks(path, reading.encoding), [""]):
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
    may_lack: bool = False,
    tally: Tally | None = None,
    reading: Reading = PLAIN,
) -> Iterator[tuple[str, ...]]:
    """Stream the rows of files, without those that have a blank text.

    Args:
        files: with columns; or, for the columns `PARALLEL`, a file of source lines before each file
            of as many target lines. If columns are numbers, files of unknown types are separated by
            tabs.
        columns: names in the header, or numbers from 1 for files without a header.
        labelled: whether the last column has labels, which no row with a text may lack,
        may_lack: unless a text may have several, and so none.
        tally: counts blank rows.
        reading: how the files are written.

    Raises:
        FileError: a file cannot be read, has another encoding, is of another format than its name
            says, or has no rows; a label is missing; or parallel files differ in their lines.
        ArgumentError: there is no such column, or names and numbers are mixed.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    last = columns[-1]
    label = last if isinstance(last, str) else f"label in column {last}"
    tally = Tally() if tally is None else tally
    noticed = Noticed()
    waiting = iter(files)
    for path in waiting:
        before, is_empty = tally.blank, True
        if tuple(columns) == PARALLEL and not has_columns(path, reading):
            read = _parallel(path, next(waiting, None), reading)
        else:
            choose, headed = chosen(path, columns)
            read = table(
                path,
                choose,
                headed=headed,
                reading=reading,
                noticed=noticed,
                labels=int(labelled),
            )
        for line, cells in read:
            blanks = [cell is None or is_blank(cell) for cell in cells]
            if labelled and blanks[-1] and not any(blanks[:-1]):
                if not may_lack:
                    raise no_label(path, label, line)
                cells, blanks = [*cells[:-1], ""], blanks[:-1]
            if any(blanks):
                tally.blank += 1
                continue
            is_empty = False
            values = [str(cell) for cell in cells]
            for text in values[: len(values) - labelled]:
                noticed.look(text, name_of(path), line)
            yield (*values[:-1], values[-1].strip()) if labelled else tuple(values)
        if is_empty:
            raise _no_text(path, tally.blank - before)
        tally.notes = noticed.notes()


def _parallel(path: Path, target: Path | None, reading: Reading) -> Iterator[Row]:
    """The lines of two files, which translate each other."""
    if target is None or has_columns(target, reading):
        other = "there is none" if target is None else f"'{name_of(target)}' has columns"
        raise ArgumentError(
            f"'{name_of(path)}' has one text per line and no columns; the file after it must hold "
            f"its translations, line by line, but {other}"
        )
    read = [text_lines(file, reading.encoding) for file in (path, target)]
    for source, translation in zip_longest(*read):
        if source is None or translation is None:
            shorter, longer = (path, target) if source is None else (target, path)
            line = (source or translation)[0]
            raise FileError(
                f"'{name_of(shorter)}' ends before line {line} of '{name_of(longer)}'; in parallel "
                "files each line translates the same line of the other"
            )
        yield source[0], [source[1], translation[1]]

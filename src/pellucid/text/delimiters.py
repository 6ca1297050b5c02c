"""What separates the fields of a table in text: given, declared by Excel, or what fits.

Python's csv reads the rows, because Arrow's reader and pandas', which are faster, do not say in
which line a row begins or what is wrong with it, and because a table of texts then needs no
pyarrow. Its Sniffer is not used: it takes letters for delimiters, and says nothing of its doubts.
"""

import csv
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pellucid.common import untrusted
from pellucid.common.files import printable
from pellucid.common.wording import count, listing, short
from pellucid.errors import ArgumentError, FileError
from pellucid.text.bad_rows import BadRows

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
"""The delimiters that are found without being given, and what they are called."""
SAMPLE_LINES, SAMPLE_CHARACTERS = 200, 2**17
"""How much of a table tells its delimiter."""
_ODD = "^~:\x01\x1e\x1f§¦"
"""Delimiters of some tables that nobody can be sure of."""
_MOST_REPEATED = 2**26
"""Characters that are read again at most, after rows that are no CSV."""
_EXCEL = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a table are written."""

    delimiter: str
    quoted: bool = True
    """Whether double quotes surround some fields, as in CSV."""
    skipped: int = 0
    """Lines before the first row."""


def parsed(name: str) -> str:
    """The character of --delimiter, which may be named.

    Raises:
        ArgumentError: it is neither one character nor the name of one.
    """
    named = {word: mark for mark, word in NAMES.items()} | {"\\t": "\t"}
    mark = named.get(name.lower(), name)
    if len(mark) != 1 or mark in '"\r\n\0' or mark.isalnum():
        raise ArgumentError(
            f"--delimiter must be {listing(list(NAMES.values()))} or another single character, "
            f"not '{short(printable(name), 40)}'".replace(" and ", ", ", 1)
        )
    return mark


def layout(lines: Sequence[str], source: str, *, given: str | None, ending: str) -> Layout:
    """How a table is written whose first lines these are.

    Args:
        lines: with their ends.
        source: the name of the file, for errors.
        given: the delimiter, if the user gives it; then quotes are those of CSV.
        ending: of the file's name; in .tsv nothing is quoted, unless the whole header is.

    Raises:
        ArgumentError: more than one delimiter fits, or the header looks like several columns
            that are separated otherwise.
    """
    excel = _EXCEL.fullmatch(lines[0]) if lines and ending != ".tsv" else None
    skipped = int(excel is not None)
    lines = lines[skipped:]
    if given is None and excel is not None:
        given = excel[1]
    if given is None and ending != ".tsv":
        given = _fitting(lines, source)
    chosen = Layout(given or "\t", given is not None or _is_quoted(lines), skipped)
    _check_header(lines, chosen, source)
    return chosen


def _is_quoted(lines: Sequence[str]) -> bool:
    """Whether every name in a header of tabs is in quotes, which no name has of itself."""
    header = next((line.rstrip("\r\n") for line in lines if line.strip()), "")
    return all(re.fullmatch(r'"[^"]*"', name) for name in header.split("\t"))


def _fitting(lines: Sequence[str], source: str) -> str:
    widths = {mark: _widths(lines, Layout(mark)) for mark in NAMES}
    even = [mark for mark, rows in widths.items() if rows and rows[0] > 1 and len(set(rows)) == 1]
    if len(even) > 1:
        marks = listing([f"{NAMES[mark]}s" for mark in even]).replace(" and ", " or ")
        raise ArgumentError(
            f"the fields of '{source}' may be separated by {marks}; say which, as in "
            f"--delimiter {NAMES[even[0]]}"
        )
    if even:
        return even[0]
    # The row that differs is an error of its own, which names its line.
    headers = [mark for mark, rows in widths.items() if rows and rows[0] > 1]
    return max(headers, key=lambda mark: _agreement(widths[mark]), default=",")


def _agreement(rows: Sequence[int]) -> float:
    return sum(row == rows[0] for row in rows) / len(rows)


def _widths(lines: Sequence[str], made: Layout) -> list[int]:
    """The number of fields of each row, up to one that is not valid or not complete."""
    return [len(row) for _, row in _until_error(lines, made)]


def _until_error(lines: Sequence[str], made: Layout) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from rows(lines, made, "")
    except FileError:
        return


def _check_header(lines: Sequence[str], made: Layout, source: str) -> None:
    """Refuse a header of one column that looks like several."""
    _, header = next(_until_error(lines, made), (0, []))
    if len(header) != 1:
        return
    for mark in (*NAMES, *_ODD):
        if mark == made.delimiter or mark not in header[0]:
            continue
        widths = _widths(lines, Layout(mark, made.quoted))
        if len(widths) > 1 and widths[0] > 1 and len(set(widths)) == 1:
            name = NAMES.get(mark, f"'{printable(mark)}'")
            raise ArgumentError(
                f"the header of '{source}', “{short(printable(header[0]), 60)}”, is one column, "
                f"but looks like {widths[0]} separated by {name}: --delimiter {name}"
            )


class _Lines:
    """Lines, of which those of a row can be read again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self.row: list[str] = []
        """The lines that were read since this was emptied."""
        self.repeated = 0
        """How many characters were read again."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.row.append(line)
        return line

    def go_back(self) -> str:
        """Read all lines of the row again but the first, which is returned."""
        first, *others = self.row
        self._again.extendleft(reversed(others))
        self.repeated += sum(map(len, others))
        self.row = [first]
        return first


def rows(
    lines: Iterable[str], made: Layout, source: str, aside: BadRows | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line in which it begins, from 1; empty lines are skipped.

    Args:
        lines: all lines of the file, with their ends.
        made: how they are written.
        source: the name of the file, for errors.
        aside: takes the lines in which a bad row begins, which is an error without it.

    Raises:
        FileError: a quoted field does not end, or is followed by something else than a delimiter.
    """
    again = None if aside is None else _Lines(lines)
    lines = lines if again is None else again
    if made.quoted:
        reader = csv.reader(lines, delimiter=made.delimiter, strict=True)
    else:
        reader = csv.reader(lines, delimiter=made.delimiter, quoting=csv.QUOTE_NONE, strict=True)
    row: list[str] | None = []
    behind = 0  # lines that the reader has read twice
    while row is not None:
        line = reader.line_num - behind + 1
        if again is not None:
            again.row = []
        limit = csv.field_size_limit(sys.maxsize)  # it applies to all readers, so for this row only
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = "a quoted field does not end" if "end of data" in str(error) else error
            fault = FileError(f"'{source}' is not valid CSV from line {line} on: {reason}")
            if aside is None or again is None or again.repeated > _MOST_REPEATED:
                raise fault from error
            behind += len(again.row) - 1
            aside.add(line, again.go_back(), fault)
            row = []
            continue
        finally:
            csv.field_size_limit(limit)
        if row and sum(map(len, row)) > untrusted.MOST_LINE:  # a quoted field of many lines
            most = f"{untrusted.MOST_LINE:,} characters"
            raise FileError(f"the row in line {line} of '{source}' has more than {most}")
        if row and line > made.skipped:
            yield line, row


def swallowed(row: Sequence[str], made: Layout) -> bool:
    """Whether a row holds lines that look like rows, as where a stray quote begins a field.

    Every line is like a row of one column.
    """
    if not any("\n" in field or "\r" in field for field in row):
        return False
    inner = [line for field in row for line in field.splitlines()[1:] if line.strip()]
    # In prose a space follows a comma; in some tables, too.
    between = [re.escape(made.delimiter)]
    if len(row) > 1:
        between.append(re.escape(made.delimiter) + "(?! )")
    if len(row) == 2 and not row[1].startswith(" "):
        between.pop(0)

    def is_row(line: str) -> bool:
        return any(len(re.findall(pattern, line)) == len(row) - 1 for pattern in between)

    alike = sum(map(is_row, inner))
    return bool(inner) and (2 * alike >= len(inner) or (len(row) == 1 and len(inner) > 100))


def uneven(
    line: int,
    fields: int,
    first: Sequence[str],
    made: Layout,
    source: str,
    *,
    headed: bool,
    opened: int | None = None,
) -> FileError:
    """The error for a row with another number of fields than the first; `opened` is a line before
    it with a quote that may begin a field, in a table without quotes.
    """
    width = len(first)
    mark = NAMES.get(made.delimiter, f"'{printable(made.delimiter)}'")
    advice = f"; a field that holds a {mark} goes in double quotes" if made.quoted else ""
    if width == 1 and made.quoted:
        advice += ", or name the file .txt if each line is a text"
    if opened is not None:
        advice += (
            f"; if the quote in line {opened} begins a field of several lines: --delimiter tab"
        )
    if first[0].startswith("#"):
        advice += "; if the first line is a comment, remove it"
    return FileError(
        f"line {line} of '{source}' has {count(fields, 'field')}, but its "
        f"{'header' if headed else 'first line'} has {width}{advice}"
    )

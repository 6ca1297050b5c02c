"""Columns read from tables, row by row, as they are asked for.

    .csv          commas, semicolons, tabs or pipes (`pellucid.text.delimiters`)
    .tsv, .tab    tabs, and no quotes
    .json, .jsonl, .ndjson    fields of objects (`pellucid.text.json_reading`)
    .parquet      columns (`pellucid.text.parquet_reading`)

All but Parquet may be packed (`pellucid.text.utf8_files`).
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.errors import ArgumentError, FileError
from pellucid.text import delimiters, json_reading, parquet_reading
from pellucid.text.bad_rows import BadRows
from pellucid.text.columns import JSON, Choose, names_in, shown_name
from pellucid.text.delimited_reading import Table
from pellucid.text.encodings import check_encoding
from pellucid.text.noticed import Noticed
from pellucid.text.utf8_files import STDIN, kind, name_of, opened, text_blocks, text_lines, too_long

DELIMITED = (".csv", ".tsv", ".tab")
_TABLES = (*DELIMITED, *JSON, ".parquet")

Row = tuple[int, list[str | None]]
"""The line in which a row begins (its number, in Parquet), from 1, and its cells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How files are written, where they do not say it themselves.

    Raises:
        ArgumentError: a value is not allowed.
    """

    delimiter: str | None = None
    """Separates the fields of a table in text, and makes one of a file of any name: a character, or
    "comma", "semicolon", "tab" or "pipe". By default what fits all rows at the start."""
    encoding: str | None = None
    """Of text without a byte order mark; UTF-8 by default."""

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", delimiters.parsed(self.delimiter))
        if self.encoding is not None:
            check_encoding(self.encoding)


PLAIN = Reading()
"""Files that say themselves how they are written."""


def has_columns(path: Path, reading: Reading = PLAIN) -> bool:
    """Whether a file has columns, by its name or because a delimiter is given."""
    return kind(path) in _TABLES or reading.delimiter is not None


def table(
    path: Path,
    choose: Choose,
    *,
    headed: bool = True,
    reading: Reading = PLAIN,
    noticed: Noticed | None = None,
    labels: int = 0,
    aside: BadRows | None = None,
) -> Iterator[Row]:
    """Rows of a file.

    Args:
        path: its name says its kind. Standard input is CSV, or JSON if it begins so, unless there
            is no header: then, as in other files, tabs separate the fields.
        choose: which columns, by the header, or by the first row if there is none.
        headed: whether the first row is a header. Fields of JSON and Parquet always have names.
        reading: how it is written.
        noticed: counts what is odd.
        labels: how many of the last columns are labels: in JSON and Parquet these may be numbers
            and lists, too, which become JSON.
        aside: takes the rows that cannot be read, after which reading goes on; without it the
            first of them is an error.

    Raises:
        FileError: it cannot be read or is not of its kind, rows differ in their number of fields,
            or a field is not text.
        ArgumentError: the file has no columns, or its delimiter is unclear; and what `choose`
            raises.
        MissingExtraError: pyarrow is not installed, and the file is Parquet or .zst.
    """
    noticed = Noticed() if noticed is None else noticed
    strings = _Strings(path, labels, reading.encoding, aside)
    ending = kind(path)
    if ending == ".parquet":
        return _parquet(path, choose, strings)
    escapes = aside is not None
    blocks = text_blocks(path, reading.encoding, escapes=escapes)
    if ending in JSON and reading.delimiter is None:
        return _json(path, blocks, choose, noticed, strings)
    if path == STDIN and headed and reading.delimiter is None:
        head = next(blocks, "")
        blocks = chain([head], blocks)
        if head.lstrip().startswith(("{", "[")):
            return _json(path, blocks, choose, noticed, strings)
    reader = Table(path=path, choose=choose, headed=headed, noticed=noticed, aside=aside)
    if ending in DELIMITED or reading.delimiter is not None or (path == STDIN and headed):
        return strings.checked(reader.rows(blocks, reading.delimiter))
    if not headed:
        lines = text_lines(path, reading.encoding, escapes=escapes)
        return strings.checked(reader.tabbed(lines))
    with opened(path):  # if it cannot be read, that is the error
        raise ArgumentError(
            f"'{name_of(path)}' has one text per line and no columns; .csv, .tsv, .json, .jsonl "
            "and .parquet files have columns, and others with --delimiter"
        )


def _json(
    path: Path, blocks: Iterator[str], choose: Choose, noticed: Noticed, strings: "_Strings"
) -> Iterator[Row]:
    wanted = names_in(choose)
    candidates = json_reading.objects(path, blocks, wanted, noticed, strings.aside)
    if not candidates:
        return
    objects, names = _choose_header(choose, candidates, wanted)
    for line, item in objects:
        row = strings.row(line, [json_reading.value_of(item, name) for name in names], names)
        if row is not None:
            yield row


def _choose_header(
    choose: Choose, candidates: Sequence[json_reading.Objects], wanted: Sequence[str | None]
) -> tuple[json_reading.Objects, list[str]]:
    """The objects under the header that has the chosen names, and these names in an object."""
    first: ArgumentError | None = None
    for objects in candidates:
        header = objects.header(wanted)
        try:
            names = [header[place] for place in choose(header)]
        except ArgumentError as error:
            first = first or error
        else:
            return objects, [name.removeprefix(objects.prefix) for name in names]
    assert first is not None
    raise first


def _parquet(path: Path, choose: Choose, strings: "_Strings") -> Iterator[Row]:
    header = parquet_reading.header(path, names_in(choose))
    names = [header[place] for place in choose(header)]
    for line, cells in enumerate(parquet_reading.cells(path, names), 1):
        row = strings.row(line, cells, names)
        if row is not None:
            yield row


@dataclass(frozen=True, slots=True)
class _Strings:
    """Makes texts of cells, of which the last may be labels."""

    path: Path
    labels: int
    encoding: str | None
    aside: BadRows | None

    def row(self, line: int, cells: Sequence[Any], names: Sequence[str]) -> Row | None:
        """The row; None if it is bad and set aside."""
        texts = len(cells) - self.labels
        given = [*cells[:texts], *map(_label, cells[texts:])]
        try:
            strings = [
                self._string(cell, name, line) for cell, name in zip(given, names, strict=True)
            ]
        except FileError as error:
            if self.aside is None:
                raise
            shown = next((cell for cell in given if isinstance(cell, str)), "")
            self.aside.add(line, shown, error)
            return None
        return line, strings

    def checked(self, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
        """Rows of texts, without those that hold invalid bytes."""
        if self.aside is None:
            return ((line, list[str | None](row)) for line, row in rows)
        return self._checked(rows, self.aside)

    def _checked(self, rows: Iterator[tuple[int, list[str]]], aside: BadRows) -> Iterator[Row]:
        for line, row in rows:
            fault = self._wrong_bytes("\t".join(row), f"line {line}", aside)
            if fault is None:
                yield line, list(row)
            else:
                aside.add(line, "\t".join(row), fault)

    def _wrong_bytes(self, text: str, what: str, aside: BadRows) -> FileError | None:
        if text.isascii():
            return None
        return aside.wrong_bytes(text, what, name_of(self.path), self.encoding)

    def _string(self, cell: Any, name: str, line: int) -> str | None:
        """The text of a cell; None if it is empty."""
        if isinstance(cell, int) and not isinstance(cell, bool):  # labels may be numbers
            cell = str(cell)
        if cell is None or _is_nan(cell):  # as pandas has no text
            return None
        if not isinstance(cell, str):
            raise self._fault(name, line, f"is a {type(cell).__name__}, not text")
        if len(cell) > untrusted.MOST_LINE:
            raise too_long(f"{name} in line {line}", self.path, untrusted.MOST_LINE)
        if not cell.isascii() and cell != cell.encode(errors="ignore").decode():
            what = f"{shown_name(name)} in line {line}"
            if self.aside is not None and (fault := self._wrong_bytes(cell, what, self.aside)):
                raise fault
            raise self._fault(name, line, "has an unpaired surrogate")
        return cell

    def _fault(self, name: str, line: int, what: str) -> FileError:
        return FileError(f"{shown_name(name)} in line {line} of '{name_of(self.path)}' {what}")


def _label(cell: Any) -> Any:
    """A label as text: a number, true or false, or a list, as JSON has it; NaN is no label."""
    if isinstance(cell, list | tuple) and all(
        isinstance(element, str | int | float) for element in cell
    ):
        known = [element for element in cell if not _is_nan(element)]
        return json.dumps(
            [element if isinstance(element, str) else json.dumps(element) for element in known]
        )
    if _is_nan(cell):
        return None
    return json.dumps(cell) if isinstance(cell, int | float) else cell


def _is_nan(cell: Any) -> bool:
    return isinstance(cell, float) and math.isnan(cell)

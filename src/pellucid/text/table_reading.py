"""Columns read from tables, row by row, as they are asked for.

    .csv          commas, semicolons, tabs or pipes (`pellucid.text.delimiters`)
    .tsv, .tab    tabs, and no quotes
    .json, .jsonl, .ndjson    fields of objects (`pellucid.text.json_reading`)
    .parquet      columns (`pellucid.text.parquet_reading`)

All but Parquet may be packed (`pellucid.text.utf8_files`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import is_blank
from pellucid.errors import ArgumentError, FileError
from pellucid.text import delimiters, json_reading, parquet_reading
from pellucid.text.columns import JSON, USUAL, Choose, shown_name
from pellucid.text.delimiters import Layout
from pellucid.text.encodings import check_encoding
from pellucid.text.noticed import Noticed
from pellucid.text.utf8_files import (
    STDIN,
    kind,
    lines_of,
    name_of,
    nothing_in,
    opened,
    text_blocks,
    text_lines,
    too_long,
)

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

    Raises:
        FileError: it cannot be read or is not of its kind, rows differ in their number of fields,
            or a field is not text.
        ArgumentError: the file has no columns, or its delimiter is unclear; and what `choose`
            raises.
        MissingExtraError: pyarrow is not installed, and the file is Parquet or .zst.
    """
    noticed = Noticed() if noticed is None else noticed
    ending = kind(path)
    if ending == ".parquet":
        return _parquet(path, choose, labels)
    blocks = text_blocks(path, reading.encoding)
    if ending in JSON and reading.delimiter is None:
        return _json(path, blocks, choose, labels)
    if path == STDIN and headed and reading.delimiter is None:
        head = next(blocks, "")
        blocks = chain([head], blocks)
        if head.lstrip().startswith(("{", "[")):
            return _json(path, blocks, choose, labels)
    if ending in DELIMITED or reading.delimiter is not None or (path == STDIN and headed):
        return _delimited(path, blocks, choose, headed, reading.delimiter, noticed)
    if not headed:
        return _fields(path, choose, headed, _tabbed(path, reading), Layout("\t", quoted=False))
    with opened(path):  # if it cannot be read, that is the error
        raise ArgumentError(
            f"'{name_of(path)}' has one text per line and no columns; .csv, .tsv, .json, .jsonl "
            "and .parquet files have columns, and others with --delimiter"
        )


def _delimited(
    path: Path,
    blocks: Iterator[str],
    choose: Choose,
    headed: bool,
    delimiter: str | None,
    noticed: Noticed,
) -> Iterator[Row]:
    lines = lines_of(blocks, path)
    sample = _sample(lines)
    ending = ".tsv" if kind(path) in (".tsv", ".tab") else ".csv"
    source = name_of(path)
    made = delimiters.layout(sample, source, given=delimiter, ending=ending)
    rows = delimiters.rows(chain(sample, lines), made, source)
    return _fields(path, choose, headed, rows, made, noticed)


def _sample(lines: Iterator[str]) -> list[str]:
    sample: list[str] = []
    characters = 0
    for line in islice(lines, delimiters.SAMPLE_LINES):
        sample.append(line)
        characters += len(line)
        if characters > delimiters.SAMPLE_CHARACTERS:
            break
    return sample


def _fields(
    path: Path,
    choose: Choose,
    headed: bool,
    rows: Iterator[tuple[int, list[str]]],
    made: Layout,
    noticed: Noticed | None = None,
) -> Iterator[Row]:
    source = name_of(path)
    first = next(rows, None)
    if first is None:
        raise nothing_in(path)
    width, places = len(first[1]), choose(first[1])
    if noticed is not None and headed and width == 1 and _is_text(first[1][0]):
        noticed.add("header", source, *first[:1], first[1][0])
    if noticed is not None and not headed and (same := _called(first[1], places)):
        noticed.add("number", source, *first[:1], same)
    for line, row in rows if headed else chain([first], rows):
        if len(row) != width:
            raise delimiters.uneven(line, len(row), width, made, source, headed=headed)
        chosen = [row[place] for place in places]
        if noticed is not None:
            if made.quoted:
                if delimiters.swallowed(row, made):
                    noticed.add("swallowed", source, line, " ".join(row))
            else:
                for cell in chosen:
                    if len(cell) > 1 and cell[0] == cell[-1] == '"':
                        noticed.add("quotes", source, line, cell)
        yield line, list(chosen)


def _called(first: Sequence[str], places: Sequence[int]) -> str:
    """The first row, if it looks like a header with the numbers of the chosen columns as names."""
    numbers = [str(place + 1) for place in places]
    return " ".join(first) if all(number in first for number in numbers) else ""


def _is_text(name: str) -> bool:
    """Whether the name of a column looks like a text."""
    return name not in USUAL and (len(name.split()) > 3 or name.rstrip().endswith((".", "!", "?")))


def _tabbed(path: Path, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    for line, text in text_lines(path, reading.encoding):
        if not is_blank(text):
            yield line, text.split("\t")


def _json(path: Path, blocks: Iterator[str], choose: Choose, labels: int) -> Iterator[Row]:
    (header, *others), items = json_reading.fields(path, blocks)
    names = [header[place] for place in _chosen(choose, header, others)]
    for line, item in items:
        yield (
            line,
            _strings(
                [json_reading.value_of(item, name) for name in names], names, labels, line, path
            ),
        )


def _chosen(choose: Choose, header: list[str], others: list[list[str]]) -> list[int]:
    try:
        return choose(header)
    except ArgumentError:
        for other in others:
            try:
                return choose(other)
            except ArgumentError:
                continue
        raise


def _parquet(path: Path, choose: Choose, labels: int) -> Iterator[Row]:
    header = parquet_reading.header(path)
    names = [header[place] for place in choose(header)]
    for line, cells in enumerate(parquet_reading.cells(path, names), 1):
        yield line, _strings(cells, names, labels, line, path)


def _strings(
    cells: Sequence[Any], names: Sequence[str], labels: int, line: int, path: Path
) -> list[str | None]:
    """The texts of cells, of which the last may be labels."""
    texts = len(cells) - labels
    given = [*cells[:texts], *map(_label, cells[texts:])]
    return [_string(cell, name, line, path) for cell, name in zip(given, names, strict=True)]


def _label(cell: Any) -> Any:
    """A label as text: a number, true or false, or a list, as JSON has it."""
    if isinstance(cell, list | tuple) and all(isinstance(one, str | int | float) for one in cell):
        return json.dumps([one if isinstance(one, str) else json.dumps(one) for one in cell])
    return json.dumps(cell) if isinstance(cell, int | float) else cell


def _string(cell: Any, name: str, line: int, path: Path) -> str | None:
    """The text of a cell; None if it is empty."""
    if isinstance(cell, int) and not isinstance(cell, bool):  # labels may be numbers
        cell = str(cell)
    if cell is None:
        return None
    if not isinstance(cell, str):
        raise FileError(
            f"{shown_name(name)} in line {line} of '{name_of(path)}' is a {type(cell).__name__}, "
            "not text"
        )
    if len(cell) > untrusted.MOST_LINE:
        raise too_long(f"{name} in line {line}", path, untrusted.MOST_LINE)
    if not cell.isascii() and cell != cell.encode(errors="ignore").decode():
        raise FileError(
            f"{shown_name(name)} in line {line} of '{name_of(path)}' has an unpaired surrogate"
        )
    return cell

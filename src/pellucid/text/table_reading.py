"""Columns read from tables: .csv, .tsv, .jsonl (an object on each line) and .parquet.

All but Parquet may be packed (`pellucid.text.utf8_files`). Rows are read as they are asked for.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import is_blank, printable
from pellucid.common.wording import count, listing, short
from pellucid.errors import ArgumentError, FileError
from pellucid.text.utf8_files import (
    STDIN,
    ended_lines,
    kind,
    name_of,
    nothing_in,
    opened,
    pyarrow_for,
    text_lines,
    too_long,
    too_packed,
)

USUAL = ("text", "sentence")
"""Columns that are read if no other is named."""
_LOOKED_AT = 100
"""Objects of a .jsonl file that tell which fields there are."""

Row = tuple[int, list[str | None]]
"""The line in which a row begins (its number, in Parquet), from 1, and its cells."""
Choose = Callable[[Sequence[str]], list[int]]
"""Maps a header to the indices of the columns to read, or raises an error."""


def has_columns(path: Path) -> bool:
    """Whether a file has columns, by its name."""
    return kind(path) in _READERS


def table(path: Path, choose: Choose, *, headed: bool = True) -> Iterator[Row]:
    """Rows of a file.

    Args:
        path: its name says its kind. Standard input is CSV, unless there is no header: then, as in
            other files, tabs separate the fields.
        choose: which columns, by the header, or by the first row if there is none.
        headed: whether the first row is a header. Fields of .jsonl and .parquet always have names.

    Raises:
        FileError: it cannot be read or is not of its kind, rows differ in their number of fields,
            or a field is not text.
        ArgumentError: the file has no columns; and what `choose` raises.
        MissingExtraError: pyarrow is not installed, and the file is Parquet or .zst.
    """
    ending = ".csv" if path == STDIN and headed else kind(path)
    if ending in _READERS:
        return _READERS[ending](path, choose, headed)
    if not headed:
        return _fields(path, choose, headed, _tabbed(path))
    with opened(path):  # if it cannot be read, that is the error
        raise ArgumentError(
            f"'{name_of(path)}' has one text per line and no columns; .csv, .tsv, .jsonl and "
            ".parquet files have columns"
        )


def _csv(path: Path, choose: Choose, headed: bool) -> Iterator[Row]:
    delimiter = "\t" if kind(path) == ".tsv" else ","
    return _fields(path, choose, headed, _csv_rows(path, delimiter), delimiter)


def _fields(
    path: Path,
    choose: Choose,
    headed: bool,
    rows: Iterator[tuple[int, list[str]]],
    delimiter: str = "",
) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise nothing_in(path)
    width, places = len(first[1]), choose(first[1])
    for line, row in rows if headed else chain([first], rows):
        if len(row) != width:
            mark = "tab" if delimiter == "\t" else "comma"
            quotes = f"; a field that holds a {mark} goes in double quotes"
            raise FileError(
                f"line {line} of '{name_of(path)}' has {count(len(row), 'field')}, but its "
                f"{'header' if headed else 'first line'} has {width}{quotes if delimiter else ''}"
            )
        yield line, [row[place] for place in places]


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line in which it begins; empty lines are skipped."""
    reader = csv.reader(ended_lines(path), delimiter=delimiter, strict=True)
    row: list[str] | None = []
    while row is not None:
        line = reader.line_num + 1
        limit = csv.field_size_limit(sys.maxsize)  # it applies to all readers, so for this row only
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise FileError(
                f"'{name_of(path)}' is not valid CSV from line {line} on: {error}"
            ) from error
        finally:
            csv.field_size_limit(limit)
        if row and sum(map(len, row)) > untrusted.MOST_LINE:  # a quoted field of many lines
            raise too_long(f"the row in line {line}", path, untrusted.MOST_LINE)
        if row:
            yield line, row


def _tabbed(path: Path) -> Iterator[tuple[int, list[str]]]:
    for line, text in text_lines(path):
        if not is_blank(text):
            yield line, text.split("\t")


def _jsonl(path: Path, choose: Choose, headed: bool) -> Iterator[Row]:
    objects = _objects(path)
    first = list(islice(objects, _LOOKED_AT))
    if not first:
        raise nothing_in(path)
    fields = list(dict.fromkeys(name for _, fields in first for name in fields))
    names = [fields[place] for place in choose(fields)]
    for line, values in chain(first, objects):
        yield line, [_string(values.get(name), name, line, path) for name in names]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in text_lines(path):
        if is_blank(text):
            continue
        if len(text) > untrusted.MOST_JSON_LINE:
            raise too_long(f"line {line}", path, untrusted.MOST_JSON_LINE)
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"line {line} of '{name_of(path)}' is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise FileError(f"line {line} of '{name_of(path)}' is not a JSON object")
        yield line, values


def _parquet(path: Path, choose: Choose, headed: bool) -> Iterator[Row]:
    pyarrow = pyarrow_for("Parquet")
    source = name_of(path)
    line = 0
    try:
        with untrusted.regular(path) as raw, pyarrow.parquet.ParquetFile(raw) as file:
            header = list(file.schema_arrow.names)
            names = [header[place] for place in choose(header)]
            chosen = list(dict.fromkeys(names))
            _check_packing(file.metadata, set(chosen), path)
            # A text that occurs in many rows is held once.
            dictionary = {"read_dictionary": chosen}
        with (
            untrusted.regular(path) as raw,
            pyarrow.parquet.ParquetFile(raw, **dictionary) as file,
        ):
            for batch in file.iter_batches(batch_size=1024, columns=chosen):
                columns = [_cells(batch.column(name)) for name in names]
                for cells in zip(*columns, strict=True):
                    line += 1
                    strings = zip(cells, names, strict=True)
                    yield line, [_string(cell, name, line, path) for cell, name in strings]
    except UnicodeDecodeError as error:
        raise FileError(f"'{source}' has invalid UTF-8 text") from error
    except FileError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FileError(f"cannot read '{source}': {reason}") from error


def _check_packing(metadata: Any, names: set[str], path: Path) -> None:
    """Refuse columns whose declared size exceeds the limit of `untrusted`."""
    parts = [
        metadata.row_group(group).column(place)
        for group in range(metadata.num_row_groups)
        for place in range(metadata.num_columns)
    ]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema in names)
    packed = sum(part.total_compressed_size for part in parts if part.path_in_schema in names)
    if size > max(untrusted.PACKED_FREE, untrusted.PACKED_TIMES * packed):
        raise too_packed(path)


def _cells(column: Any) -> list[Any]:
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    texts = column.dictionary.to_pylist()
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]


def _string(cell: Any, name: str, line: int, path: Path) -> str | None:
    """The text of a cell; None if it is empty."""
    if isinstance(cell, int) and not isinstance(cell, bool):  # labels may be numbers
        cell = str(cell)
    if cell is None:
        return None
    if not isinstance(cell, str):
        raise FileError(
            f"{name} in line {line} of '{name_of(path)}' is a {type(cell).__name__}, not text"
        )
    if len(cell) > untrusted.MOST_LINE:
        raise too_long(f"{name} in line {line}", path, untrusted.MOST_LINE)
    if not cell.isascii() and cell != cell.encode(errors="ignore").decode():
        raise FileError(f"{name} in line {line} of '{name_of(path)}' has an unpaired surrogate")
    return cell


def _indices(source: str, header: Sequence[str], names: Sequence[str | None]) -> list[int]:
    """The indices of the columns with these names; None is the column of the text."""
    text, *others = names
    if text is None:
        free = [name for name in header if name not in others]
        usual = [name for name in USUAL if name in free]
        if not usual and len(free) != 1:
            shown = listing([f"'{short(printable(name), 40)}'" for name in free[:20]] or ["none"])
            raise ArgumentError(f"'{source}' has the columns {shown}; name one with --column")
        text = (usual or free)[0]
    chosen = [text, *(name for name in others if name is not None)]
    for name in chosen:
        if name not in header:
            raise ArgumentError(f"'{source}' has no column '{name}'; {_near(name, header)}")
        if (same := list(header).count(name)) > 1:
            raise ArgumentError(f"'{source}' has {same} columns '{name}'; their names must differ")
    return [list(header).index(name) for name in chosen]


def _near(name: str, header: Sequence[str]) -> str:
    lowered = {column.casefold(): column for column in header}
    similar = get_close_matches(name.casefold(), lowered, n=3, cutoff=0.6)
    shown = [f"'{short(printable(lowered[key]), 40)}'" for key in similar]
    if shown:
        return f"did you mean {listing(shown).replace(' and ', ' or ')}?"
    shown = [f"'{short(printable(column), 40)}'" for column in header[:20]]
    return f"it has {listing(shown)}" if shown else "it has none"


def named(path: Path, *names: str | None) -> Choose:
    """Choose columns by name; None as the first is the usual column, or the only one."""
    return lambda header: _indices(name_of(path), header, names)


def numbered(path: Path, *numbers: int) -> Choose:
    """Choose columns by number, from 1."""

    def indices(header: Sequence[str]) -> list[int]:
        for number in numbers:
            if not 1 <= number <= len(header):
                has = count(len(header), "column")
                raise ArgumentError(f"'{name_of(path)}' has no column {number}; it has {has}")
        return [number - 1 for number in numbers]

    return indices


_READERS = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}

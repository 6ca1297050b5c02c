"""Texts to work on: from arguments, from a file or from standard input.

    .csv, .tsv     a column under its header
    .parquet       a column
    .jsonl         a field of the object on each line
    anything else  one text a line

Blank ones are left out, and counted; each text knows the line or row that it came from.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pellucid.common.files import is_blank, printable
from pellucid.common.wording import listing, short
from pellucid.errors import ArgumentError, FileError, MissingExtraError

STDIN = Path("-")
ARGUMENTS = "the command line"
USUAL = ("text", "sentence")
"""Columns that are read where no other is named."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Items:
    """Texts in the order in which they came."""

    source: str
    """Where from, for people."""
    texts: list[str]
    lines: list[int]
    """Of each text, its line (or row, in Parquet), from 1."""
    labels: list[str]
    """Of each text, what another column says; empty unless asked for."""
    blank: list[int]
    """Lines that were left out."""

    @property
    def names(self) -> list[str]:
        """What to call each text in an error."""
        if self.source == ARGUMENTS:
            return ["the text"] if len(self.lines) == 1 else [f"text {n}" for n in self.lines]
        return [f"line {line} of '{self.source}'" for line in self.lines]


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What a file says under one name."""

    cells: list[str | None]
    lines: list[int]


def from_arguments(texts: Sequence[str]) -> Items:
    """Texts of the command line.

    Raises:
        ArgumentError: one is blank or no UTF-8.
    """
    lines = list(range(1, len(texts) + 1))
    items = Items(source=ARGUMENTS, texts=list(texts), lines=lines, labels=[], blank=[])
    for which, text in zip(items.names, texts, strict=True):
        if text != text.encode(errors="ignore").decode():
            raise ArgumentError(f"{which} holds bytes that are not UTF-8")
        if is_blank(text):
            raise ArgumentError(f'{which} is empty; give some words, like "Write a poem"')
    return items


def from_file(path: Path, column: str | None = None, label: str | None = None) -> Items:
    """Texts of a file, or of standard input where the path is "-".

    Args:
        path: a file; what kind it is, its name says. Standard input holds one text a line, or CSV
            where a column is named.
        column: the column or field of the texts; "text" or "sentence", or the only one there is,
            unless given.
        label: one more column to read.

    Raises:
        FileError: it cannot be read, is not UTF-8 or not what its name says, or is empty.
        ArgumentError: there is no such column, or a file of lines that has none.
        MissingExtraError: pyarrow is not installed, and the file is Parquet.
    """
    kind = path.suffix.lower()
    if path == STDIN and (column is not None or label is not None):
        kind = ".csv"
    source = "standard input" if path == STDIN else short(printable(str(path)), 200)
    if kind in _READERS:
        found, *others = _READERS[kind](path, source, column, label)
    elif column is not None or label is not None:
        _bytes_of(path, source)  # of a file that cannot be read there is no more to say
        raise ArgumentError(
            f"'{source}' has a text a line and no columns; those of .csv, .tsv, .jsonl and "
            ".parquet files have names"
        )
    else:
        found, others = _lines(_text_of(path, source)), []
    kept = [n for n, cell in enumerate(found.cells) if cell is not None and not is_blank(cell)]
    if not kept:
        raise FileError(f"'{source}' is empty: there is nothing to read")
    labels: list[str] = []
    if others:
        for number in kept:
            cell = others[0].cells[number]
            if cell is None or is_blank(cell):
                raise FileError(f"'{source}' has no {label} in line {found.lines[number]}")
            labels.append(cell.strip())
    whole = set(kept)
    return Items(
        source=source,
        texts=[str(found.cells[number]) for number in kept],
        lines=[found.lines[number] for number in kept],
        labels=labels,
        blank=[line for number, line in enumerate(found.lines) if number not in whole],
    )


def _bytes_of(path: Path, source: str) -> bytes:
    if path == STDIN and sys.stdin is None:
        raise FileError("cannot read standard input: it is closed")
    try:
        return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read '{source}': {error.strerror or error}") from error


def _text_of(path: Path, source: str) -> str:
    found = _bytes_of(path, source)
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The mark at the start, if there is one, is no part of what was decoded.
        place = error.start + len(_BOM) * found.startswith(_BOM)
        line = found[:place].count(b"\n") + 1
        raise FileError(
            f"'{source}' is not UTF-8 text: byte {place}, in line {line}, is 0x{found[place]:02x}"
        ) from error


def _lines(text: str) -> _Column:
    cells: list[str | None] = list(io.StringIO(text, newline=None).read().split("\n"))
    if cells[-1] == "":  # the end of the last line
        cells.pop()
    return _Column(cells=cells, lines=list(range(1, len(cells) + 1)))


def _csv(path: Path, source: str, *names: str | None) -> list[_Column]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = list(_csv_rows(_text_of(path, source), source, delimiter))
    if not rows:
        raise FileError(f"'{source}' is empty: there is nothing to read")
    (_, header), *body = rows
    for line, row in body:
        if len(row) != len(header):
            raise FileError(
                f"line {line} of '{source}' has {len(row)} fields, but its header has "
                f"{len(header)}; a field that holds a '{delimiter}' goes in double quotes"
            )
    return [
        _Column(cells=[row[place] for _, row in body], lines=[line for line, _ in body])
        for place in _places(source, header, names)
    ]


def _csv_rows(text: str, source: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line that it begins in; lines with nothing on them are no rows."""
    limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise FileError(f"'{source}' is no CSV from line {line} on: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _jsonl(path: Path, source: str, *names: str | None) -> list[_Column]:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    read = _lines(_text_of(path, source))
    for line, cell in zip(read.lines, read.cells, strict=True):
        if cell is None or is_blank(cell):
            continue
        try:
            row = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise FileError(f"line {line} of '{source}' is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise FileError(f"line {line} of '{source}' is no JSON object")
        rows.append(row)
        lines.append(line)
    fields = list(dict.fromkeys(name for row in rows for name in row))
    return [
        _Column(cells=_strings([row.get(name) for row in rows], name, lines, source), lines=lines)
        for name in (fields[place] for place in _places(source, fields, names))
    ]


def _parquet(path: Path, source: str, *names: str | None) -> list[_Column]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow: pip install 'pellucid[tables]'"
        ) from error
    try:
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file:
            header = list(file.schema_arrow.names)
            wanted = [header[place] for place in _places(source, header, names)]
            table = file.read(columns=wanted)
        cells = [table.column(name).to_pylist() for name in wanted]
    except UnicodeDecodeError as error:
        raise FileError(f"'{source}' holds what is not UTF-8 text") from error
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FileError(f"cannot read '{source}': {reason}") from error
    lines = list(range(1, table.num_rows + 1))
    return [
        _Column(cells=_strings(column, name, lines, source), lines=lines)
        for name, column in zip(wanted, cells, strict=True)
    ]


def _strings(
    cells: Iterable[Any], name: str, lines: Sequence[int], source: str
) -> list[str | None]:
    """Cells that are text, or nothing."""
    found: list[str | None] = []
    for line, cell in zip(lines, cells, strict=True):
        if isinstance(cell, int) and not isinstance(cell, bool):  # as labels are
            cell = str(cell)
        if cell is not None and not isinstance(cell, str):
            kind = type(cell).__name__
            raise FileError(f"{name} in line {line} of '{source}' is no text but a {kind}")
        found.append(cell)
    return found


def _places(source: str, header: Sequence[str], names: Sequence[str | None]) -> list[int]:
    """Where the text is among the columns, and the others that are named."""
    text, *others = names
    if text is None:
        free = [name for name in header if name not in others]
        usual = [name for name in USUAL if name in free]
        if not usual and len(free) != 1:
            shown = listing([f"'{short(printable(name), 40)}'" for name in free[:20]] or ["none"])
            raise ArgumentError(f"'{source}' has the columns {shown}; say which with --column")
        text = (usual or free)[0]
    wanted = [text, *(name for name in others if name is not None)]
    for name in wanted:
        if name not in header:
            raise ArgumentError(f"'{source}' has no column '{name}'; {_near(name, header)}")
    return [list(header).index(name) for name in wanted]


def _near(name: str, header: Sequence[str]) -> str:
    lowered = {one.casefold(): one for one in header}
    near = [lowered[one] for one in get_close_matches(name.casefold(), lowered, n=3, cutoff=0.6)]
    shown = [f"'{short(printable(one), 40)}'" for one in near or header[:20]]
    return f"{'near it' if near else 'there'} is {listing(shown)}" if shown else "it has none"


_READERS = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}


def has_columns(path: Path) -> bool:
    """Whether the name is that of a file with columns."""
    return path.suffix.lower() in _READERS

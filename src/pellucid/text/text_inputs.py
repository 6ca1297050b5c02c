"""Texts to work on: from arguments, from a file or from standard input.

    .csv, .tsv     a column under its header
    .parquet       a column
    .jsonl         a field of the object on each line
    anything else  one text a line

All but Parquet may be packed besides: .gz, .bz2, .xz or .zst. How large a line, a cell and what is
packed may be, `pellucid.common.untrusted` says. Blank texts are left out, and
counted; each text knows the line or row that it came from. Files are read as they are asked for,
so that `pellucid.training.corpus` reads with the same functions what no memory holds.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from pellucid.common import untrusted
from pellucid.common.files import is_blank, printable, reason_of
from pellucid.common.wording import count, listing, short
from pellucid.errors import ArgumentError, FileError, MissingExtraError

STDIN = Path("-")
ARGUMENTS = "the command line"
USUAL = ("text", "sentence")
"""Columns that are read where no other is named."""
BLOCK = 2**17
"""Bytes that are read at once."""
_LOOKED_AT = 100
"""Objects of a .jsonl file that say which fields there are."""

Row = tuple[int, list[str | None]]
"""The line that a row begins in (or its number, in Parquet), from 1, and its cells."""
Choose = Callable[[Sequence[str]], list[int]]
"""Which columns to read, as their places in the header; or an error."""


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
    source = name_of(path)
    if kind(path) in _READERS or column is not None or label is not None:
        found = table(path, named(path, column, label))
    else:
        found = ((line, [text]) for line, text in _lines(path))
    rows, left = [], untrusted.MOST_TEXT
    for line, cells in found:
        left -= sum(len(cell) for cell in cells if cell is not None)
        if left < 0:
            raise _too_long("the text", path, untrusted.MOST_TEXT)
        rows.append((line, cells))
    kept = [(line, cells) for line, cells in rows if not _is_nothing(cells[0])]
    if not kept:
        raise nothing_in(path)
    labels = []
    for line, (_, *others) in kept:
        for cell in others:
            if _is_nothing(cell):
                raise FileError(f"'{source}' has no {label} in line {line}")
            labels.append(str(cell).strip())
    return Items(
        source=source,
        texts=[str(cells[0]) for _, cells in kept],
        lines=[line for line, _ in kept],
        labels=labels,
        blank=[line for line, cells in rows if _is_nothing(cells[0])],
    )


def _is_nothing(cell: str | None) -> bool:
    return cell is None or is_blank(cell)


def nothing_in(path: Path) -> FileError:
    """To raise of a file in which there is no text."""
    return FileError(f"'{name_of(path)}' is empty: there is nothing to read")


def name_of(path: Path) -> str:
    """What to call a file in an error."""
    return "standard input" if path == STDIN else short(printable(str(path)), 200)


def kind(path: Path) -> str:
    """The ending of a file's name, without that of its packing: ".csv" of "a.csv.gz"."""
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if ending in _PACKED else ending


def has_columns(path: Path) -> bool:
    """Whether the name is that of a file with columns."""
    return kind(path) in _READERS


def table(path: Path, choose: Choose, *, headed: bool = True) -> Iterator[Row]:
    """Rows of a file, as they are asked for.

    Args:
        path: of which kind, its name says; standard input is CSV, and without a header any other
            file has its fields between tabs.
        choose: which columns, by the header; by the first row, where there is none.
        headed: whether the first row is a header. Fields of .jsonl and .parquet have names always.

    Raises:
        FileError: it cannot be read, or is not what its name says; a row has more fields than
            another, or one that is no text.
        ArgumentError: a file of lines has no columns; and what `choose` raises.
        MissingExtraError: pyarrow is not installed, and the file is Parquet or packed as .zst.
    """
    ending = ".csv" if path == STDIN and headed else kind(path)
    if ending in _READERS:
        return _READERS[ending](path, choose, headed)
    if not headed:
        return _fields(path, choose, headed, _tabbed(path))
    with _opened(path):  # of a file that cannot be read there is no more to say
        raise ArgumentError(
            f"'{name_of(path)}' has a text a line and no columns; those of .csv, .tsv, .jsonl and "
            ".parquet files have names"
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked."""
    source = name_of(path)
    if path == STDIN and sys.stdin is None:
        raise FileError("cannot read standard input: it is closed")
    try:
        if path == STDIN:
            yield sys.stdin.buffer
        else:
            with untrusted.regular(path) as file:
                unpack = _PACKED.get(path.suffix.lower())
                if unpack is None:
                    yield file
                else:
                    with unpack(file) as unpacked:
                        size = os.fstat(file.fileno()).st_size
                        yield cast(BinaryIO, _Bounded(unpacked, path, size))
    except FileError:
        raise
    except EOFError as error:
        raise FileError(f"'{source}' is cut short: it ends before its packing does") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        raise FileError(f"cannot read '{source}': {reason_of(error)}") from error


class _Bounded(io.RawIOBase):
    """What is packed, as long as it is no more than there can be text."""

    def __init__(self, unpacked: BinaryIO, path: Path, packed: int) -> None:
        self._unpacked, self._path = unpacked, path
        self._left = max(untrusted.PACKED_FREE, untrusted.PACKED_TIMES * packed)

    def read(self, size: int = BLOCK) -> bytes:
        block = self._unpacked.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise _too_packed(self._path)
        return block


def _too_packed(path: Path) -> FileError:
    return FileError(
        f"'{name_of(path)}' holds more than {untrusted.PACKED_TIMES} times its own size, which no "
        "text does; unpack it first if it is meant so"
    )


def _zstandard(file: BinaryIO) -> BinaryIO:
    # By pyarrow, which tells a file that is cut short; the zstandard package does not.
    stream: BinaryIO = _pyarrow(".zst").CompressedInputStream(file, "zstd")
    return stream


def _pyarrow(files: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{files} files need pyarrow: pip install 'pellucid[tables]'"
        ) from error
    return pyarrow


_PACKED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}


def text_blocks(path: Path) -> Iterator[str]:
    """The text of a file in blocks of about `BLOCK` bytes, its line ends as they are.

    Raises:
        FileError: it cannot be read, or is not UTF-8: with the first byte that is wrong, from 0,
            and its line, from 1.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    end, line = 0, 1
    with _opened(path) as file:
        while True:
            block = file.read(BLOCK)
            end += len(block)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # What was decoded ends with the block, but may begin before it.
                found, start = error.object, error.start
                line += found[:start].count(b"\n")
                raise FileError(
                    f"'{name_of(path)}' is not UTF-8 text: byte {end - len(found) + start}, "
                    f"in line {line}, is 0x{found[start]:02x}"
                ) from error
            line += text.count("\n")
            if text:
                yield text
            if not block:
                return


def _ended_lines(path: Path) -> Iterator[str]:
    r"""Lines with their ends: \n, \r or \r\n."""
    newlines = io.IncrementalNewlineDecoder(None, translate=False)  # no \r\n in two blocks
    waiting: list[str] = []
    length = number = 0
    for block in chain(text_blocks(path), [""]):
        for line in io.StringIO(newlines.decode(block, final=not block), newline=""):
            waiting.append(line)
            length += len(line)
            if length > untrusted.MOST_LINE:
                raise _too_long(f"line {number + 1}", path, untrusted.MOST_LINE)
            if line.endswith(("\n", "\r")):
                yield "".join(waiting)
                waiting.clear()
                length, number = 0, number + 1
    if waiting:
        yield "".join(waiting)


def _too_long(what: str, path: Path, most: int) -> FileError:
    return FileError(f"{what} of '{name_of(path)}' has more than {most:,} characters")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_ended_lines(path), 1):
        yield number, line.rstrip("\r\n")


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
    """Each row with the line that it begins in; lines with nothing on them are no rows."""
    reader = csv.reader(_ended_lines(path), delimiter=delimiter, strict=True)
    row: list[str] | None = []
    while row is not None:
        line = reader.line_num + 1
        limit = csv.field_size_limit(sys.maxsize)  # of all readers there are: so for a row alone
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise FileError(f"'{name_of(path)}' is no CSV from line {line} on: {error}") from error
        finally:
            csv.field_size_limit(limit)
        if row and sum(map(len, row)) > untrusted.MOST_LINE:  # of many lines between quotes
            raise _too_long(f"the row in line {line}", path, untrusted.MOST_LINE)
        if row:
            yield line, row


def _tabbed(path: Path) -> Iterator[tuple[int, list[str]]]:
    for line, text in _lines(path):
        if not is_blank(text):
            yield line, text.split("\t")


def _jsonl(path: Path, choose: Choose, headed: bool) -> Iterator[Row]:
    objects = _objects(path)
    first = list(islice(objects, _LOOKED_AT))
    if not first:
        raise nothing_in(path)
    fields = list(dict.fromkeys(name for _, one in first for name in one))
    names = [fields[place] for place in choose(fields)]
    for line, one in chain(first, objects):
        yield line, [_string(one.get(name), name, line, path) for name in names]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in _lines(path):
        if is_blank(text):
            continue
        if len(text) > untrusted.MOST_JSON_LINE:
            raise _too_long(f"line {line}", path, untrusted.MOST_JSON_LINE)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"line {line} of '{name_of(path)}' is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise FileError(f"line {line} of '{name_of(path)}' is no JSON object")
        yield line, found


def _parquet(path: Path, choose: Choose, headed: bool) -> Iterator[Row]:
    pyarrow = _pyarrow("Parquet")
    source = name_of(path)
    line = 0
    try:
        with untrusted.regular(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            header = list(file.schema_arrow.names)
            names = [header[place] for place in choose(header)]
            wanted = list(dict.fromkeys(names))
            _check_packing(file.metadata, set(wanted), path)
            # A text that stands in many rows is held once.
            with_dictionary = {"read_dictionary": wanted}
        with (
            untrusted.regular(path) as opened,
            pyarrow.parquet.ParquetFile(opened, **with_dictionary) as file,
        ):
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                columns = [_cells(batch.column(name)) for name in names]
                for cells in zip(*columns, strict=True):
                    line += 1
                    strings = zip(cells, names, strict=True)
                    yield line, [_string(cell, name, line, path) for cell, name in strings]
    except UnicodeDecodeError as error:
        raise FileError(f"'{source}' holds what is not UTF-8 text") from error
    except FileError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FileError(f"cannot read '{source}': {reason}") from error


def _check_packing(about: Any, names: set[str], path: Path) -> None:
    """Refuse columns that say they are unpacked to more than text can be."""
    parts = [
        about.row_group(group).column(place)
        for group in range(about.num_row_groups)
        for place in range(about.num_columns)
    ]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema in names)
    packed = sum(part.total_compressed_size for part in parts if part.path_in_schema in names)
    if size > max(untrusted.PACKED_FREE, untrusted.PACKED_TIMES * packed):
        raise _too_packed(path)


def _cells(column: Any) -> list[Any]:
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    known = column.dictionary.to_pylist()
    return [None if place is None else known[place] for place in column.indices.to_pylist()]


def _string(cell: Any, name: str, line: int, path: Path) -> str | None:
    """A cell that is text, or nothing."""
    if isinstance(cell, int) and not isinstance(cell, bool):  # as labels are
        cell = str(cell)
    if cell is None:
        return None
    if not isinstance(cell, str):
        what = type(cell).__name__
        raise FileError(f"{name} in line {line} of '{name_of(path)}' is no text but a {what}")
    if len(cell) > untrusted.MOST_LINE:
        raise _too_long(f"{name} in line {line}", path, untrusted.MOST_LINE)
    if not cell.isascii() and cell != cell.encode(errors="ignore").decode():
        raise FileError(f"{name} in line {line} of '{name_of(path)}' holds half a character")
    return cell


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
        if (same := list(header).count(name)) > 1:
            raise ArgumentError(f"'{source}' has {same} columns '{name}'; which is meant?")
    return [list(header).index(name) for name in wanted]


def _near(name: str, header: Sequence[str]) -> str:
    lowered = {one.casefold(): one for one in header}
    near = [lowered[one] for one in get_close_matches(name.casefold(), lowered, n=3, cutoff=0.6)]
    shown = [f"'{short(printable(one), 40)}'" for one in near or header[:20]]
    return f"{'near it' if near else 'there'} is {listing(shown)}" if shown else "it has none"


def named(path: Path, *names: str | None) -> Choose:
    """Columns by their names; the first may be None, for the usual one or the only one."""
    return lambda header: _places(name_of(path), header, names)


def numbered(path: Path, *numbers: int) -> Choose:
    """Columns by their numbers, from 1."""

    def places(header: Sequence[str]) -> list[int]:
        for number in numbers:
            if not 1 <= number <= len(header):
                has = count(len(header), "column")
                raise ArgumentError(f"'{name_of(path)}' has no column {number}; it has {has}")
        return [number - 1 for number in numbers]

    return places


_READERS = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}

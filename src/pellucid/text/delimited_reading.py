"""Rows of tables in text: the columns that are chosen, and what may not be meant as it is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from statistics import median

from pellucid.common.files import is_blank
from pellucid.errors import FileError
from pellucid.text import delimiters
from pellucid.text.bad_rows import BadRows
from pellucid.text.columns import USUAL, Choose, names_in
from pellucid.text.delimiters import Layout
from pellucid.text.noticed import Noticed
from pellucid.text.utf8_files import kind, lines_of, name_of, nothing_in

_LOOKED_AT = 20
"""Rows that a name of a column is compared with."""
_NEAR = 100
"""Lines within which a field in quotes ends, where it is taken for several."""

Fields = Iterator[tuple[int, list[str]]]
"""The line in which each row begins, from 1, and all its fields."""
Cells = Iterator[tuple[int, list[str]]]
"""The same with the chosen fields only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """How a table in text is read; the fields are those of `table_reading.table`."""

    path: Path
    choose: Choose
    headed: bool
    noticed: Noticed
    aside: BadRows | None

    def rows(self, blocks: Iterator[str], delimiter: str | None) -> Cells:
        """The rows of a table with this text, whose delimiter may be given.

        Raises:
            FileError, ArgumentError: as `table_reading.table`.
        """
        lines = lines_of(blocks, self.path)
        sample = _sample(lines)
        ending = ".tsv" if kind(self.path) in (".tsv", ".tab") else ".csv"
        source = name_of(self.path)
        made = delimiters.layout(sample, source, given=delimiter, ending=ending)
        return self._fields(delimiters.rows(chain(sample, lines), made, source, self.aside), made)

    def tabbed(self, lines: Iterator[tuple[int, str]]) -> Cells:
        """The rows of a file of any name, whose fields tabs separate."""
        rows = ((line, text.split("\t")) for line, text in lines if not is_blank(text))
        return self._fields(rows, Layout("\t", quoted=False))

    def _fields(self, rows: Fields, made: Layout) -> Cells:
        source = name_of(self.path)
        begun = next(rows, None)
        if begun is None:
            raise nothing_in(self.path)
        header_line, first = begun
        columns = self.choose(first)
        ahead: list[tuple[int, list[str]]] = []
        if self.headed and len(first) == 1:
            ahead = list(islice(rows, _LOOKED_AT))
            self._look_at_name(first[0], header_line, [row[0] for _, row in ahead])
        if not self.headed:
            if same := _numbered_header(first, columns):
                self.noticed.add("number", source, header_line, same)
            ahead = [begun]
        quotes = _Quotes()
        for line, row in chain(ahead, rows):
            if len(row) != len(first):
                fault = delimiters.uneven(
                    line,
                    len(row),
                    first,
                    made,
                    source,
                    headed=self.headed,
                    opened=quotes.before(line),
                )
                self._set_aside(line, made.delimiter.join(row), fault)
                continue
            chosen = [row[column] for column in columns]
            if made.quoted:
                if delimiters.swallowed(row, made):
                    self.noticed.add("swallowed", source, line, " ".join(row))
            else:
                for kind_of_quote, at, cell in quotes.look(line, chosen):
                    self.noticed.add(kind_of_quote, source, at, cell)
            yield line, chosen

    def _set_aside(self, line: int, text: str, fault: FileError) -> None:
        if self.aside is None:
            raise fault
        self.aside.add(line, text, fault)

    def _look_at_name(self, name: str, line: int, texts: Sequence[str]) -> None:
        """Notice a name of the only column that looks like a comment, or like the texts below."""
        source = name_of(self.path)
        if name.startswith("#"):
            self.noticed.add("comment", source, line, name)
            return
        words = len(name.split())
        is_text = words > 3 or name.rstrip().endswith((".", "!", "?"))
        if any(wanted is not None for wanted in names_in(self.choose)):  # it was named
            is_like = False
        else:
            is_like = words > 1 or bool(texts and 2 * len(name) >= median(map(len, texts)))
        if name not in USUAL and (is_text or is_like):
            self.noticed.add("header", source, line, name)


@dataclass(slots=True)
class _Quotes:
    """Quotes where they belong to the text, as in .tsv files, but may surround fields after all."""

    opened: tuple[int, str] | None = field(default=None)
    """The last field that only begins with a quote, and its line."""

    def before(self, line: int) -> int | None:
        """The line of a field that only begins with a quote, if it is near."""
        is_near = self.opened is not None and line - self.opened[0] <= _NEAR
        return self.opened[0] if self.opened is not None and is_near else None

    def look(self, line: int, cells: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """What to notice: its kind, the line and the field."""
        for cell in cells:
            if len(cell) > 1 and cell[0] == cell[-1] == '"':
                yield "quotes", line, cell
            elif cell.count('"') % 2:
                if cell.endswith('"') and self.opened and self.before(line) is not None:
                    yield "torn", *self.opened
                self.opened = (line, cell) if cell.startswith('"') else None


def _sample(lines: Iterator[str]) -> list[str]:
    sample: list[str] = []
    characters = 0
    for line in islice(lines, delimiters.SAMPLE_LINES):
        sample.append(line)
        characters += len(line)
        if characters > delimiters.SAMPLE_CHARACTERS:
            break
    return sample


def _numbered_header(first: Sequence[str], columns: Sequence[int]) -> str:
    """The first row, if it looks like a header with the numbers of the chosen columns as names."""
    numbers = [str(column + 1) for column in columns]
    return " ".join(first) if all(number in first for number in numbers) else ""

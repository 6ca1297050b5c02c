"""Texts to process: from arguments, from a file or from standard input.

    .csv, .tsv     a column, named in the header
    .parquet       a column
    .jsonl         a field of the object on each line
    anything else  one text per line

Blank texts are left out and counted; each text keeps the number of its line or row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.common import untrusted
from pellucid.common.files import is_blank
from pellucid.errors import ArgumentError, FileError
from pellucid.text.table_reading import has_columns, named, table
from pellucid.text.utf8_files import name_of, nothing_in, text_lines, too_long

ARGUMENTS = "the command line"


@dataclass(frozen=True, kw_only=True)
class Items:
    """Texts in their order."""

    source: str
    """Where they come from, for messages."""
    texts: list[str]
    lines: list[int]
    """The line (or row, in Parquet) of each text, from 1."""
    labels: list[str]
    """The label of each text; empty if no label column was read."""
    blank: list[int]
    """Lines that were left out because they are blank."""

    @property
    def names(self) -> list[str]:
        """The name of each text in a message."""
        if self.source == ARGUMENTS:
            return ["the text"] if len(self.lines) == 1 else [f"text {n}" for n in self.lines]
        return [f"line {line} of '{self.source}'" for line in self.lines]


def from_arguments(texts: Sequence[str]) -> Items:
    """Texts from the command line.

    Raises:
        ArgumentError: a text is blank or not UTF-8.
    """
    lines = list(range(1, len(texts) + 1))
    items = Items(source=ARGUMENTS, texts=list(texts), lines=lines, labels=[], blank=[])
    for name, text in zip(items.names, texts, strict=True):
        if text != text.encode(errors="ignore").decode():
            raise ArgumentError(f"{name} holds bytes that are not UTF-8")
        if is_blank(text):
            raise ArgumentError(f'{name} is empty; give some words, like "Write a poem"')
    return items


def from_file(path: Path, column: str | None = None, label: str | None = None) -> Items:
    """Texts from a file, or from standard input if the path is "-".

    Args:
        path: of the file; its name says its kind. Standard input has one text per line, or is CSV
            if a column is named.
        column: of the texts; by default "text" or "sentence", or the only one.
        label: the column of the labels, if any.

    Raises:
        FileError: it cannot be read, is not UTF-8, is not of its kind, or is empty.
        ArgumentError: there is no such column, or the file has no columns.
        MissingExtraError: pyarrow is not installed, and the file is Parquet or .zst.
    """
    source = name_of(path)
    if has_columns(path) or column is not None or label is not None:
        table_rows = table(path, named(path, column, label))
    else:
        table_rows = ((line, [text]) for line, text in text_lines(path))
    rows, left = [], untrusted.MOST_TEXT
    for line, cells in table_rows:
        left -= sum(len(cell) for cell in cells if cell is not None)
        if left < 0:
            raise too_long("the text", path, untrusted.MOST_TEXT)
        rows.append((line, cells))
    kept = [(line, cells) for line, cells in rows if not _is_blank(cells[0])]
    if not kept:
        raise nothing_in(path)
    labels = []
    for line, (_, *others) in kept:
        for cell in others:
            if _is_blank(cell):
                raise FileError(f"'{source}' has no {label} in line {line}")
            labels.append(str(cell).strip())
    return Items(
        source=source,
        texts=[str(cells[0]) for _, cells in kept],
        lines=[line for line, _ in kept],
        labels=labels,
        blank=[line for line, cells in rows if _is_blank(cells[0])],
    )


def _is_blank(cell: str | None) -> bool:
    return cell is None or is_blank(cell)

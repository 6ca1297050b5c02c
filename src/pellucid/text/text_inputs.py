"""Texts to process: from arguments, from files or from standard input.

    .csv, .tsv                a column, named in the header
    .parquet                  a column
    .json, .jsonl, .ndjson    a field of each object
    anything else             one text per line
    a folder                  each of its files that can be read, by its name

Blank texts are left out and counted; each text keeps the number of its line or row. What is read
but may not be meant is said in a note.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import is_blank, reason_of
from pellucid.common.wording import count, listing
from pellucid.errors import ArgumentError, FileError, PellucidError
from pellucid.text.bad_rows import BadRows
from pellucid.text.columns import chosen
from pellucid.text.folders import files_in
from pellucid.text.noticed import Noticed
from pellucid.text.table_reading import PLAIN, Reading, Row, has_columns, table
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
    files: list[str] = field(default_factory=list)
    """The file of each text, if they come from several; else empty."""
    notes: list[str] = field(default_factory=list)
    """What is to be said about how they were read."""

    @property
    def blanks(self) -> str:
        """The number of blank lines, and which they are."""
        return f"{count(len(self.blank), 'empty line')}: {_line_list(self.blank)}"

    @property
    def names(self) -> list[str]:
        """The name of each text in a message."""
        if self.source == ARGUMENTS:
            return ["the text"] if len(self.lines) == 1 else [f"text {n}" for n in self.lines]
        files = self.files or [self.source] * len(self.lines)
        return [f"line {line} of '{file}'" for line, file in zip(self.lines, files, strict=True)]

    @property
    def location_columns(self) -> dict[str, list[str] | list[int]]:
        """Columns that tell where each text is: its line, and its file if there are several."""
        return ({"file": self.files} if self.files else {}) | {"line": self.lines}


def no_label(path: Path, label: str | int | None, line: int) -> FileError:
    """The error for a text without a label."""
    return FileError(
        f"'{name_of(path)}' has no {label} in line {line}; if a text may have several labels, and "
        "so none: --predict labels"
    )


def _line_list(lines: Sequence[int]) -> str:
    numbers = [str(line) for line in lines[:5]]
    return listing(numbers) if len(lines) <= 5 else f"{', '.join(numbers)} and more"


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


def from_file(
    path: Path,
    column: str | int | None = None,
    label: str | int | None = None,
    reading: Reading = PLAIN,
    **options: Any,
) -> Items:
    """Texts from a file or a folder, or from standard input if the path is "-".

    Args:
        path: of the file; its name says its kind. Standard input has one text per line, or is CSV
            or JSON if a column is named.
        column: of the texts: a name, or a number from 1 if the file has no header; by default
            "text" or "sentence", or the only one.
        label: the column of the labels, if any.
        reading: how the file is written.
        options: `may_lack` and `whole` of `Source`.

    Raises:
        FileError: it cannot be read, has another encoding, is not of its kind, or is empty.
        ArgumentError: there is no such column, the file has no columns, or its delimiter is
            uncertain.
        MissingExtraError: pyarrow is not installed, and the file is Parquet or .zst.
    """
    source = Source(path, column, label, reading, **options)
    texts: list[str] = []
    lines: list[int] = []
    labels: list[str] = []
    files: list[str] = []
    left = untrusted.MOST_TEXT
    for text in source:
        left -= len(text.text)
        if left < 0:
            raise too_long("the text", path, untrusted.MOST_TEXT)
        texts.append(text.text)
        lines.append(text.line)
        labels += text.labels
        if source.is_folder:
            files.append(text.file)
    if source.bad:
        kept = [file not in source.bad for file in files]
        texts, lines = list(compress(texts, kept)), list(compress(lines, kept))
        files = list(compress(files, kept))
    return Items(
        source=name_of(path),
        texts=texts,
        lines=lines,
        labels=labels,
        blank=source.blank,
        files=files,
        notes=source.notes,
    )


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a file."""

    text: str
    line: int
    file: str
    labels: tuple[str, ...]
    """Its label, if labels are read."""


class Source:
    """The texts of a file or a folder, read as they are asked for; blank ones are left out.

    A file of a folder that cannot be read to its end is left out, too, unless all are so. What it
    gave before it failed is known by `bad` once all is read.
    """

    def __init__(
        self,
        path: Path,
        column: str | int | None = None,
        label: str | int | None = None,
        reading: Reading = PLAIN,
        *,
        may_lack: bool = False,
        whole: bool = False,
        aside: BadRows | None = None,
    ) -> None:
        """The arguments and errors are those of `from_file`; nothing is read yet.

        Args:
            path: of the file.
            column: of the texts.
            label: of the labels.
            reading: how the file is written.
            may_lack: whether a text may be without a label, as where several are allowed.
            whole: whether a file of a folder that cannot be read is an error; it is if there are
                labels, since what is learnt from part of the examples differs.
            aside: takes rows that cannot be read, after which reading goes on.
        """
        self.path, self.column, self.label, self.reading = path, column, label, reading
        self.may_lack, self.whole = may_lack, whole or label is not None
        self.aside = aside
        self.files, self._notes = files_in([path])
        self.is_folder = self.files != [path]
        self.noticed = Noticed()
        self.bad: dict[str, PellucidError] = {}
        """The names of files that cannot be read, and why."""
        self.blank: list[int] = []
        """The lines that were left out so far."""
        self._first_blank = ""

    @property
    def name(self) -> str:
        """The name of the file or folder in a message."""
        return name_of(self.path)

    @property
    def blanks(self) -> str:
        """The number of blank lines, and which they are."""
        return f"{count(len(self.blank), 'empty line')}: {_line_list(self.blank)}"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these texts from others: the files, with their sizes and times, and how they
        are read.

        Raises:
            FileError: a file cannot be read.
        """
        try:
            facts = [(os.path.realpath(file), file.stat()) for file in self.files]
        except OSError as error:
            raise FileError(f"cannot read '{self.name}': {reason_of(error)}") from error
        return {
            "files": [[path, status.st_size, status.st_mtime_ns] for path, status in facts],
            "column": self.column,
            "label": self.label,
            "reading": asdict(self.reading),
        }

    @property
    def notes(self) -> list[str]:
        """What is to be said about what was read so far."""
        notes = [*self._notes]
        if self.bad:
            files = count(len(self.bad), "file")
            which = "" if len(self.bad) == 1 else "the first: "
            why = reason_of(next(iter(self.bad.values())))
            notes.append(f"left out {files} of '{self.name}' that cannot be read: {which}{why}")
        if self.blank:
            which = (
                f"the first is {self._first_blank}" if self.is_folder else _line_list(self.blank)
            )
            lines = count(len(self.blank), "empty line")
            notes.append(f"left out {lines} of '{name_of(self.path)}': {which}")
        return notes + self.noticed.notes()

    def __iter__(self) -> Iterator[Text]:
        """All texts; raises as `from_file`."""
        is_empty, self.bad = True, {}
        for path in self.files:
            before = self.noticed.copy(), len(self.blank), self._first_blank
            try:
                for text in self._texts(path):
                    is_empty = False
                    yield text
            except (FileError, ArgumentError) as error:
                if self.whole or not self.is_folder:
                    raise
                self.bad[name_of(path)] = error
                self.noticed, blanks, self._first_blank = before
                del self.blank[blanks:]
        if len(self.bad) == len(self.files):
            raise next(iter(self.bad.values()))
        if is_empty and not (self.aside and self.aside.rows):
            raise nothing_in(self.path)

    def _texts(self, path: Path) -> Iterator[Text]:
        source = name_of(path)
        is_table = self._is_table(path)
        for line, (text, *others) in self._rows(path):
            if text is None or is_blank(text):
                self._first_blank = self._first_blank or f"line {line} of '{source}'"
                self.blank.append(line)
                continue
            for cell in others:
                if not self.may_lack and (cell is None or is_blank(cell)):
                    raise no_label(path, self.label, line)
            self.noticed.look(text, source, line, is_line=not is_table)
            yield Text(text, line, source, tuple((cell or "").strip() for cell in others))

    def _is_table(self, path: Path) -> bool:
        has_names = self.column is not None or self.label is not None
        return has_names or has_columns(path, self.reading)

    def _rows(self, path: Path) -> Iterator[Row]:
        if self._is_table(path):
            labels = [] if self.label is None else [self.label]
            choose, headed = chosen(path, [self.column, *labels])
            return table(
                path,
                choose,
                headed=headed,
                reading=self.reading,
                noticed=self.noticed,
                labels=len(labels),
                aside=self.aside,
            )
        return self._lines(path)

    def _lines(self, path: Path) -> Iterator[Row]:
        encoding, aside, source = self.reading.encoding, self.aside, name_of(path)
        for line, text in text_lines(path, encoding, escapes=aside is not None):
            fault = None
            if aside is not None:
                fault = aside.wrong_bytes(text, f"line {line}", source, encoding)
            if aside is None or fault is None:
                yield line, [text]
            else:
                aside.add(line, text, fault)

"""Text to learn from: read from files of any size, and made into ids on disk once.

    .txt and others                 each file is a document
    .csv .tsv .jsonl .parquet       each row has a document, or the columns of a pair or example

All but Parquet may be packed: .gz, .bz2, .xz or .zst. Nothing is ever in memory as a whole: files
are read once to know how much there is, once for the vocabulary, and once for the ids.
"""

import hashlib
import io
import json
import sys
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pellucid.common.files import is_blank, write_whole
from pellucid.common.wording import count, short
from pellucid.errors import ArgumentError, FileError
from pellucid.text.items import (
    has_columns,
    kind,
    name_of,
    named,
    nothing_in,
    numbered,
    table,
    text_blocks,
)
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.sequences import Builder, Sequences, building
from pellucid.training.vocabulary import END, byte_pairs

PIECE = 2**17
"""Characters of a long document that are read at once: small, so that all cores have some."""
HELD_OUT = 0.05
"""Share of the texts to be judged by."""
MOST_HELD_OUT_ROWS = 2000
LEAST_CHARACTERS = 1000
"""Of text, for there to be anything to learn."""
LEAST_TEXTS = 10
"""Different ones in rows, of which some are held out."""

_BATCH_TEXTS, _BATCH_CHARACTERS = 512, 2**22
_ABOUT = "about.json"
_VERSION = 1
"""Of what is kept in a directory; another is made anew."""

Progress = Callable[[str, int, int | None], None]
"""What is being done, how many characters of text were read for it, and of how many, if known."""
_Read = TypeVar("_Read", bound=tuple[object, ...])
"""A piece or a row."""
_Made = TypeVar("_Made")


def _silent(what: str, done: int, total: int | None) -> None:
    pass


# ------------------------------------------------------------------------------------ reading


class Piece(NamedTuple):
    """A document, or as much of a long one as is read at once."""

    text: str
    begins: bool
    """Whether a new document begins here."""


@dataclass(slots=True)
class Tally:
    """What was left out while files were read."""

    blank: int = 0
    """Documents and rows with nothing to see in them."""
    too_long: int = 0
    """Rows with a text of more tokens than there may be."""


def documents(
    files: Sequence[Path], column: str | None = None, tally: Tally | None = None
) -> Iterator[Piece]:
    r"""Documents of files in their order, as they are asked for.

    A file without columns is one document. It comes in pieces that end where a line does or before
    a space, if there is one near; its line ends become "\n".

    Args:
        files: to read.
        column: of the text, in files that have columns; "text" or "sentence", or the only one
            there is, unless given.
        tally: counts what is left out.

    Raises:
        FileError: a file cannot be read, is not UTF-8 or not what its name says, or is empty.
        ArgumentError: there is no such column.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    tally = Tally() if tally is None else tally
    for path in files:
        is_table = has_columns(path) or column is not None
        pieces = _rows_of_text(path, column, tally) if is_table else _plain_text(path)
        first = next(pieces, None)
        if first is None:
            raise nothing_in(path)
        yield first
        yield from pieces


def _rows_of_text(path: Path, column: str | None, tally: Tally) -> Iterator[Piece]:
    for _, (text,) in table(path, named(path, column)):
        if text is None or is_blank(text):
            tally.blank += 1
        else:
            yield Piece(text, True)


def _plain_text(path: Path) -> Iterator[Piece]:
    begins = True
    for text in _parts(path):
        if not begins or not is_blank(text):
            yield Piece(text, begins)
            begins = False


def _parts(path: Path) -> Iterator[str]:
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    waiting = ""
    for block in chain(text_blocks(path), [""]):
        waiting += newlines.decode(block, final=not block)
        while len(waiting) > PIECE:
            place = _cut(waiting, PIECE)
            yield waiting[:place]
            waiting = waiting[place:]
    if waiting:
        yield waiting


def _cut(text: str, most: int) -> int:
    """Where to cut a text, at most `most` characters from its start: after a line or before a
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
    tally: Tally | None = None,
) -> Iterator[tuple[str, ...]]:
    """What files have in some columns, row by row; those with a blank text are left out.

    Args:
        files: with columns. Where these have numbers, one without an ending that says so may have
            its fields between tabs.
        columns: names that the header has, or numbers from 1 of files that have no header.
        labelled: the last column holds labels, and a row with a text must have one.
        tally: counts what is left out.

    Raises:
        FileError: a file cannot be read, is not UTF-8 or not what its name says, or has no rows;
            or a label is missing.
        ArgumentError: there is no such column, or some have names and others numbers.
        MissingExtraError: pyarrow is not installed, and a file is Parquet or .zst.
    """
    names = [one for one in columns if isinstance(one, str)]
    numbers = [one for one in columns if isinstance(one, int)]
    if names and numbers:
        raise ArgumentError(
            f"columns are all names or all numbers, not '{names[0]}' and {numbers[0]}"
        )
    label = names[-1] if names else f"label in column {numbers[-1]}"
    tally = Tally() if tally is None else tally
    for path in files:
        if numbers and kind(path) == ".jsonl":
            raise ArgumentError(f"the fields of '{name_of(path)}' have names, and no numbers")
        choose = numbered(path, *numbers) if numbers else named(path, *names)
        is_empty = True
        for line, cells in table(path, choose, headed=bool(names)):
            blanks = [cell is None or is_blank(cell) for cell in cells]
            if labelled and blanks[-1] and not any(blanks[:-1]):
                raise FileError(f"'{name_of(path)}' has no {label} in line {line}")
            if any(blanks):
                tally.blank += 1
                continue
            is_empty = False
            found = [str(cell) for cell in cells]
            yield (*found[:-1], found[-1].strip()) if labelled else tuple(found)
        if is_empty:
            raise nothing_in(path)


# -------------------------------------------------------------------- documents, as ids on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Documents to learn from, and others to be judged by."""

    tokenizer: Tokenizer
    training: Sequences
    held_out: Sequences
    left_out: Tally


def prepare(
    files: Sequence[Path],
    directory: Path,
    *,
    held_out: Sequence[Path] = (),
    column: str | None = None,
    vocabulary: int | None = None,
    ends: str = f"{END} $A",
    marks: Sequence[str] = (),
    longest: int | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Progress = _silent,
) -> Prepared:
    """Make documents into ids in a directory; or open what is there, if it is of the same.

    One process does so at a time.

    Unless files are held out, the last documents are, as few as have 5 % of the text; where they
    have more than a fifth of it, as when there is only one, it is the last 5 % of the text.

    Args:
        files: as `documents` reads them. Those of the same path, size and time are the same.
        directory: where to.
        held_out: files to be judged by.
        column: of the text.
        vocabulary: its size; `vocabulary.suggested_size` unless given.
        ends: where END goes.
        marks: more tokens that no text is spelled with, such as MASK.
        longest: tokens of a sequence with its marks; longer documents become several.
        tokenizer: the one to use, instead of one that is learnt.
        progress: told now and then.

    Raises:
        FileError: as `documents`; there are fewer than 1,000 characters of text; or the directory
            cannot be written.
        ArgumentError: as `documents` and `byte_pairs`.
        MissingExtraError: as `documents` and `byte_pairs`.
    """
    made_from = {
        **_identity(files, held_out, tokenizer),
        "column": column,
        "vocabulary": vocabulary,
        "ends": ends,
        "marks": list(marks),
        "longest": longest,
    }

    def make() -> dict[str, Any]:
        tally = Tally()
        survey = _survey(_told(documents(files, column, tally), "reading", None, progress))
        if survey.characters < LEAST_CHARACTERS:
            raise FileError(
                f"training needs at least {LEAST_CHARACTERS:,} characters of text, but "
                f"{_these(files)} {_has(files)} {survey.characters:,}"
            )
        last = None if held_out else survey.boundary
        characters = last or survey.characters

        def told(what: str) -> Iterator[Piece]:
            pieces = _between(documents(files, column), 0, last)
            return _told(pieces, what, characters, progress)

        used = tokenizer
        if used is None:
            texts = (piece.text for piece in told("vocabulary"))
            used = byte_pairs(texts, vocabulary, ends=ends, marks=marks, characters=characters)
            used.save(directory)
        _write(told("training"), used, directory / "training", longest)
        others = (
            documents(held_out, column, tally)
            if held_out
            else _between(documents(files, column), survey.boundary, None)
        )
        _write(_told(others, "held-out", None, progress), used, directory / "held-out", longest)
        return {"blank": tally.blank}

    def opened(found: dict[str, Any]) -> Prepared:
        return Prepared(
            tokenizer=_learnt(directory) if tokenizer is None else tokenizer,
            training=Sequences(directory / "training"),
            held_out=Sequences(directory / "held-out"),
            left_out=Tally(blank=found["blank"]),
        )

    return _made_once(directory, made_from, make, opened)


@dataclass(frozen=True, slots=True)
class _Survey:
    characters: int
    boundary: int
    """The character that the held-out text begins with."""


def _survey(pieces: Iterable[Piece]) -> _Survey:
    begins: deque[int] = deque()  # of late documents, a few thousand at the most
    characters = 0
    for text, is_new in pieces:
        if is_new and (not begins or characters - begins[-1] >= characters // 10_000):
            begins.append(characters)
            while begins[0] < (1 - 4 * HELD_OUT) * characters:
                begins.popleft()
        characters += len(text)
    least, most = (1 - 4 * HELD_OUT) * characters, (1 - HELD_OUT) * characters
    late = [place for place in begins if place and least <= place <= most]
    return _Survey(characters, late[-1] if late else int(most))


def _between(pieces: Iterable[Piece], first: int, last: int | None) -> Iterator[Piece]:
    """The text from one character to before another, or a little less where `_cut` says so."""
    end, begun = 0, False
    for text, begins in pieces:
        start, end = end, end + len(text)
        if last is not None and start >= last:
            return
        if end <= first:
            continue
        lower = _cut(text, first - start) if start < first else 0
        upper = len(text) if last is None or end <= last else _cut(text, last - start)
        if lower < upper:
            yield Piece(text[lower:upper], begins or not begun)
            begun = True


def _write(
    pieces: Iterable[Piece], tokenizer: Tokenizer, directory: Path, longest: int | None
) -> None:
    """Documents as sequences of their ids, with the tokenizer's marks around each."""
    before, after, room = _frame(tokenizer, longest)
    with building(directory, len(tokenizer)) as builder:
        length = 0  # of the sequence that has not ended, without its marks
        for batch in _batches(pieces):
            found = _encode(tokenizer, [piece.text for piece in batch])
            for (text, begins), ids in zip(batch, found, strict=True):
                builder.bytes += len(text.encode())
                if begins and length:
                    _end(builder, after)
                    length = 0
                done = 0
                while done < len(ids):
                    if not length:
                        builder.extend(before)
                    part = ids[done : done + room - length]
                    builder.extend(part)
                    done, length = done + len(part), length + len(part)
                    if length == room:
                        _end(builder, after)
                        length = 0
        if length:
            _end(builder, after)


def _end(builder: Builder, after: Sequence[int]) -> None:
    builder.extend(after)
    builder.end()


def _frame(tokenizer: Tokenizer, longest: int | None) -> tuple[list[int], list[int], int]:
    """What a tokenizer puts before a text and after it, and how many ids fit between."""
    (bare,), (whole,) = (tokenizer.encode(["a"], special=special) for special in (False, True))
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    marks = len(whole) - len(bare)
    if longest is not None and longest <= marks:
        raise ArgumentError(f"longest must be more than {count(marks, 'mark')}, not {longest}")
    room = sys.maxsize if longest is None else longest - marks
    return whole[:start], whole[start + len(bare) :], room


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids without marks; a text that spells a mark does not get one."""
    inner = getattr(tokenizer, "inner", None)
    if inner is None:
        return tokenizer.encode(texts, special=False)
    was = inner.encode_special_tokens
    inner.encode_special_tokens = True
    try:
        return tokenizer.encode(texts, special=False)
    finally:
        inner.encode_special_tokens = was


def _batches(texts: Iterable[_Read]) -> Iterator[list[_Read]]:
    """So many that all cores have work, and so few that memory does not notice."""
    waiting: list[_Read] = []
    characters = 0
    for text in texts:
        waiting.append(text)
        characters += _size(text)
        if len(waiting) == _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
            yield waiting
            waiting, characters = [], 0
    if waiting:
        yield waiting


# ------------------------------------------------------------------------- rows, as ids on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Texts that belong together, by their number."""

    texts: tuple[Sequences, ...]
    """Of each column."""
    labels: np.ndarray | None
    """(rows,) int64, the number of each row's label; None where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRows:
    """Rows to learn from, and others to be judged by."""

    tokenizer: Tokenizer
    training: Rows
    held_out: Rows
    names: tuple[str, ...]
    """Of the labels."""
    left_out: Tally


def prepare_rows(
    files: Sequence[Path],
    directory: Path,
    columns: Sequence[str | int],
    *,
    labelled: bool = False,
    held_out: Sequence[Path] = (),
    vocabulary: int | None = None,
    ends: str = f"$A {END}",
    marks: Sequence[str] = (),
    longest: int | None = None,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
    progress: Progress = _silent,
) -> PreparedRows:
    """Make rows into ids in a directory; or open what is there, if it is of the same.

    One process does so at a time.

    Unless files are held out, a random 5 % of the rows are, at the most 2,000. Rows whose first
    texts are the same are all held out, or none.

    Args:
        files: as `rows` reads them. Those of the same path, size and time are the same.
        directory: where to.
        columns: names, or numbers where there is no header.
        labelled: the last column holds labels.
        held_out: files to be judged by.
        vocabulary: its size, which all columns share; `vocabulary.suggested_size` unless given.
        ends: where END goes.
        marks: more tokens that no text is spelled with, such as MASK.
        longest: tokens of a text with its marks; rows with a longer one are left out.
        tokenizer: the one to use, instead of one that is learnt.
        seed: says which rows are held out.
        progress: told now and then.

    Raises:
        FileError: as `rows`; there are fewer than 10 different texts, or fewer than two labels; a
            held-out label is not among the others; or the directory cannot be written.
        ArgumentError: as `rows` and `byte_pairs`.
        MissingExtraError: as `rows` and `byte_pairs`.
    """
    made_from = {
        **_identity(files, held_out, tokenizer),
        "columns": list(columns),
        "labelled": labelled,
        "vocabulary": vocabulary,
        "ends": ends,
        "marks": list(marks),
        "longest": longest,
        "seed": seed,
    }
    texts = len(columns) - labelled

    def make() -> dict[str, Any]:
        tally = Tally()
        draw = _Draw(seed)
        labels: Counter[str] = Counter()
        characters = 0
        read = rows(files, columns, labelled=labelled, tally=tally)
        for row in _told(read, "reading", None, progress):
            draw.add(row[0])
            labels.update(row[texts:])
            characters += sum(map(len, row[:texts]))
        if draw.different < LEAST_TEXTS:
            raise FileError(
                f"training needs at least {LEAST_TEXTS} different texts, but {_these(files)} "
                f"{_has(files)} {draw.different}"
            )
        if labelled and len(labels) < 2:
            raise FileError(
                f"all rows of {_these(files)} have the label '{short(next(iter(labels)), 40)}'; "
                "a classifier needs two or more"
            )
        names = sorted(labels, key=lambda name: (len(name) if name.isdecimal() else 0, name))
        chosen = frozenset() if held_out else draw.chosen()

        def told(what: str, is_held_out: bool, total: int | None) -> Iterator[tuple[str, ...]]:
            if is_held_out and held_out:
                read = rows(held_out, columns, labelled=labelled, tally=tally)
            else:
                read = (
                    row
                    for row in rows(files, columns, labelled=labelled)
                    if (bool(chosen) and draw.number(row[0]) in chosen) == is_held_out
                )
            return _told(read, what, total, progress)

        used = tokenizer
        if used is None:
            read_texts = (
                text for row in told("vocabulary", False, characters) for text in row[:texts]
            )
            used = byte_pairs(read_texts, vocabulary, ends=ends, marks=marks, characters=characters)
            used.save(directory)
        for what, total in (("training", characters), ("held-out", None)):
            numbers = {name: number for number, name in enumerate(names)} if labelled else None
            read = told(what, what == "held-out", total)
            _write_rows(read, used, directory / what, texts, numbers, longest, tally)
        return {"names": names, "blank": tally.blank, "too_long": tally.too_long}

    def side(which: Path) -> Rows:
        labels = Sequences(which / "labels").ids.astype(np.int64) if labelled else None
        parts = tuple(Sequences(which / f"column-{number + 1}") for number in range(texts))
        return Rows(texts=parts, labels=labels)

    def opened(found: dict[str, Any]) -> PreparedRows:
        return PreparedRows(
            tokenizer=_learnt(directory) if tokenizer is None else tokenizer,
            training=side(directory / "training"),
            held_out=side(directory / "held-out"),
            names=tuple(found["names"]),
            left_out=Tally(found["blank"], found["too_long"]),
        )

    return _made_once(directory, made_from, make, opened)


class _Draw:
    """Draws texts as if from a hat: those with the smallest of random numbers that a seed gives
    them. A text has one number, however often it comes; and only the smallest are remembered.
    """

    def __init__(self, seed: int) -> None:
        self.key = str(seed).encode()
        self.rows = 0
        self.counts: dict[int, int] = {}
        self.largest_first: list[int] = []  # the same numbers below zero, since a heap is so

    def number(self, text: str) -> int:
        """The same for what a tokenizer takes to be the same, and for spaces around it."""
        same = unicodedata.normalize("NFC", text).strip().encode()
        return int.from_bytes(hashlib.blake2b(same, digest_size=8, key=self.key).digest())

    def add(self, text: str) -> None:
        number = self.number(text)
        self.rows += 1
        if number in self.counts:
            self.counts[number] += 1
        elif len(self.counts) < MOST_HELD_OUT_ROWS or number < -self.largest_first[0]:
            self.counts[number] = 1
            heappush(self.largest_first, -number)
            if len(self.counts) > MOST_HELD_OUT_ROWS:
                del self.counts[-heappop(self.largest_first)]

    @property
    def different(self) -> int:
        """Different texts; exact as long as they are fewer than are remembered."""
        return len(self.counts)

    def chosen(self) -> frozenset[int]:
        """The numbers of those that are drawn."""
        most = min(max(1, round(HELD_OUT * self.rows)), MOST_HELD_OUT_ROWS)
        taken, total = set(), 0
        for number in sorted(self.counts):
            if total + self.counts[number] <= most:
                taken.add(number)
                total += self.counts[number]
        return frozenset(taken or [min(self.counts, key=lambda number: self.counts[number])])


def _write_rows(
    read: Iterable[tuple[str, ...]],
    tokenizer: Tokenizer,
    directory: Path,
    texts: int,
    numbers: dict[str, int] | None,
    longest: int | None,
    tally: Tally,
) -> None:
    """Each column as sequences of ids, and the labels as sequences of one number."""
    before, after, room = _frame(tokenizer, longest)
    with ExitStack() as stack:
        builders = [
            stack.enter_context(building(directory / f"column-{number + 1}", len(tokenizer)))
            for number in range(texts)
        ]
        labels = (
            stack.enter_context(building(directory / "labels", len(numbers))) if numbers else None
        )
        kept = 0
        for batch in _batches(read):
            columns = list(zip(*batch, strict=True))[:texts]
            found = zip(*(_encode(tokenizer, column) for column in columns), strict=True)
            for row, sequences in zip(batch, found, strict=True):
                if max(map(len, sequences)) > room:
                    tally.too_long += 1
                    continue
                kept += 1
                for text, ids, builder in zip(row[:texts], sequences, builders, strict=True):
                    builder.bytes += len(text.encode())
                    builder.extend([*before, *ids, *after])
                    builder.end()
                if labels is not None and numbers is not None:
                    if row[-1] not in numbers:
                        raise FileError(
                            f"the held-out label '{short(row[-1], 40)}' is not among those to "
                            "learn from"
                        )
                    labels.extend([numbers[row[-1]]])
                    labels.end()
        if not kept:
            raise FileError(f"each row for {directory.name} has more than {longest} tokens")


def _size(read: tuple[object, ...]) -> int:
    """Characters of a piece or a row."""
    return sum(len(part) for part in read if isinstance(part, str))


# ------------------------------------------------------------------------------------ keeping


def _identity(
    files: Sequence[Path], held_out: Sequence[Path], tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """What tells data from others."""
    tokens = None
    if tokenizer is not None:
        spelled = "\n".join(tokenizer.token(number) for number in range(len(tokenizer)))
        tokens = hashlib.sha256(spelled.encode()).hexdigest()
    return {
        "version": _VERSION,
        "files": [_facts(path) for path in files],
        "held_out": [_facts(path) for path in held_out],
        "tokenizer": tokens,
    }


def _facts(path: Path) -> list[str | int]:
    try:
        found = path.stat()
        return [str(path.resolve()), found.st_size, found.st_mtime_ns]
    except OSError as error:
        raise FileError(f"cannot read '{name_of(path)}': {error.strerror or error}") from error


def _made_once(
    directory: Path,
    made_from: dict[str, Any],
    make: Callable[[], dict[str, Any]],
    opened: Callable[[dict[str, Any]], _Made],
) -> _Made:
    """Open what was made before, if it was of the same and is whole; or make it.

    What `make` has found is kept for `opened`, and written last: so nothing unfinished has it.
    """
    file = directory / _ABOUT
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["made_from"] == made_from:
            return opened(about["found"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is there, or something else, or not all of it
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {error.strerror or error}") from error
    found = make()
    write_whole(file, json.dumps({"made_from": made_from, "found": found}, indent=2))
    return opened(found)


def _learnt(directory: Path) -> Tokenizer:
    found = Tokenizer.load(directory)
    if found is None:
        raise FileError(f"'{directory}' has no tokenizer any more")
    return found


def _told(
    texts: Iterable[_Read], what: str, total: int | None, progress: Progress
) -> Iterator[_Read]:
    """The same, and every million characters a word about it."""
    done = told = 0
    for text in texts:
        yield text
        done += _size(text)
        if done - told >= 2**20:
            progress(what, done, total)
            told = done
    progress(what, done, total)


def _these(files: Sequence[Path]) -> str:
    return f"'{name_of(files[0])}'" if len(files) == 1 else f"the {count(len(files), 'file')}"


def _has(files: Sequence[Path]) -> str:
    return "has" if len(files) == 1 else "have"

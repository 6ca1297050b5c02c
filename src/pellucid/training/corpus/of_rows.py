"""Rows as ids on disk: pairs, and texts with their labels."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.common.wording import short
from pellucid.errors import FileError
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.corpus.dataset_cache import (
    HELD_OUT,
    Progress,
    batches,
    encode,
    frame,
    has,
    identity,
    learnt,
    made_once,
    reported,
    silent,
    these,
    told,
)
from pellucid.training.corpus.text_files import Tally, rows
from pellucid.training.sequences import Sequences, building
from pellucid.training.vocabulary import END, byte_pairs

MOST_HELD_OUT_ROWS = 2000
LEAST_TEXTS = 10
"""Different ones, of which some are held out."""


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
    left_out: tuple[Tally, Tally]
    """Of the rows to learn from, and of those that are held out; blank rows of the same files are
    of the former."""


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
    whatever: bool = False,
    progress: Progress = silent,
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
        whatever: whether what is there is opened though the files have changed since, or are gone.
        progress: told now and then.

    Raises:
        FileError: as `rows`; there are fewer than 10 different texts, or fewer than two labels; a
            held-out label is not among the others; or the directory cannot be written.
        ArgumentError: as `rows` and `byte_pairs`.
        MissingExtraError: as `rows` and `byte_pairs`.
    """
    made_from = {
        **identity(files, held_out, tokenizer),
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
        tallies = Tally(), Tally()
        draw = _Draw(seed)
        labels: Counter[str] = Counter()
        characters = 0
        read = rows(files, columns, labelled=labelled, tally=tallies[0])
        for row in reported(read, "reading", None, progress):
            draw.add(row[0])
            labels.update(row[texts:])
            characters += sum(map(len, row[:texts]))
        if draw.different < LEAST_TEXTS:
            raise FileError(
                f"training needs at least {LEAST_TEXTS} different texts, but {these(files)} "
                f"{has(files)} {draw.different}"
            )
        if labelled and len(labels) < 2:
            raise FileError(
                f"all rows of {these(files)} have the label '{short(next(iter(labels)), 40)}'; "
                "a classifier needs two or more"
            )
        names = sorted(labels, key=lambda name: (len(name) if name.isdecimal() else 0, name))
        chosen = frozenset() if held_out else draw.chosen()

        def some(what: str, is_held_out: bool, total: int | None) -> Iterator[tuple[str, ...]]:
            if is_held_out and held_out:
                read = rows(held_out, columns, labelled=labelled, tally=tallies[1])
            else:
                read = (
                    row
                    for row in rows(files, columns, labelled=labelled)
                    if (bool(chosen) and draw.number(row[0]) in chosen) == is_held_out
                )
            return reported(read, what, total, progress)

        used = tokenizer
        if used is None:
            read_texts = (
                text for row in some("vocabulary", False, characters) for text in row[:texts]
            )
            used = byte_pairs(read_texts, vocabulary, ends=ends, marks=marks, characters=characters)
            used.save(directory)
        for what, total in (("training", characters), ("held-out", None)):
            numbers = {name: number for number, name in enumerate(names)} if labelled else None
            is_held_out = what == "held-out"
            read = some(what, is_held_out, total)
            tally = tallies[is_held_out]
            _write_rows(read, used, directory / what, texts, numbers, longest, tally)
        return {"names": names, "left_out": [asdict(tally) for tally in tallies]}

    def side(which: Path) -> Rows:
        labels = Sequences(which / "labels").ids.astype(np.int64) if labelled else None
        parts = tuple(Sequences(which / f"column-{number + 1}") for number in range(texts))
        return Rows(texts=parts, labels=labels)

    def opened(found: dict[str, Any]) -> PreparedRows:
        return PreparedRows(
            tokenizer=learnt(directory) if tokenizer is None else tokenizer,
            training=side(directory / "training"),
            held_out=side(directory / "held-out"),
            names=tuple(found["names"]),
            left_out=told(found),
        )

    return made_once(directory, made_from, make, opened, whatever=whatever)


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
    before, after, room = frame(tokenizer, longest)
    with ExitStack() as stack:
        builders = [
            stack.enter_context(building(directory / f"column-{number + 1}", len(tokenizer)))
            for number in range(texts)
        ]
        labels = (
            stack.enter_context(building(directory / "labels", len(numbers))) if numbers else None
        )
        kept = 0
        for batch in batches(read):
            columns = list(zip(*batch, strict=True))[:texts]
            found = zip(*(encode(tokenizer, column) for column in columns), strict=True)
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

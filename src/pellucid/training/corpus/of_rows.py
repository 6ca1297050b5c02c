"""Rows as ids on disk: pairs of texts, and labelled texts."""

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
from pellucid.text.table_reading import PLAIN, Reading
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.corpus.dataset_cache import (
    HELD_OUT,
    Progress,
    batches,
    encode,
    frame,
    has,
    identity,
    made_once,
    reported,
    silent,
    tallies_of,
    these,
    trained_tokenizer,
)
from pellucid.training.corpus.text_files import Tally, rows
from pellucid.training.sequences import Sequences, building
from pellucid.training.vocabulary import END, byte_pairs

MOST_HELD_OUT_ROWS = 2000
LEAST_TEXTS = 10
"""The least number of different texts, since some are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of rows."""

    texts: tuple[Sequences, ...]
    """One per text column."""
    labels: np.ndarray | None
    """(rows,) int64, the index of each row's label; None if there are no labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRows:
    """Training and held-out rows."""

    tokenizer: Tokenizer
    training: Rows
    held_out: Rows
    names: tuple[str, ...]
    """The names of the labels."""
    left_out: tuple[Tally, Tally]
    """Of the training and the held-out rows; blank rows of shared files count as training rows."""


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
    reading: Reading = PLAIN,
    seed: int = 0,
    ignore_changes: bool = False,
    progress: Progress = silent,
) -> PreparedRows:
    """Tokenize rows into a directory, or open the result if it is there already.

    Only one process may do so at a time.

    Unless files are held out, a random 5% of the rows are, at most 2,000. Rows with the same first
    text are held out together.

    Args:
        files: as for `rows`; recognised by path, size and modification time.
        directory: of the result.
        columns: names, or numbers if there is no header.
        labelled: whether the last column has labels.
        held_out: files for evaluation.
        vocabulary: its size, shared by all columns; by default `vocabulary.suggested_size`.
        ends: the template of END, as for `byte_pairs`.
        marks: more special tokens, such as MASK.
        longest: the most tokens of a text; rows with a longer text are left out.
        tokenizer: to use instead of training one.
        reading: how the files are written.
        seed: chooses the held-out rows.
        ignore_changes: whether to open the result even if the files have changed or are gone.
        progress: called now and then.

    Raises:
        FileError: as `rows`; there are fewer than 10 different texts, or fewer than two labels; a
            held-out label is not in the training data; or the directory cannot be written.
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
        "reading": asdict(reading),
        "seed": seed,
    }
    texts = len(columns) - labelled

    def make() -> dict[str, Any]:
        tallies = Tally(), Tally()
        draw = _Draw(seed)
        labels: Counter[str] = Counter()
        characters = 0
        read = rows(files, columns, labelled=labelled, tally=tallies[0], reading=reading)
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
                read = rows(held_out, columns, labelled=labelled, tally=tallies[1], reading=reading)
            else:
                read = (
                    row
                    for row in rows(files, columns, labelled=labelled, reading=reading)
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

    def opened(result: dict[str, Any]) -> PreparedRows:
        return PreparedRows(
            tokenizer=trained_tokenizer(directory) if tokenizer is None else tokenizer,
            training=side(directory / "training"),
            held_out=side(directory / "held-out"),
            names=tuple(result["names"]),
            left_out=tallies_of(result),
        )

    return made_once(directory, made_from, make, opened, ignore_changes=ignore_changes)


class _Draw:
    """Draws different texts at random from a stream: those with the smallest keyed hashes.

    Only the smallest hashes are stored.
    """

    def __init__(self, seed: int) -> None:
        self.key = str(seed).encode()
        self.rows = 0
        self.counts: dict[int, int] = {}
        self.largest_first: list[int] = []  # negated, since heapq is a min-heap

    def number(self, text: str) -> int:
        """The hash of a text, ignoring Unicode normalisation and surrounding white space."""
        normalised = unicodedata.normalize("NFC", text).strip().encode()
        return int.from_bytes(hashlib.blake2b(normalised, digest_size=8, key=self.key).digest())

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
        """The number of different texts, at most `MOST_HELD_OUT_ROWS`."""
        return len(self.counts)

    def chosen(self) -> frozenset[int]:
        """The hashes of the drawn texts."""
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
    """Write each column as sequences of ids, and the labels as sequences of one number."""
    before, after, room = frame(tokenizer, longest)
    # The second column is of the target language, for which Marian has a model of its own.
    tokenizers = (tokenizer, tokenizer.of_target)
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
            encoded = zip(*map(encode, tokenizers, columns), strict=True)
            for row, sequences in zip(batch, encoded, strict=True):
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
                            f"the held-out label '{short(row[-1], 40)}' is not in the training data"
                        )
                    labels.extend([numbers[row[-1]]])
                    labels.end()
        if not kept:
            raise FileError(f"all {directory.name} rows have more than {longest} tokens")

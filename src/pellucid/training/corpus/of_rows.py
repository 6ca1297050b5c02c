"""Rows as ids on disk: pairs of texts, and labelled texts."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import FileError
from pellucid.tasks.targets import Kind, listed, read
from pellucid.text.equal_texts import fingerprint
from pellucid.text.table_reading import PLAIN, Reading
from pellucid.text.tokenizer import Tokenizer
from pellucid.training.corpus.dataset_cache import (
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
from pellucid.training.corpus.draw import LEAST_TEXTS, Draw
from pellucid.training.corpus.labels import Labels, stored
from pellucid.training.corpus.text_files import Tally, rows
from pellucid.training.sequences import Sequences, building
from pellucid.training.vocabulary import END, byte_pairs

_KEYS = "keys"
"""The file of a column's keys, next to its ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of rows."""

    texts: tuple[Sequences, ...]
    """One per text column."""
    keys: tuple[np.ndarray, ...]
    """One per text column, (rows,) uint64: equal texts have the same key."""
    labels: np.ndarray | None
    """(rows,) int64, the index of each row's label; or (rows, labels) bool, whether it has each; or
    (rows,) float64 numbers. None if there are no labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRows:
    """Training and held-out rows."""

    tokenizer: Tokenizer
    training: Rows
    held_out: Rows
    names: tuple[str, ...]
    """The names of the labels; numbers have none."""
    kind: Kind | None
    """What the labels are; None if there are none."""
    left_out: tuple[Tally, Tally]
    """Of the training and the held-out rows; blank rows of shared files count as training rows."""


def prepare_rows(
    files: Sequence[Path],
    directory: Path,
    columns: Sequence[str | int],
    *,
    labelled: bool = False,
    predict: Kind | None = None,
    separator: str | None = None,
    held_out: Sequence[Path] = (),
    apart: bool = True,
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

    Unless files are held out, a random 5% of the rows are, at most 2,000, with the same share of
    each label. Rows whose first texts are equal are on the same side: if files are held out, rows
    that are equal to theirs are left out of the training data.

    Args:
        files: as for `rows`; recognised by path, size and modification time.
        directory: of the result.
        columns: names, or numbers if there is no header.
        labelled: whether the last column has labels.
        predict: what the labels are, and
        separator: what divides several of them; as for `targets.read`.
        held_out: files for evaluation.
        apart: whether texts equal to those of `held_out` are left out of the training data; not if
            nothing is learnt.
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
        ArgumentError: as `rows`, `byte_pairs` and `targets.read`.
        MissingExtraError: as `rows` and `byte_pairs`.
    """
    made_from = {
        **identity(files, held_out, tokenizer),
        "columns": list(columns),
        "labelled": labelled,
        "apart": apart,
        "predict": predict,
        "separator": separator,
        "vocabulary": vocabulary,
        "ends": ends,
        "marks": list(marks),
        "longest": longest,
        "reading": asdict(reading),
        "seed": seed,
    }
    texts = len(columns) - labelled
    options: dict[str, Any] = {
        "labelled": labelled,
        "may_lack": predict == "labels" or separator is not None,
        "reading": reading,
    }

    def make() -> dict[str, Any]:
        tallies = Tally(), Tally()
        draw = Draw(seed)
        others = held_out if apart else ()
        judged = rows(others, columns, **options)
        known = {draw.number(row[0]) for row in judged}
        cells: Counter[str] = Counter()
        characters = 0
        every = rows(files, columns, tally=tallies[0], **options)
        for row in reported(every, "reading", None, progress):
            if draw.number(row[0]) in known:
                tallies[0].held_out += 1
                continue
            draw.add(row[0], _stratum(row[-1], predict, separator) if labelled else "")
            cells.update(row[texts:])
            characters += sum(map(len, row[:texts]))
        if draw.different < LEAST_TEXTS:
            but = " that are not held out" if known else ""
            raise FileError(
                f"training needs at least {LEAST_TEXTS} different texts{but}, but {these(files)} "
                f"{has(files)} {draw.different}"
            )
        labels = Labels.of([*cells], predict, separator, these(files)) if labelled else None
        is_number = labels is not None and labels.kind == "number"
        chosen = known if held_out else draw.chosen(stratified=not is_number)

        def some(what: str, is_held_out: bool, total: int | None) -> Iterator[tuple[str, ...]]:
            if is_held_out and held_out:
                chosen_rows = rows(held_out, columns, tally=tallies[1], **options)
            else:
                chosen_rows = (
                    row
                    for row in rows(files, columns, **options)
                    if (draw.number(row[0]) in chosen) == is_held_out
                )
            return reported(chosen_rows, what, total, progress)

        used = tokenizer
        if used is None:
            read_texts = (
                text for row in some("vocabulary", False, characters) for text in row[:texts]
            )
            used = byte_pairs(read_texts, vocabulary, ends=ends, marks=marks, characters=characters)
            used.save(directory)
        for what, total in (("training", characters), ("held-out", None)):
            is_held_out = what == "held-out"
            chosen_rows = some(what, is_held_out, total)
            tally = tallies[is_held_out]
            _write_rows(chosen_rows, used, directory / what, texts, labels, longest, tally)
        return {
            "names": [] if labels is None else list(labels.numbers),
            "kind": None if labels is None else labels.kind,
            "left_out": [asdict(tally) for tally in tallies],
        }

    def side(which: Path, kind: Kind | None, names: int) -> Rows:
        parts = [which / f"column-{number + 1}" for number in range(texts)]
        return Rows(
            texts=tuple(map(Sequences, parts)),
            keys=tuple(np.memmap(part / _KEYS, np.uint64, "r") for part in parts),
            labels=None if kind is None else stored(Sequences(which / "labels"), kind, names),
        )

    def opened(result: dict[str, Any]) -> PreparedRows:
        kind, names = result["kind"], tuple(result["names"])
        return PreparedRows(
            tokenizer=trained_tokenizer(directory) if tokenizer is None else tokenizer,
            training=side(directory / "training", kind, len(names)),
            held_out=side(directory / "held-out", kind, len(names)),
            names=names,
            kind=kind,
            left_out=tallies_of(result),
        )

    return made_once(directory, made_from, make, opened, ignore_changes=ignore_changes)


def _stratum(cell: str, predict: Kind | None, separator: str | None) -> str:
    """What sides of a split share evenly: the label, or the first of several in the alphabet."""
    is_several = separator is not None or listed(cell) is not None
    if predict != "labels" and (predict is not None or not is_several):
        return cell
    (several,) = read([cell], "labels", separator)
    assert isinstance(several, tuple)
    return min(several, default="")


def _write_rows(
    table_rows: Iterable[tuple[str, ...]],
    tokenizer: Tokenizer,
    directory: Path,
    texts: int,
    labels: Labels | None,
    longest: int | None,
    tally: Tally,
) -> None:
    """Write each column as sequences of ids with keys, and the labels as sequences of numbers."""
    before, after, room = frame(tokenizer, longest)
    # The second column is of the target language, for which Marian has a model of its own.
    tokenizers = (tokenizer, tokenizer.of_target)
    keys = [array("Q") for _ in range(texts)]
    paths = [directory / f"column-{number + 1}" for number in range(texts)]
    with ExitStack() as stack:
        builders = [stack.enter_context(building(path, len(tokenizer))) for path in paths]
        written = (
            None
            if labels is None
            else stack.enter_context(building(directory / "labels", labels.size))
        )
        kept = 0
        for batch in batches(table_rows):
            columns = list(zip(*batch, strict=True))[:texts]
            encoded = zip(*map(encode, tokenizers, columns), strict=True)
            for row, sequences in zip(batch, encoded, strict=True):
                if max(map(len, sequences)) > room:
                    tally.too_long += 1
                    continue
                kept += 1
                for text, ids, builder, own in zip(
                    row[:texts], sequences, builders, keys, strict=True
                ):
                    builder.bytes += len(text.encode())
                    builder.extend([*before, *ids, *after])
                    builder.end()
                    own.append(fingerprint(text))
                if labels is not None and written is not None:
                    written.extend(labels.stored(row[-1]))
                    written.end()
        if not kept:
            raise FileError(f"all {directory.name} rows have more than {longest} tokens")
    for path, own in zip(paths, keys, strict=True):
        (path / _KEYS).write_bytes(own.tobytes())

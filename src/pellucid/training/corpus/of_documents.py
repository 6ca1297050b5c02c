"""Documents as ids on disk, for decoders and masked encoders."""

from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import FileError
from pellucid.text.equal_texts import fingerprint
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
from pellucid.training.corpus.text_files import Piece, Tally, cut, documents
from pellucid.training.sequences import Builder, Sequences, building
from pellucid.training.vocabulary import END, byte_pairs

LEAST_CHARACTERS = 1000
"""The least text that is enough for training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Training and held-out documents."""

    tokenizer: Tokenizer
    training: Sequences
    held_out: Sequences
    left_out: tuple[Tally, Tally]
    """Of the training and the held-out files."""


def prepare(
    files: Sequence[Path],
    directory: Path,
    *,
    held_out: Sequence[Path] = (),
    apart: bool = True,
    column: str | int | None = None,
    vocabulary: int | None = None,
    ends: str = f"{END} $A",
    marks: Sequence[str] = (),
    longest: int | None = None,
    tokenizer: Tokenizer | None = None,
    reading: Reading = PLAIN,
    ignore_changes: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """Tokenize documents into a directory, or open the result if it is there already.

    Only one process may do so at a time.

    Unless files are held out, the last documents are: the fewest with 5% of the text or, if they
    have more than 20% of it, the last 5% of the text. Documents that are equal to a held-out one
    are left out of the training data.

    Args:
        files: as for `documents`; recognised by path, size and modification time.
        directory: of the result.
        held_out: files for evaluation.
        apart: whether texts equal to those of `held_out` are left out of the training data; not if
            nothing is learnt.
        column: of the text, by its name, or by its number if there is no header.
        vocabulary: its size; by default `vocabulary.suggested_size`.
        ends: the template of END, as for `byte_pairs`.
        marks: more special tokens, such as MASK.
        longest: the most tokens of a sequence; longer documents are divided.
        tokenizer: to use instead of training one.
        reading: how the files are written.
        ignore_changes: whether to open the result even if the files have changed or are gone.
        progress: called now and then.

    Raises:
        FileError: as `documents`; the text has fewer than 1,000 characters; or the directory cannot
            be written; or all documents are equal to held-out ones.
        ArgumentError: as `documents` and `byte_pairs`.
        MissingExtraError: as `documents` and `byte_pairs`.
    """
    made_from = {
        **identity(files, held_out, tokenizer),
        "apart": apart,
        "column": column,
        "vocabulary": vocabulary,
        "ends": ends,
        "marks": list(marks),
        "longest": longest,
        "reading": asdict(reading),
    }

    def make() -> dict[str, Any]:
        tallies = Tally(), Tally()
        survey = _survey(
            reported(documents(files, column, tallies[0], reading), "reading", None, progress)
        )
        if survey.characters < LEAST_CHARACTERS:
            raise FileError(
                f"training needs at least {LEAST_CHARACTERS:,} characters of text, but "
                f"{these(files)} {has(files)} {survey.characters:,}"
            )
        last = None if held_out else survey.boundary
        characters = last or survey.characters

        def judged(tally: Tally | None = None) -> Iterator[Piece]:
            if held_out:
                return documents(held_out, column, tally, reading)
            return _between(documents(files, column, None, reading), survey.boundary, None)

        pieces = reported(judged() if apart else (), "comparing", None, progress)
        known = {fingerprint(piece.text) for piece in pieces}

        def read(what: str, tally: Tally | None = None) -> Iterator[Piece]:
            pieces = _unknown_pieces(
                _between(documents(files, column, None, reading), 0, last), known, tally
            )
            return reported(pieces, what, characters, progress)

        used = tokenizer
        if used is None:
            texts = (piece.text for piece in read("vocabulary"))
            used = byte_pairs(texts, vocabulary, ends=ends, marks=marks, characters=characters)
            used.save(directory)
        _write(read("training", tallies[0]), used, directory / "training", longest)
        others = reported(judged(tallies[1]), "held-out", None, progress)
        _write(others, used, directory / "held-out", longest)
        return {"left_out": [asdict(tally) for tally in tallies]}

    def opened(result: dict[str, Any]) -> Prepared:
        return Prepared(
            tokenizer=trained_tokenizer(directory) if tokenizer is None else tokenizer,
            training=Sequences(directory / "training"),
            held_out=Sequences(directory / "held-out"),
            left_out=tallies_of(result),
        )

    return made_once(directory, made_from, make, opened, ignore_changes=ignore_changes)


@dataclass(frozen=True, slots=True)
class _Survey:
    characters: int
    boundary: int
    """The index of the first held-out character."""


def _survey(pieces: Iterable[Piece]) -> _Survey:
    begins: deque[int] = deque()  # starts of late documents, a few thousand at most
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
    """The text between two characters, or a little less, at a boundary from `cut`."""
    end, begun = 0, False
    for text, begins in pieces:
        start, end = end, end + len(text)
        if last is not None and start >= last:
            return
        if end <= first:
            continue
        lower = cut(text, first - start) if start < first else 0
        upper = len(text) if last is None or end <= last else cut(text, last - start)
        if lower < upper:
            yield Piece(text[lower:upper], begins or not begun)
            begun = True


def _unknown_pieces(
    pieces: Iterable[Piece], known: Container[int], tally: Tally | None
) -> Iterator[Piece]:
    """The pieces whose text is not known, and so the documents: equal ones are cut alike."""
    begins_next = is_empty = True
    for text, begins in pieces:
        begins_next |= begins
        if fingerprint(text) in known:
            if tally is not None and begins:
                tally.held_out += 1
            continue
        yield Piece(text, begins_next)
        begins_next = is_empty = False
    if is_empty:
        raise FileError("all training texts are in the held-out data, too")


def _write(
    pieces: Iterable[Piece], tokenizer: Tokenizer, directory: Path, longest: int | None
) -> None:
    """Write documents as sequences of ids, with the tokenizer's special tokens."""
    before, after, room = frame(tokenizer, longest)
    with building(directory, len(tokenizer)) as builder:
        length = 0  # of the current sequence, without special tokens
        for batch in batches(pieces):
            encoded = encode(tokenizer, [piece.text for piece in batch])
            for (text, begins), ids in zip(batch, encoded, strict=True):
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

"""Documents as ids on disk: what decoders and masked encoders read."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
from pellucid.training.corpus.text_files import Piece, Tally, cut, documents
from pellucid.training.sequences import Builder, Sequences, building
from pellucid.training.vocabulary import END, byte_pairs

LEAST_CHARACTERS = 1000
"""Of text, for there to be anything to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Documents to learn from, and others to be judged by."""

    tokenizer: Tokenizer
    training: Sequences
    held_out: Sequences
    left_out: tuple[Tally, Tally]
    """Of the files to learn from, and of those that are held out."""


def prepare(
    files: Sequence[Path],
    directory: Path,
    *,
    held_out: Sequence[Path] = (),
    column: str | int | None = None,
    vocabulary: int | None = None,
    ends: str = f"{END} $A",
    marks: Sequence[str] = (),
    longest: int | None = None,
    tokenizer: Tokenizer | None = None,
    whatever: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """Make documents into ids in a directory; or open what is there, if it is of the same.

    One process does so at a time.

    Unless files are held out, the last documents are, as few as have 5 % of the text; where they
    have more than a fifth of it, as when there is only one, it is the last 5 % of the text.

    Args:
        files: as `documents` reads them. Those of the same path, size and time are the same.
        directory: where to.
        held_out: files to be judged by.
        column: of the text, by its name, or its number where there is no header.
        vocabulary: its size; `vocabulary.suggested_size` unless given.
        ends: where END goes.
        marks: more tokens that no text is spelled with, such as MASK.
        longest: tokens of a sequence with its marks; longer documents become several.
        tokenizer: the one to use, instead of one that is learnt.
        whatever: whether what is there is opened though the files have changed since, or are gone.
        progress: told now and then.

    Raises:
        FileError: as `documents`; there are fewer than 1,000 characters of text; or the directory
            cannot be written.
        ArgumentError: as `documents` and `byte_pairs`.
        MissingExtraError: as `documents` and `byte_pairs`.
    """
    made_from = {
        **identity(files, held_out, tokenizer),
        "column": column,
        "vocabulary": vocabulary,
        "ends": ends,
        "marks": list(marks),
        "longest": longest,
    }

    def make() -> dict[str, Any]:
        tallies = Tally(), Tally()
        survey = _survey(reported(documents(files, column, tallies[0]), "reading", None, progress))
        if survey.characters < LEAST_CHARACTERS:
            raise FileError(
                f"training needs at least {LEAST_CHARACTERS:,} characters of text, but "
                f"{these(files)} {has(files)} {survey.characters:,}"
            )
        last = None if held_out else survey.boundary
        characters = last or survey.characters

        def read(what: str) -> Iterator[Piece]:
            pieces = _between(documents(files, column), 0, last)
            return reported(pieces, what, characters, progress)

        used = tokenizer
        if used is None:
            texts = (piece.text for piece in read("vocabulary"))
            used = byte_pairs(texts, vocabulary, ends=ends, marks=marks, characters=characters)
            used.save(directory)
        _write(read("training"), used, directory / "training", longest)
        others = (
            documents(held_out, column, tallies[1])
            if held_out
            else _between(documents(files, column), survey.boundary, None)
        )
        _write(reported(others, "held-out", None, progress), used, directory / "held-out", longest)
        return {"left_out": [asdict(tally) for tally in tallies]}

    def opened(found: dict[str, Any]) -> Prepared:
        return Prepared(
            tokenizer=learnt(directory) if tokenizer is None else tokenizer,
            training=Sequences(directory / "training"),
            held_out=Sequences(directory / "held-out"),
            left_out=told(found),
        )

    return made_once(directory, made_from, make, opened, whatever=whatever)


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
    """The text from one character to before another, or a little less where `cut` says so."""
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


def _write(
    pieces: Iterable[Piece], tokenizer: Tokenizer, directory: Path, longest: int | None
) -> None:
    """Documents as sequences of their ids, with the tokenizer's marks around each."""
    before, after, room = frame(tokenizer, longest)
    with building(directory, len(tokenizer)) as builder:
        length = 0  # of the sequence that has not ended, without its marks
        for batch in batches(pieces):
            found = encode(tokenizer, [piece.text for piece in batch])
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

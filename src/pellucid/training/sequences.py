"""Sequences of ids, concatenated in a memory-mapped file of any size."""

import json
import operator
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from pellucid.common.files import reason_of, write_whole
from pellucid.errors import ArgumentError, FileError

CHUNK = 2**18
"""Numbers written at once."""


class Sequences:
    """Read-only sequences on disk, cheap to open."""

    def __init__(self, directory: Path) -> None:
        """Open what `build` wrote.

        Raises:
            FileError: it is missing or incomplete.
        """
        try:
            about = json.loads((directory / "about.json").read_text())
            self.ids = np.memmap(directory / "ids", about["dtype"], "r")
            """(ids,), uint16 or uint32"""
            self.ends = np.memmap(directory / "ends", np.int64, "r")
            """The end of each sequence in `ids`."""
            is_whole = len(self.ids) == about["ids"] and len(self.ends) == about["sequences"]
            self.bytes: int = about["bytes"]
            """UTF-8 bytes of the original text."""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"'{directory}' has no sequences: {error}") from error
        if not is_whole:
            raise FileError(f"'{directory}' is damaged: its length has changed")

    @classmethod
    def build(
        cls,
        directory: Path,
        sequences: Iterable[Sequence[int]],
        vocabulary: int,
        size: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> "Sequences":
        """Write sequences with a `Builder`.

        Args:
            directory: to write to.
            sequences: the ids of each; none may be empty.
            vocabulary: the number of ids, which determines the bytes per id.
            size: UTF-8 bytes of their text.
            progress: called now and then with the number of sequences written.
        """
        with building(directory, vocabulary) as builder:
            for number, sequence in enumerate(sequences, 1):
                builder.extend(sequence)
                builder.end()
                if progress is not None and number % 1000 == 0:
                    progress(number)
            builder.bytes = size
        return cls(directory)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Tensor:
        """The ids of a sequence, (ids,) int64; negative numbers count from the end."""
        number = operator.index(number)
        number += len(self) * (number < 0)
        if not 0 <= number < len(self):
            raise IndexError(number)  # also ends an iteration
        start = int(self.ends[number - 1]) if number else 0
        return self.span(start, int(self.ends[number]))

    def span(self, start: int, end: int) -> Tensor:
        """The ids from `start` to `end`, across sequences, int64."""
        return torch.from_numpy(self.ids[start:end].astype(np.int64))

    @cached_property
    def lengths(self) -> np.ndarray:
        """(sequences,)"""
        return np.diff(self.ends, prepend=0)


class Builder:
    """Writes sequences in parts of any length, without keeping them in memory."""

    def __init__(self, ids: BinaryIO, ends: BinaryIO, vocabulary: int) -> None:
        """Write to two files; `building` opens them."""
        self.dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
        self.bytes = 0
        """UTF-8 bytes of the text, set by the caller."""
        self._ids, self._waiting_ids = ids, array(self.dtype.char)
        self._ends, self._waiting_ends = ends, array("q")
        self._count = self._last_end = self._sequences = 0

    def extend(self, ids: Sequence[int]) -> None:
        """Add ids to the current sequence."""
        self._waiting_ids.extend(ids)
        self._count += len(ids)
        if len(self._waiting_ids) >= CHUNK:
            _write(self._waiting_ids, self._ids)

    def end(self) -> None:
        """End the current sequence.

        Raises:
            ArgumentError: it is empty.
        """
        if self._count == self._last_end:
            raise ArgumentError(f"sequence {self._sequences + 1} is empty")
        self._last_end = self._count
        self._sequences += 1
        self._waiting_ends.append(self._count)
        if len(self._waiting_ends) >= CHUNK:
            _write(self._waiting_ends, self._ends)

    def finish(self) -> dict[str, int | str]:
        """Flush the files; returns the metadata for `Sequences`.

        Raises:
            ArgumentError: there are no sequences.
        """
        if not self._sequences:
            raise ArgumentError("there are no sequences to write")
        assert self._count == self._last_end, "the last sequence has not ended"
        _write(self._waiting_ids, self._ids)
        _write(self._waiting_ends, self._ends)
        return {
            "dtype": self.dtype.name,
            "ids": self._count,
            "sequences": self._sequences,
            "bytes": self.bytes,
        }


def _write(waiting: array, file: BinaryIO) -> None:  # type: ignore[type-arg]
    waiting.tofile(file)
    del waiting[:]


@contextmanager
def building(directory: Path, vocabulary: int) -> Iterator[Builder]:
    """A builder that replaces `directory` at the end of the block, if there is no error.

    Args:
        directory: replaced as a whole.
        vocabulary: the number of ids: two bytes each for up to 65,536, otherwise four.

    Raises:
        ArgumentError: a sequence is empty, or there is none.
        FileError: the directory cannot be written.
    """
    aside = directory.with_name(directory.name + ".partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with (aside / "ids").open("wb") as ids, (aside / "ends").open("wb") as ends:
            builder = Builder(ids, ends, vocabulary)
            yield builder
            about = builder.finish()
        write_whole(aside / "about.json", json.dumps(about))
        shutil.rmtree(directory, ignore_errors=True)
        aside.replace(directory)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
        raise

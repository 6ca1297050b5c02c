"""Sequences of ids end to end in a file that is mapped into memory, however large it is."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pellucid.common.files import write_whole, written_whole
from pellucid.errors import FileError

CHUNK = 2**20
"""Ids that are written at once."""


class Sequences:
    """Read-only, and as cheap to open as to close."""

    def __init__(self, directory: Path) -> None:
        """Open what `build` wrote.

        Raises:
            FileError: it is not there, or not whole.
        """
        try:
            said = json.loads((directory / "about.json").read_text())
            self.ids = np.memmap(directory / "ids", said["dtype"], "r")
            self.ends = np.memmap(directory / "ends", np.int64, "r")
            """Where each sequence ends among the ids."""
            whole = len(self.ids) == said["ids"] and len(self.ends) == said["sequences"]
        except (OSError, ValueError, KeyError) as error:
            raise FileError(f"'{directory}' holds no sequences: {error}") from error
        if not whole:
            raise FileError(f"'{directory}' is damaged: it is not as long as it was")
        self.bytes: int = said["bytes"]
        """UTF-8 bytes of the text that they were made from."""

    @classmethod
    def build(
        cls, directory: Path, sequences: Iterable[Sequence[int]], vocabulary: int, size: int = 0
    ) -> "Sequences":
        """Write sequences, one after the other; whole or not at all.

        Args:
            directory: where to.
            sequences: ids of each; none may be empty.
            vocabulary: how many ids there are, which says how many bytes each takes.
            size: UTF-8 bytes of their text.
        """
        directory.mkdir(parents=True, exist_ok=True)
        dtype = np.uint16 if vocabulary <= 2**16 else np.uint32
        ends: list[int] = []
        end = 0
        with written_whole(directory / "ids") as aside, aside.open("wb") as file:
            waiting: list[int] = []
            for sequence in sequences:
                waiting += sequence
                end += len(sequence)
                ends.append(end)
                if len(waiting) >= CHUNK:
                    file.write(np.array(waiting, dtype).tobytes())
                    waiting.clear()
            file.write(np.array(waiting, dtype).tobytes())
        with written_whole(directory / "ends") as aside:
            aside.write_bytes(np.array(ends, np.int64).tobytes())
        about = {"dtype": np.dtype(dtype).name, "ids": end, "sequences": len(ends), "bytes": size}
        write_whole(directory / "about.json", json.dumps(about))
        return cls(directory)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Tensor:
        """(ids,) int64 of one sequence."""
        end = int(self.ends[number])
        return self.span(end - int(self.lengths[number]), end)

    def span(self, start: int, end: int) -> Tensor:
        """(end - start,) int64, across the ends of sequences."""
        return torch.from_numpy(self.ids[start:end].astype(np.int64))

    @property
    def lengths(self) -> np.ndarray:
        """(sequences,)"""
        return np.diff(self.ends, prepend=0)

"""Labels on disk: one or several a row, or a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from pellucid.common.wording import short
from pellucid.errors import FileError
from pellucid.tasks.amounts import PLAIN, Notation
from pellucid.tasks.targets import Kind, read, written
from pellucid.training.sequences import Sequences


@dataclass(frozen=True)
class Labels:
    """How labels are stored: as sequences of numbers."""

    kind: Kind
    numbers: dict[str, int]
    """The number of each label."""
    separator: str | None
    notation: Notation = PLAIN
    """How numbers are written."""

    @classmethod
    def of(
        cls, cells: list[str], predict: Kind | None, separator: str | None, files: str
    ) -> "Labels":
        """From the different cells."""
        given = read(cells, predict, separator)
        if isinstance(given[0], float):
            if len(set(given)) < 2:
                raise FileError(f"all rows of {files} have the number {given[0]:g}")
            return cls("number", {}, separator, written(cells) or PLAIN)
        kind: Kind = "label" if isinstance(given[0], str) else "labels"
        several = cast("Sequence[Sequence[str]]", given)
        distinct = (
            set(given) if kind == "label" else {label for labels in several for label in labels}
        )
        if len(distinct) < 2:
            name = short(str(next(iter(distinct), "")), 40)
            raise FileError(
                f"all rows of {files} have the label '{name}'; a classifier needs two or more"
            )
        names = sorted(map(str, distinct), key=lambda name: (len(name) * name.isdecimal(), name))
        return cls(kind, {name: number for number, name in enumerate(names)}, separator)

    @property
    def size(self) -> int:
        """How many numbers there are to store."""
        return 2**32 if self.kind == "number" else len(self.numbers) + (self.kind == "labels")

    def stored(self, cell: str) -> list[int]:
        """The numbers of a cell; raises FileError for an unknown label."""
        if self.kind == "number":
            return [int(np.float32(self.notation.number(cell)).view(np.uint32))]
        (given,) = read([cell], self.kind, self.separator)
        assert not isinstance(given, float)
        names = [given] if isinstance(given, str) else list(given)
        for name in names:
            if name not in self.numbers:
                raise FileError(
                    f"the held-out label '{short(str(name), 40)}' is not in the training data"
                )
        numbers = [self.numbers[str(name)] for name in names]
        # A sequence may not be empty, so several labels begin with a number that is none.
        return [len(self.numbers), *numbers] if self.kind == "labels" else numbers


def stored(labels: Sequences, kind: Kind, names: int) -> np.ndarray:
    """The labels as `Rows` has them."""
    if kind == "number":
        numbers: np.ndarray = np.array(labels.ids, np.uint32).view(np.float32).astype(np.float64)
        return numbers
    if kind == "label":
        return labels.ids.astype(np.int64)
    matrix = np.zeros((len(labels), names + 1), bool)
    matrix[np.repeat(np.arange(len(labels)), labels.lengths), labels.ids] = True
    return np.ascontiguousarray(matrix[:, :names])

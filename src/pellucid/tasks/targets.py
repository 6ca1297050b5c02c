"""What is predicted of a text: one label, several labels, or a number."""

import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from pellucid.common.wording import short
from pellucid.errors import ArgumentError, TypeMismatchError

Kind = Literal["label", "labels", "number"]
KINDS: tuple[Kind, ...] = ("label", "labels", "number")
Given = Sequence[str] | Sequence[Collection[str]] | Sequence[float]
"""A label, a collection of labels, or a number for each text."""

SEPARATORS = ";|,"
"""Any of them divides the labels of a text, unless another is given."""
FEW_NUMBERS = 10
"""Up to how many different whole numbers are labels, such as stars, rather than amounts."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CODE = re.compile(r"[+-]?0\d")
"""How a postcode may begin, but no number."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """The targets of texts as numbers."""

    kind: Kind
    names: tuple[str, ...]
    """The labels, sorted; a number has none."""
    values: Array
    """(texts, labels) 1 for each label of a text, else 0; or (texts, 1) the numbers. float64."""

    @classmethod
    def of(cls, given: Given) -> "Targets":
        """The targets, whose Python type says their kind.

        Raises:
            TypeMismatchError: they are of no kind, or of several.
            ArgumentError: a number is not finite, or there are fewer than two different targets.
        """
        kind = _kind(given)
        if kind == "number":
            numbers = np.array(given, np.float64)[:, None]
            if not np.isfinite(numbers).all():
                raise ArgumentError("a number to learn is not finite")
            if len(np.unique(numbers)) < 2:
                raise ArgumentError(f"examples must have different numbers; {_all(given)}")
            return cls(kind=kind, names=(), values=numbers)
        targets = cast("Sequence[Any]", given)
        sets = [[target] if kind == "label" else [*target] for target in targets]
        names = sorted({str(label) for labels in sets for label in labels})
        if len(names) < 2 and (kind == "label" or not names):
            raise ArgumentError(f"examples must have at least two different labels; {_all(names)}")
        numbers_of = {name: number for number, name in enumerate(names)}
        values = np.zeros((len(sets), len(names)))
        for row, labels in zip(values, sets, strict=True):
            row[[numbers_of[str(label)] for label in labels]] = 1
        return cls(kind=kind, names=tuple(names), values=values)

    def part(self, rows: Array) -> "Targets":
        """Of some texts, with the labels that these have."""
        values = self.values[rows]
        if self.kind == "number":
            return Targets(kind=self.kind, names=(), values=values)
        return replace(self, values=values).columns(values.sum(0) > 0)

    def columns(self, kept: Array) -> "Targets":
        """With some of the labels, (labels,) bool, only."""
        names = tuple(name for name, is_kept in zip(self.names, kept, strict=True) if is_kept)
        return Targets(kind=self.kind, names=names, values=self.values[:, kept])


def read(cells: Sequence[str], kind: Kind | None = None, separator: str | None = None) -> Given:
    """Targets from the cells of a table.

    Args:
        cells: one for each text.
        kind: by default "labels" if there is a separator or a cell is a JSON list; "number" if all
            cells are numbers that cannot be labels (more than `FEW_NUMBERS` different ones, or
            fractions); else "label".
        separator: between the labels of a text; by default any of `SEPARATORS`.

    Raises:
        ArgumentError: a cell is no number, and numbers are wanted; or no label.
    """
    if kind is None and (separator is not None or any(listed(cell) is not None for cell in cells)):
        kind = "labels"
    if kind is None:
        kind = "number" if _amounts(cells) else "label"
    if kind == "label":
        return list(cells)
    if kind == "number":
        for cell in cells:
            if not _NUMBER.fullmatch(cell.strip()):
                raise ArgumentError(f"'{short(cell, 40)}' is not a number to learn")
        return [float(cell) for cell in cells]
    parted = re.compile(f"[{SEPARATORS}]" if separator is None else re.escape(separator))
    parts = (parted.split(cell) if listed(cell) is None else listed(cell) or [] for cell in cells)
    return [tuple(dict.fromkeys(filter(None, map(str.strip, labels)))) for labels in parts]


def listed(cell: str) -> list[str] | None:
    """The labels of a cell that is a JSON list of texts; None if it is none."""
    if not cell.startswith("["):
        return None
    try:
        labels = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return labels if is_list else None


def kind_named(name: str | None) -> Kind | None:
    """The kind of this name, or None for None.

    Raises:
        ArgumentError: there is no such kind.
    """
    found = next((kind for kind in KINDS if kind == name), None)
    if found is None and name is not None:
        raise ArgumentError(f"predict must be label, labels or number, not '{short(name, 40)}'")
    return found


def _amounts(cells: Sequence[str]) -> bool:
    different = set(cells)
    if not all(_NUMBER.fullmatch(cell) and not _CODE.match(cell) for cell in different):
        return False
    numbers = {float(cell) for cell in different}
    whole = all(number.is_integer() for number in numbers if math.isfinite(number))
    return len(numbers) > FEW_NUMBERS or (not whole and len(numbers) > 2)


def _kind(given: Given) -> Kind:
    found: set[Kind] = set()
    for target in cast("Sequence[Any]", given):
        if isinstance(target, str):
            found.add("label")
        elif isinstance(target, int | float | np.number) and not isinstance(target, bool):
            found.add("number")
        elif isinstance(target, Collection):
            found.add("labels")
        else:
            raise TypeMismatchError(
                f"a label must be a str, a collection of str or a number, not {target!r}"
            )
    if len(found) > 1:
        raise TypeMismatchError("labels must be all str, all collections of str or all numbers")
    return found.pop() if found else "label"


def _all(targets: Sequence[Any]) -> str:
    return f"all are '{short(str(targets[0]), 40)}'" if len(targets) else "there are none"

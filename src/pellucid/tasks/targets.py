"""What is predicted of a text: one label, several labels, or a number."""

import ast
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from pellucid.common.wording import short
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.tasks.amounts import PLAIN, Notation, is_missing, notation

Kind = Literal["label", "labels", "number"]
KINDS: tuple[Kind, ...] = ("label", "labels", "number")
Given = Sequence[str] | Sequence[Collection[str]] | Sequence[float]
"""A label, a collection of labels, or a number for each text."""

SEPARATORS = ";|,"
"""Any of them divides the labels of a text, unless another is given."""
FEW_NUMBERS = 10
"""Up to how many different whole numbers are labels, such as stars, rather than amounts."""
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_BARE = r"[+-]?\d+(?:\.\d*)?"
_BETWEEN = r"(?:\s*,\s*|\s+|(?=[\])}]))"
_PYTHON = re.compile(
    rf"set\(\)|\[\s*(?:(?:{_QUOTED}|{_BARE}|None|nan){_BETWEEN})*\]"
    rf"|\(\s*(?:(?:{_QUOTED}){_BETWEEN})+\)|{{\s*(?:(?:{_QUOTED}){_BETWEEN})+}}",
    re.DOTALL,
)
"""A list, a tuple or a set of texts as Python shows it, or an array as NumPy does."""
_LONGEST = 2**16
"""Characters of a cell that may be a list."""

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
        kind: by default "labels" if there is a separator or a cell is a list, as JSON, Python or
            NumPy write it; "number" if all cells are numbers that cannot be labels (more than
            `FEW_NUMBERS` different ones, or fractions); else "label".
        separator: between the labels of a text; by default any of `SEPARATORS`.

    Raises:
        ArgumentError: a cell is no number, and numbers are wanted; no label; or it is unclear which
            number is meant, or whether any is, as `amounts.notation` says.
    """
    if kind is None and (separator is not None or any(listed(cell) is not None for cell in cells)):
        kind = "labels"
    if kind is None:
        kind = "number" if _amounts(cells) else "label"
    if kind == "label":
        return list(cells)
    if kind == "number":
        number = (written(cells) or PLAIN).number
        return [number(cell) for cell in cells]
    parted = re.compile(f"[{SEPARATORS}]" if separator is None else re.escape(separator))
    parts = (parted.split(cell) if listed(cell) is None else listed(cell) or [] for cell in cells)
    return [tuple(dict.fromkeys(filter(None, map(str.strip, labels)))) for labels in parts]


def written(cells: Sequence[str]) -> Notation | None:
    """How the cells of numbers are written; None if some are no numbers.

    Raises:
        ArgumentError: it is unclear which numbers are meant.
    """
    return notation(dict.fromkeys(cells))


def listed(cell: str) -> list[str] | None:
    """The labels of a cell that is a list of texts or numbers, as JSON, Python or NumPy write it;
    None if it is none.
    """
    cell = cell.strip()
    if not cell.startswith(("[", "(", "{", "set(")) or len(cell) > _LONGEST:
        return None
    try:
        labels = json.loads(cell)
    except (ValueError, RecursionError):
        return _shown_by_python(cell)
    if not isinstance(labels, list):
        return None
    known = [label for label in labels if label is not None and label == label]
    if any(isinstance(label, bool) or not isinstance(label, str | int | float) for label in known):
        return None
    return [label if isinstance(label, str) else json.dumps(label) for label in known]


def _shown_by_python(cell: str) -> list[str] | None:
    if not _PYTHON.fullmatch(cell):
        return None
    try:
        return [
            str(ast.literal_eval(item)) if item[0] in "'\"" else item
            for item in re.findall(f"{_QUOTED}|{_BARE}", cell, re.DOTALL)
        ]
    except (SyntaxError, ValueError):
        return None


def kind_named(name: str | None) -> Kind | None:
    """The kind of this name, or None for None.

    Raises:
        ArgumentError: there is no such kind.
    """
    chosen = next((kind for kind in KINDS if kind == name), None)
    if chosen is None and name is not None:
        raise ArgumentError(f"predict must be label, labels or number, not '{short(name, 40)}'")
    return chosen


def _amounts(cells: Sequence[str]) -> bool:
    """Whether cells are numbers that are no names."""
    different = dict.fromkeys(cells)
    try:
        number_notation = notation(different)
    except ArgumentError:
        is_fraction = any(re.search(r"\d[.,]\d", cell) for cell in different)
        if len(different) > FEW_NUMBERS or is_fraction or any(map(is_missing, different)):
            raise
        return False
    if number_notation is None:
        return False
    numbers = {number_notation.number(cell) for cell in different}
    whole = all(number.is_integer() for number in numbers if math.isfinite(number))
    return len(numbers) > FEW_NUMBERS or (not whole and len(numbers) > 2)


def _kind(given: Given) -> Kind:
    kinds: set[Kind] = set()
    for target in cast("Sequence[Any]", given):
        if isinstance(target, str):
            kinds.add("label")
        elif isinstance(target, int | float | np.number) and not isinstance(target, bool):
            kinds.add("number")
        elif isinstance(target, Collection):
            kinds.add("labels")
        else:
            raise TypeMismatchError(
                f"a label must be a str, a collection of str or a number, not {target!r}"
            )
    if len(kinds) > 1:
        raise TypeMismatchError("labels must be all str, all collections of str or all numbers")
    return kinds.pop() if kinds else "label"


def _all(targets: Sequence[Any]) -> str:
    return f"all are '{short(str(targets[0]), 40)}'" if len(targets) else "there are none"

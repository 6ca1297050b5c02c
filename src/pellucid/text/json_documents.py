"""Rows within one JSON object: its list of objects, its columns, or the object itself."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.common.files import is_blank
from pellucid.common.wording import listing
from pellucid.errors import FileError
from pellucid.text.columns import USUAL
from pellucid.text.noticed import Noticed
from pellucid.text.utf8_files import name_of

DEEPEST, MOST_NAMES = 8, 1000
"""How deep fields are looked for, and how many are named."""
_WORDS = 3
"""Fewer words beside a list of objects are hardly a text: a status, a date or a name."""


def rows_in(
    document: dict[str, Any], path: Path, wanted: Sequence[str | None], noticed: Noticed
) -> tuple[str, list[dict[str, Any]]]:
    """The one list of objects within an object, and what leads to it; or else the object.

    Args:
        document: the object.
        path: of its file.
        wanted: the names of the fields to read, as for `columns.named`. If the object has them
            itself it is the one row, whatever lists there are beside them.
        noticed: counts what is left out.

    Raises:
        FileError: there are several lists.
    """
    values = list(document.values())
    if not values:
        return "", [document]
    if all(isinstance(value, list) and not any(isinstance(cell, dict | list) for cell in value)
           for value in values) and len({len(value) for value in values}) == 1:  # fmt: skip
        return "", [dict(zip(document, cells, strict=True)) for cells in zip(*values, strict=True)]
    if all(isinstance(value, dict) and list(value) == list(values[0]) for value in values) and all(
        key.isdecimal() for key in values[0]
    ):  # columns of numbered cells, as pandas writes them
        cells = zip(*(value.values() for value in values), strict=True)
        return "", [dict(zip(document, row, strict=True)) for row in cells]
    lists = list(_lists(document))
    if not lists:
        return "", [document]
    own = dict(_own_texts(document))
    source = name_of(path)
    if _is_wanted(own, wanted, [name for name, _ in lists]):
        noticed.add("list", source, 1, ", ".join(name for name, _ in lists))
        return "", [document]
    if len(lists) > 1:
        names = listing([f"'{name}'" for name, _ in lists[:5]])
        raise FileError(
            f"'{source}' holds {len(lists)} lists of objects, {names}; write the one "
            "that is meant to a file of its own"
        )
    is_named = any((name or "").startswith(f"{lists[0][0]}.") for name in wanted)
    for name, text in own.items():
        if len(text.split()) >= _WORDS and not is_named:
            noticed.add("own", source, 1, f"{name}: {text}")
    return lists[0]


def _is_wanted(own: Mapping[str, str], wanted: Sequence[str | None], lists: Sequence[str]) -> bool:
    """Whether an object's own texts are those that are to be read, or may be: one beside a list."""
    column = wanted[0] if wanted else None
    if column is not None:
        return column in own
    levels = {"", *(name[: name.rfind(".") + 1] for name in lists)}
    return any(level + name in own for level in levels for name in USUAL)


def _own_texts(document: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, str]]:
    """The texts of an object that are in no list, by their names."""
    for name, value in islice(document.items(), MOST_NAMES):
        if isinstance(value, str) and not is_blank(value):
            yield name, value
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from ((f"{name}.{inner}", text) for inner, text in _own_texts(value, depth + 1))


def _lists(document: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield name, value
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from ((f"{name}.{inner}", rows) for inner, rows in _lists(value, depth + 1))

"""Rows of JSON files: objects in lines, in an array, or within the answer of a service.

    .jsonl, .ndjson    an object on each line
    .json              an array of objects or of texts; the one list of objects in an object, such
                       as {"data": [...]}; columns, {"text": [...]}; or an object on each line

Python's json reads them, because Arrow's reader guesses the types of columns from the first block,
refuses what differs later, and does not say in which line. An array is read a row at a time.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import is_blank
from pellucid.common.wording import listing
from pellucid.errors import FileError
from pellucid.text.encodings import lines_in
from pellucid.text.utf8_files import kind, lines_of, name_of, nothing_in, too_long

LOOKED_AT = 100
"""Objects that tell which fields there are."""
_DEEPEST, _MOST_NAMES = 8, 1000
"""How deep fields are looked for, and how many are named."""

Item = tuple[int, dict[str, Any]]
"""The line in which an object begins, from 1, and the object."""


def fields(path: Path, blocks: Iterator[str]) -> tuple[list[list[str]], Iterator[Item]]:
    """The names of the fields of the first objects, and all objects.

    The names of a field within another are joined by dots, as in "message.content"; an item of a
    list is its number, as in "choices.0.text".

    Args:
        path: of the file, whose name says its kind.
        blocks: its text.

    Returns:
        one or more lists of names for the same fields, the shorter names first; and the objects.

    Raises:
        FileError: the file cannot be read, is not JSON, or holds other values than objects.
    """
    prefix, items = _items(path, blocks)
    first = list(islice(items, LOOKED_AT))
    if not first:
        raise nothing_in(path)
    names = list(dict.fromkeys(name for _, item in first for name in _names(item)))
    headers = [names]
    if prefix:
        headers.append([f"{prefix}.{name}" for name in names])
    return headers, chain(first, items)


def _names(item: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    for name, value in islice(item.items(), _MOST_NAMES):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield name
            value = {"0": value[0]}
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from (f"{name}.{inner}" for inner in _names(value, depth + 1))
        else:
            yield name


def value_of(item: Any, name: str) -> Any:
    """The value of a field by its name; None if the object has none."""
    while True:
        if isinstance(item, dict) and name in item:
            return item[name]
        head, dot, name = name.partition(".")
        if isinstance(item, list) and head.isdecimal() and int(head) < len(item):
            item = item[int(head)]
        elif isinstance(item, dict):
            item = item.get(head)
        else:
            return None
        if not dot:
            return item


def _items(path: Path, blocks: Iterator[str]) -> tuple[str, Iterator[Item]]:
    """What leads to the list of the objects in the file, if anything, and the objects."""
    head = next(blocks, "")
    whole = chain([head], blocks)
    if head.lstrip().startswith("["):
        return "", _array(path, whole)
    lines = ((line, text) for line, text in enumerate(lines_of(whole, path), 1) if text.strip())
    if kind(path) != ".json":
        return "", _lines(path, lines)
    return _document(path, lines)


def _lines(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Item]:
    for line, text in lines:
        if is_blank(text):
            continue
        if len(text) > untrusted.MOST_JSON_LINE:
            raise too_long(f"line {line}", path, untrusted.MOST_JSON_LINE)
        yield line, _object(_parsed(text, line, path), line, path)


def _parsed(text: str, line: int, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"line {line} of '{name_of(path)}' is not JSON: {error}") from error


def _object(value: Any, line: int, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FileError(f"line {line} of '{name_of(path)}' is not a JSON object")
    return value


def _array(path: Path, blocks: Iterator[str]) -> Iterator[Item]:
    """The items of an array, of which one at a time is held; a text is an object with a text."""
    scan = json.JSONDecoder().raw_decode
    text, place, line = next(blocks), 0, 1

    def more() -> bool:
        """Forget what is read, and read at least as much again as is left."""
        nonlocal text, place, line
        line += lines_in(text[:place])
        parts = [text[place:]]
        wanted = len(parts[0])
        while wanted >= 0 and (block := next(blocks, "")):
            parts.append(block)
            wanted -= len(block)
        text, place = "".join(parts), 0
        return len(parts) > 1

    def mark() -> str:
        """The next character that is no space; "" at the end."""
        nonlocal place
        while True:
            while place < len(text) and text[place] in " \t\r\n":
                place += 1
            if place < len(text):
                return text[place]
            if not more():
                return ""

    def wrong(what: str, at: int) -> FileError:
        return FileError(
            f"line {line + lines_in(text[:at])} of '{name_of(path)}' is not JSON: {what}"
        )

    mark()
    place += 1  # the bracket
    is_first = True
    while (found := mark()) != "]":
        if not is_first:
            if found != ",":
                raise wrong("a comma or ] is missing", place)
            place += 1
            found = mark()
        is_first = False
        while True:
            try:
                value, end = scan(text, place)
                break
            except RecursionError as error:
                raise wrong(str(error), place) from error
            except json.JSONDecodeError as error:
                if len(text) - place > untrusted.MOST_JSON_LINE or not more():
                    raise wrong(error.msg, error.pos) from error
        at = line + lines_in(text[:place])
        if end - place > untrusted.MOST_JSON_LINE:
            raise too_long(f"the object in line {at}", path, untrusted.MOST_JSON_LINE)
        place = end
        yield at, {"text": value} if isinstance(value, str) else _object(value, at, path)
    place += 1
    if mark():
        raise wrong("more follows after ]", place)


def _document(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[str, Iterator[Item]]:
    """The rows of a file that begins with an object: JSON lines after all, or one object."""
    first, text = next(lines, (1, ""))
    if not text:
        raise nothing_in(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    following = next(lines, None)
    if document is not None and following is not None:
        return "", chain(
            [(first, _object(document, first, path))], _lines(path, chain([following], lines))
        )
    if document is None:
        parts, length = [text], len(text)
        for _, line in chain([following] if following else [], lines):
            parts.append(line)
            length += len(line)
            if length > untrusted.MOST_JSON_DOCUMENT:
                raise too_long("the object", path, untrusted.MOST_JSON_DOCUMENT)
        document = _parsed("".join(parts), first, path)
    rows = _rows_in(_object(document, first, path), path)
    return rows[0], ((number, row) for number, row in enumerate(rows[1], 1))


def _rows_in(document: dict[str, Any], path: Path) -> tuple[str, list[dict[str, Any]]]:
    """The one list of objects within an object, and what leads to it; or else the object."""
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
    if len(lists) > 1:
        names = listing([f"'{name}'" for name, _ in lists[:5]])
        raise FileError(
            f"'{name_of(path)}' holds {len(lists)} lists of objects, {names}; write the one "
            "that is meant to a file of its own"
        )
    return lists[0] if lists else ("", [document])


def _lists(document: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield name, value
        elif isinstance(value, dict) and depth < _DEEPEST:
            yield from ((f"{name}.{inner}", rows) for inner, rows in _lists(value, depth + 1))

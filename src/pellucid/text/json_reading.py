"""Rows of JSON files: objects in lines, in an array, or within the answer of a service.

    .jsonl, .ndjson    an object on each line
    .json              an array of objects or of texts; the one list of objects in an object, such
                       as {"data": [...]}, unless the object has the text itself; columns,
                       {"text": [...]}; or an object on each line

Python's json reads them, because Arrow's reader guesses the types of columns from the first block,
refuses what differs later, and does not say in which line. An array is read a row at a time.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import is_blank
from pellucid.errors import FileError
from pellucid.text.bad_rows import BadRows
from pellucid.text.encodings import lines_in
from pellucid.text.json_documents import DEEPEST, MOST_NAMES, rows_in
from pellucid.text.noticed import Noticed
from pellucid.text.utf8_files import kind, lines_of, name_of, nothing_in, too_long

LOOKED_AT = 100
"""Objects that tell which fields there are."""
_AHEAD = 20
"""Lines after the first that tell whether each is an object."""

Item = tuple[int, dict[str, Any]]
"""The line in which an object begins, from 1, and the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """Objects, and the names of their fields."""

    names: list[str]
    first: list[Item]
    """Those that tell which fields there are."""
    rest: Iterator[Item]
    prefix: str = ""
    """What leads to the objects within the file, with a dot; `header` has it before each name."""

    def __iter__(self) -> Iterator[Item]:
        return chain(self.first, self.rest)

    def header(self, wanted: Sequence[str | None] = ()) -> list[str]:
        """The names, and those of `wanted` that lead to any item of a list."""
        names = [self.prefix + name for name in self.names]
        others = (name for name in wanted if name is not None and name not in names)
        return names + [name for name in others if self._has(name)]

    def _has(self, name: str) -> bool:
        """Whether a name leads to an item of a list; some lists may be too short to have it."""
        if not name.startswith(self.prefix):
            return False
        name = name.removeprefix(self.prefix)
        any_item = re.sub(r"(?<=\.)\d+(?=\.|$)", "0", name)
        either = {name, any_item} if re.search(r"\.\d+(\.|$)", name) else ()
        return any(
            value_of(item, candidate) is not None for _, item in self.first for candidate in either
        )


def objects(
    path: Path,
    blocks: Iterator[str],
    wanted: Sequence[str | None] = (),
    noticed: Noticed | None = None,
    aside: BadRows | None = None,
) -> list[Objects]:
    """The objects of a file, with the names of the fields of the first ones.

    The names of a field within another are joined by dots, as in "message.content"; an item of a
    list is its number, as in "choices.0.text".

    Args:
        path: of the file, whose name says its kind.
        blocks: its text.
        wanted: the names of the fields to read, as for `columns.named`.
        noticed: counts what is odd.
        aside: takes the rows that are no objects, which are an error without it.

    Returns:
        the same objects under one or more headers, the shorter names first; none if all are bad.

    Raises:
        FileError: the file cannot be read, is not JSON, or holds other values than objects.
    """
    noticed = Noticed() if noticed is None else noticed
    prefix, items = _items(path, blocks, wanted, noticed, aside)
    first: list[Item] = []
    try:
        first.extend(islice(items, LOOKED_AT))
    except FileError as error:
        if not first:
            raise
        items = _failing(error)  # after what is before it
    if not first:
        if aside is not None and aside.rows:
            return []
        raise nothing_in(path)
    names = list(dict.fromkeys(name for _, item in first for name in _names(item)))
    prefixes = ["", f"{prefix}."] if prefix else [""]
    return [Objects(names=names, first=first, rest=items, prefix=start) for start in prefixes]


def _failing(error: FileError) -> Iterator[Item]:
    def fail() -> Item:
        raise error

    return iter(fail, None)


def _names(item: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    for name, value in islice(item.items(), MOST_NAMES):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield name
            value = {"0": value[0]}
        if isinstance(value, dict) and value and depth < DEEPEST:
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


def _items(
    path: Path,
    blocks: Iterator[str],
    wanted: Sequence[str | None],
    noticed: Noticed,
    aside: BadRows | None,
) -> tuple[str, Iterator[Item]]:
    """What leads to the list of the objects in the file, if anything, and the objects."""
    head = next(blocks, "")
    whole = chain([head], blocks)
    if head.lstrip().startswith("["):
        return "", _array(path, whole, aside)
    lines = ((line, text) for line, text in enumerate(lines_of(whole, path), 1) if text.strip())
    if kind(path) != ".json":
        return "", _lines(path, lines, aside)
    return _document(path, lines, wanted, noticed, aside)


def _lines(path: Path, lines: Iterator[tuple[int, str]], aside: BadRows | None) -> Iterator[Item]:
    for line, text in lines:
        if is_blank(text):
            continue
        try:
            if len(text) > untrusted.MOST_JSON_LINE:
                raise too_long(f"line {line}", path, untrusted.MOST_JSON_LINE)
            item = _object(_parsed(text, line, path), line, path)
        except FileError as error:
            if aside is None:
                raise
            aside.add(line, text, error)
            continue
        yield line, item


def _parsed(text: str, line: int, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"line {line} of '{name_of(path)}' is not JSON: {error}") from error


def _object(value: Any, line: int, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FileError(f"line {line} of '{name_of(path)}' is not a JSON object")
    return value


def _array(path: Path, blocks: Iterator[str], aside: BadRows | None) -> Iterator[Item]:
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
    while (character := mark()) != "]":
        if not is_first:
            if character != ",":
                raise wrong("a comma or ] is missing", place)
            place += 1
            character = mark()
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
        try:
            item = {"text": value} if isinstance(value, str) else _object(value, at, path)
        except FileError as error:
            if aside is None:
                raise
            aside.add(at, json.dumps(value), error)
            continue
        yield at, item
    place += 1
    if mark():
        raise wrong("more follows after ]", place)


def _document(
    path: Path,
    lines: Iterator[tuple[int, str]],
    wanted: Sequence[str | None],
    noticed: Noticed,
    aside: BadRows | None,
) -> tuple[str, Iterator[Item]]:
    """The rows of a file that begins with an object: JSON lines after all, or one object."""
    first = next(lines, None)
    if first is None:
        raise nothing_in(path)
    line, text = first
    ahead = list(islice(lines, _AHEAD))
    # Of an object on many lines all but the first are indented.
    are_rows = aside is not None and any(_is_object(line) for _, line in ahead)
    if ahead and (_is_json(text) or are_rows):
        return "", _lines(path, chain([first], ahead, lines), aside)
    parts, length = [text], len(text)
    for _, part in chain(ahead, lines):
        parts.append(part)
        length += len(part)
        if length > untrusted.MOST_JSON_DOCUMENT:
            raise too_long("the object", path, untrusted.MOST_JSON_DOCUMENT)
    document = _object(_parsed("".join(parts), line, path), line, path)
    prefix, rows = rows_in(document, path, wanted, noticed)
    return prefix, ((number, row) for number, row in enumerate(rows, 1))


def _is_json(text: str) -> bool:
    try:
        return json.loads(text) is not None
    except (ValueError, RecursionError):
        return False


def _is_object(text: str) -> bool:
    return text.startswith("{") and _is_json(text)

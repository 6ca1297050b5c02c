"""Which columns of a table are read: by name, or by number where there is no header."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pellucid.common.files import printable
from pellucid.common.wording import count, listing, short
from pellucid.errors import ArgumentError
from pellucid.text.utf8_files import kind, name_of

JSON = (".json", ".jsonl", ".ndjson")
"""Files whose fields always have names."""
USUAL = ("text", "sentence")
"""Columns that are read if no other is named."""

Choose = Callable[[Sequence[str]], list[int]]
"""Maps a header to the indices of the columns to read, or raises an error."""


def shown_name(name: str) -> str:
    """The name of a column in a message: short, and in one line."""
    return short(" ".join(printable(name).split()), 40)


def _indices(source: str, header: Sequence[str], names: Sequence[str | None]) -> list[int]:
    """The indices of the columns with these names; None is the column of the text."""
    text, *others = names
    if text is None:
        free = [name for name in header if name not in others]
        usual = [name for name in USUAL if name in free]
        if not usual and len(free) != 1:
            shown = listing([f"'{shown_name(name)}'" for name in free[:20]] or ["none"])
            raise ArgumentError(f"'{source}' has the columns {shown}; name one with --column")
        text = (usual or free)[0]
    chosen = [text, *(name for name in others if name is not None)]
    for name in chosen:
        if name not in header:
            near = _near(name, header)
            raise ArgumentError(f"'{source}' has no column '{shown_name(name)}'; {near}")
        if (same := list(header).count(name)) > 1:
            raise ArgumentError(
                f"'{source}' has {same} columns '{shown_name(name)}'; their names must differ"
            )
    return [list(header).index(name) for name in chosen]


def _near(name: str, header: Sequence[str]) -> str:
    lowered = {column.casefold(): column for column in header}
    similar = get_close_matches(name.casefold(), lowered, n=3, cutoff=0.6)
    shown = [f"'{shown_name(lowered[key])}'" for key in similar]
    if shown:
        return f"did you mean {listing(shown).replace(' and ', ' or ')}?"
    shown = [f"'{shown_name(column)}'" for column in header[:20]]
    return f"it has {listing(shown)}" if shown else "it has none"


@dataclass(frozen=True, slots=True)
class Named:
    """Chooses columns by name."""

    path: Path
    names: tuple[str | None, ...]
    """None as the first is the usual column, or the only one."""

    def __call__(self, header: Sequence[str]) -> list[int]:
        return _indices(name_of(self.path), header, self.names)


def named(path: Path, *names: str | None) -> Choose:
    """Choose columns by name; None as the first is the usual column, or the only one."""
    return Named(path, names)


def names_in(choose: Choose) -> tuple[str | None, ...]:
    """The names that columns are chosen by, as for `named`; none if they are chosen otherwise."""
    return choose.names if isinstance(choose, Named) else ()


def parsed_column(column: str) -> str | int:
    """A column as a command takes it: a number from 1, in a file without a header; or a name, which
    is in double quotes if it is a number.
    """
    if column.isdecimal() and int(column):
        return int(column)
    is_quoted = len(column) > 2 and column[0] == column[-1] == '"' and column[1:-1].isdecimal()
    return column[1:-1] if is_quoted else column


def chosen(path: Path, columns: Sequence[str | int | None]) -> tuple[Choose, bool]:
    """How to choose columns by name or by number, and whether the file has a header.

    Raises:
        ArgumentError: names and numbers are mixed, or the file is JSON, whose fields have names.
    """
    names = [column for column in columns if not isinstance(column, int)]
    numbers = [column for column in columns if isinstance(column, int)]
    if not numbers:
        return named(path, *names), True
    if names:
        raise ArgumentError(
            f"columns must be all names or all numbers, not '{names[0] or 'text'}' and {numbers[0]}"
        )
    if kind(path) in JSON:
        raise ArgumentError(
            f"the fields of '{name_of(path)}' have names, not numbers; a name that is a number is "
            f"given in quotes: '\"{numbers[0]}\"'"
        )
    return numbered(path, *numbers), False


def numbered(path: Path, *numbers: int) -> Choose:
    """Choose columns by number, from 1."""

    def indices(header: Sequence[str]) -> list[int]:
        for number in numbers:
            if not 1 <= number <= len(header):
                has = count(len(header), "column")
                named = f", one of them named '\"{number}\"'" if str(number) in header else ""
                raise ArgumentError(
                    f"'{name_of(path)}' has no column {number}; it has {has}{named}"
                )
        return [number - 1 for number in numbers]

    return indices

"""The grammar of `layers=`: which modules, or records of modules, an argument selects."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pellucid.errors import TypeMismatchError, UnknownNameError
from pellucid.lens.module_names import ancestors, layer_number
from pellucid.lens.record import Record

Layers = int | str | Iterable[int | str]
"""Layer numbers, module names, or patterns such as "decoder.*". A layer number is the first number
in a module's name; negative numbers count from the last layer. A name or a pattern also selects the
modules inside those that it matches."""
MOST_NAMES = 5


def select_names(names: Sequence[str], layers: Layers, note: str = "") -> set[str]:
    """The module names that `layers` selects.

    Args:
        names: the names to select from.
        layers: see `Layers`.
        note: appended to the message of an UnknownNameError.

    Raises:
        UnknownNameError: an entry of `layers` selects no name; the message lists similar names.
        TypeMismatchError: an entry is neither an int nor a str.
    """
    last = max((n for name in names if (n := layer_number(name)) is not None), default=-1)
    selected: set[str] = set()
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        layers = [layers]
    for entry in layers:
        if isinstance(entry, bool) or not isinstance(entry, int | str):
            raise TypeMismatchError(f"layers must be numbers or names, got {entry!r}")
        if isinstance(entry, int):
            number = entry if entry >= 0 else entry + last + 1
            matches = {name for name in names if layer_number(name) == number}
        else:
            matches = {
                name for name in names if any(fnmatchcase(x, entry) for x in ancestors(name))
            }
        if not matches:
            raise UnknownNameError(_nothing_like(entry, names, last) + note)
        selected |= matches
    return selected


def _nothing_like(entry: int | str, names: Sequence[str], last: int) -> str:
    """That an entry selects no name, and what there is."""
    if isinstance(entry, int):
        available = f"the last layer is {last}" if last >= 0 else "the layers have no numbers"
        return f"there is no layer {entry}; {available}"
    near = get_close_matches(entry, names, MOST_NAMES, cutoff=0.3) or names[:MOST_NAMES]
    rest = "" if len(near) == len(names) else ", ..."
    return f"layers={entry!r} matches no module; there are {', '.join(near) or 'none'}{rest}"


def select_records(
    records: Sequence[Record], layers: Layers | None, note: str = ""
) -> list[Record]:
    """The records whose modules `layers` selects, in call order; all if None.

    Raises:
        UnknownNameError, TypeMismatchError: as `select_names`.
    """
    if layers is None:
        return list(records)
    names = select_names(list(dict.fromkeys(record.name for record in records)), layers, note)
    return [record for record in records if record.name in names]

"""Which records of a recording are meant."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pellucid.errors import TypeMismatchError, UnknownNameError
from pellucid.lens.module_selection import LAYER, Layers
from pellucid.lens.record import Record

__all__ = ["chosen"]


def chosen(records: Sequence[Record], layers: Layers | None) -> list[Record]:
    """The records that `layers` asks for, in the order of their calls; all where it is None.

    Args:
        records: those to choose from.
        layers: layer numbers (the first number in a module's name, from the last one where
            negative), names of modules, or patterns of names such as "decoder.*".

    Raises:
        UnknownNameError: one of them asks for nothing that is there.
        TypeMismatchError: one of them is neither a number nor a name.
    """
    if layers is None:
        return list(records)
    wanted: Iterable[int | str] = [layers] if isinstance(layers, int | str) else layers
    names = list(dict.fromkeys(record.name for record in records))
    numbers = {name: int(match[1]) for name in names if (match := LAYER.search(name))}
    kept: set[str] = set()
    for one in wanted:
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise TypeMismatchError(f"layers must be numbers or names, got {one!r}")
        if isinstance(one, int):
            place = one if one >= 0 else one + max(numbers.values(), default=-1) + 1
            found = {name for name in names if numbers.get(name) == place}
        else:
            found = {name for name in names if fnmatchcase(name, one) or name.startswith(one + ".")}
        if not found:
            near = get_close_matches(str(one), names, 5, cutoff=0.3) or names[:5]
            raise UnknownNameError(
                f"layers asks for {one!r}, which none of these attentions is: {', '.join(near)}"
                f"{'' if len(near) == len(names) else ', ...'}"
            )
        kept |= found
    return [record for record in records if record.name in kept]

"""How layers are labelled in tables and views: a number, after a letter if stacks share numbers."""

from collections.abc import Sequence

from pellucid.lens import module_names
from pellucid.lens.record import Record

ENCODER, DECODER, CROSS = "e", "d", "x"


def label_layers(records: Sequence[Record]) -> list[tuple[str, int]]:
    """The letter of each record's stack, "" if the numbers alone are unique, and its number.

    The number is the first one in the module's name; or, if letters and numbers together are not
    unique either, the position of the record.
    """
    return _labels([(record.name, record.is_cross) for record in records])


def label_names(names: Sequence[str]) -> list[str]:
    """The labels of layers, letter and number, given the names of their modules alone."""
    return [f"{letter}{number}" for letter, number in _labels([(name, False) for name in names])]


def _labels(records: Sequence[tuple[str, bool]]) -> list[tuple[str, int]]:
    """The labels, given the name of each module and whether it is known to be cross-attention."""
    numbers = [module_names.layer_number(name) for name, _ in records]
    for stacks in ([""] * len(records), [_stack(name, is_cross) for name, is_cross in records]):
        labels = [(s, n) for s, n in zip(stacks, numbers, strict=True) if n is not None]
        if len(set(labels)) == len(records):
            return labels
    return [("", position) for position in range(len(records))]


def _stack(name: str, is_cross: bool) -> str:
    if is_cross or module_names.is_cross(name):
        return CROSS
    letters = {"encoder": ENCODER, "decoder": DECODER}
    return next((letters[part] for part in name.split(".") if part in letters), "")

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
    numbers = [module_names.layer_number(record.name) for record in records]
    for stacks in ([""] * len(records), [_stack(record) for record in records]):
        labels = [(s, n) for s, n in zip(stacks, numbers, strict=True) if n is not None]
        if len(set(labels)) == len(records):
            return labels
    return [("", position) for position in range(len(records))]


def _stack(record: Record) -> str:
    if record.is_cross or module_names.is_cross(record.name):
        return CROSS
    letters = {"encoder": ENCODER, "decoder": DECODER}
    return next((letters[part] for part in record.name.split(".") if part in letters), "")

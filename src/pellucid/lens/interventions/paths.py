"""path_patch(): what one head tells another one, and nothing else, taken from another run."""

from collections.abc import Callable
from typing import Literal, TypeVar

from torch import nn

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.interventions.intervention import intervene
from pellucid.lens.layer_selection import select_records
from pellucid.lens.record import Record
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording, as_recording

Result = TypeVar("Result")
Head = tuple[int | str, int]
"""The layer of a head, as in `watch(layers=)`, and its number."""
PARTS = ("query", "key", "value")


def path_patch(
    model: nn.Module,
    run: Callable[[], Result],
    recording: Recording | Record,
    sender: Head,
    receiver: Head,
    *,
    part: Literal["query", "key", "value"] = "query",
) -> Result:
    """Run a model as if a head had told another head what it told in another run.

    The path from the sender to the receiver is direct, or leads through layers without attention:
    three runs are made. The first keeps the outputs of all heads. In the second, the sender's
    output is that of the recording, all other heads keep their outputs of the first, and the
    receiver's query, key or value is recorded. In the third, this alone is patched.

    Args:
        model: the model.
        run: runs the model on the text in question, the same way each time, such as
            `lambda: model(**inputs)`.
        recording: of the other run, with values.
        sender, receiver: (layer, head), each of one module.
        part: what of the receiver the sender may change.

    Returns:
        What the third run returns.

    Raises:
        ArgumentError: a layer means several modules, the receiver does not run after the sender,
            or a module keeps no outputs of heads.
        UnknownNameError, OutOfRangeError: there is no such layer or head.

    Source: Wang et al. 2022, "Interpretability in the Wild", section 3.1; Goldowsky-Dill et al.
    2023, "Localizing Model Behavior with Path Patching".
    """
    if part not in PARTS:
        raise ArgumentError(f"part must be one of {', '.join(PARTS)}; got {part!r}")
    other = as_recording(recording)
    with watch(model, values=True) as plain:
        run()
    names = plain.names
    source, sending = _head("sender", sender, plain)
    target, receiving = _head("receiver", receiver, plain)
    if names.index(target) <= names.index(source):
        raise ArgumentError(
            f"'{target}' does not run after '{source}', so that it is not told anything by it"
        )
    with watch(model, [target], values=part == "value") as received, intervene(model) as edit:
        for name in names:
            heads = range(plain.record(name).shape[-3])
            if name != source:
                edit.patch(plain, name)
                continue
            edit.patch(other, name, sending)
            if others := [head for head in heads if head != sending]:
                edit.patch(plain, name, others)
        run()
    with intervene(model) as edit:
        edit.patch(received, target, receiving, part=part)
        return run()


def _head(what: str, head: Head, seen: Recording) -> tuple[str, int]:
    """The name of the module of a head, and the number of the head."""
    if not isinstance(head, tuple) or len(head) != 2 or type(head[1]) is not int:
        raise TypeMismatchError(f"{what} must be (layer, head), got {head!r}")
    names = list(dict.fromkeys(record.name for record in select_records(seen.records, head[0])))
    if len(names) > 1:
        raise ArgumentError(
            f"the {what}'s layer {head[0]!r} means {len(names)} modules: name one of "
            f"{', '.join(names)}"
        )
    count = seen.record(names[0]).shape[-3]
    number = head[1] + count if head[1] < 0 else head[1]
    if not 0 <= number < count:
        raise ArgumentError(f"there is no head {head[1]} in '{names[0]}': it has {count}")
    return names[0], number

"""What is done to heads while a model runs: each item of the batch has edits of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.interventions import intervene

By = Literal["zero", "mean"]


class Edit(NamedTuple):
    """The output of one head is replaced."""

    name: str
    """The module that attends."""
    head: int
    by: By | Tensor
    """Zeros, the mean over the queries, or (queries, value_dim)."""


@contextmanager
def edited(model: nn.Module, items: Sequence[Sequence[Edit]]) -> Iterator[None]:
    """Inside, item i of every batch runs with the edits `items[i]`."""
    handles = []
    numbered = [(item, edit) for item, edits in enumerate(items) for edit in edits]
    given = [(item, edit) for item, edit in numbered if isinstance(edit.by, Tensor)]
    others = [(item, edit) for item, edit in numbered if not isinstance(edit.by, Tensor)]
    for name in {edit.name for _, edit in given}:
        projection = getattr(model.get_submodule(name), "output", None)
        if projection is None:
            raise ArgumentError(f"random heads of '{name}' cannot be tried: ask for 0 controls")
        mine = [(item, edit) for item, edit in given if edit.name == name]
        handles.append(projection.register_forward_pre_hook(_replacing(mine)))
    try:
        if not others:
            yield
            return
        with intervene(model) as edit:
            for item, one in others:
                assert not isinstance(one.by, Tensor)
                edit.knock_out(one.name, one.head, items=item, by=one.by)
            yield
    finally:
        for handle in handles:
            handle.remove()


def _replacing(edits: Sequence[tuple[int, Edit]]) -> Any:
    def replace(module: nn.Module, inputs: Any) -> Any:
        x = inputs[0].clone()
        for item, edit in edits:
            size = edit.by.shape[-1]  # type: ignore[union-attr]
            x[item, :, edit.head * size : (edit.head + 1) * size] = edit.by
        return (x, *inputs[1:])

    return replace

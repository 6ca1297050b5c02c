"""Edits of a softmax that a model computes by hand, in two steps.

At the softmax its weights are replaced, of which the model then makes its context. Outputs of heads
that are scaled or replaced are written once the weights have met the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.lens.interception.calls import Shown
from pellucid.lens.interventions import exact, outputs
from pellucid.lens.interventions.edits import Stage
from pellucid.lens.interventions.regions import Region
from pellucid.lens.interventions.telling import shown_by_all


@dataclass(frozen=True, eq=False, slots=True)
class Begun:
    """A softmax whose edits have begun."""

    weights: Tensor | None
    """(batch, heads, queries, keys): the edited weights; None if they stay."""
    hidden: Shown | None
    """What the edits of weights leave, if hiding is all that they do."""
    rest: list[Region]
    """Edits of outputs, which wait for the context."""
    present: Tensor | None
    """(batch, keys) bool: the keys that some query sees, if queries are keys."""


def edited(name: str, scores: Tensor, weights: Tensor, regions: Sequence[Region]) -> Begun:
    """Begin with the edits of a softmax.

    Args:
        name: the module.
        scores, weights: (batch, heads, queries, keys), what the softmax takes and gives.
        regions: the edits.

    Raises:
        ArgumentError: an edit replaces a query, a key or a value, which are not known here.
    """
    for region in regions:
        if region.edit.stage == Stage.INPUT:
            raise ArgumentError(
                f"{region.edit.text}: '{name}' computes its softmax by hand, so that its "
                f"{region.edit.part} alone cannot be replaced; replace its pattern or its output"
            )
    rest = [x for x in regions if x.edit.stage == Stage.OUTPUT and not x.edit.zeroes]
    of_weights = [x for x in regions if x not in rest]
    changed = hidden = present = None
    if of_weights:
        changed = exact.softmax_of(scores, weights, of_weights)
        hidden = shown_by_all(of_weights, scores.shape, scores.device)
    if any(x.edit.is_mean for x in rest) and scores.shape[2] == scores.shape[3]:
        present = exact.shown_by(scores).any(1).any(1)
    return Begun(changed, hidden, rest, present)


def finished(begun: Begun, context: Tensor) -> Tensor:
    """The context, (batch, heads, queries, value_dim), with edits of outputs."""
    present = begun.present
    if present is None:
        return outputs.changed(context, begun.rest)
    return outputs.changed(context, begun.rest, lambda item: present[item])

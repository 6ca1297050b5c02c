"""gradient_times_weights(): how much each weight matters for one output of the model."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.lens.contributions import Contributions, value_of
from pellucid.lens.layer_selection import Layers, select_records
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording

__all__ = ["GradientTimesWeights", "gradient_times_weights"]

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "TransposeBackward0": lambda gradient: gradient.transpose(-3, -2),
    "UnsqueezeBackward0": lambda gradient: gradient.unsqueeze(0),
    "ToCopyBackward0": lambda gradient: gradient,
    "CloneBackward0": lambda gradient: gradient,
}
"""Backward nodes that may lie between the tensor a model uses and the context of a record, and what
they do to the gradient."""


class GradientTimesWeights(Contributions):
    """alpha_ij * dTarget/dalpha_ij, computed lazily: see `gradient_times_weights`."""

    @property
    def gradient(self) -> Tensor:
        """(..., heads, queries, value_dim): the target's gradient with respect to the context."""
        return self._left


def gradient_times_weights(
    seen: Recording | Record | Iterable[Record], target: Tensor, layers: Layers | None = None
) -> list[GradientTimesWeights]:
    """How much each weight matters for one output: the weight times its gradient.

        alpha_ij * dTarget/dalpha_ij = alpha_ij * (g_i . value_j),    g = dTarget/dcontext

    This is the first-order effect of scaling a weight on the target, positive where attention
    supports the target. Fused kernels have no weights to differentiate with respect to; the
    gradient with respect to the context is enough, and is no larger than the context. The weights
    are those before dropout: put the model in eval mode.

    Args:
        seen: a recording of `pellucid.watch(model, values=True)` with gradients on, or records.
        target: a single number from the model's output, such as a logit, in its graph; the graph is
            kept.
        layers: layer numbers, module names or patterns of names; all if None.

    Returns:
        One for each record that the target depends on, in call order. Index it like the weights,
        (..., heads, queries, keys); `received()` and `total()` are streamed.

    Raises:
        ArgumentError: recorded without values or under no_grad, or target depends on no record.
        ShapeError: target is not a single number.
        TypeMismatchError: target is not a tensor.
        UnknownNameError: `layers` matches no record.

    Source: Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability for Interpreting
    Bi-Modal and Encoder-Decoder Transformers", section 3, before negative products are dropped.
    """
    if not isinstance(target, Tensor):
        raise TypeMismatchError(f"target must be a tensor, got {type(target).__name__}")
    if target.numel() != 1:
        raise ShapeError(
            f"target must be a single number, such as logits[0, -1, token]; got shape "
            f"{tuple(target.shape)}"
        )
    if not target.requires_grad:
        raise ArgumentError(
            "target has no graph: run the model, and choose the target, without torch.no_grad()"
        )
    records = select_records(as_recording(seen).records, layers)
    contexts = [_context(record) for record in records]
    paths = [_edges(context) for context in contexts]
    edges = [edge for path in paths for edge, _ in path]
    gradients = iter(
        torch.autograd.grad(target, edges, retain_graph=True, allow_unused=True) if edges else ()
    )
    results = []
    for record, context, path in zip(records, contexts, paths, strict=True):
        along_path = [(next(gradients), undo) for _, undo in path]
        gradient = next((undo(g) for g, undo in along_path if g is not None), None)
        if gradient is not None:
            results.append(GradientTimesWeights(record, gradient.to(context), value_of(record)))
    if not results:
        names = ", ".join(dict.fromkeys(record.name for record in records)) or "nothing"
        joined = any(record.latest_queries < record.shape[-2] for record in records)
        raise ArgumentError(
            f"target does not depend on what was recorded ({names}): "
            + (
                "the steps of a generation were joined; watch one pass over all of its tokens"
                if joined
                else "take it from the output of the call that was watched"
            )
        )
    return results


def _context(record: Record) -> Tensor:
    """The context of a record, if it can be differentiated with respect to."""
    value_of(record)  # without values there is no context either
    if record.context is None:
        raise ArgumentError(
            f"'{record.name}' projects its context in the same call, so no gradient with respect "
            "to it exists; choose other modules with layers="
        )
    if record.has_edited_outputs:
        raise ArgumentError(
            f"the outputs of '{record.name}' were changed by an intervention, so that their "
            "gradient is not that of the weights: edit weights instead of outputs"
        )
    if not record.context.requires_grad:
        raise ArgumentError(
            f"'{record.name}' was recorded under torch.no_grad(), or with frozen parameters and "
            "inputs: watch the model with gradients on"
        )
    return record.context


def _edges(context: Tensor) -> list[tuple[GradientEdge, Callable[[Tensor], Tensor]]]:
    """Where the graph of the target may pass the context, and how to get its gradient from there.

    The model uses its own tensor, of which the context of a record may be another view.
    """
    edge = get_gradient_edge(context)
    undo: tuple[Callable[[Tensor], Tensor], ...] = ()
    path: list[tuple[GradientEdge, Callable[[Tensor], Tensor]]] = []
    while True:
        path.append((edge, partial(_undone, undo)))
        step = VIEWS.get(edge.node.name())
        parent, output = edge.node.next_functions[0] if step is not None else (None, 0)
        if step is None or parent is None:
            return path
        undo = (step, *undo)
        edge = GradientEdge(parent, output)


def _undone(steps: tuple[Callable[[Tensor], Tensor], ...], gradient: Tensor) -> Tensor:
    for step in steps:
        gradient = step(gradient)
    return gradient

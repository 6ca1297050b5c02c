"""What attention hands over, not only how strongly it looks: two ways to weigh the weights.

Both multiply each weight by a number that is a dot product of something of the query and something
of the key, so both are as lazy as the weights: `Contributions`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pellucid.attention import AttentionWeights, attention_weights, indexing
from pellucid.attention.limits import DENSE_LIMIT
from pellucid.attention.weights import Top
from pellucid.errors import (
    ArgumentError,
    OutOfRangeError,
    ShapeError,
    TypeMismatchError,
)
from pellucid.lens import record_selection
from pellucid.lens.module_selection import Layers
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording

__all__ = [
    "Attribution",
    "Contributions",
    "GradientTimesWeights",
    "attribution",
    "gradient_times_weights",
]

BOOKKEEPING: dict[str, Callable[[Tensor], Tensor]] = {
    "TransposeBackward0": lambda gradient: gradient.transpose(-3, -2),
    "UnsqueezeBackward0": lambda gradient: gradient.unsqueeze(0),
    "ToCopyBackward0": lambda gradient: gradient,
    "CloneBackward0": lambda gradient: gradient,
}
"""What may lie between what a model goes on with and the context of a record, and what it does to
the gradient."""


class Contributions:
    """weights[..., i, j] * (left[..., i, :] . right[..., j, :]), computed only where asked.

    (..., heads, queries, keys), in the dtype of the weights.
    """

    def __init__(self, record: Record, left: Tensor, right: Tensor) -> None:
        """left: (..., heads, queries, dim), right: (..., heads or kv_heads, keys, dim)."""
        self.name = record.name
        """The module that attends."""
        self.weights: AttentionWeights = record.weights
        self._left, self._right = left, right
        self._factors = attention_weights(left, right, score="dot_product").scores
        self.shape, self.ndim = self.weights.shape, self.weights.ndim
        self.dtype, self.device = self.weights.dtype, self.weights.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; index and cost as those of the weights."""
        return self.weights[index] * self._factors[index]

    def dense(self, limit: int | None = DENSE_LIMIT) -> Tensor:
        """All of it, n x n numbers a head; refused above `limit` bytes, as that of the weights.

        Raises:
            TooLargeError: it would take more, and how much.
        """
        return self.weights.dense(limit) * self._factors.dense(limit)

    def received(self, queries: slice | Sequence[int] | Tensor | None = None) -> Tensor:
        """What each key contributes to all queries: the sum of its column, (..., heads, keys).

        One streamed pass: the sum of column j is right_j . (weights.T @ left)_j.

        Args:
            queries: the queries to count, a slice or a set of positions; all unless given.

        Raises:
            OutOfRangeError: a query past the end.
            TypeMismatchError: queries are neither.
        """
        weights, left = self.weights, self._left
        if isinstance(queries, slice) and queries.step in (None, 1):
            weights, left = weights.rows(queries), left[..., queries, :]
        elif queries is not None:
            size = self.shape[-2]
            places = queries
            if not isinstance(places, slice):
                places = indexing.as_positions("queries", queries).to(left.device)
                if bool(((places < -size) | (places >= size)).any()):
                    raise OutOfRangeError(
                        f"queries must be from {-size} to {size - 1}, got {queries}"
                    )
            counted = torch.zeros(size, 1, dtype=left.dtype, device=left.device)
            counted[places] = 1
            left = left * counted
        return self._with_right(weights.T @ left)

    def total(self) -> Tensor:
        """What each query gets from all keys: the sum of its row, (..., heads, queries)."""
        return ((self.weights @ self._right) * self._left).sum(-1)

    def _with_right(self, gathered: Tensor) -> Tensor:
        """Dot products with `right`, whose heads may be shared: (..., heads, keys)."""
        *outer, heads, keys, dim = gathered.shape
        shared = self._right.shape[-3]
        grouped = gathered.reshape(*outer, shared, heads // shared, keys, dim)
        products = (grouped * self._right.to(gathered.dtype).unsqueeze(-3)).sum(-1)
        return products.reshape(*outer, heads, keys)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {tuple(self.shape)})"


class Attribution(Contributions):
    """Norm-based attribution, alpha_ij * ||f(x_j)||, as lazy as the weights: see `attribution`."""

    def __init__(self, record: Record, norms: Tensor) -> None:
        self.norms = norms
        """(..., heads, keys) length of the vector that each key would hand over in full."""
        ones = norms.new_ones(1).expand(*record.shape[:-1], 1)
        super().__init__(record, ones, norms.unsqueeze(-1))

    def received(self, queries: slice | Sequence[int] | Tensor | None = None) -> Tensor:
        """What each key hands over to all queries, (..., heads, keys), in one pass.

        Args:
            queries: the queries to count, a slice or a set of positions; all unless given.
        """
        return self.weights.received(queries) * self.norms

    def top(self, k: int) -> Top:
        """Each query's k largest contributions, largest first, each (..., heads, queries, k).

        Exact, in one streamed pass over scores that are raised by ln ||f(x_j)||.

        Raises:
            ArgumentError: k is below 1 or above the number of keys.
        """
        return self.weights.top(k, factors=self.norms)


class GradientTimesWeights(Contributions):
    """alpha_ij * dTarget/dalpha_ij, as lazy as the weights: see `gradient_times_weights`."""

    @property
    def gradient(self) -> Tensor:
        """(..., heads, queries, value_dim) gradient of the target by the context."""
        return self._left


@overload
def attribution(record: Record, output_weight: Tensor | None = None) -> Attribution: ...


@overload
def attribution(record: Recording, output_weight: None = None) -> dict[str, Attribution]: ...


def attribution(
    record: Record | Recording, output_weight: Tensor | None = None
) -> Attribution | dict[str, Attribution]:
    """How much each key hands over to each query: its weight times the length of what it gives.

        attribution = weights[..., i, j] * ||f(x_j)||,    f(x_j) = value_j @ W_O of the head

    A large weight on a key whose value is nearly zero hands over nothing; the weight alone does not
    show that. Nothing n x n is formed: f is the same for all queries. Differentiable in query, key
    and value.

    Args:
        record: one of `pellucid.watch(model, values=True)`; or the recording, for the attribution
            of each module's latest call by its name.
        output_weight: (model_dim, heads * value_dim), the projection after attention, as
            `output_projection(model, record)` finds it. Unless it is given, or the record
            knows it, the length is that of the value alone.

    Raises:
        ArgumentError: the record has no values.
        ShapeError: output_weight has another width.

    Source: Kobayashi et al. 2020, "Attention is Not Only a Weight: Analyzing Transformers with
    Vector Norms", section 3.
    """
    if isinstance(record, Recording):
        if output_weight is not None:
            raise ArgumentError("output_weight is that of one record, and this is a recording")
        return {one.name: attribution(one) for one in record.latest()}
    value = _value(record).to(record.weights.dtype)  # (..., kv_heads, keys, value_dim)
    heads, value_dim = record.shape[-3], value.shape[-1]
    output_weight = record.output_weight if output_weight is None else output_weight
    if output_weight is None:
        norms = torch.linalg.vector_norm(value, dim=-1)
        return Attribution(record, norms.repeat_interleave(heads // norms.shape[-2], -2))
    if output_weight.ndim != 2 or output_weight.shape[1] != heads * value_dim:
        raise ShapeError(
            f"output_weight must be (model_dim, heads * value_dim) = (model_dim, {heads} * "
            f"{value_dim}), got {tuple(output_weight.shape)}"
        )
    # ||W v|| = ||R v|| where W = Q R: value_dim numbers a key in place of model_dim.
    weight = output_weight.detach().to(value).unflatten(1, (heads, value_dim)).transpose(0, 1)
    turned = torch.linalg.qr(weight, mode="r").R.mT  # (heads, value_dim, at most value_dim)
    turned = turned.unflatten(0, (value.shape[-3], -1))
    handed = value.unsqueeze(-3) @ turned  # (..., kv_heads, group, keys, at most value_dim)
    return Attribution(record, torch.linalg.vector_norm(handed, dim=-1).flatten(-3, -2))


def gradient_times_weights(
    seen: Recording | Record | Iterable[Record], target: Tensor, layers: Layers | None = None
) -> list[GradientTimesWeights]:
    """How much each weight matters for one chosen output: the weight times its gradient.

        alpha_ij * dTarget/dalpha_ij = alpha_ij * (g_i . value_j),    g = dTarget/dcontext

    The first-order change of the target if the weight were multiplied, positive where attention
    speaks for the target. Fused kernels have no weights to take a gradient by; but the gradient by
    the context is all that is needed, and is no larger than the context. The weights are those
    before dropout: put the model in eval mode.

    Args:
        seen: a recording of `pellucid.watch(model, values=True)` with gradients on, or records.
        target: a single number that the model's output gave, such as a logit, still in its graph,
            which is kept.
        layers: layer numbers, names of modules or patterns of names.

    Returns:
        One for each record that the target depends on, in call order: index it as the weights,
        (..., heads, queries, keys); `received()` and `total()` are streamed.

    Raises:
        ArgumentError: recorded without values or under no_grad, or nothing of it leads to target.
        ShapeError: target is more than a number.
        TypeMismatchError: target is no tensor.
        UnknownNameError: `layers` asks for what was not recorded.

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
    records = record_selection.chosen(as_recording(seen).records, layers)
    contexts = [_context(record) for record in records]
    ways = [_ways(context) for context in contexts]
    edges = [edge for way in ways for edge, _ in way]
    found = iter(
        torch.autograd.grad(target, edges, retain_graph=True, allow_unused=True) if edges else ()
    )
    answer = []
    for record, context, way in zip(records, contexts, ways, strict=True):
        gradients = [(next(found), undo) for _, undo in way]
        gradient = next((undo(g) for g, undo in gradients if g is not None), None)
        if gradient is not None:
            answer.append(GradientTimesWeights(record, gradient.to(context), _value(record)))
    if not answer:
        names = ", ".join(dict.fromkeys(record.name for record in records)) or "nothing"
        joined = any(record.latest_queries < record.shape[-2] for record in records)
        raise ArgumentError(
            f"target does not depend on what was recorded ({names}): "
            + (
                "steps of a generation were joined; watch one pass over all of its tokens"
                if joined
                else "choose it from the output of the call that was watched"
            )
        )
    return answer


def _value(record: Record) -> Tensor:
    if record.value is None:
        raise ArgumentError(
            f"'{record.name}' was recorded without values: pellucid.watch(model, values=True)"
        )
    return record.value


def _context(record: Record) -> Tensor:
    """The context of a record that gradients can be asked for."""
    _value(record)  # told first: without values there is no context either
    if record.context is None:
        raise ArgumentError(
            f"'{record.name}' projects its context in the same call, so there is none to take a "
            "gradient by; choose others by layers="
        )
    if not record.context.requires_grad:
        raise ArgumentError(
            f"'{record.name}' was recorded under torch.no_grad(), or with frozen parameters and "
            "inputs: watch the model with gradients on"
        )
    return record.context


def _ways(context: Tensor) -> list[tuple[GradientEdge, Callable[[Tensor], Tensor]]]:
    """Where the graph of the target may pass the context, and how to get its gradient from there.

    A model goes on with its own tensor, of which the context of a record may be another view.
    """
    edge = get_gradient_edge(context)
    undo: tuple[Callable[[Tensor], Tensor], ...] = ()
    ways: list[tuple[GradientEdge, Callable[[Tensor], Tensor]]] = []
    while True:
        ways.append((edge, partial(_undone, undo)))
        step = BOOKKEEPING.get(edge.node.name())
        parent, output = edge.node.next_functions[0] if step is not None else (None, 0)
        if step is None or parent is None:
            return ways
        undo = (step, *undo)
        edge = GradientEdge(parent, output)


def _undone(steps: tuple[Callable[[Tensor], Tensor], ...], gradient: Tensor) -> Tensor:
    for step in steps:
        gradient = step(gradient)
    return gradient

"""attribution(): each weight times the length of the vector that it multiplies."""

from typing import overload

import torch
from torch import Tensor

from pellucid.attention.weights import Top
from pellucid.errors import ArgumentError
from pellucid.lens.contributions import Contributions, heads_of_output, value_of
from pellucid.lens.query_positions import Queries
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording

__all__ = ["Attribution", "attribution"]


class Attribution(Contributions):
    """Norm-based attribution, alpha_ij * ||f(x_j)||, computed lazily: see `attribution`."""

    def __init__(self, record: Record, norms: Tensor) -> None:
        self.norms = norms
        """(..., heads, keys): the length of the vector that each key contributes at weight 1."""
        ones = norms.new_ones(1).expand(*record.shape[:-1], 1)
        super().__init__(record, ones, norms.unsqueeze(-1))

    def received(self, queries: Queries = None) -> Tensor:
        """As `Contributions.received`, in one pass over the weights."""
        return self.weights.received(queries) * self.norms

    def top(self, k: int) -> Top:
        """Each query's k largest contributions, largest first, each (..., heads, queries, k).

        Exact, in one streamed pass over the scores plus ln ||f(x_j)||.

        Raises:
            ArgumentError: k is below 1 or above the number of keys.
        """
        return self.weights.top(k, factors=self.norms)


@overload
def attribution(record: Record, output_weight: Tensor | None = None) -> Attribution: ...


@overload
def attribution(record: Recording, output_weight: None = None) -> dict[str, Attribution]: ...


def attribution(
    record: Record | Recording, output_weight: Tensor | None = None
) -> Attribution | dict[str, Attribution]:
    """What each key contributes to each query: its weight times the length of its vector.

        attribution = weights[..., i, j] * ||f(x_j)||,    f(x_j) = value_j @ W_O of the head

    A large weight on a key whose value is nearly zero contributes nothing; the weight alone does
    not show that. No n x n tensor is formed, since f is the same for all queries. Differentiable in
    query, key and value.

    Args:
        record: a record of `pellucid.watch(model, values=True)`; or the recording, for the
            attribution of each module's latest call by name.
        output_weight: (model_dim, heads * value_dim), the projection after attention, as
            `output_projection(model, record)` returns it. Defaults to the record's own; without
            either, the length is that of the value.

    Raises:
        ArgumentError: the record has no values, or output_weight is given with a recording.
        ShapeError: output_weight has the wrong shape.

    Source: Kobayashi et al. 2020, "Attention is Not Only a Weight: Analyzing Transformers with
    Vector Norms", section 3.
    """
    if isinstance(record, Recording):
        if output_weight is not None:
            raise ArgumentError("output_weight is that of one record, and this is a recording")
        return {latest.name: attribution(latest) for latest in record.latest()}
    value = value_of(record).to(record.weights.dtype)  # (..., kv_heads, keys, value_dim)
    heads, value_dim = record.shape[-3], value.shape[-1]
    output_weight = record.output_weight if output_weight is None else output_weight
    if output_weight is None:
        norms = torch.linalg.vector_norm(value, dim=-1)
        return Attribution(record, norms.repeat_interleave(heads // norms.shape[-2], -2))
    # ||W v|| = ||R v|| where W = Q R: value_dim numbers per key instead of model_dim.
    weight = heads_of_output(output_weight, heads, value_dim).to(value)
    reduced = torch.linalg.qr(weight, mode="r").R.mT  # (heads, value_dim, at most value_dim)
    reduced = reduced.unflatten(0, (value.shape[-3], -1))
    vectors = value.unsqueeze(-3) @ reduced  # (..., kv_heads, group, keys, at most value_dim)
    return Attribution(record, torch.linalg.vector_norm(vectors, dim=-1).flatten(-3, -2))

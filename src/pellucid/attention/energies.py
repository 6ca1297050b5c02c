"""Energies: the score of a query and a key, before the softmax.

An energy whose scores are dot products of projected queries and keys runs through the fused
kernels; any other is computed block by block.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError

__all__ = ["Additive", "Bilinear", "Cosine", "DotProduct", "Energy", "ScaledDotProduct"]


class Energy:
    """The base class, and plain dot products: score = query . key.

    To write your own, override `score` (and set `is_dot_product` to False), or pass `attention` a
    function `(query, key) -> scores` from (..., rows, key_dim) and (..., cols, key_dim) to
    (..., rows, cols). Each score may depend only on its own query and key.
    """

    is_dot_product = True
    """Whether the scores are dot products of what `project` returns."""
    numbers_per_score = 1
    """How many intermediate numbers one score needs: it bounds the size of a block."""

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors to compare: (..., heads, queries, d) and (..., kv_heads, keys, d)."""
        _same_key_dim(query, key)
        return query, key

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """(..., rows, cols) from projected (..., rows, d) and (..., cols, d)."""
        return query @ key.mT

    def default_scale(self, key_dim: int) -> float:
        return 1.0

    @property
    def requires_grad(self) -> bool:
        """Whether `score` has parameters to train; one that is no dot product may hide some."""
        return not self.is_dot_product

    def map(self, change: Callable[[Tensor], Tensor]) -> "Energy":
        """The energy with `change` applied to each of its tensors, where it is a dataclass."""
        return mapped(self, change)

    def detach(self) -> "Energy":
        """The energy without gradients to its parameters."""
        return Detached(self) if self.requires_grad else self


class DotProduct(Energy):
    """score = query . key (Luong et al. 2015, "dot"), not scaled by default."""


class ScaledDotProduct(Energy):
    """score = query . key, by default scaled by 1/sqrt(key_dim) (Vaswani et al. 2017, eq. 1)."""

    def default_scale(self, key_dim: int) -> float:
        return float(key_dim**-0.5)


class Cosine(Energy):
    """score = cos(query, key), in [-1, 1], times `scale` (Graves et al. 2014)."""

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        _same_key_dim(query, key)
        normalize = torch.nn.functional.normalize
        return normalize(query, dim=-1), normalize(key, dim=-1)


@dataclass(frozen=True, eq=False)
class Bilinear(Energy):
    """score = query . W . key (Luong et al. 2015, "general")."""

    W: Tensor
    """(query_dim, key_dim), or (heads, query_dim, key_dim)."""

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        _check_parameter("Bilinear", "W", self.W, query)
        if self.W.shape[-2:] != (query.shape[-1], key.shape[-1]):
            raise ShapeError(
                f"Bilinear has W of shape {tuple(self.W.shape)} but query has key_dim "
                f"{query.shape[-1]} and key has {key.shape[-1]}"
            )
        return query @ self.W, key


@dataclass(frozen=True, eq=False)
class Additive(Energy):
    """score = v . tanh(query @ W_query + key @ W_key) (Bahdanau et al. 2015)."""

    W_query: Tensor
    """(query_dim, hidden)."""
    W_key: Tensor
    """(key_dim, hidden)."""
    v: Tensor
    """(hidden,)."""

    is_dot_product = False

    @property
    def numbers_per_score(self) -> int:  # type: ignore[override]
        return len(self.v)

    @property
    def requires_grad(self) -> bool:
        return self.v.requires_grad  # the others are used in `project`

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        _check_parameter("Additive", "v", self.v, query)
        if self.v.ndim != 1:
            raise ShapeError(f"Additive needs v of shape (hidden,), got {tuple(self.v.shape)}")
        hidden = len(self.v)
        for name, W, x in (("W_query", self.W_query, query), ("W_key", self.W_key, key)):
            _check_parameter("Additive", name, W, query)
            if W.shape != (x.shape[-1], hidden):
                raise ShapeError(
                    f"Additive needs {name} of shape {(x.shape[-1], hidden)} = (dim, hidden), "
                    f"got {tuple(W.shape)}"
                )
        return query @ self.W_query, key @ self.W_key

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        return torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3)) @ self.v.to(query.dtype)


@dataclass(frozen=True, eq=False)
class _FromFunction(Energy):
    function: Callable[[Tensor, Tensor], Tensor]

    is_dot_product = False

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query, key

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        scores = self.function(query, key)
        wanted = (query.shape[-2], key.shape[-2])
        if not isinstance(scores, Tensor) or scores.shape[-2:] != wanted:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ShapeError(f"score must return (..., rows, cols) = (..., {wanted}), got {got}")
        return scores


@dataclass(frozen=True, eq=False)
class Detached(Energy):
    """Another energy, as a constant."""

    of: Energy

    requires_grad = False

    @property
    def is_dot_product(self) -> bool:  # type: ignore[override]
        return self.of.is_dot_product

    @property
    def numbers_per_score(self) -> int:  # type: ignore[override]
        return self.of.numbers_per_score

    def project(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.of.project(query, key)

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        with torch.no_grad():
            return self.of.score(query, key)


_NAMED = {
    "cosine": Cosine(),
    "dot_product": DotProduct(),
    "scaled_dot_product": ScaledDotProduct(),
}

Holder = TypeVar("Holder")


def mapped(holder: Holder, change: Callable[[Tensor], Tensor]) -> Holder:
    """A dataclass with `change` applied to each of its tensors, nested ones included."""
    if isinstance(holder, type) or not is_dataclass(holder):
        return holder
    values: dict[str, Any] = {}
    for field in fields(holder):
        value = getattr(holder, field.name)
        values[field.name] = change(value) if isinstance(value, Tensor) else mapped(value, change)
    kind: Any = type(holder)
    return kind(**values)  # type: ignore[no-any-return]


def tensors_of(holder: object) -> list[Tensor]:
    """The tensors that `mapped` changes."""
    tensors: list[Tensor] = []
    mapped(holder, lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return tensors


def as_energy(score: str | Energy | Callable[[Tensor, Tensor], Tensor]) -> Energy:
    """The energy that a name, an object or a function stands for."""
    if isinstance(score, str):
        if score not in _NAMED:
            raise ArgumentError(
                f"score must be one of {', '.join(_NAMED)}, or an energy; got {score!r}"
            )
        return _NAMED[score]
    if isinstance(score, Energy):
        return score
    if callable(score) and not isinstance(score, type):  # a class must be instantiated first
        return _FromFunction(score)
    raise TypeMismatchError(f"score must be a name, an energy or a function, got {score!r}")


def _check_parameter(energy: str, name: str, parameter: Tensor, query: Tensor) -> None:
    if not isinstance(parameter, Tensor):
        raise TypeMismatchError(f"{energy} needs {name} to be a tensor, got {parameter!r}")
    if (parameter.dtype, parameter.device) != (query.dtype, query.device):
        raise TypeMismatchError(
            f"query is {query.dtype} on {query.device} but {energy} has {name} in "
            f"{parameter.dtype} on {parameter.device}"
        )


def _same_key_dim(query: Tensor, key: Tensor) -> None:
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(f"query has key_dim {query.shape[-1]} but key has {key.shape[-1]}")

"""What masks refuse: values of a wrong type, and sizes that do not fit the attention."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError


class Extent(NamedTuple):
    """The sizes a mask is used with."""

    batch_shape: torch.Size
    heads: int
    queries: int
    keys: int
    device: torch.device


def per_item(
    value: int | Tensor | Sequence[int], name: str, negative: bool = False
) -> int | Tensor:
    """An int, or an int tensor with one number per batch item.

    Raises:
        TypeMismatchError: something else.
        ArgumentError: a number is below 0 and must not be.
    """
    if isinstance(value, list | tuple):
        if not value or not all(type(number) is int for number in value):
            raise TypeMismatchError(f"{name} must be ints, got {value!r}")
        value = torch.tensor(value)
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeMismatchError(f"{name} must be an int or an int tensor, got {kind_of(value)}")
        if not negative and value.numel() and int(value.min()) < 0:
            raise ArgumentError(f"{name} must not be negative, got {value.tolist()}")
    elif not isinstance(value, int) or isinstance(value, bool):
        raise TypeMismatchError(f"{name} must be an int or an int tensor, got {value!r}")
    elif not negative and value < 0:
        raise ArgumentError(f"{name} must not be negative, got {value}")
    return value


def bind_per_item(value: int | Tensor, name: str, extent: Extent) -> int | Tensor:
    """One number per item of this batch, or a single one where all are equal."""
    if isinstance(value, int):
        return value
    batch = extent.batch_shape.numel()
    if value.numel() not in (1, batch):
        raise ShapeError(
            f"{name} has {value.numel()} values, one per batch item, but the batch shape is "
            f"{tuple(extent.batch_shape)}"
        )
    values = value.flatten()
    if bool((values == values[:1]).all()) and values.numel():
        return int(values[0])  # one rule serves all items
    return values.to(extent.device, torch.int64)


def flag_count(name: str, count: int, along: str, wanted: int) -> None:
    if count != wanted:
        raise ShapeError(f"{name} has {count} {along} flags but there are {wanted}")


def broadcast_to_extent(name: str, tensor: Tensor, extent: Extent) -> Tensor:
    """(batch, heads, queries, keys), expanded rather than copied where possible."""
    batch_shape, heads, queries, keys, _ = extent
    try:
        expanded = tensor.expand(*batch_shape, heads, queries, keys)
    except RuntimeError:
        raise ShapeError(
            f"{name} of shape {tuple(tensor.shape)} does not broadcast to (..., heads, queries, "
            f"keys) = {(*batch_shape, heads, queries, keys)}"
        ) from None
    return expanded.reshape(-1, heads, queries, keys)


def kind_of(value: object) -> str:
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else repr(value)

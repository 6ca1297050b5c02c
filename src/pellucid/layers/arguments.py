"""Checks of the layers' arguments."""

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError


def positive_size(argument: str, value: object) -> int:
    """`value` if it is an int above zero.

    Raises:
        TypeMismatchError: not an int.
        ArgumentError: zero or negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeMismatchError(f"{argument} must be an int, not {value!r}")
    if value < 1:
        raise ArgumentError(f"{argument} must be at least 1, not {value}")
    return value


def encodings(argument: str, value: object, width: int, width_name: str, weight: Tensor) -> Tensor:
    """`value` if it is (..., tokens, width), in the dtype and on the device of `weight`.

    Raises:
        TypeMismatchError: not a tensor, or of another dtype or device than the layer.
        ShapeError: fewer than two dimensions, or another width.
    """
    if not isinstance(value, Tensor):
        raise TypeMismatchError(f"{argument} must be a tensor, not {type(value).__name__}")
    shape = tuple(value.shape)
    if value.ndim < 2 or shape[-1] != width:
        wanted = "at least 2 dimensions" if value.ndim < 2 else f"with {width_name} {width}"
        raise ShapeError(
            f"{argument} must be (..., tokens, {width_name}) {wanted}; its shape is {shape}"
        )
    # Under autocast the projection converts both.
    if value.dtype != weight.dtype and not torch.is_autocast_enabled(value.device.type):
        raise TypeMismatchError(
            f"{argument} is {value.dtype} but the layer's parameters are {weight.dtype}"
        )
    if value.device != weight.device:
        raise TypeMismatchError(
            f"{argument} is on {value.device} but the layer's parameters are on {weight.device}"
        )
    return value

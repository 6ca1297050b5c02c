"""Checks of a model's inputs: ids, positions, types and lengths."""

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.layers.config import Config


def check_lengths(lengths: Any, ids: Tensor) -> None:
    check_whole("lengths", lengths)
    texts, tokens = ids.shape
    if lengths.shape != (texts,):
        raise ShapeError(f"lengths must be ({texts},), not of shape {tuple(lengths.shape)}")
    if not bool(((lengths > 0) & (lengths <= tokens)).all()):
        raise ArgumentError(f"lengths must be 1 to {tokens}, not {lengths.tolist()}")


def check_whole(name: str, numbers: Any) -> None:
    if not isinstance(numbers, Tensor):
        raise TypeMismatchError(f"{name} must be a tensor, not {type(numbers).__name__}")
    if numbers.dtype not in (torch.int64, torch.int32):
        raise TypeMismatchError(f"{name} must be int64 or int32, not {numbers.dtype}")


def check_table(name: str, numbers: Any, ids: Tensor, rows: int | None) -> None:
    """Check positions or types of ids: integers below `rows`, or of any size if that is None."""
    check_whole(name, numbers)
    batch, tokens = ids.shape
    if numbers.shape not in ((batch, tokens), (1, tokens)):
        raise ShapeError(
            f"{name} must be ({batch} or 1, {tokens}), not of shape {tuple(numbers.shape)}"
        )
    if rows == 0:
        raise OutOfRangeError(f"{name} were given, but the model has none")
    if _is_readable(numbers):
        low, high = (int(x) for x in numbers.aminmax())
        if low < 0 or (rows is not None and high >= rows):
            wrong = low if low < 0 else high
            known = "0 and above" if rows is None else f"0 to {rows - 1}"
            raise OutOfRangeError(f"{name} has {wrong}, but the model accepts {known}")


def check_ids(name: str, ids: Any, config: Config) -> None:
    check_whole(name, ids)
    if ids.ndim != 2 or 0 in ids.shape:
        raise ShapeError(f"{name} must be (batch, tokens), not of shape {tuple(ids.shape)}")
    if _is_readable(ids):
        low, high = (int(x) for x in ids.aminmax())
        if low < 0 or high >= config.vocabulary:
            wrong = low if low < 0 else high
            raise OutOfRangeError(
                f"{name} has the id {wrong}, but the vocabulary is 0 to {config.vocabulary - 1}"
            )


def _is_readable(numbers: Tensor) -> bool:
    """Whether values can be read at no cost: on a device that would synchronise, and there are
    none while a model is exported.
    """
    return numbers.device.type == "cpu" and not torch.compiler.is_compiling()

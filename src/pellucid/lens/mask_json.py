"""Masks as JSON: the kind of each rule, its numbers, and the names of its tensors."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import count
from typing import Any

import torch
from torch import Tensor

from pellucid.attention.masks import (
    And,
    Band,
    Below,
    Dense,
    Documents,
    Heads,
    Mask,
    Not,
    Or,
    Present,
    Rows,
)
from pellucid.common import untrusted
from pellucid.errors import FileError

KINDS: dict[str, type[Mask]] = {
    kind.__name__: kind
    for kind in (And, Band, Below, Dense, Documents, Heads, Not, Or, Present, Rows)
}


def mask_to_json(mask: Mask | None, put: Callable[[Tensor], str | None]) -> Any:
    """A mask as JSON; `put` stores a tensor and returns its name.

    Raises:
        FileError: the mask combines more than `MOST_RULES` rules.
    """
    number = count(1)

    def write(rule: Mask) -> dict[str, Any]:
        if next(number) > untrusted.MOST_RULES:
            raise FileError(f"a mask of more than {untrusted.MOST_RULES} rules cannot be written")
        parts: dict[str, Any] = {}
        for name in (field.name for field in fields(rule)):  # type: ignore[arg-type]
            value = getattr(rule, name)
            if isinstance(value, Mask):
                value = {"rule": write(value)}
            elif isinstance(value, Tensor):
                value = {"tensor": put(value)}
            parts[name] = value
        return {"kind": type(rule).__name__, **parts}

    return None if mask is None else write(mask)


def mask_from_json(header: Any, tensors: Mapping[str, Tensor]) -> Mask | None:
    """The mask that `mask_to_json` has written.

    Raises:
        ValueError, TypeError, KeyError: this is not such a mask.
    """
    number = count(1)

    def read(header: Any) -> Mask:
        if next(number) > untrusted.MOST_RULES:
            raise ValueError(f"a mask of more than {untrusted.MOST_RULES} rules")
        parts = {}
        for name, value in header.items():
            if name == "kind":
                continue
            if isinstance(value, dict):
                rule = value.get("rule")
                value = tensors[value["tensor"]] if rule is None else read(rule)
            elif value is not None and name != "name":
                value = untrusted.whole(value, name, least=-(2**48), most=2**48)
            parts[name] = value
        return _checked(KINDS[header["kind"]](**parts))

    return None if header is None else read(header)


def _checked(rule: Mask) -> Mask:
    """The rule, if its parts are such as the public constructors accept."""
    for name, part in vars(rule).items():
        if name == "name":
            untrusted.text(part, name)
        elif isinstance(part, Mask):
            continue
        elif isinstance(part, Tensor):
            is_bool = name in ("flags", "visible")
            is_whole = not (part.is_floating_point() or part.is_complex())
            fits = is_whole and is_bool == (part.dtype == torch.bool)
            if not fits or not part.ndim:
                raise TypeError(f"{name} of type {part.dtype} and shape {tuple(part.shape)}")
        elif part is None:
            if name not in ("left", "right", "flagged") or isinstance(rule, And | Or):
                raise TypeError(f"a {type(rule).__name__} has no {name}")
        elif name in ("left", "right", "limit", "flagged") and part < 0:
            raise ValueError(f"{name} is {part}")
    return rule

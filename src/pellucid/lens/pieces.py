"""Tensors that grow along one axis, and how they are kept: as references, or as copies."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attention.scores import unexpanded
from pellucid.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Lazy:
    """A tensor that is made when it is needed."""

    shape: tuple[int, ...]
    device: torch.device
    make: Callable[[], Tensor]


Part = Tensor | Lazy


@dataclass(frozen=True, slots=True)
class Keeper:
    """The device and dtype in which records keep the tensors of a model."""

    device: torch.device | None = None
    dtype: torch.dtype | None = None

    def keep(self, tensor: Tensor, is_lasting: bool = False) -> Tensor:
        """The tensor itself if writing to it would be noticed (see `Pieces`), else a copy.

        Memory that was written to before, such as a static cache or a reused buffer, will be
        written to again; and inference mode does not count writes.

        Args:
            tensor: the tensor to keep.
            is_lasting: whether its memory outlives the pass, so that it may be written to through
                `data`, which is not counted either.
        """
        if self.device is not None or self.dtype is not None:
            dtype = self.dtype if tensor.is_floating_point() else None
            return tensor.to(device=self.device, dtype=dtype, copy=True)
        is_safe = not (is_lasting or tensor.is_inference() or tensor._version)
        return tensor if is_safe else tensor.clone()

    def pieces(self, part: Part, axis: int = -2, is_lasting: bool = False) -> "Pieces":
        if isinstance(part, Lazy) and self.device is None and self.dtype is None:
            return Pieces(part, axis)
        return Pieces(self.keep(Pieces(part).tensor, is_lasting), axis)


class Pieces:
    """A tensor that grows along one axis. Its parts are kept by reference, and joined when needed.

    If a part was changed in place, reading raises an error instead of returning wrong numbers.
    """

    def __init__(self, part: Part, axis: int = -2) -> None:
        self._parts: list[Part] = [part]
        self._versions = [version_of(part)]
        self._axis = axis
        self._orders: list[tuple[int, Tensor]] = []
        self._shape = part.shape
        self.length = self._shape[axis]
        self._active = 0
        """How many of the orders apply."""

    def append(self, part: Tensor) -> None:
        self._parts.append(part)
        self._versions.append(version_of(part))
        self.length += part.shape[self._axis]
        self.go_on()

    def go_on(self) -> None:
        """Apply the latest order to the parts so far, as they are read again."""
        if self._active < len(self._orders):
            self._active = len(self._orders)
            self._shape = torch.Size((len(self._orders[-1][1]), *self._shape[1:]))

    def reorder(self, items: Tensor) -> None:
        """Reorder the parts so far along the first axis, as beam search does.

        The order applies once another part is added, or the parts are read again: after the last
        step of a search it does not apply.
        """
        self._orders.append((len(self._parts), items))

    def cut(self, length: int) -> None:
        """Keep the first `length` entries."""
        if length < self.length:  # a copy, so that the rest is freed
            self._keep(self.tensor.narrow(self._axis, 0, length).clone())
            self.length = length

    def to(self, device: torch.device) -> "Pieces":
        """A copy on another device, joined."""
        tensor = self.tensor
        return Pieces(unexpanded(tensor).to(device).expand(tensor.shape), self._axis)

    @property
    def outer(self) -> tuple[int, ...]:
        """The shape before the axis that grows."""
        return tuple(self._shape[: self._axis])

    @property
    def is_as_added(self) -> bool:
        """Whether no part was written to."""
        return self._versions == [version_of(part) for part in self._parts]

    @property
    def tensor(self) -> Tensor:
        if not self.is_as_added:
            raise ArgumentError(
                "the recorded tensors were changed in place later, by the model or its user; "
                'watch(model, device="cpu"), or dtype=..., keeps copies'
            )
        made = [part.make() if isinstance(part, Lazy) else part for part in self._parts]
        made = self._ordered(made)
        whole = made[0] if len(made) == 1 else torch.cat(made, self._axis)
        if whole is not self._parts[0]:
            self._keep(whole)
        return whole

    def _ordered(self, parts: list[Tensor]) -> list[Tensor]:
        orders, order = self._orders[: self._active], None
        if not orders:
            return parts
        ordered = []
        for index in reversed(range(len(parts))):
            while orders and orders[-1][0] > index:  # x[first][second] is x[first[second]]
                _, earlier = orders.pop()
                order = earlier if order is None else earlier[order]
            part = parts[index]
            if order is not None and (len(part) > 1 or not order.any()):  # one item may serve all
                part = part[order.to(part.device)]
            ordered.append(part)
        return ordered[::-1]

    def _keep(self, whole: Tensor) -> None:
        self._parts, self._versions = [whole], [version_of(whole)]
        self._orders = [(1, order) for _, order in self._orders[self._active :]]
        self._active = 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first part."""
        part = self._parts[0]
        return part.dtype if isinstance(part, Tensor) else self.tensor.dtype

    @property
    def held(self) -> list[Tensor]:
        """The tensors that are kept alive."""
        return [part for part in self._parts if isinstance(part, Tensor)]


def version_of(part: Part) -> int:
    """How often a tensor was written to; 0 in inference mode, which does not count."""
    return 0 if isinstance(part, Lazy) or part.is_inference() else part._version

"""A matrix that is computed when asked for: its shape, its dense form, its device and dtype."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from pellucid.attention import indexing
from pellucid.attention.limits import DENSE_LIMIT, check_size, readable_bytes
from pellucid.attention.scores import Scores
from pellucid.errors import ArgumentError, TypeMismatchError

if TYPE_CHECKING:
    import numpy as np


class LazyMatrix:
    """A matrix of shape (..., heads, queries, keys) whose parts are computed when asked for."""

    __array_ufunc__ = None  # or NumPy would unroll it number by number

    def __init__(self, scores: Scores, name: str) -> None:
        self._of = scores
        self._name = name

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self._of.batch_shape, *self._of.shape[1:]))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """float32, or float64 where query and key are."""
        return self._of.dtype

    @property
    def device(self) -> torch.device:
        return self._of.query.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; costs no more than the part.

        Args:
            index: ints, slices with a step above 0, `...`, None, integer tensors and bool tensors,
                as in torch.

        Raises:
            OutOfRangeError, TypeMismatchError: an index past the end, or of another kind.
        """
        return indexing.select(self._of, None, self._name, index)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def dense(self, limit: int | None = DENSE_LIMIT) -> Tensor:
        """All of it, n x n numbers per head.

        Args:
            limit: bytes it may take; None = no limit.

        Raises:
            TooLargeError: it needs more; the message says how much.
        """
        check_size("dense()", self.shape, self.dtype, limit)
        return self[...]

    def numpy(self, limit: int | None = DENSE_LIMIT) -> "np.ndarray[Any, Any]":
        """`dense` as a NumPy array, on the CPU and without gradients.

        `np.asarray(weights)` is the same, with the default limit.
        """
        with torch.no_grad():
            array: np.ndarray[Any, Any] = self.dense(limit).cpu().numpy()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        if copy is False:
            raise ArgumentError("weights are computed when asked for: NumPy must copy them")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    @property
    def requires_grad(self) -> bool:
        """Whether results carry gradients, where autograd is on."""
        return self._of.requires_grad

    def to(self, *to: Any, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same on another device or in another dtype; itself where nothing changes.

        Args:
            to: a device, a dtype or both, as for `Tensor.to`.
            device: the device to move to.
            dtype: float32 or float64, for query, key, bias and sinks.

        Raises:
            TypeMismatchError: another dtype.
        """
        for target in to:
            device, dtype = (device, target) if isinstance(target, torch.dtype) else (target, dtype)
        device = self.device if device is None else torch.device(device)
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeMismatchError(f"weights are float32 or float64, not {dtype}")
        if dtype == self.dtype:
            dtype = None
        if dtype is None and torch.empty(0, device=device).device == self.device:
            return self

        def move(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype if x.is_floating_point() else None)

        return self._changed(self._of.map(move), move if dtype is None else None)

    def cpu(self) -> Self:
        """The same in CPU memory."""
        return self.to("cpu")

    def detach(self) -> Self:
        """The same without gradients to query, key and the other inputs."""
        return self._changed(self._of.detach(), torch.Tensor.detach)

    def _changed(self, scores: Scores, change: Callable[[Tensor], Tensor] | None) -> Self:
        """Of changed operands; `change` is what to do to a known logsumexp, None = drop it."""
        return type(self)(scores, self._name)

    def bytes_held(self) -> int:
        """Bytes of memory that it keeps alive: query, key, bias, mask and the other inputs."""
        return self._of.bytes_held

    def __repr__(self) -> str:
        facts = [f"shape={tuple(self.shape)}", f"dtype={str(self.dtype).removeprefix('torch.')}"]
        if self.device.type != "cpu":
            facts.append(f"device={self.device}")
        if self._of.mask is not None:
            facts.append(f"mask={self._of.mask}")
        held, dense = self.bytes_held(), self.shape.numel() * self.dtype.itemsize
        facts.append(f"holds {readable_bytes(held)}")
        if dense > held:  # of a few tokens it is not
            facts.append(f"dense would be {readable_bytes(dense)}")
        return f"{type(self).__name__}({self._name}: {', '.join(facts)})"

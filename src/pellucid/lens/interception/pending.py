"""What was multiplied, projected and softmaxed last on a thread, for what goes on with it."""

import threading
import weakref
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from pellucid.lens.interception import listeners
from pellucid.lens.interception.listeners import Callers
from pellucid.lens.interception.shapes import Fold
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.record import Proof

__all__ = [
    "REMEMBERED",
    "Product",
    "Shape",
    "Soft",
    "before_dropout",
    "copied",
    "everywhere",
    "here",
    "is_dropped",
    "is_parameter",
    "is_projected",
    "left",
    "version",
]

REMEMBERED = 4
"""How many products, projections and softmaxes may come before what goes on with them."""
Shape = tuple[int, int]
"""How many numbers, and how many along the last axis."""


@dataclass(eq=False, slots=True)
class Product:
    """A product of two tensors over their last axes."""

    left: Tensor
    """(..., rows, dim)"""
    right: Tensor
    """(..., columns, dim)"""
    shape: torch.Size
    """What came out, its axes in any order."""
    order: list[int]
    """Which axes of that are (..., rows, columns)."""
    is_certain: bool = True
    """Whether it is no projection, by a weight that is worked out, as a quantised one is."""


@dataclass(eq=False, slots=True)
class Soft:
    """A softmax that waits for the product of its result with values."""

    result: "Tensor | None"
    """As it came out; let go when it has met its product."""
    version: int
    """How often it was written to when it came out; -1 where nobody counts that."""
    reference: "weakref.ref[Tensor]"
    keys: int
    """The axis that sums to one."""
    order: list[int]
    """Which axes are (..., queries, keys)."""
    found: Callers
    is_projected: bool
    """Whether it is taken over the outputs of a projection."""
    met: int = 0
    """How many of its numbers have met values, where they meet them in parts."""
    copies: "list[StorageWeakRef]" = field(default_factory=list)
    """Memory that parts of it were copied to."""
    has_product: bool = False
    is_certain: bool = True
    """Whether its product is no projection."""
    query: Tensor | None = None
    """(batch, heads, queries, dim)"""
    key: Tensor | None = None
    """(batch, heads or 1, keys, dim)"""
    inferred: InferredMask | None = None
    scale: float = 1.0
    fold: Fold | None = None
    proof: Proof | None = None
    """That every row of the scores is theirs, where it was to be proven."""


class _Own:
    """What happened last on one thread."""

    def __init__(self) -> None:
        self.products: deque[Product] = deque(maxlen=REMEMBERED)
        self.projections: deque[torch.Size] = deque(maxlen=REMEMBERED)
        self.exponentials: deque[tuple[Shape, bool]] = deque(maxlen=REMEMBERED)
        """Their sizes, and whether they may be those of a product."""
        self.softs: list[Soft] = []
        self.dropped: tuple[weakref.ref[Tensor], weakref.ref[Tensor]] | None = None


class _State(threading.local):
    """That of the thread which asks."""

    def __init__(self) -> None:
        self.own = _Own()
        _owns.add(self.own)
        weakref.finalize(self.own, _ended.extend, self.own.softs).atexit = False


_owns: "weakref.WeakSet[_Own]" = weakref.WeakSet()
_ended: list[Soft] = []
"""What waited on threads that are over."""
_state = _State()


def here() -> _Own:
    """What happened last on this thread."""
    return _state.own


def everywhere() -> list[_Own]:
    """The same of every thread that lives."""
    return list(_owns)


def left() -> list[Soft]:
    """What waited on threads that are over; each is given once."""
    found = _ended[:]
    del _ended[: len(found)]
    return found


def is_projected(tensor: Tensor, axis: int) -> bool:
    """Whether a softmax along an axis is one over the outputs of a recent projection."""
    if axis != tensor.ndim - 1:
        return False
    size = (tensor.numel(), tensor.shape[axis])
    return any((shape.numel(), shape[-1]) == size for shape in here().projections if shape)


def copied(result: Tensor, given: Tensor) -> None:
    """A part of a softmax is copied, as where blocks of it are folded into the batch."""
    memory = given.untyped_storage()._cdata
    for soft in here().softs:
        whole = soft.reference()
        if whole is not None and whole.untyped_storage()._cdata == memory:
            soft.copies.append(StorageWeakRef(result.untyped_storage()))


def is_parameter(tensor: Tensor) -> bool:
    return any(listener.is_parameter(tensor) for listener in listeners.here())


def version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def is_dropped(weights: Tensor) -> bool:
    """Whether weights are what dropout left, or a view of that."""
    dropped = here().dropped
    left = None if dropped is None else dropped[0]()
    memory = weights.untyped_storage()._cdata
    return left is not None and bool(left.untyped_storage()._cdata == memory)


def before_dropout(weights: Tensor, result: Tensor) -> Tensor:
    """What dropout was given, if that is still there."""
    dropped = here().dropped
    given = None if dropped is None else dropped[1]()
    before = result if given is None else given
    return before.reshape(weights.shape) if before.numel() == weights.numel() else weights

"""The latest products, projections and softmaxes on each thread, and what follows from them."""

import threading
import weakref
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from pellucid.lens.interception import listeners
from pellucid.lens.interception.calls import Shown, SoftmaxEdit
from pellucid.lens.interception.listeners import Callers
from pellucid.lens.interception.shapes import Fold
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.record import Proof

REMEMBERED = 4
"""How many products, projections and softmaxes are remembered on each thread."""
Shape = tuple[int, int]
"""The number of entries, and of those along the last axis."""


@dataclass(eq=False, slots=True)
class Product:
    """A product of two tensors over their last axes."""

    left: Tensor
    """(..., rows, dim)"""
    right: Tensor
    """(..., columns, dim)"""
    shape: torch.Size
    """The shape of the result, its axes in any order."""
    order: list[int]
    """Which axes of the result are (..., rows, columns)."""
    is_certain: bool = True
    """Whether it is not a projection; the weight of a quantised layer, for one, is computed."""


@dataclass(eq=False, slots=True)
class PendingSoftmax:
    """A softmax that waits for the product of its result with values."""

    result: "Tensor | None"
    """The result; dropped once it has met its product."""
    version: int
    """The version counter of the result; -1 if there is none."""
    reference: "weakref.ref[Tensor]"
    keys: int
    """The axis that sums to one."""
    order: list[int]
    """Which axes are (..., queries, keys)."""
    callers: Callers
    is_projected: bool
    """Whether it is taken over the outputs of a projection."""
    met: int = 0
    """The number of its weights that have met values, if they meet them in parts."""
    copies: "list[StorageWeakRef]" = field(default_factory=list)
    """Memory to which parts of it were copied."""
    has_product: bool = False
    is_certain: bool = True
    """Whether its product is not a projection."""
    right: Tensor | None = None
    """(..., keys, dim): the key as the module has it, if it is to be edited."""
    query: Tensor | None = None
    """(batch, heads, queries, dim)"""
    key: Tensor | None = None
    """(batch, heads or 1, keys, dim)"""
    inferred: InferredMask | None = None
    scale: float = 1.0
    fold: Fold | None = None
    proof: Proof | None = None
    """The proof of every row of the scores, if they were to be proven."""
    is_offered: bool = False
    """Whether listeners that edit could edit its weights."""
    is_edited: bool = False
    """Whether one has."""
    hidden: Shown | None = None
    """What the edits leave, if hiding is all that they do."""
    finish: "list[SoftmaxEdit]" = field(default_factory=list)
    """Those that edit the context."""
    editors: Callers = field(default_factory=list)
    """The listeners of these."""
    has_term: bool = False
    """Whether it has met something other than values, such as a table of relative positions."""
    attended: Tensor | None = None
    """The context before it was edited."""


class _Own:
    """What happened last on a thread."""

    def __init__(self) -> None:
        self.products: deque[Product] = deque(maxlen=REMEMBERED)
        self.projections: deque[torch.Size] = deque(maxlen=REMEMBERED)
        self.exponentials: deque[tuple[Shape, bool]] = deque(maxlen=REMEMBERED)
        """Their sizes, and whether they may be those of a product."""
        self.softmaxes: list[PendingSoftmax] = []
        self.dropped: tuple[weakref.ref[Tensor], weakref.ref[Tensor]] | None = None


class _State(threading.local):
    """The state of the current thread."""

    def __init__(self) -> None:
        self.own = _Own()
        _owns.add(self.own)
        weakref.finalize(self.own, _ended.extend, self.own.softmaxes).atexit = False


_owns: "weakref.WeakSet[_Own]" = weakref.WeakSet()
_ended: list[PendingSoftmax] = []
"""Softmaxes that were pending on threads that have ended."""
_state = _State()


def here() -> _Own:
    """What happened last on this thread."""
    return _state.own


def everywhere() -> list[_Own]:
    """What happened last on every running thread."""
    return list(_owns)


def left() -> list[PendingSoftmax]:
    """Softmaxes that were pending on threads that have ended; each is returned once."""
    ended = _ended[:]
    del _ended[: len(ended)]
    return ended


def is_projected(tensor: Tensor, axis: int) -> bool:
    """Whether a softmax along an axis is taken over the outputs of a recent projection."""
    if axis != tensor.ndim - 1:
        return False
    size = (tensor.numel(), tensor.shape[axis])
    return any((shape.numel(), shape[-1]) == size for shape in here().projections if shape)


def copied(result: Tensor, source: Tensor) -> None:
    """Note a copy of a part of a softmax, as if blocks of it are folded into the batch."""
    memory = source.untyped_storage()._cdata
    for soft in here().softmaxes:
        whole = soft.reference()
        if whole is not None and whole.untyped_storage()._cdata == memory:
            soft.copies.append(StorageWeakRef(result.untyped_storage()))


def is_parameter(tensor: Tensor) -> bool:
    return any(listener.is_parameter(tensor) for listener in listeners.here())


def version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def is_dropped(weights: Tensor) -> bool:
    """Whether weights are the result of dropout, or a view of it."""
    dropped = here().dropped
    left = None if dropped is None else dropped[0]()
    memory = weights.untyped_storage()._cdata
    return left is not None and bool(left.untyped_storage()._cdata == memory)


def before_dropout(weights: Tensor, result: Tensor) -> Tensor:
    """The input of dropout, if it is still alive."""
    dropped = here().dropped
    before = None if dropped is None else dropped[1]()
    before = result if before is None else before
    return before.reshape(weights.shape) if before.numel() == weights.numel() else weights

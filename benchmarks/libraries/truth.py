"""The weights that a model's attention used, found from PyTorch's operators alone.

Every operator that a model runs passes through a `TorchDispatchMode`. A softmax gives each of its
numbers a place: its row, and where in the row it stands. Operators that move numbers move their
places along; those that change them one by one leave them where they are. Attention is where the
numbers of a row are summed up in a product with something that is no parameter: the weights are
that side of the product, as it was. Fused kernels keep theirs to themselves, and these are worked
out in float64 from what the kernels were given.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

SOFTMAX = {"_softmax", "_safe_softmax"}
FUSED = "_scaled_dot_product"
"""What the names of fused kernels begin with."""
PRODUCTS = {
    "mm": (0, 1),
    "bmm": (0, 1),
    "mv": (0, 1),
    "dot": (0, 1),
    "addmm": (1, 2),
    "addmv": (1, 2),
    "baddbmm": (1, 2),
}
"""Which arguments are multiplied: the last axis of the first and the last but one of the second."""
MOVES = {
    "alias",
    "cat",
    "clone",
    "constant_pad_nd",
    "detach",
    "diagonal",
    "expand",
    "flip",
    "gather",
    "index",
    "index_select",
    "permute",
    "repeat",
    "roll",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "stack",
    "t",
    "transpose",
    "unbind",
    "unfold",
    "unsqueeze",
}
"""Operators that move numbers about and leave them as they are."""
VIEWS = {"_reshape_alias", "_unsafe_view", "view"}
KEEPS = {
    "_native_batch_norm_legit_no_training",
    "_to_copy",
    "copy_",
    "dropout",
    "masked_fill",
    "native_batch_norm",
    "native_dropout",
    "native_layer_norm",
}
"""Operators that change numbers where they stand, besides those that PyTorch has marked so."""
WIDTH = 1 << 24
"""More than any row has numbers."""
NOWHERE = -1
"""The place of a number that is from no softmax."""


@dataclass(frozen=True, eq=False)
class Used:
    """The weights of one attention."""

    name: str
    """The innermost module that was running."""
    weights: Tensor
    """(..., queries, keys), the axes before keys in the order that the softmax has them in, where
    that can be told, else in that of the product."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A tensor that comes from a softmax."""

    tensor: Tensor
    places: Tensor
    """row * WIDTH + column for each of its numbers."""
    weights: Tensor | None = None
    """What was multiplied with values to give the tensor, where it is products yet to be summed."""

    def runs_along(self, axis: int) -> bool:
        """Whether a step along the axis is a step along a row of the softmax."""
        known = self.places >= 0
        row = self.places.div(WIDTH, rounding_mode="floor")
        column = self.places.remainder(WIDTH)
        low, high = _ends(row, known, axis)
        first, last = _ends(column, known, axis)
        return bool((low >= high).all() and (first < last).any())


def _ends(numbers: Tensor, known: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The least and the largest of those that are known."""
    beyond = torch.iinfo(numbers.dtype).max
    least = numbers.masked_fill(~known, beyond).amin(axis)
    return least, numbers.masked_fill(~known, NOWHERE).amax(axis)


class Operators(TorchDispatchMode):
    """Tells of every operator that is run, its arguments, options and result."""

    def __init__(self, tell: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell = tell

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if torch.is_inference_mode_enabled():  # where operators made of others arrive whole
            with self:
                made = function.decompose(*args, **options)
            if made is not NotImplemented:
                return made
        made = function(*args, **options)
        self._tell(function, args, options, made)
        return made


class Truth:
    """While it is open, every attention of a model is noted in `used`, in the order of the calls.

    with torch.no_grad(), Truth(model) as truth:
        model(inputs)
    """

    def __init__(self, model: nn.Module) -> None:
        self.used: list[Used] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self._running: list[str] = []
        self._hooks: list[Any] = []
        # Tensors are known by their identity, and are kept so that no other gets the same.
        self._traces: dict[int, Trace] = {}
        fixed = (*model.parameters(), *model.buffers())
        self._fixed: dict[int, Tensor] = {id(tensor): tensor for tensor in fixed}
        self._rows = 0
        self._shapes: dict[int, torch.Size] = {}
        """Of each softmax without its axis, by its first row."""
        self._raised: dict[int, Tensor] = {}
        """Exponentials, and their sums: an axis and which exponentials."""
        self._sums: dict[int, tuple[Tensor, int, int]] = {}
        self._operators = Operators(self._saw)

    def __enter__(self) -> "Truth":
        # The fast path of PyTorch's own layers is one operator, which shows no weights.
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._hooks = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left, always_call=True),
        ]
        self._operators.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._operators.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        for known in (self._traces, self._fixed, self._raised, self._sums, self._shapes):
            known.clear()

    def _entered(self, module: nn.Module, given: Any) -> None:
        outer = self._running[-1] if self._running else ""
        self._running.append(self._names.get(id(module), outer))

    def _left(self, module: nn.Module, given: Any, made: Any) -> None:
        self._running.pop()

    def _saw(
        self, function: Any, args: tuple[Any, ...], options: dict[str, Any], made: Any
    ) -> None:
        name = function.overloadpacket.__name__
        if name.startswith(FUSED):
            self._note(fused_weights(function, args, options))
        elif name in SOFTMAX:
            self._begin(made, args[1])
        elif name in PRODUCTS:
            left, right = (args[number] for number in PRODUCTS[name])
            self._multiply(left, right, made)
        else:
            self._follow_by_hand(name, args, made)
            self._follow(function, name, args, options, made)
        self._mark_fixed(args, made)

    def _note(self, weights: Tensor, places: Tensor | None = None) -> None:
        if places is not None:
            weights = self._in_order(weights, places)
        name = self._running[-1] if self._running else ""
        self.used.append(Used(name, weights.detach().clone()))

    def _in_order(self, weights: Tensor, places: Tensor) -> Tensor:
        """Rows as the softmax has them, where all are there once: an einsum arranges them anew."""
        rows = places.amax(-1).div(WIDTH, rounding_mode="floor").flatten()
        order = rows.argsort()
        first = int(rows[order[0]])
        shape = self._shapes.get(first)
        if shape is None or not rows[order].equal(torch.arange(first, first + shape.numel())):
            return weights
        return weights.flatten(0, -2)[order].reshape(*shape, weights.shape[-1])

    def _mark_fixed(self, args: tuple[Any, ...], made: Any) -> None:
        """What is made of parameters alone is as good as a parameter."""
        given = list(_tensors(args))
        if given and all(id(tensor) in self._fixed for tensor in given):
            self._fixed |= {id(tensor): tensor for tensor in _tensors(made)}

    def _trace(self, tensor: Any, places: Tensor | None, weights: Tensor | None = None) -> None:
        if isinstance(tensor, Tensor) and places is not None:
            self._traces[id(tensor)] = Trace(tensor, places, weights)

    def _begin(self, made: Tensor, axis: int) -> None:
        columns = made.shape[axis]
        rows = made.numel() // max(1, columns)
        row = torch.arange(self._rows, self._rows + rows).view(rows, 1)
        places = (row * WIDTH + torch.arange(columns)).view(*made.movedim(axis, -1).shape)
        self._shapes[self._rows] = made.movedim(axis, -1).shape[:-1]
        self._rows += rows
        self._trace(made, places.movedim(-1, axis))

    def _follow_by_hand(self, name: str, args: tuple[Any, ...], made: Any) -> None:
        """A softmax that is written as exponentials over their sum."""
        if name in ("exp", "exp_"):
            self._raised[id(made)] = made
        elif name == "sum" and id(args[0]) in self._raised and len(args) > 1 and len(args[1]) == 1:
            self._sums[id(made)] = (made, id(args[0]), args[1][0])
        elif name in ("div", "div_") and id(args[1]) in self._sums:
            _, raised, axis = self._sums[id(args[1])]
            if id(args[0]) == raised:
                self._begin(made, axis)

    def _multiply(self, left: Tensor, right: Tensor, made: Tensor) -> None:
        sides = ((left, right, left.ndim - 1), (right, left, max(0, right.ndim - 2)))
        for mine, other, axis in sides:
            trace = self._traces.get(id(mine))
            if trace is None or trace.weights is not None:
                continue
            is_fixed = id(other) in self._fixed
            if trace.runs_along(axis):
                if not is_fixed:
                    self._note(mine.movedim(axis, -1), trace.places.movedim(axis, -1))
            elif is_fixed:  # heads are mixed, as talking heads are
                self._trace(made, trace.places.narrow(axis, 0, 1).expand(made.shape))

    def _follow(
        self,
        function: Any,
        name: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        made: Any,
    ) -> None:
        traces = [
            self._traces[id(tensor)] for tensor in _tensors(args) if id(tensor) in self._traces
        ]
        if not traces:
            return
        trace = traces[0]
        if name in MOVES or name in VIEWS:
            self._move(function, name, args, options, made)
        elif name == "sum" and trace.weights is not None:
            self._sum(trace, args[1])
        elif name == "convolution" and all(size == 1 for size in args[1].shape[2:]):
            self._trace(made, trace.places.narrow(1, 0, 1).expand(made.shape))
        elif name in KEEPS or torch.Tag.pointwise in function.tags:
            self._change(name, trace, args, next(_tensors(made)))

    def _move(
        self,
        function: Any,
        name: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        made: Any,
    ) -> None:
        joins = name in ("cat", "stack")

        def moved(part: Callable[[Trace], Tensor | None], fill: float) -> list[Any]:
            def swap(value: Any) -> Any:
                trace = self._traces.get(id(value)) if isinstance(value, Tensor) else None
                if trace is not None:
                    return part(trace)
                if joins and isinstance(value, Tensor):
                    return torch.full_like(value, fill, dtype=torch.int64)
                return value

            given = tree_map(swap, args)
            if name in VIEWS:  # which numbers lie beside which in memory is the tensor's own
                return [given[0].reshape(made.shape)]
            if name == "constant_pad_nd":
                given = (*given[:2], fill)
            return list(_tensors(function(*given, **options)))

        places = moved(lambda trace: trace.places, NOWHERE)
        first = self._traces.get(id(args[0]))
        if first is not None and first.weights is not None:
            weights: list[Any] = moved(lambda trace: trace.weights, 0)
        else:
            weights = [None] * len(places)
        for tensor, place, weight in zip(_tensors(made), places, weights, strict=True):
            self._trace(tensor, place, weight)

    def _change(self, name: str, trace: Trace, args: tuple[Any, ...], made: Tensor) -> None:
        if not made.is_floating_point() or trace.weights is not None:
            return
        places = trace.places.broadcast_to(made.shape)
        others = [tensor for tensor in _tensors(args) if tensor is not trace.tensor]
        # Weights times values without a matrix product: (queries, keys, 1) * (keys, dim).
        spreads = name == "mul" and made.shape != trace.tensor.shape
        if spreads and others and id(others[0]) not in self._fixed:
            self._trace(made, places, trace.tensor.broadcast_to(made.shape))
        else:
            self._trace(made, places)

    def _sum(self, trace: Trace, axes: list[int] | None) -> None:
        if trace.weights is None or axes is None or len(axes) != 1:
            return
        axis = axes[0] % trace.places.ndim
        if not trace.runs_along(axis):
            return
        weights, places = trace.weights.movedim(axis, -1), trace.places.movedim(axis, -1)
        for other in reversed(range(weights.ndim - 1)):  # the same for every number of a value
            first = places.narrow(other, 0, 1)
            if places.shape[other] > 1 and bool((places == first).all()):
                weights, places = weights.select(other, 0), places.select(other, 0)
        self._note(weights, places)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def fused_weights(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """(batch, heads, queries, keys), float64, of a fused kernel's arguments."""
    names = [argument.name for argument in function._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **options}
    query, key = given["query"].double(), given["key"].double()
    key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scale = given.get("scale")
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    mask = given.get("attn_mask", given.get("attn_bias"))
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    if given.get("is_causal"):
        shown = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~shown, -torch.inf)
    weights: Tensor = scores.softmax(-1)
    return weights

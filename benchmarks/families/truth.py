"""The attention weights that a model used, found without Pellucid.

While a `Truth` is open, it sees every operation that PyTorch dispatches. It notes each softmax,
follows each of its numbers through whatever moves it (views, slices, padding, concatenation) or
changes it (masks, dropout, casts), and where they become the operand of a matrix product that sums
over the axis of the softmax, notes the operand: those are the weights that were used. Where a fused
kernel is called instead, they are worked out in float64 from what it was given.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

NUDGE = 1.001
"""A scale that is off by so much must show."""
HIDDEN = -5e3
"""Scores below it are a mask's."""
UNKNOWN = -1
"""The place of a number that comes from no softmax."""

SOFTMAXES = {aten._softmax, aten._safe_softmax}
FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_fused_attention_overrideable,
}
MOVES = {
    aten.clone,
    aten.cat,
    aten.stack,
    aten.constant_pad_nd,
    aten.index,
    aten._unsafe_index,
    aten.index_select,
    aten.gather,
    aten.flip,
    aten.roll,
    aten.repeat,
    aten.masked_select,
    aten.slice_scatter,
    aten.select_scatter,
}
"""They make a new tensor of the numbers of others."""
CHANGES = {
    aten._to_copy,
    aten.mul,
    aten.div,
    aten.add,
    aten.sub,
    aten.masked_fill,
    aten.where,
    aten.nan_to_num,
    aten.native_dropout,
    aten.clamp,
    aten.clamp_min,
}
"""They make new numbers, each at the place of an old one."""
PRODUCTS: dict[Any, tuple[int, int]] = {
    aten.bmm: (0, 1),
    aten.mm: (0, 1),
    aten.mv: (0, 1),
    aten.matmul: (0, 1),
    aten.baddbmm: (1, 2),
    aten.addmm: (1, 2),
}
"""Which arguments are multiplied."""


@dataclass(eq=False)
class Softmax:
    """One softmax whose result is multiplied by something that is no parameter."""

    modules: tuple[str, ...]
    """The names of the modules that were running, innermost first."""
    result: Tensor
    """(..., keys), the axis of the softmax last."""
    nudged: Tensor
    """(..., keys), the same for a scale that is off by a thousandth."""
    hidden: Tensor
    """(...,) bool: rows that see nothing, so that their weights mean nothing."""
    used: Tensor
    """(..., keys), what was multiplied."""
    is_used: Tensor
    """(..., keys) bool."""
    spread: float
    """The standard deviation of the scores of keys that are seen."""
    factor: Tensor | None = None
    """(..., 1), what the rows of the product were multiplied by right after it: some models apply
    their sink so, and whether that belongs to the weights is a matter of words."""
    fused: bool = False

    @property
    def columns(self) -> Tensor:
        """(keys,) bool: those of which any number was used; a sink's is not."""
        flags: Tensor = self.is_used.flatten(0, -2).any(0)
        return flags

    @property
    def weights(self) -> Tensor:
        """(..., keys), without columns that were not used."""
        return self.used[..., self.columns]

    @property
    def nudged_weights(self) -> Tensor:
        """(..., keys), what would have been used if the scale were off by a thousandth."""
        factor = torch.where(self.result > 0, self.used / self.result, 0.0)
        return (self.nudged * factor)[..., self.columns]


@dataclass(eq=False)
class _Places:
    """Where each number of a piece of memory comes from."""

    flat: Tensor
    """(numbers,) int64: a place among all results of softmaxes, or UNKNOWN."""
    memory: torch.UntypedStorage = field(repr=False)

    def of(self, tensor: Tensor) -> Tensor:
        return self.flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


class Truth(TorchDispatchMode):
    """Notes the weights that a model uses while this is open."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {id(part): name for name, part in model.named_modules()}
        self._parameters = {part.untyped_storage().data_ptr() for part in model.parameters()}
        self._places: dict[int, _Places] = {}
        self._softmaxes: list[Softmax] = []
        self._starts: list[int] = []
        self._count = 0
        self._products: dict[int, tuple[Tensor, list[Softmax]]] = {}
        """By their memory: the results of products, and the softmaxes that went into them."""

    @property
    def found(self) -> list[Softmax]:
        """The softmaxes whose result was multiplied, in order."""
        return [softmax for softmax in self._softmaxes if bool(softmax.is_used.any())]

    def __enter__(self) -> "Truth":
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        self._places.clear()

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        operation = function.overloadpacket
        result = function(*args, **options)
        if operation in PRODUCTS:
            left, right = PRODUCTS[operation]
            self._multiply(args[left], args[right], result)
        elif operation in SOFTMAXES:
            self._note(args[0], args[1], result)
        elif operation in FUSED:
            self._note_fused(*args, **options)
        elif self._places:
            if operation is aten.copy_:
                self._write(args[0], args[1])
            elif operation in MOVES:
                self._move(function, args, options, result)
            elif operation in CHANGES:
                self._change(args, result)
                if operation is aten.mul:
                    self._scale(*args)
            elif operation is aten.topk and self._are_known(args[0]):
                values, indices = result
                self._know(
                    values, self._of(args[0]).gather(args[2] if len(args) > 2 else -1, indices)
                )
        return result

    # A softmax

    def _note(self, scores: Tensor, axis: int, result: Tensor) -> None:
        if not result.numel() or result.ndim < 2:
            return
        scores, last = scores.movedim(axis, -1), result.movedim(axis, -1)
        start, self._count = self._count, self._count + result.numel()
        places = torch.arange(start, self._count).view(last.shape)
        self._know(result, places.movedim(-1, axis))
        self._starts.append(start)
        self._softmaxes.append(
            Softmax(
                modules=self._running(),
                result=last.double(),
                nudged=(scores.double() * NUDGE).softmax(-1).nan_to_num(0.0),
                hidden=(scores <= HIDDEN).all(-1),
                used=torch.zeros(last.shape, dtype=torch.float64),
                is_used=torch.zeros(last.shape, dtype=torch.bool),
                spread=_spread(scores),
            )
        )

    def _note_fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *rest: Any,
        attn_mask: Tensor | None = None,
        scale: float | None = None,
        **options: Any,
    ) -> None:
        is_causal = any(x is True for x in rest) or options.get("is_causal", False)
        query, key = query.double(), key.double()
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        mask = torch.zeros((), dtype=torch.float64)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            mask = torch.zeros(attn_mask.shape, dtype=torch.float64)
            mask = mask.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            mask = attn_mask.double()
        if is_causal:
            causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            mask = mask + torch.zeros(causal.shape).double().masked_fill(~causal, -torch.inf)
        weights, nudged = (
            (scores * factor + mask).softmax(-1).nan_to_num(0.0) for factor in (1.0, NUDGE)
        )
        self._starts.append(self._count)
        self._softmaxes.append(
            Softmax(
                modules=self._running(),
                result=weights,
                nudged=nudged,
                hidden=(mask.expand(scores.shape) <= HIDDEN).all(-1),
                used=weights,
                is_used=torch.ones(weights.shape, dtype=torch.bool),
                spread=_spread(scores + mask),
                fused=True,
            )
        )

    def _running(self) -> tuple[str, ...]:
        """The names of the modules whose methods are on the stack, innermost first.

        Those that only compute the softmax or the dropout come last.
        """
        found: dict[str, None] = {}
        helpers: dict[str, None] = {}
        frame = sys._getframe(1)
        while frame.f_back is not None:
            frame = frame.f_back
            code = frame.f_code
            if code.co_argcount:
                first = frame.f_locals.get(code.co_varnames[0])
                name = self._names.get(id(first)) if isinstance(first, nn.Module) else None
                if name is not None:
                    kept = helpers if isinstance(first, nn.Softmax | nn.Dropout) else found
                    kept[name] = None
        return (*found, *helpers)

    # Where numbers come from

    def _are_known(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() in self._places

    def _of(self, tensor: Tensor) -> Tensor:
        """The place of each number of a tensor."""
        known = self._places.get(tensor.untyped_storage().data_ptr())
        if known is None:
            return torch.full(tensor.shape, UNKNOWN, dtype=torch.int64)
        return known.of(tensor)

    def _know(self, tensor: Tensor, places: Tensor) -> None:
        memory = tensor.untyped_storage()
        numbers = memory.nbytes() // tensor.element_size()
        flat = torch.full((numbers,), UNKNOWN, dtype=torch.int64)
        known = self._places[memory.data_ptr()] = _Places(flat, memory)
        known.of(tensor).copy_(places)

    def _write(self, target: Tensor, source: Any) -> None:
        if self._are_known(source) and not self._are_known(target):
            self._know(target, self._of(target))
        if self._are_known(target) and isinstance(source, Tensor):
            self._of(target).copy_(self._of(source).expand(target.shape))

    def _move(
        self, function: Any, args: tuple[Any, ...], options: dict[str, Any], result: Any
    ) -> None:
        moved = args[:1] if function.overloadpacket not in (aten.cat, aten.stack) else args
        if not any(map(self._are_known, tree_leaves(moved))):
            return
        places = tree_map(lambda x: self._of(x) if isinstance(x, Tensor) else x, moved)
        rest = args[len(places) :]
        if function.overloadpacket is aten.constant_pad_nd:
            rest = (rest[0], UNKNOWN)
        options = {name: value for name, value in options.items() if name != "memory_format"}
        self._know(result, function(*places, *rest, **options))

    def _change(self, args: tuple[Any, ...], result: Any) -> None:
        source = next(filter(self._are_known, args), None)
        made = result[0] if isinstance(result, tuple) else result
        if source is not None and made.is_floating_point() and source.ndim <= made.ndim:
            self._know(made, self._of(source).expand(made.shape).clone())

    # A product

    def _multiply(self, left: Tensor, right: Tensor, result: Tensor) -> None:
        for operand, other, axis in ((left, right, -1), (right, left, -2)):
            if self._are_known(operand) and operand.ndim >= -axis and not self._is_parameter(other):
                used = self._use(operand.movedim(axis, -1))
                if used:
                    self._products[result.untyped_storage().data_ptr()] = result, used

    def _scale(self, left: Any, right: Any) -> None:
        """A product is multiplied, each row by a number of its own."""
        if (
            not isinstance(left, Tensor)
            or not isinstance(right, Tensor)
            or right.shape[-1:] != (1,)
        ):
            return
        _, used = self._products.get(left.untyped_storage().data_ptr(), (None, []))
        for softmax in used:
            rows = (*softmax.result.shape[:-1], 1)
            if right.numel() == prod(rows):
                softmax.factor = right.double().reshape(rows)

    def _is_parameter(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._parameters

    def _use(self, operand: Tensor) -> list[Softmax]:
        """Note an operand, (..., summed axis), if it is summed along the axis of the softmax."""
        used: list[Softmax] = []
        places = self._of(operand)
        known = places >= 0
        if not bool(known.any()):
            return used
        starts = torch.tensor(self._starts)
        number = torch.searchsorted(starts, places.clamp_min(0), right=True) - 1
        for which in number[known].unique().tolist():
            softmax, mine = self._softmaxes[which], known & (number == which)
            keys = softmax.result.shape[-1]
            inside = places - self._starts[which]
            rows = inside // keys
            low = torch.where(mine, rows, self._count).amin(-1)
            high = torch.where(mine, rows, UNKNOWN).amax(-1)
            counts = mine.sum(-1)
            if not bool((low == high)[counts > 0].all()) or (int(counts.max()) == 1 and keys > 1):
                continue
            softmax.used.view(-1)[inside[mine]] = operand[mine].double()
            softmax.is_used.view(-1)[inside[mine]] = True
            used.append(softmax)
        return used


def _spread(scores: Tensor) -> float:
    seen = scores[(scores > HIDDEN) & scores.isfinite()]
    return float(seen.float().std()) if seen.numel() > 1 else 0.0


Run = Callable[[], Any]


def weights_of(model: nn.Module, run: Run) -> list[Softmax]:
    """The weights that a model uses in a run."""
    with torch.no_grad(), Truth(model) as truth:
        run()
    return truth.found

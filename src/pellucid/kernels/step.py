"""One new token a text through the blocks of a stack, by compiled loops where they can serve.

A few texts' next token is a matter of reading every weight once. `step_kernel` does that at the
speed of the memory; the blocks themselves, an operation at a time, are what it must agree with.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.attention.masks import Below

if TYPE_CHECKING:
    from pellucid.layers.block import Block, Sight
    from pellucid.layers.cache import Cache

MOST_ROWS = 8
"""Texts beyond which a matrix product for all of them is faster than a row of weights at a time."""
WORTHWHILE = 2**20
"""Weights below which loading the compiled code costs more than it saves."""
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")
"""In the order of the kernel's numbers."""
_alone = Lock()
"""Without OpenMP, Numba ends the process if two threads call it at once."""
NOTHING = np.empty(0, np.float32)


def of(stack: nn.Module, x: Tensor, sight: "Sight", cache: "Cache") -> "Step | None":
    """What does the work of the blocks, where it can do all that they would.

    Args:
        stack: of blocks.
        x: (rows, tokens, width), what goes into the first block.
        sight: what the attention of the blocks has in common.
        cache: of what came before.
    """
    reads = sight.memory is not None
    if (
        x.shape[1] > 1
        or not _fits(x)
        or stack.training
        or torch.compiler.is_compiling()
        or _is_watched()
        or (reads and cache.slots[0].memory is None)
        or not isinstance(sight.memory_mask, Below | None)
    ):
        return None
    if cache.step is None:
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in stack.modules())
        cache.step = False if hooked else Step(stack)
    step: Step | None = cache.step or None
    return step


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """As `F.linear`; of a few rows at the speed of the memory.

    Args:
        x: (..., in).
        weight: (out, in), float; or int8, with a scale (out,).
        bias: (out,).
        scale: of the rows of weight.
    """
    kernel = _kernel()
    rows = x.flatten(0, -2)
    if weight.numel() < WORTHWHILE or not _fits(rows):
        if scale is None:
            return nn.functional.linear(x, weight, bias)
        made = nn.functional.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)
        return made if bias is None else made + bias
    out = np.empty((len(rows), len(weight)), np.float32)
    vectors = (NOTHING if one is None else one.numpy() for one in (scale, bias))
    with _cores() as parts:
        kernel.project(weight.numpy(), *vectors, rows.contiguous().numpy(), out, parts)
    return torch.from_numpy(out).view(*x.shape[:-1], len(weight))


def _fits(x: Tensor) -> bool:
    """Whether the kernel serves so many rows of this kind."""
    return (
        len(x) <= MOST_ROWS
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _kernel() is not None
    )


class Step:
    """The weights of a stack of blocks, as the kernel finds them: where they are, not copies."""

    def __init__(self, stack: Any) -> None:
        config, kernel = stack.config, _kernel()
        self.window = config.window
        scale = config.dim**-0.5 if config.attention_scale is None else config.attention_scale
        self.shape = kernel.Shape(
            heads=config.heads,
            kv_heads=config.key_heads,
            dim=config.dim,
            hidden=config.hidden,
            norm_first=int(config.norm_first),
            activation=ACTIVATIONS.index(config.activation),
            eps=config.norm_eps,
            scale=scale,
        )
        self.table = np.zeros((len(stack.blocks), kernel.FIELDS), np.int64)
        self.alive: list[Tensor] = []
        """What the table points to."""
        for row, block in zip(self.table, stack.blocks, strict=True):
            self._enter(row, block)
        self.like = np.empty(0, stack.blocks[0].feed_forward.up.weight.numpy().dtype)

    def _enter(self, row: Any, block: "Block") -> None:
        kernel = _kernel()
        own, cross, feed = block.attention, block.cross, block.feed_forward
        linears = {
            kernel.QUERY: own.query,
            kernel.KEY: own.key,
            kernel.VALUE: own.value,
            kernel.OUTPUT: own.output,
            kernel.CROSS_QUERY: None if cross is None else cross.query,
            kernel.CROSS_OUTPUT: None if cross is None else cross.output,
            kernel.GATE: feed.gate,
            kernel.UP: feed.up,
            kernel.DOWN: feed.down,
        }
        norms = {
            kernel.OWN_NORM: block.attention_norm,
            kernel.QUERY_NORM: own.query_norm,
            kernel.KEY_NORM: own.key_norm,
            kernel.CROSS_NORM: block.cross_norm,
            kernel.CROSS_QUERY_NORM: None if cross is None else cross.query_norm,
            kernel.FEED_NORM: block.feed_forward_norm,
        }
        for parts, names in ((linears, ("weight", "scale", "bias")), (norms, ("weight", "bias"))):
            for field, part in parts.items():
                for place, name in enumerate(names):
                    tensor = getattr(part, name, None)
                    if tensor is not None:
                        row[field + place] = self._address(tensor)

    def _address(self, tensor: Tensor) -> int:
        tensor = tensor.detach().contiguous()
        self.alive.append(tensor)
        return tensor.data_ptr()

    def __call__(self, x: Tensor, sight: "Sight", cache: "Cache") -> Tensor:
        """(rows, 1, width) to the same; the new keys and values go into the cache."""
        kernel = _kernel()
        rows, start = len(x), cache.start
        x = x.squeeze(1).clone(memory_format=torch.contiguous_format)
        stop = np.full(rows, start) if isinstance(start, int) else start.numpy()
        stop = (stop + 1).astype(np.int64)
        first = np.zeros_like(stop)
        if self.window is not None:
            first = np.maximum(stop - self.window, 0)
        bias = NOTHING.reshape(0, 0, 0)
        if sight.bias is not None:
            bias = sight.bias.squeeze(-2).contiguous().numpy()
        cosine = sine = NOTHING.reshape(0, 0)
        if sight.turn is not None:
            turns = (part.flatten(1).expand(rows, -1).contiguous() for part in sight.turn)
            cosine, sine = (part.numpy() for part in turns)
        sources, memory, memory_stop = rows, 0, stop
        for row, slot in zip(self.table, cache.slots, strict=True):
            row[kernel.KEYS], row[kernel.VALUES] = slot.keys.data_ptr(), slot.values.data_ptr()
            if slot.memory is not None:
                sources, memory = len(slot.memory[0]), slot.memory[0].shape[-2]
                row[kernel.MEMORY_KEYS] = slot.memory[0].data_ptr()
                row[kernel.MEMORY_VALUES] = slot.memory[1].data_ptr()
        if memory:
            memory_stop = np.full(rows, memory)
            if isinstance(sight.memory_mask, Below):
                limit = sight.memory_mask.limit
                each = limit.numpy() if isinstance(limit, Tensor) else np.full(sources, limit)
                memory_stop[:] = each.repeat(rows // sources)
        with _cores() as parts:
            kernel.blocks(
                self.table,
                self.shape,
                self.like,
                x.numpy(),
                cache.capacity,
                first,
                stop,
                bias,
                cosine,
                sine,
                sources,
                memory,
                memory_stop,
                parts,
            )
        return x.unsqueeze(1)


@contextmanager
def _cores() -> Iterator[int]:
    """How many cores to use, as many as torch does; they are ours alone meanwhile."""
    import numba

    with _alone:
        before = numba.get_num_threads()
        parts = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(parts)
        try:
            yield parts
        finally:
            numba.set_num_threads(before)


def _is_watched() -> bool:
    taps = sys.modules.get("pellucid.lens.taps")
    return taps is not None and bool(taps.listeners)


@cache
def _kernel() -> Any:
    """The compiled loops, or None without Numba, or where it can keep nothing on disk."""
    try:
        from pellucid.kernels import step_kernel
    except (ImportError, RuntimeError):
        return None
    return step_kernel

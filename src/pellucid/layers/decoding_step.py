"""One new token a text through the blocks of a stack, by compiled loops where they can serve.

A few texts' next token is a matter of reading every weight once. `decoding_kernel` does that at the
speed of the memory; the blocks themselves, an operation at a time, are what it must agree with.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from pellucid.attention.masks import Below
from pellucid.layers.block import AttentionInputs, Block
from pellucid.layers.fusible import are_fusible, is_plain
from pellucid.layers.matrix_vector import NOTHING, cores, decoding_kernel, fits

if TYPE_CHECKING:
    from pellucid.layers.cache import Cache

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")
"""In the order of the kernel's numbers."""


def of(stack: nn.Module, x: Tensor, inputs: "AttentionInputs", cache: "Cache") -> "Step | None":
    """What does the work of the blocks, where it can do all that they would.

    Args:
        stack: of blocks.
        x: (rows, tokens, width), what goes into the first block.
        inputs: what the attention of the blocks has in common.
        cache: of what came before.
    """
    reads = inputs.memory is not None
    if (
        x.shape[1] > 1
        or not fits(x)
        or stack.training
        or torch.compiler.is_compiling()
        or _is_watched()
        or (reads and cache.layers[0].memory is None)
        or not isinstance(inputs.memory_mask, Below | None)
    ):
        return None
    for layer_cache in cache.layers:
        if not all(
            part.dtype == x.dtype and part.is_contiguous() and len(x) % len(part) == 0
            for part in (layer_cache.keys, layer_cache.values, *(layer_cache.memory or ()))
        ):
            return None
    known: Step | None = cache.step
    if known is None or not known.is_as_it_was(stack):
        try:
            known = cache.step = Step(stack)
        except _UnfitError:
            known = cache.step = None
    return known


class _UnfitError(Exception):
    """The blocks do something that the kernel does not."""


class Step:
    """The weights of a stack of blocks, as the kernel finds them: where they are, not copies."""

    def __init__(self, stack: Any) -> None:
        config, kernel = stack.config, decoding_kernel()
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
        self.stack, self.eps = stack, config.norm_eps
        self.width, self.hidden = config.width, config.hidden
        self.heads, self.pairs = config.heads * config.dim, config.key_heads * config.dim
        self.parts = list(stack.blocks.modules())
        self.children = [
            (part._modules, name, child)
            for part in self.parts
            for name, child in part._modules.items()
        ]
        self.tensors: list[tuple[Any, str, Tensor, int]] = []
        """What the table points to, and who owns it under which name."""
        self.kind = stack.blocks[0].feed_forward.up.weight.dtype
        self.table = np.zeros((len(stack.blocks), kernel.FIELDS), np.int64)
        if self.kind not in (torch.float32, torch.int8) or not are_fusible(self.parts):
            raise _UnfitError
        for row, block in zip(self.table, stack.blocks, strict=True):
            self._enter(row, block)
        self.like = torch.empty(0, dtype=self.kind).numpy()
        if not self.is_as_it_was(stack):
            raise _UnfitError

    def is_as_it_was(self, stack: nn.Module) -> bool:
        """Whether the table still says where the weights are, and nobody looks in between."""
        return (
            stack is self.stack
            and not _global_forward_hooks
            and not _global_forward_pre_hooks
            and not any(
                part.training
                or part._forward_hooks
                or part._forward_pre_hooks
                or "forward" in part.__dict__
                for part in self.parts
            )
            and all(owner.get(name) is child for owner, name, child in self.children)
            and all(
                owner.get(name) is tensor
                and tensor.data_ptr() == address
                and tensor.is_contiguous()
                for owner, name, tensor, address in self.tensors
            )
        )

    def _enter(self, row: Any, block: "Block") -> None:
        kernel = decoding_kernel()
        own, cross, feed = block.attention, block.cross, block.feed_forward
        width, hidden, heads, pairs = self.width, self.hidden, self.heads, self.pairs
        linears = [
            (kernel.QUERY, own.query, heads, width),
            (kernel.KEY, own.key, pairs, width),
            (kernel.VALUE, own.value, pairs, width),
            (kernel.OUTPUT, own.output, width, heads),
            (kernel.UP, feed.up, hidden, width),
            (kernel.DOWN, feed.down, width, hidden),
        ]
        norms = [
            (kernel.OWN_NORM, block.attention_norm, width),
            (kernel.FEED_NORM, block.feed_forward_norm, width),
            (kernel.QUERY_NORM, own.query_norm, own.dim),
            (kernel.KEY_NORM, own.key_norm, own.dim),
        ]
        if feed.gate is not None:
            linears.append((kernel.GATE, feed.gate, hidden, width))
        if cross is not None:
            linears.append((kernel.CROSS_QUERY, cross.query, heads, width))
            linears.append((kernel.CROSS_OUTPUT, cross.output, width, heads))
            norms.append((kernel.CROSS_NORM, block.cross_norm, width))
            norms.append((kernel.CROSS_QUERY_NORM, cross.query_norm, own.dim))
        for field, linear, out, size in linears:
            row[field] = self._address(linear, "weight", (out, size), self.kind)
            if self.kind == torch.int8:
                row[field + 1] = self._address(linear, "scale", (out,))
            if linear.bias is not None:
                row[field + 2] = self._address(linear, "bias", (out,))
        for field, norm, size in norms:
            if norm is not None:
                if norm.eps != self.eps:
                    raise _UnfitError
                row[field] = self._address(norm, "weight", (size,))
                if isinstance(norm, nn.LayerNorm):
                    row[field + 1] = self._address(norm, "bias", (size,))

    def _address(
        self, owner: Any, name: str, shape: tuple[int, ...], kind: torch.dtype = torch.float32
    ) -> int:
        kept = owner._parameters if name in owner._parameters else owner._buffers
        tensor = kept.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != kind or tensor.is_meta:
            raise _UnfitError
        address: int = tensor.data_ptr()
        self.tensors.append((kept, name, tensor, address))
        return address

    def __call__(self, x: Tensor, inputs: "AttentionInputs", cache: "Cache") -> Tensor:
        """(rows, 1, width) to the same; the new keys and values go into the cache."""
        kernel = decoding_kernel()
        rows, start = len(x), cache.start
        x = x.squeeze(1).clone(memory_format=torch.contiguous_format)
        stop = np.full(rows, start) if isinstance(start, int) else start.numpy()
        stop = (stop + 1).astype(np.int64)
        first = np.zeros_like(stop)
        if self.window is not None:
            first = np.maximum(stop - self.window, 0)
        bias = NOTHING.reshape(0, 0, 0)
        if inputs.bias is not None:
            bias = inputs.bias.squeeze(-2).contiguous().numpy()
        cosine = sine = NOTHING.reshape(0, 0)
        if inputs.rotary is not None:
            turns = (part.flatten(1).expand(rows, -1).contiguous() for part in inputs.rotary)
            cosine, sine = (part.numpy() for part in turns)
        sources, memory, memory_stop = rows, 0, stop
        for row, layer_cache in zip(self.table, cache.layers, strict=True):
            row[kernel.KEYS], row[kernel.VALUES] = (
                layer_cache.keys.data_ptr(),
                layer_cache.values.data_ptr(),
            )
            if layer_cache.memory is not None:
                sources, memory = len(layer_cache.memory[0]), layer_cache.memory[0].shape[-2]
                row[kernel.MEMORY_KEYS] = layer_cache.memory[0].data_ptr()
                row[kernel.MEMORY_VALUES] = layer_cache.memory[1].data_ptr()
        if memory:
            memory_stop = np.full(rows, memory)
            if isinstance(inputs.memory_mask, Below):
                limit = inputs.memory_mask.limit
                each = limit.numpy() if isinstance(limit, Tensor) else np.full(sources, limit)
                memory_stop[:] = each.repeat(rows // sources)
        with cores() as parts:
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


def is_unseen(block: nn.Module) -> bool:
    """Whether nobody would notice that a part of a block's work is left out."""
    return not _is_watched() and all(is_plain(part) for part in block.modules())


def _is_watched() -> bool:
    taps = sys.modules.get("pellucid.lens.interception")
    return taps is not None and bool(taps.listeners)

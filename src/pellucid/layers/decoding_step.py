"""One new token per text through the blocks of a stack, by compiled loops where possible.

The next token of a few texts takes one read of every weight. `decoding_kernel` does that at memory
bandwidth, and must agree with the blocks themselves.
"""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.attention.masks import Below
from pellucid.layers import decoding_table as columns
from pellucid.layers.background import may_call
from pellucid.layers.block import AttentionInputs, Block
from pellucid.layers.decoding_table import ACTIVATIONS, FIELDS, Shape
from pellucid.layers.feed_forward import FeedForward
from pellucid.layers.fusible import are_all_hooked, are_fusible, is_hooked, is_plain, is_watched
from pellucid.layers.matrix_vector import NOTHING, cores, fits
from pellucid.layers.norms import OffsetLayerNorm, OffsetRMSNorm
from pellucid.layers.packed_linear import PackedLinear
from pellucid.layers.thread_count import ThreadCount

if TYPE_CHECKING:
    from pellucid.layers.cache import Cache

MOST_TEXTS = 1024
"""Most texts; of packed weights, `MOST_ROWS`."""
_SUPPORTED = {
    *("kind", "vocabulary", "width", "layers", "decoder_layers", "heads", "kv_heads", "head_dim"),
    *("hidden", "norm", "norm_eps", "norm_weight", "norm_bias", "norm_offset", "norm_first"),
    *("branch_norms", "parallel", "shared_norm", "residual_scale", "embedding_norm", "head_norm"),
    *("head_norm_kind", "activation", "gated", "bias", "qkv_bias", "output_bias", "hidden_bias"),
    *("positions", "position_offset", "interleaved", "inclusive", "rope_theta", "rope_scaling"),
    *("rotary_dim", "rotary_pairs", "rotary_layers", "relative_buckets", "relative_distance"),
    *("window", "window_layers", "window_theta", "types", "embedding_scale", "attention_scale"),
    *("score_softcap", "sinks", "qkv_clip", "tied", "logit_scale", "logit_bias", "logit_softcap"),
    *("dropout", "attention_dropout", "pooling", "normalised", "most_tokens", "start", "stop"),
    *("padding", "experts_used", "experts_normalised", "expert_hidden", "shared_hidden"),
    *("dense_layers", "position"),
}
"""Fields of a config that may have any value. All others must have their default, so that blocks
with a field added later run as they are until the kernel supports it."""


def of(
    stack: nn.Module, x: Tensor, inputs: "list[AttentionInputs]", cache: "Cache"
) -> "Step | None":
    """The compiled step, where it can do all that the blocks would; else None.

    Args:
        stack: of blocks.
        x: (rows, tokens, width), the input of the first block.
        inputs: of each block.
        cache: of the tokens so far.
    """
    if (
        x.shape[1] > 1
        or not fits(x, MOST_TEXTS)
        or stack.training
        or torch.compiler.is_compiling()
        or is_watched()
        or inputs[0].places is not None  # the kernel has one bias for all blocks
        or (inputs[0].memory is not None and cache.layers[0].memory is None)
        or not isinstance(inputs[0].memory_mask, Below | None)
    ):
        return None
    for layer_cache in cache.layers:
        if not all(
            part.dtype == x.dtype and part.is_contiguous() and len(x) % len(part) == 0
            for part in (layer_cache.keys, layer_cache.values, *(layer_cache.memory or ()))
        ):
            return None
    step: Step | None = cache.step
    if step is None or not step.is_current(stack):
        try:
            step = cache.step = Step(stack)
        except _UnfitError:
            step = cache.step = None
    if step is not None and step.kind == torch.uint8 and not fits(x):
        return None
    return step


class _UnfitError(Exception):
    """The kernel does not support these blocks."""


class Step:
    """The addresses of a stack's weights, for the kernel; nothing is copied."""

    def __init__(self, stack: Any) -> None:
        config = stack.config
        if (
            not all(
                field.name in _SUPPORTED or getattr(config, field.name) == field.default
                for field in fields(config)
            )
            or config.activation not in ACTIVATIONS
            or (config.head_norm and not (config.norm_weight and config.head_norm_kind != "own"))
        ):
            raise _UnfitError
        self.windows = [config.window_of(layer) for layer in range(len(stack.blocks))]
        scale = config.dim**-0.5 if config.attention_scale is None else config.attention_scale
        self.shape = Shape(
            heads=config.heads,
            kv_heads=config.key_heads,
            dim=config.dim,
            hidden=config.hidden,
            norm_first=int(config.norm_first),
            normalises_inputs=int(config.branch_norms != "after"),
            normalises_outputs=int(config.branch_norms != "before"),
            is_centred=int(config.norm == "layer"),
            offset=float(config.norm_offset),
            has_joint_norm=int(config.head_norm_kind == "joint"),
            is_parallel=int(config.parallel),
            has_shared_norm=int(config.shared_norm),
            activation=ACTIVATIONS.index(config.activation),
            eps=config.norm_eps,
            scale=scale,
            residual_scale=config.residual_scale,
            softcap=config.score_softcap or 0.0,
            clip=config.qkv_clip or 0.0,
            has_neighbours=int(config.rotary_pairs == "neighbours"),
        )
        is_offset = config.norm_offset and config.norm_weight
        self.stack, self.norms = stack, (config.norm_eps, config.norm == "layer", is_offset)
        self.width, self.hidden = config.width, config.hidden
        self.query_width = config.heads * config.dim
        self.key_width = config.key_heads * config.dim
        self.parts = list(stack.blocks.modules())
        self.children = [
            (part._modules, name, child)
            for part in self.parts
            for name, child in part._modules.items()
        ]
        self.tensors: list[tuple[Any, str, Tensor, int]] = []
        """What the table points to: owner, name, tensor and address."""
        self.matrices: list[Any] = []
        """Arrays of packed weights that it points to."""
        self.threads = ThreadCount()
        up = stack.blocks[0].feed_forward.up
        # Packed weights are bytes to the kernel, whatever they hold.
        self.kind = torch.uint8 if isinstance(up, PackedLinear) else up.weight.dtype
        self.table = np.zeros((len(stack.blocks), FIELDS), np.int64)
        if self.kind not in (torch.float32, torch.int8, torch.uint8) or not are_fusible(self.parts):
            raise _UnfitError
        for row, block in zip(self.table, stack.blocks, strict=True):
            self._enter(row, block)
        self.like = torch.empty(0, dtype=self.kind).numpy()
        if not self.is_current(stack):
            raise _UnfitError

    def is_current(self, stack: nn.Module) -> bool:
        """Whether the addresses are still those of the weights, and no hook expects to run."""
        return (
            stack is self.stack
            and not are_all_hooked()
            and not any(part.training or is_hooked(part) for part in self.parts)
            and all(owner.get(name) is child for owner, name, child in self.children)
            and all(
                owner.get(name) is tensor
                and tensor.data_ptr() == address
                and tensor.is_contiguous()
                for owner, name, tensor, address in self.tensors
            )
        )

    def _enter(self, row: Any, block: "Block") -> None:
        own, cross, feed = block.attention, block.cross, block.feed_forward
        if not isinstance(feed, FeedForward):
            raise _UnfitError
        width, hidden = self.width, self.hidden
        query_width, key_width = self.query_width, self.key_width
        linears = [
            (columns.QUERY, own.query, query_width, width),
            (columns.KEY, own.key, key_width, width),
            (columns.VALUE, own.value, key_width, width),
            (columns.OUTPUT, own.output, width, query_width),
            (columns.UP, feed.up, hidden, width),
            (columns.DOWN, feed.down, width, hidden),
        ]
        norms = [
            (columns.OWN_NORM, block.attention_norm, width),
            (columns.FEED_NORM, block.feed_forward_norm, width),
            (columns.OWN_OUTPUT_NORM, block.attention_output_norm, width),
            (columns.FEED_OUTPUT_NORM, block.feed_forward_output_norm, width),
            (
                columns.QUERY_NORM,
                own.query_norm,
                query_width if own.norms_jointly else own.dim,
            ),
            (columns.KEY_NORM, own.key_norm, key_width if own.norms_jointly else own.dim),
        ]
        sinks = [(columns.SINKS, own)]
        if feed.gate is not None:
            linears.append((columns.GATE, feed.gate, hidden, width))
        if cross is not None:
            linears.append((columns.CROSS_QUERY, cross.query, query_width, width))
            linears.append((columns.CROSS_OUTPUT, cross.output, width, query_width))
            norms.append((columns.CROSS_NORM, block.cross_norm, width))
            norms.append((columns.CROSS_OUTPUT_NORM, block.cross_output_norm, width))
            size = query_width if own.norms_jointly else own.dim
            norms.append((columns.CROSS_QUERY_NORM, cross.query_norm, size))
            sinks.append((columns.CROSS_SINKS, cross))
        for field, linear, out, size in linears:
            if self.kind == torch.uint8:
                row[field] = self._packed(linear, out, size)
            else:
                row[field] = self._address(linear, "weight", (out, size), self.kind)
            if self.kind == torch.int8:
                row[field + 1] = self._address(linear, "scale", (out,))
            if linear.bias is not None:
                row[field + 2] = self._address(linear, "bias", (out,))
        for field, norm, size in norms:
            if norm is not None:
                is_offset = isinstance(norm, OffsetLayerNorm | OffsetRMSNorm)
                if (norm.eps, isinstance(norm, nn.LayerNorm), is_offset) != self.norms:
                    raise _UnfitError
                if norm.weight is not None:
                    row[field] = self._address(norm, "weight", (size,))
                if getattr(norm, "bias", None) is not None:
                    row[field + 1] = self._address(norm, "bias", (size,))
        for field, attention in sinks:
            if attention.sinks is not None:
                row[field] = self._address(attention, "sinks", attention.sinks.shape)

    def _packed(self, linear: Any, out: int, size: int) -> int:
        """The address of what the kernel takes of packed weights."""
        if not isinstance(linear, PackedLinear) or linear.packed.shape != (out, size):
            raise _UnfitError
        for name in ("whole", "scale", "least"):
            tensor = getattr(linear, name)
            self._address(linear, name, tensor.shape, tensor.dtype)
        self.matrices.append(linear.matrix)
        address: int = linear.matrix.ctypes.data
        return address

    def _address(
        self, owner: Any, name: str, shape: tuple[int, ...], kind: torch.dtype = torch.float32
    ) -> int:
        tensors = owner._parameters if name in owner._parameters else owner._buffers
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != kind or tensor.is_meta:
            raise _UnfitError
        address: int = tensor.data_ptr()
        self.tensors.append((tensors, name, tensor, address))
        return address

    def __call__(self, x: Tensor, inputs: "list[AttentionInputs]", cache: "Cache") -> Tensor | None:
        """(rows, 1, width) to the same; the new keys and values go into the cache.

        None, and nothing is changed, while the kernel is compiled in the background.
        """
        from pellucid.layers.decoding_kernel import blocks as run_blocks

        rows, start = len(x), cache.start
        x = x.squeeze(1).clone(memory_format=torch.contiguous_format)
        stop = np.full(rows, start) if isinstance(start, int) else start.numpy()
        stop = (stop + 1).astype(np.int64)
        kinds: dict[int, int] = {}
        """The number of the inputs of each block: blocks with the same window share them."""
        for row, block_inputs in zip(self.table, inputs, strict=True):
            row[columns.INPUTS] = kinds.setdefault(id(block_inputs), len(kinds))
        of_kind = dict(zip(self.table[:, columns.INPUTS], range(len(inputs)), strict=True))
        blocks = [of_kind[number] for number in range(len(kinds))]
        """A block of each kind."""
        windows = (self.windows[block] for block in blocks)
        first = np.stack([np.maximum(stop - (window or stop.max()), 0) for window in windows])
        bias = NOTHING.reshape(0, 0, 0)
        shared = inputs[0]
        if shared.bias is not None:
            bias = shared.bias.squeeze(-2).contiguous().numpy()
        cosine, sine = self._angles([inputs[block].rotary for block in blocks], rows)
        sources, memory, memory_stop = rows, 0, stop
        for row, layer_cache in zip(self.table, cache.layers, strict=True):
            row[columns.KEYS] = layer_cache.keys.data_ptr()
            row[columns.VALUES] = layer_cache.values.data_ptr()
            if layer_cache.memory is not None:
                sources, memory = len(layer_cache.memory[0]), layer_cache.memory[0].shape[-2]
                row[columns.MEMORY_KEYS] = layer_cache.memory[0].data_ptr()
                row[columns.MEMORY_VALUES] = layer_cache.memory[1].data_ptr()
        if memory:
            memory_stop = np.full(rows, memory)
            if isinstance(shared.memory_mask, Below):
                limit = shared.memory_mask.limit
                limits = limit.numpy() if isinstance(limit, Tensor) else np.full(sources, limit)
                memory_stop[:] = limits.repeat(rows // sources)
        own = (cache.capacity, first, stop, bias, cosine, sine)
        cross = (sources, memory, memory_stop)
        arguments = (self.table, self.shape, self.like, x.numpy(), *own, *cross)
        if not may_call(run_blocks, *arguments, 1):
            return None
        with cores(self.threads) as parts:
            run_blocks(*arguments, parts)
        return x.unsqueeze(1)

    def _angles(self, rotaries: list[tuple[Tensor, Tensor] | None], rows: int) -> tuple[Any, Any]:
        """Cosines and sines, (kinds, rows, dim); empty if no block has rotary positions.

        Blocks without them, among others with, turn by an angle of 0.
        """
        some = next((rotary for rotary in rotaries if rotary is not None), None)
        if some is None:
            nothing = NOTHING.reshape(0, 0, 0)
            return nothing, nothing
        none = torch.ones_like(some[0]), torch.zeros_like(some[1])
        kinds = [none if rotary is None else rotary for rotary in rotaries]
        cosine, sine = (
            torch.stack([parts[i].flatten(1).expand(rows, -1) for parts in kinds]) for i in (0, 1)
        )
        return cosine.contiguous().numpy(), sine.contiguous().numpy()


def is_unseen(block: nn.Module) -> bool:
    """Whether no watch and no hook would notice that part of a block's work is skipped."""
    return not is_watched() and all(is_plain(part) for part in block.modules())

"""The transformer block: attention, cross-attention in some models, and a feed-forward part, each
with a residual connection (Vaswani et al. 2017, section 3.1).
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pellucid.attention import attention, masks
from pellucid.layers.bfloat16 import lowered, product
from pellucid.layers.cache import LayerCache
from pellucid.layers.config import Config
from pellucid.layers.dropout import Dropout
from pellucid.layers.feed_forward import Experts, FeedForward
from pellucid.layers.fusible import fusible
from pellucid.layers.norms import head_norm, norm
from pellucid.layers.positions import RelativeBias
from pellucid.layers.rotary import rotated


@dataclass(frozen=True, eq=False, slots=True)
class AttentionInputs:
    """What all blocks of a stack share in one forward pass."""

    mask: masks.Mask | Tensor | None = None
    """Of self-attention."""
    bias: Tensor | None = None
    """Relative or ALiBi positions, (batch or 1, heads, queries, keys)."""
    places: tuple[Tensor, Tensor] | None = None
    """Positions of the queries and of the keys, (batch or 1, tokens) each, if each block has a bias
    of its own."""
    rotary: tuple[Tensor, Tensor] | None = None
    """Cosine and sine of rotary positions, for the new tokens."""
    memory: Tensor | None = None
    """(batch, source tokens, width), the output of an encoder."""
    memory_mask: masks.Mask | Tensor | None = None

    def part(self, tokens: slice, mask: masks.Mask | Tensor | None) -> "AttentionInputs":
        """The inputs of some of the tokens, with another mask."""
        bias = None if self.bias is None else self.bias[..., tokens, :]
        rotary = None
        if self.rotary is not None:
            rotary = self.rotary[0][..., tokens, :], self.rotary[1][..., tokens, :]
        places = self.places and (self.places[0][..., tokens], self.places[1])
        return replace(self, mask=mask, bias=bias, places=places, rotary=rotary)


@fusible
class HeadAttention(nn.Module):
    """Grouped heads with their projections, rotary positions and a cache.

        query, key, value = split(x @ W_query.T), split(y @ W_key.T), split(y @ W_value.T)
        output = concat(attention(query, key, value)) @ W_output.T

    where y is x, or the memory for cross-attention.
    """

    def __init__(self, config: Config, relative: RelativeBias | None = None) -> None:
        super().__init__()
        width, heads, kv_heads, dim = config.width, config.heads, config.key_heads, config.dim
        bias = config.bias if config.qkv_bias is None else config.qkv_bias
        self.query = nn.Linear(width, heads * dim, bias)
        self.key = nn.Linear(width, kv_heads * dim, bias)
        self.value = nn.Linear(width, kv_heads * dim, bias)
        bias = config.bias if config.output_bias is None else config.output_bias
        self.output = nn.Linear(heads * dim, width, bias)
        self.query_norm, self.key_norm = head_norm(config, heads), head_norm(config, kv_heads)
        self.norms_jointly = config.head_norm_kind == "joint"
        self.sinks = nn.Parameter(torch.zeros(heads)) if config.sinks else None
        self.relative = relative
        self.dim, self.scale, self.dropout = dim, config.attention_scale, config.weights_dropout
        self.softcap, self.clip, self.pairs = (
            config.score_softcap,
            config.qkv_clip,
            config.rotary_pairs,
        )

    def forward(
        self,
        x: Tensor,
        inputs: AttentionInputs,
        layer_cache: LayerCache | None = None,
        ending: AttentionInputs | None = None,
    ) -> Tensor:
        """Self-attention of (batch, tokens, width), after the tokens in the layer's cache.

        With `ending`, the output is (batch, 1, width) of the last token, whose inputs these are.
        """
        x = self._lowered(x)
        key = self._split(self.key, x, self.key_norm, inputs.rotary)
        value = self._split(self.value, x)
        if layer_cache is not None:
            key, value = (part.to(key.dtype) for part in layer_cache.add(key, value))
        if ending is not None:
            x, inputs = x[:, -1:], ending
        query = self._split(self.query, x, self.query_norm, inputs.rotary)
        bias = inputs.bias
        if self.relative is not None and inputs.places is not None:
            bias = self.relative(*inputs.places)
        return self.attend(query, key, value, inputs.mask, bias)

    def cross_attend(
        self, x: Tensor, inputs: AttentionInputs, layer_cache: LayerCache | None = None
    ) -> Tensor:
        """Cross-attention from x to the memory, whose keys and values the cache keeps."""
        assert inputs.memory is not None
        given, x = x.dtype, self._lowered(x)
        pair = None if layer_cache is None else layer_cache.memory
        if pair is None:
            memory = self._lowered(inputs.memory)
            key = self._split(self.key, memory, self.key_norm)
            pair = key, self._split(self.value, memory)
            if layer_cache is not None:
                pair = layer_cache.remember(pair[0].to(given), pair[1].to(given))
        # Beams that share a memory are more queries to it.
        shared = x.reshape(len(pair[0]), -1, x.shape[-1])
        query = self._split(self.query, shared, self.query_norm)
        key, value = (part.to(query.dtype) for part in pair)
        return self.attend(query, key, value, inputs.memory_mask, None).view(x.shape)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: masks.Mask | Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        context, _ = attention(
            query,
            key,
            value,
            mask,
            bias=bias,
            scale=self.scale,
            softcap=self.softcap,
            sinks=self.sinks,
            dropout=self.dropout if self.training else 0.0,
        )
        # (batch, heads, tokens, dim) to (batch, tokens, heads * dim)
        return product(self.output, context.transpose(-3, -2).flatten(-2), is_last=True)

    def _lowered(self, x: Tensor) -> Tensor:
        return lowered(x, self.query, self.key, self.value, self.output)

    def _split(
        self,
        projection: nn.Linear,
        x: Tensor,
        norm: nn.Module | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, dim), normalised, bounded, rotated."""
        projected = product(projection, x, is_last=norm is not None or rotary is not None)
        if norm is not None and self.norms_jointly:
            projected, norm = norm(projected), None
        projected = projected.unflatten(-1, (-1, self.dim))
        if norm is not None:
            projected = norm(projected)
        if self.clip is not None:
            projected = projected.clamp(-self.clip, self.clip)
        projected = projected.transpose(-3, -2)
        if rotary is not None:
            projected = rotated(projected, rotary, self.pairs)
        # What was normalised or rotated in float32 is an input of a product again.
        return projected.to(x.dtype) if x.dtype == torch.bfloat16 else projected


@fusible
class Block(nn.Module):
    """One layer of an encoder or a decoder; with cross-attention if it reads a memory."""

    def __init__(
        self,
        config: Config,
        cross: bool = False,
        relative: RelativeBias | None = None,
        layer: int = 0,
    ) -> None:
        super().__init__()
        place = config.branch_norms
        has_input, has_output = place != "after", place != "before"

        def norms(is_one: bool = False) -> tuple[nn.Module | None, nn.Module | None]:
            """Of the input of a part (without norm_first, of the sum after it) and its output."""
            return (
                norm(config) if has_input and not is_one else None,
                norm(config) if has_output else None,
            )

        self.attention = HeadAttention(config, relative)
        self.attention_norm, self.attention_output_norm = norms()
        self.cross = HeadAttention(config) if cross else None
        self.cross_norm, self.cross_output_norm = norms() if cross else (None, None)
        has_experts = config.experts > 0 and layer not in config.dense_layers
        self.feed_forward = Experts(config) if has_experts else FeedForward(config)
        self.feed_forward_norm, self.feed_forward_output_norm = norms(config.shared_norm)
        self.norm_first, self.dropout = config.norm_first, Dropout(config.dropout)
        self.is_parallel, self.scale = config.parallel, config.residual_scale

    def forward(
        self,
        x: Tensor,
        inputs: AttentionInputs,
        layer_cache: LayerCache | None = None,
        ending: AttentionInputs | None = None,
    ) -> Tensor:
        """(batch, tokens, width) to the same shape.

        With `ending`, to (batch, 1, width) of the last token, whose inputs these are; of the other
        tokens only keys and values are computed.
        """
        residual = x if ending is None else x[:, -1:]

        def attend(y: Tensor) -> Tensor:
            output: Tensor = self.attention(y, inputs, layer_cache, ending)
            return output

        norms = self.attention_norm, self.attention_output_norm
        if self.is_parallel:
            return self._add_both(x, residual, attend, ending is not None)
        x = self._add(x, norms, attend, residual)
        if self.cross is not None:
            cross, norms = self.cross, (self.cross_norm, self.cross_output_norm)
            x = self._add(x, norms, lambda y: cross.cross_attend(y, inputs, layer_cache))
        return self._add(
            x, (self.feed_forward_norm, self.feed_forward_output_norm), self.feed_forward
        )

    def _add(
        self,
        x: Tensor,
        norms: tuple[nn.Module | None, nn.Module | None],
        part: Callable[[Tensor], Tensor],
        residual: Tensor | None = None,
    ) -> Tensor:
        """The residual connection around a part; the residual is x unless given."""
        residual = x if residual is None else residual
        before, after = norms
        if self.norm_first:
            return residual + self._scaled(_through(after, part(_through(before, x))))
        return _through(before, residual + self._scaled(part(x)))

    def _add_both(
        self, x: Tensor, residual: Tensor, attend: Callable[[Tensor], Tensor], is_ending: bool
    ) -> Tensor:
        """The residual connection around attention and the feed-forward part, side by side."""
        y = _through(self.attention_norm, x)
        z = y[:, -1:] if is_ending else y
        if self.feed_forward_norm is not None:
            z = self.feed_forward_norm(residual)
        attended = self._scaled(_through(self.attention_output_norm, attend(y)))
        fed = self._scaled(_through(self.feed_forward_output_norm, self.feed_forward(z)))
        return residual + attended + fed

    def _scaled(self, part: Tensor) -> Tensor:
        """What is added to the residual, given the output of a part."""
        dropped: Tensor = self.dropout(part)
        return dropped if self.scale == 1 else dropped * self.scale


def _through(norm: nn.Module | None, x: Tensor) -> Tensor:
    normalised: Tensor = x if norm is None else norm(x)
    return normalised


def twins(block: Block, number: int) -> Iterator[Block]:
    """The block and copies of it, each a module of its own, with the same parameters."""
    yield block
    for _ in range(number - 1):
        yield deepcopy(block, {id(parameter): parameter for parameter in block.parameters()})

"""The blocks of a transformer, one after the other: embeddings in, hidden states out.

No code here depends on a family: all differences are in `Config`.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pellucid.attention import masks
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError
from pellucid.layers import decoding_step
from pellucid.layers.block import AttentionInputs, Block, twins
from pellucid.layers.cache import Cache
from pellucid.layers.config import Config
from pellucid.layers.dropout import Dropout
from pellucid.layers.norms import norm
from pellucid.layers.positions import RelativeBias, alibi, sinusoids, table
from pellucid.layers.rotary import Rotary
from pellucid.models.input_ids import check_lengths, check_table


class Stack(nn.Module):
    """Embedding, blocks and, with pre-norm, a final norm."""

    def __init__(self, config: Config, causal: bool, layers: int, cross: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        width = config.embedding_width or config.width
        self.tokens = table(config.vocabulary, width)
        self.positions = None
        if config.position == "learned" and config.positions is not None:
            rows = config.positions + config.position_offset
            self.positions = table(rows, width)
        self.types = table(config.types, width) if config.types else None
        self.embedding_norm = norm(config, width) if config.embedding_norm else None
        self.projection = nn.Linear(width, config.width) if config.embedding_width else None
        each = config.relative_each
        self.relative = None if each else self._relative()
        new = (
            Block(config, cross, self._relative() if each else None, layer)
            for layer in range(layers)
        )
        self.blocks = nn.ModuleList(twins(next(new), layers) if config.shared_blocks else new)
        if not config.first_norm:
            setattr(self.blocks[0], "attention_norm", None)  # noqa: B010
        self.rotary = self.window_rotary = None  # after the blocks, which check sizes first
        if config.position == "rotary":
            scaling = dict(config.rope_scaling)
            self.rotary = Rotary(config.rotated, config.rope_theta, scaling, config.positions)
            if config.window_theta is not None:
                self.window_rotary = Rotary(config.rotated, config.window_theta)
        self.final_norm = norm(config) if config.norm_first else None
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        ids: Tensor,
        *,
        mask: masks.Mask | Tensor | None = None,
        positions: Tensor | None = None,
        types: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: masks.Mask | Tensor | None = None,
        cache: Cache | None = None,
        lengths: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """Hidden states, (batch, tokens, width); with last=True, (batch, 1, width).

        Args:
            ids: token ids, (batch, tokens).
            mask: combined with the causal mask of a decoder.
            positions: of the tokens, (batch or 1, tokens); consecutive by default.
            types: segment types, (batch, tokens); 0 by default.
            memory: the encoder's output, (batch, source tokens, width).
            memory_mask: the mask of cross-attention.
            cache: the KV cache of earlier tokens; these tokens are added to it.
            lengths: with a cache, the number of ids of each text without padding, (batch,); all by
                default.
            last: return the hidden state of each text's last token only.

        Raises:
            OutOfRangeError: there are more tokens, positions or types than the model has.
            ArgumentError: positions are given with a cache, and the model has position biases.
            ShapeError, TypeMismatchError: positions or types has another shape or dtype, or cache
                is not a `Cache`.
        """
        config, tokens = self.config, ids.shape[-1]
        if cache is not None and not isinstance(cache, Cache):
            raise TypeMismatchError(
                f"cache must be a Cache, as the model's cache() makes it, not {cache!r:.80}"
            )
        before = 0 if cache is None else cache.longest
        start = 0 if cache is None else cache.start
        longest = tokens if cache is None else cache.claim(config, len(ids), tokens)
        if types is not None:
            check_table("types", types, ids, config.types)
        if lengths is not None:
            check_lengths(lengths, ids)
        if cache is not None:
            cache.note(ids)
            if before and self.rotary is not None and self.rotary.changes(before, longest):
                if positions is not None or mask is not None:
                    raise ArgumentError(
                        "positions and mask cannot be given with a cache that grows past the "
                        "length of pretraining: all its keys are computed anew"
                    )
                return self._anew(tokens, cache, lengths, last)
        positions = self._positions_of(ids, positions, start, longest, cache is not None)
        keys = positions
        if cache is not None:
            keys = torch.arange(longest, device=ids.device).unsqueeze(0)
        shared = AttentionInputs(
            bias=self._bias(positions, keys),
            places=(positions, keys) if config.relative_each else None,
            memory=memory,
            memory_mask=memory_mask,
        )
        inputs = self._of_blocks(shared, positions, mask, start, tokens)
        ending = None
        if last and tokens > 1 and mask is None and lengths is None:
            window = self.config.window_of(len(self.blocks) - 1)
            end = self._mask(None, start + tokens - 1, 1, window)
            ending = inputs[-1].part(slice(-1, None), end)
        x = self._embed(ids, positions, types)
        stepped = None
        if cache is not None and mask is None:
            step = decoding_step.of(self, x, inputs, cache)
            stepped = None if step is None else step(x, inputs, cache)
        x = self._run_blocks(x, inputs, cache, ending) if stepped is None else stepped
        if cache is not None:
            cache.advance(tokens if lengths is None else lengths)
        if last:
            x = _last(x, lengths)
        return x if self.final_norm is None else self.final_norm(x)

    def _anew(self, tokens: int, cache: Cache, lengths: Tensor | None, last: bool) -> Tensor:
        """The hidden states of the last tokens, after those before are computed again."""
        ids, whole, last_ones = cache.rewound(tokens)
        if lengths is not None:
            whole = whole - tokens + lengths
        x: Tensor = self(ids, cache=cache, lengths=whole, last=last)
        return x if last else x[last_ones]

    def _run_blocks(
        self,
        x: Tensor,
        inputs: list[AttentionInputs],
        cache: Cache | None,
        ending: AttentionInputs | None,
    ) -> Tensor:
        """Run all blocks; the last one for the last token only, if `ending` has its inputs."""
        layer_caches = [None] * len(self.blocks) if cache is None else cache.layers
        *before, end = self.blocks
        for block, own, layer_cache in zip(before, inputs, layer_caches, strict=False):
            x = block(x, own, layer_cache)
        if ending is None or not decoding_step.is_unseen(end):
            output: Tensor = end(x, inputs[-1], layer_caches[-1])
            return output
        last: Tensor = end(x, inputs[-1], layer_caches[-1], ending)
        return last

    def _of_blocks(
        self,
        shared: AttentionInputs,
        positions: Tensor,
        mask: masks.Mask | Tensor | None,
        start: int | Tensor,
        tokens: int,
    ) -> list[AttentionInputs]:
        """The inputs of each block: blocks with the same window and rotary positions share them."""
        made: dict[tuple[int | None, bool], AttentionInputs] = {}
        inputs = []
        for layer in range(len(self.blocks)):
            window, layers = self.config.window_of(layer), self.config.rotary_layers
            is_rotated = layers is None or layer in layers
            if (window, is_rotated) not in made:
                rotary = self.rotary if is_rotated else None
                if rotary is not None and window is not None and self.window_rotary is not None:
                    rotary = self.window_rotary
                made[window, is_rotated] = replace(
                    shared,
                    mask=self._mask(mask, start, tokens, window),
                    rotary=None if rotary is None else rotary(positions),
                )
            inputs.append(made[window, is_rotated])
        return inputs

    def _positions_of(
        self,
        ids: Tensor,
        positions: Tensor | None,
        start: int | Tensor,
        longest: int,
        is_cached: bool,
    ) -> Tensor:
        """The position of each token, (batch or 1, tokens): as given, or consecutive."""
        config = self.config
        if positions is not None:
            check_table("positions", positions, ids, config.positions)
            if is_cached and (config.has_buckets or config.position == "alibi"):
                raise ArgumentError(
                    f"positions cannot be given with a cache if they are {config.position}: the "
                    "cache does not store the positions of its tokens"
                )
            return positions
        if config.positions is not None and longest > config.positions:
            raise OutOfRangeError(
                f"the text has {longest} tokens, but the model has {config.positions} positions"
            )
        consecutive = torch.arange(ids.shape[-1], device=ids.device).unsqueeze(0)
        return consecutive + (start.unsqueeze(-1) if isinstance(start, Tensor) else start)

    def _relative(self) -> RelativeBias | None:
        """A new relative bias, if the model has such positions."""
        config = self.config
        if not config.has_buckets:
            return None
        buckets, distance = config.relative_buckets, config.relative_distance
        return RelativeBias(config.heads, buckets, distance, self.causal)

    def _bias(self, positions: Tensor, keys: Tensor) -> Tensor | None:
        """The position bias of the scores, (batch or 1, heads, queries, keys), if there is one."""
        if self.relative is not None:
            bias: Tensor = self.relative(positions, keys)
            return bias
        if self.config.position == "alibi":
            return alibi(self.config.heads, positions, keys)
        return None

    def _embed(self, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        config = self.config
        x: Tensor = self.tokens(ids)
        if config.embedding_scale != 1:
            x = x * config.embedding_scale
        if self.positions is not None:
            x = x + self.positions(positions + config.position_offset)
        elif config.position == "sinusoidal":
            shifted = positions + config.position_offset
            x = x + sinusoids(shifted, config.width, config.interleaved, config.inclusive).to(x)
        if self.types is not None:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped if self.projection is None else self.projection(dropped)

    def share(self) -> None:
        """Give all blocks the weights of the first, if the config says that they share them."""
        if self.config.shared_blocks:
            first, *others = self.blocks
            for block in others:
                for part, other in zip(first.modules(), block.modules(), strict=True):
                    for name, parameter in part.named_parameters(recurse=False):
                        setattr(other, name, parameter)

    def _mask(
        self,
        mask: masks.Mask | Tensor | None,
        start: int | Tensor,
        tokens: int,
        window: int | None,
    ) -> masks.Mask | Tensor | None:
        if not self.causal:
            if window is None:
                return mask
            own: masks.Mask = masks.window(window - 1, window - 1)
        elif window is not None:
            own = masks.window(window - 1, 0, start)
        elif isinstance(start, int) and tokens == 1:  # the last token attends to all before it
            return mask
        else:
            own = masks.causal(start)
        return own if mask is None else own & mask


def _last(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The hidden state of each text's last token without padding, (batch, 1, width)."""
    if lengths is None:
        return x[:, -1:]
    return x[torch.arange(len(x), device=x.device), lengths - 1].unsqueeze(1)

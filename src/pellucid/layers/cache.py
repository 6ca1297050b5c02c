"""Keys and values of tokens that were read already, so that each is computed once.

Room for them is set aside at the start, and each item of a batch may have read another number of
tokens: its next one goes where its own end, and what stands behind is hidden and written over.
"""

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.layers.config import Config


class LayerCache:
    """What one block keeps."""

    def __init__(self, cache: "Cache", layer: int, shape: tuple[int, ...], like: Tensor) -> None:
        self.cache, self.layer = cache, layer
        # Zeros, since what is hidden is computed with too where that is faster.
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        """(batch, kv_heads, capacity, dim)"""
        self.memory: tuple[Tensor, Tensor] | None = None
        """Keys and values of the memory, for cross-attention."""

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values in their places; gives all that any item has by now."""
        start, count = self.cache.start, key.shape[-2]
        if isinstance(start, int):
            end = start + count
            self.keys[:, :, start:end], self.values[:, :, start:end] = key, value
        else:
            end = int(start.max()) + count
            item = torch.arange(len(start), device=start.device)[:, None]
            place = start[:, None] + torch.arange(count, device=start.device)
            self.keys[item, :, place] = key.transpose(1, 2)
            self.values[item, :, place] = value.transpose(1, 2)
        return self.keys[:, :, :end], self.values[:, :, :end]

    def remember(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of the memory; gives them as they are kept."""
        self.memory = key.contiguous(), value.contiguous()
        return self.memory


class Cache:
    """What a decoder keeps of a batch of texts."""

    def __init__(self, config: Config, batch: int, capacity: int, like: Tensor) -> None:
        """Set aside room.

        Args:
            config: of the model.
            batch: how many texts.
            capacity: the most tokens that any of them will have.
            like: a tensor of the device and dtype to use.

        Raises:
            ArgumentError: batch or capacity below 1.
            TypeMismatchError: either is no int.
        """
        for name, size in (("batch", batch), ("capacity", capacity)):
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeMismatchError(f"{name} must be an int, not {size!r}")
            if size < 1:
                raise ArgumentError(f"{name} must be at least 1, not {size}")
        layers = config.layers if config.decoder_layers is None else config.decoder_layers
        shape = (batch, config.key_heads, capacity, config.dim)
        self.capacity = capacity
        self.start: int | Tensor = 0
        """Tokens that each text has: one number, or (batch,) where they differ."""
        self.step: Any = None
        """What `layers.decoding_step` keeps from one token to the next."""
        self.layers = [LayerCache(self, layer, shape, like) for layer in range(layers)]

    def claim(self, config: Config, texts: int, count: int) -> int:
        """Make sure that there is room for so many tokens more; gives the longest text's length.

        Args:
            config: of the model that asks.
            texts: how many it reads.
            count: new tokens of each.

        Raises:
            ArgumentError: there is no room, or the cache was made for another model.
            ShapeError: it is of another number of texts.
        """
        batch, heads, _, dim = self.layers[0].keys.shape
        layers = config.layers if config.decoder_layers is None else config.decoder_layers
        if (len(self.layers), heads, dim) != (layers, config.key_heads, config.dim):
            raise ArgumentError("the cache was made for another model")
        if texts != batch:
            raise ShapeError(f"the cache is of {batch} texts, but there are {texts}")
        longest = self.start if isinstance(self.start, int) else int(self.start.max())
        if longest + count > self.capacity:
            raise ArgumentError(
                f"the cache has room for {self.capacity} tokens, and {longest} + {count} are needed"
            )
        return longest + count

    def advance(self, count: int | Tensor) -> None:
        """Count what was read: so many tokens of each text, or (batch,) where they differ."""
        start = self.start + count
        if isinstance(start, Tensor) and bool((start == start[0]).all()):
            start = int(start[0])
        self.start = start

    def select(self, items: Tensor, beams: int = 1) -> None:
        """Go on with these texts in place of those there were, as beam search does.

        Args:
            items: (texts,) int64, which of those there were.
            beams: how many texts, one after the other, have the same memory from now on; it is kept
                once for all of them.
        """
        rows = len(self.layers[0].keys)
        longest = self.start if isinstance(self.start, int) else int(self.start.max())
        if isinstance(self.start, Tensor):
            self.start = self.start[items]
        same = torch.arange(rows, device=items.device)
        for layer in self.layers:
            if not torch.equal(items, same):
                layer.keys = _chosen(layer.keys, items, longest)
                layer.values = _chosen(layer.values, items, longest)
            if layer.memory is not None:
                sources = len(layer.memory[0])
                wanted = items[::beams] // (rows // sources)
                if not torch.equal(wanted, same[:sources]):
                    layer.memory = layer.memory[0][wanted], layer.memory[1][wanted]


def _chosen(kept: Tensor, items: Tensor, length: int) -> Tensor:
    """The chosen texts of (texts, heads, capacity, dim), whose first `length` places are filled."""
    used = kept[:, :, :length].index_select(0, items)
    if len(items) > len(kept):
        kept = kept.new_zeros(len(items), *kept.shape[1:])
    kept = kept[: len(items)]
    kept[:, :, :length] = used
    return kept

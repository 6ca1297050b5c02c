"""Keys and values of earlier tokens, so that each is computed once.

Memory for them is allocated at the start. The texts of a batch may differ in length: the next token
of each is written after its last one, and positions after that are hidden until they are written.
"""

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, ShapeError
from pellucid.layers import arguments
from pellucid.layers.config import Config


class LayerCache:
    """The cache of one block."""

    def __init__(self, cache: "Cache", layer: int, shape: tuple[int, ...], like: Tensor) -> None:
        self.cache, self.layer = cache, layer
        # Zeros, since hidden positions may be part of a faster computation.
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        """(batch, kv_heads, capacity, dim)"""
        self.memory: tuple[Tensor, Tensor] | None = None
        """Keys and values of the memory, for cross-attention."""

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values, and return all up to the longest text's."""
        start, count = self.cache.start, key.shape[-2]
        if isinstance(start, int):
            end = start + count
            self.keys[:, :, start:end], self.values[:, :, start:end] = key, value
        else:
            end = int(start.max()) + count
            item = torch.arange(len(start), device=start.device)[:, None]
            position = start[:, None] + torch.arange(count, device=start.device)
            self.keys[item, :, position] = key.transpose(1, 2)
            self.values[item, :, position] = value.transpose(1, 2)
        return self.keys[:, :, :end], self.values[:, :, :end]

    def remember(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of the memory, and return them."""
        self.memory = key.contiguous(), value.contiguous()
        return self.memory


class Cache:
    """The cache of a decoder, for a batch of texts."""

    def __init__(self, config: Config, batch: int, capacity: int, like: Tensor) -> None:
        """Allocate the memory.

        Args:
            config: of the model.
            batch: how many texts.
            capacity: the most tokens that any of them may reach.
            like: a tensor with the device and dtype to use.

        Raises:
            ArgumentError: batch or capacity below 1.
            TypeMismatchError: either is not an int.
        """
        arguments.positive_size("batch", batch)
        arguments.positive_size("capacity", capacity)
        layers = config.layers if config.decoder_layers is None else config.decoder_layers
        shape = (batch, config.key_heads, capacity, config.dim)
        self.capacity = capacity
        self.start: int | Tensor = 0
        """Tokens that each text has so far: one number, or (batch,) where they differ."""
        self.step: Any = None
        """What `layers.decoding_step` keeps from one token to the next."""
        self.ids: Tensor | None = None
        """(batch, capacity), if a longer text changes the keys of its first tokens."""
        if dict(config.rope_scaling).get("rope_type") == "longrope":
            self.ids = torch.zeros(batch, capacity, dtype=torch.long, device=like.device)
        self.layers = [LayerCache(self, layer, shape, like) for layer in range(layers)]

    def claim(self, config: Config, texts: int, count: int) -> int:
        """Check that there is room for more tokens; returns the longest text's length with them.

        Args:
            config: of the model.
            texts: how many texts it reads.
            count: new tokens of each.

        Raises:
            ArgumentError: there is no room, or the cache was made for another model.
            ShapeError: it is for another number of texts.
        """
        batch, heads, _, dim = self.layers[0].keys.shape
        layers = config.layers if config.decoder_layers is None else config.decoder_layers
        if (len(self.layers), heads, dim) != (layers, config.key_heads, config.dim):
            raise ArgumentError("the cache was made for another model")
        if texts != batch:
            raise ShapeError(f"the cache is for {batch} texts, but there are {texts}")
        longest = self.longest
        if longest + count > self.capacity:
            raise ArgumentError(
                f"the cache has room for {self.capacity} tokens, and {longest} + {count} are needed"
            )
        return longest + count

    def note(self, ids: Tensor) -> None:
        """Keep new ids, (batch, tokens), if the keys of earlier ones may have to be made anew."""
        if self.ids is not None:
            item, place = self._next_positions(ids.shape[1])
            self.ids[item, place] = ids

    def rewound(self, count: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Begin anew: the ids of all texts, their lengths, and where the last `count` of each are.

        Returns:
            (batch, tokens), (batch,), and two indices that broadcast to (batch, count).
        """
        assert self.ids is not None
        item, place = self._next_positions(count)
        lengths = torch.full((len(self.ids),), 0, device=place.device) + self.start + count
        self.start = 0
        return self.ids[:, : int(lengths.max())].clone(), lengths, (item, place)

    def _next_positions(self, count: int) -> tuple[Tensor, Tensor]:
        """Where the next tokens of each text are, as indices of (batch, capacity)."""
        device = self.layers[0].keys.device
        start = torch.as_tensor(self.start, device=device).view(-1, 1)
        item = torch.arange(len(self.layers[0].keys), device=device).unsqueeze(-1)
        return item, start + torch.arange(count, device=device)

    @property
    def longest(self) -> int:
        """Tokens of the longest text so far."""
        return self.start if isinstance(self.start, int) else int(self.start.max())

    def advance(self, count: int | Tensor) -> None:
        """Count new tokens: a number for all texts, or (batch,) where they differ."""
        start = self.start + count
        if isinstance(start, Tensor) and bool((start == start[0]).all()):
            start = int(start[0])
        self.start = start

    def select(self, items: Tensor, beams: int = 1) -> None:
        """Continue with other texts, each a copy of one so far, as in beam search.

        Args:
            items: (texts,) int64, the text that each continues.
            beams: how many consecutive texts share a memory from now on; it is kept once.
        """
        rows, longest = len(self.layers[0].keys), self.longest
        if isinstance(self.start, Tensor):
            self.start = self.start[items]
        if self.ids is not None:
            self.ids = self.ids[items]
        same = torch.arange(rows, device=items.device)
        is_other = not torch.equal(items, same)
        spare: Tensor | None = None
        for layer in self.layers:
            if is_other:
                layer.keys, spare = _select(layer.keys, items, longest, spare), layer.keys
                layer.values, spare = _select(layer.values, items, longest, spare), layer.values
            if layer.memory is not None:
                sources = len(layer.memory[0])
                chosen = items[::beams] // (rows // sources)
                if not torch.equal(chosen, same[:sources]):
                    layer.memory = layer.memory[0][chosen], layer.memory[1][chosen]


def _select(texts: Tensor, items: Tensor, length: int, spare: Tensor | None) -> Tensor:
    """Some texts of (texts, heads, capacity, dim), whose first `length` positions are used.

    They are written to `spare`, the memory that another selection has read, if it has room. Where
    gradients are needed, they have memory of their own.
    """
    used = texts[:, :, :length]
    if torch.is_grad_enabled():
        chosen = texts.new_zeros(len(items), *texts.shape[1:])
        chosen[:, :, :length] = used.index_select(0, items)
        return chosen
    if spare is None or len(spare) < len(items):
        spare = texts.new_zeros(len(items), *texts.shape[1:])
    spare = spare[: len(items)]
    torch.index_select(used, 0, items, out=spare[:, :, :length])
    return spare

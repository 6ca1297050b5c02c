"""The cache of a text that grows, such as a conversation, whose beginning is not read again."""

from dataclasses import dataclass, field

from pellucid.layers.cache import Cache
from pellucid.models import Decoder


@dataclass(eq=False, slots=True)
class Memory:
    """What a model has read and written of one text that grows, such as a conversation."""

    ids: list[int] = field(default_factory=list)
    """The tokens in the cache."""
    cache: Cache | None = None

    def room_for(self, model: Decoder, ids: list[int], capacity: int) -> Cache:
        """The cache of as many of these ids as it begins with, and of fewer than all."""
        pairs = zip(self.ids, ids[:-1], strict=False)
        same = next((at for at, (cached, given) in enumerate(pairs) if cached != given), None)
        same = min(len(self.ids), len(ids) - 1) if same is None else same
        if self.cache is None or self.cache.capacity < capacity:
            before, self.cache = self.cache, model.cache(1, max(capacity, 2 * len(ids)))
            if before is not None:
                for layer, old in zip(self.cache.layers, before.layers, strict=True):
                    layer.keys[:, :, :same] = old.keys[:, :, :same]
                    layer.values[:, :, :same] = old.values[:, :, :same]
        self.cache.start = same
        self.ids = self.ids[:same]
        return self.cache

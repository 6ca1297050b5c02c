"""Where the queries and keys of a call are in the text, as a generation goes on."""

from typing import NamedTuple

from torch import Tensor

from pellucid.lens.interception.calls import CacheUpdate
from pellucid.lens.module_names import is_cross, stack


class Place(NamedTuple):
    """The positions of a call."""

    first_query: int
    query_total: int
    """The length of the queries' text so far, from which negative positions count."""
    first_key: int
    """Not 0 where a sliding cache has dropped earlier keys."""
    key_total: int
    is_uneven: bool = False
    """Whether the texts of the batch differ in length, and so in the positions of queries."""


class Places:
    """The positions of calls, as far as they follow from earlier ones."""

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        """How many keys each module read last, if its queries were the last of them."""
        self._latest: dict[str, tuple[int, int]] = {}
        """The first query and the number of queries of the latest self-attention of a stack."""

    def of(
        self,
        name: str,
        queries: int,
        keys: int,
        update: CacheUpdate | None,
        offset: int | Tensor | None = None,
    ) -> Place:
        """The positions of a call of a module.

        Args:
            name: the module.
            queries, keys: how many it has.
            update: what it has put into a cache for this call.
            offset: the key position of query 0, as far as its mask tells; one per item if they
                differ.
        """
        before = self._keys.pop(name, None)
        if is_cross(name):
            # The keys are the memory's. The queries are where self-attention was just before.
            first, count = self._latest.get(stack(name), (0, queries))
            first = first if count == queries else 0
            return Place(first, first + queries, 0, keys)
        place = _of_self(queries, keys, before, update, offset)
        if place.first_query + queries == keys:  # and no pooling of all keys by other queries
            self._keys[name] = keys
        self._latest[stack(name)] = place.first_query, queries
        return place

    def is_known(self, name: str, queries: int) -> bool:
        """Whether the queries of cross-attention are those of self-attention just before."""
        return is_cross(name) and self._latest.get(stack(name), (0, 0))[1] == queries

    def note(self, name: str, update: CacheUpdate) -> None:
        """A module has put keys into a cache, whether it is edited or not."""
        if not is_cross(name):
            self._latest[stack(name)] = _start(update), update.length


def _start(update: CacheUpdate) -> int:
    """The number of keys before those of an update."""
    return update.before() if callable(update.before) else update.before


def _of_self(
    queries: int,
    keys: int,
    before: int | None,
    update: CacheUpdate | None,
    offset: int | Tensor | None,
) -> Place:
    if update is not None:
        total = _start(update) + update.length
        # A static cache has empty slots at its end; a sliding one has lost its first keys.
        return Place(total - queries, total, max(0, total - keys), total)
    if isinstance(offset, Tensor):
        return Place(0, keys, 0, keys, is_uneven=True)
    if queries < keys and (offset == keys - queries or before == keys - queries):
        return Place(keys - queries, keys, 0, keys)
    return Place(0, queries, 0, keys)

"""Where the queries and keys of a call are in the text, as a generation goes on."""

from typing import NamedTuple

from torch import Tensor

from pellucid.lens.interception.calls import Call
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
        """How many keys each module read last."""
        self._latest: dict[str, tuple[int, int]] = {}
        """The first query and the number of queries of the latest self-attention of a stack."""

    def of(self, name: str, call: Call) -> Place:
        queries, keys = call.query.shape[-2], call.key.shape[-2]
        before, self._keys[name] = self._keys.get(name), keys
        if is_cross(name):
            # The keys are the memory's. The queries are where self-attention was just before.
            first, count = self._latest.get(stack(name), (0, queries))
            first = first if count == queries else 0
            return Place(first, first + queries, 0, keys)
        place = self._of_self(call, queries, keys, before)
        self._latest[stack(name)] = place.first_query, queries
        return place

    def _of_self(self, call: Call, queries: int, keys: int, before: int | None) -> Place:
        update = call.update
        if update is not None:
            start = update.before() if callable(update.before) else update.before
            total = start + update.length
            # A static cache has empty slots at its end; a sliding one has lost its first keys.
            return Place(total - queries, total, max(0, total - keys), total)
        offset = None if call.rule is None else call.rule.offset
        if isinstance(offset, Tensor):
            return Place(0, keys, 0, keys, is_uneven=True)
        if queries < keys and (offset == keys - queries or before == keys - queries):
            return Place(keys - queries, keys, 0, keys)
        return Place(0, queries, 0, keys)

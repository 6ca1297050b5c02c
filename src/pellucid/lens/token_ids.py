"""Which token ids an attention is about: those that its own forward pass has read, or none.

Ids are noted when an embedding looks them up, with the calls of modules that are running then. They
belong to an attention of the same stack in the same pass, which means that the innermost of those
calls that contains the attention is still running. A pass over `inputs_embeds`, image patches,
audio frames, or the keys of another pass has no ids, whatever its length.
"""

import re
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.lens.interception.call_stack import running_modules
from pellucid.lens.module_names import Modules, common_depth, stack, within
from pellucid.lens.running_calls import RunningCall, innermost
from pellucid.lens.unseen import attention_modules

LOOKUPS_KEPT = 4
"""Lookups that are remembered: those of a pass over several stacks."""
TOKENS = re.compile(r"tok|word|wte|src|tgt|vocab|emb", re.IGNORECASE)
"""Matches names of embeddings that read token ids, where no model says which do."""
OTHERS = re.compile(r"type|pos|seg|speaker|lang|time|dist", re.IGNORECASE)
"""Matches names of embeddings that read other ids."""


@dataclass(eq=False, slots=True)
class Lookup:
    """A lookup of ids in an embedding."""

    ids: Tensor
    """(batch, length)"""
    embedding: str
    """The name of the embedding."""
    calls: list[RunningCall]
    """The calls of methods of modules that were running, innermost first."""
    modules: list[str]
    """The names of these modules."""

    def passes(self, depth: int | None = None) -> list[str]:
        """The modules of the forward calls among the innermost `depth` calls."""
        pairs = zip(self.calls[:depth], self.modules, strict=False)
        return [module for call, module in pairs if call.name == "forward"]


class _Recent(threading.local):
    """The recent lookups on this thread."""

    def __init__(self) -> None:
        self.lookups: list[Lookup] = []
        self.latest: tuple[Lookup, RunningCall, str] | None = None
        """The lookup that belongs to a stack, as found last, and a call that may still run."""


class TokenIds:
    """The ids of queries and keys, from what embeddings have looked up."""

    def __init__(self, modules: Modules) -> None:
        self._names = {id(module): name for name, module in modules}
        self._embeddings = {id(module) for module in _token_embeddings(modules)}
        self._weights = {
            id(module.weight): self._names.get(id(module), "")
            for _, module in modules
            if id(module) in self._embeddings and isinstance(module.weight, Tensor)
        }
        self._attending = set(attention_modules(modules))
        self._attends_cache: dict[str, bool] = {}
        self._recent = _Recent()

    def note_lookup(self, ids: Tensor, weight: Tensor) -> None:
        """Note that ids were looked up in an embedding."""
        calls: list[RunningCall] = []
        modules: list[str] = []
        embedding = self._weights.get(id(weight))
        for frame, module in running_modules(sys._getframe(2)):
            name = self._names.get(id(module))
            if embedding is None:  # its weight may be swapped, as by functional_call
                if id(module) not in self._embeddings:
                    return
                embedding = name
            if name is not None and name != embedding:
                calls.append(RunningCall.of(frame))
                modules.append(name)
        if embedding is None or not ids.numel():
            return
        lookup = Lookup(ids.reshape(-1, ids.shape[-1]), embedding, calls, modules)
        earlier = [x for x in self._recent.lookups if not self._is_continued(x, lookup)]
        self._recent.lookups = [lookup, *earlier[: LOOKUPS_KEPT - 1]]

    def note_attention(self, name: str) -> None:
        """Note that a module attends, whatever its class is called."""
        if name not in self._attending:
            self._attending.add(name)
            self._attends_cache.clear()

    def of_queries(self, name: str, batch: int, length: int) -> Tensor | None:
        """(batch, length) ids that the stack of a module has read in the current pass."""
        recent, own_stack = self._recent, stack(name)
        if recent.latest is not None:
            lookup, call, of = recent.latest
            is_latest = lookup is recent.lookups[0] and of == own_stack and call.alive() is not None
            if is_latest and lookup.ids.shape == (batch, length):
                return lookup.ids
        fitting = [
            lookup
            for lookup in recent.lookups
            if lookup.ids.shape == (batch, length) and self._is_own(lookup, name)
        ]
        if not fitting:
            return None
        depths = [common_depth(lookup.embedding, name) for lookup in fitting]
        nearest = [x for x, depth in zip(fitting, depths, strict=True) if depth == max(depths)]
        if len({lookup.embedding for lookup in nearest}) > 1:
            return None
        lookup = nearest[0]
        depth = innermost(lookup.calls)
        if depth is not None:
            recent.latest = lookup, lookup.calls[depth], own_stack
        return lookup.ids

    def of_other_keys(
        self, name: str, batch: int, length: int, queries: Tensor | None
    ) -> Tensor | None:
        """(batch, length) ids that another stack has read in a call that is still running.

        If one embedding reads both texts, they are the ids that are not those of the queries.
        """
        for lookup in self._recent.lookups:
            if lookup.ids.shape[1] == length and not batch % len(lookup.ids):
                depth = innermost(lookup.calls)
                if depth is not None and within(name, lookup.modules[depth]):
                    is_same_stack = any(within(name, module) for module in lookup.passes(depth))
                    is_other = queries is not None and lookup.ids is not queries
                    if not is_same_stack and (is_other or not self._is_own(lookup, name)):
                        return lookup.ids.repeat_interleave(batch // len(lookup.ids), 0)  # beams
        return None

    def _is_continued(self, earlier: Lookup, lookup: Lookup) -> bool:
        """Whether a lookup is the next step of a generation, after an earlier one in its place.

        The passes of the earlier one are finished, and so are their stacks.
        """
        return (
            (earlier.embedding, earlier.modules) == (lookup.embedding, lookup.modules)
            and earlier.ids.shape == lookup.ids.shape
            and all(call.alive() is None for call in earlier.calls if call.name == "forward")
            and any(map(self._attends, earlier.passes()))
        )

    def _is_own(self, lookup: Lookup, name: str) -> bool:
        """Whether a module is part of the stack that looked up these ids, in the same call."""
        depth = innermost(lookup.calls)
        if depth is None or not within(name, lookup.modules[depth]):
            return False
        if any(map(self._attends, lookup.passes(depth))):
            return False  # the stack that looked them up is finished
        return self._shares_stack(lookup, name, lookup.modules[depth])

    def _shares_stack(self, lookup: Lookup, name: str, module: str) -> bool:
        """Whether no stack inside `module` contains the embedding but not the module `name`.

        One does if a model looks up ids in the embedding of its language model, and then calls its
        vision tower.
        """
        inner = lookup.embedding
        while within(inner, module) and inner != module:
            inner = inner.rpartition(".")[0]
            if inner == module:
                break
            if self._attends(inner) and not within(name, inner):
                return False
        return True

    def _attends(self, module: str) -> bool:
        """Whether a module contains one that attends."""
        attends = self._attends_cache.get(module)
        if attends is None:
            attends = any(within(name, module) for name in self._attending)
            self._attends_cache[module] = attends
        return attends


def _token_embeddings(modules: Modules) -> Iterable[Any]:
    """The embeddings that read token ids: those that models name, or else by their names."""
    named = []
    for _, module in modules:
        if not hasattr(type(module), "get_input_embeddings"):  # of transformers
            continue
        with suppress(AttributeError, NotImplementedError, TypeError):
            table: Any = module.get_input_embeddings()  # type: ignore[operator]
            if isinstance(table, nn.Module) and isinstance(getattr(table, "weight", None), Tensor):
                named.append(table)
    if named:
        return named
    tables = [(name, module) for name, module in modules if isinstance(module, nn.Embedding)]
    return [table for name, table in tables if TOKENS.search(name) and not OTHERS.search(name)]

"""Which tokens an attention is about: the ids that its own forward pass has read, or none.

Ids are noted where an embedding looks them up, with the forward calls that were running then. They
belong to an attention of the same stack in the same pass: one that is called while the innermost of
those calls that holds it still runs. A pass over `inputs_embeds`, a picture's patches, frames of
sound, or keys of another pass have no ids, however many of them there are.
"""

import re
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.lens import module_names
from pellucid.lens.interception import running_modules
from pellucid.lens.module_names import Modules
from pellucid.lens.running_calls import RunningCall, innermost
from pellucid.lens.unseen import attention_modules

READ_KEPT = 4
"""Texts that are kept at a time: those that a pass over several stacks reads."""
TOKENS = re.compile(r"tok|word|wte|src|tgt|vocab|emb", re.IGNORECASE)
OTHERS = re.compile(r"type|pos|seg|speaker|lang|time|dist", re.IGNORECASE)
"""What names of embeddings that read token ids have in common, where no model says which do."""


@dataclass(eq=False, slots=True)
class Read:
    """A lookup of ids."""

    ids: Tensor
    """(batch, length)"""
    embedding: str
    """The name of the module that looked them up."""
    calls: list[RunningCall]
    """The calls of methods of modules that were running, innermost first."""
    modules: list[str]
    """The names of these modules."""


class _Here(threading.local):
    """What was read on this thread."""

    def __init__(self) -> None:
        self.reads: list[Read] = []
        self.latest: tuple[Read, RunningCall, str] | None = None
        """What was found to belong to which stack, in a call that may still run."""


class Labels:
    """What the latest embeddings have read."""

    def __init__(self, parts: Modules) -> None:
        self._names = {id(part): name for name, part in parts}
        self._embeddings = {id(part) for part in _embeddings(parts)}
        self._weights = {
            id(part.weight): self._names.get(id(part), "")
            for _, part in parts
            if id(part) in self._embeddings and isinstance(part.weight, Tensor)
        }
        self._attending = set(attention_modules(parts))
        self._known: dict[str, bool] = {}
        self._here = _Here()

    def read(self, ids: Tensor, weight: Tensor) -> None:
        """Ids were looked up in an embedding."""
        calls: list[RunningCall] = []
        modules: list[str] = []
        embedding = self._weights.get(id(weight))
        for frame, module in running_modules(sys._getframe(2)):
            name = self._names.get(id(module))
            if embedding is None:  # its weight may be swapped, as functional_call does
                if id(module) not in self._embeddings:
                    return
                embedding = name
            if name is not None and name != embedding:
                calls.append(RunningCall.of(frame))
                modules.append(name)
        if embedding is None or not ids.numel():
            return
        read = Read(ids.reshape(-1, ids.shape[-1]), embedding, calls, modules)
        earlier = [one for one in self._here.reads if not self._is_replaced(one, read)]
        self._here.reads = [read, *earlier[: READ_KEPT - 1]]

    def _is_replaced(self, earlier: Read, read: Read) -> bool:
        """Whether one step of a generation goes on from another, in the same place.

        The passes that read the earlier one are done, and so are their stacks.
        """
        if (earlier.embedding, earlier.modules) != (read.embedding, read.modules):
            return False
        if earlier.ids.shape != read.ids.shape:
            return False
        if any(call.alive() is not None for call in earlier.calls if call.name == "forward"):
            return False
        return any(map(self._attends, self._passes(earlier, len(earlier.calls))))

    def attended(self, name: str) -> None:
        """A module has made an attention call, whatever its class is called."""
        if name not in self._attending:
            self._attending.add(name)
            self._known.clear()

    def of_queries(self, name: str, batch: int, length: int) -> Tensor | None:
        """(batch, length) ids that the stack of a module has read in the pass that is running."""
        stack = module_names.stack(name)
        if self._here.latest is not None:
            read, call, of = self._here.latest
            is_latest = read is self._here.reads[0] and of == stack and call.alive() is not None
            if is_latest and read.ids.shape == (batch, length):
                return read.ids
        fitting = [
            read
            for read in self._here.reads
            if read.ids.shape == (batch, length) and self._is_own(read, name)
        ]
        if not fitting:
            return None
        nearness = [module_names.common_depth(read.embedding, name) for read in fitting]
        best = [read for read, near in zip(fitting, nearness, strict=True) if near == max(nearness)]
        if len({read.embedding for read in best}) > 1:
            return None
        read = best[0]
        place = innermost(read.calls)
        if place is not None:
            self._here.latest = read, read.calls[place], stack
        return read.ids

    def of_other_keys(
        self, name: str, batch: int, length: int, queries: Tensor | None
    ) -> Tensor | None:
        """(batch, length) ids that another stack has read in a call that is still running.

        Where one module looks up the texts of both, they are those that are not the queries'.
        """
        for read in self._here.reads:
            if read.ids.shape[1] == length and not batch % len(read.ids):
                place = innermost(read.calls)
                if place is not None and module_names.within(name, read.modules[place]):
                    done = self._passes(read, place)
                    is_same_stack = any(module_names.within(name, module) for module in done)
                    is_other = queries is not None and read.ids is not queries
                    if not is_same_stack and (is_other or not self._is_own(read, name)):
                        return read.ids.repeat_interleave(batch // len(read.ids), 0)  # beams
        return None

    def _is_own(self, read: Read, name: str) -> bool:
        """Whether a module is part of the stack that read these ids, in the same call."""
        place = innermost(read.calls)
        if place is None or not module_names.within(name, read.modules[place]):
            return False
        if any(self._attends(module) for module in self._passes(read, place)):
            return False  # the stack that has read them is done
        return self._leads(read, name, read.modules[place])

    def _passes(self, read: Read, place: int) -> list[str]:
        """The modules of the passes that were running when ids were read, and are done."""
        pairs = zip(read.calls[:place], read.modules, strict=False)
        return [module for call, module in pairs if call.name == "forward"]

    def _leads(self, read: Read, name: str, module: str) -> bool:
        """Whether no stack inside `module` has the embedding and not the module called `name`.

        As where a model looks up ids in its language model's embedding, and then calls its vision
        tower.
        """
        inner = read.embedding
        while module_names.within(inner, module) and inner != module:
            inner = inner.rpartition(".")[0]
            if inner == module:
                break
            if self._attends(inner) and not module_names.within(name, inner):
                return False
        return True

    def _attends(self, module: str) -> bool:
        known = self._known.get(module)
        if known is None:
            known = any(module_names.within(name, module) for name in self._attending)
            self._known[module] = known
        return known


def _embeddings(parts: Modules) -> Iterable[Any]:
    """The embeddings that read token ids: what models say they are, or else by their names."""
    said = []
    for _, part in parts:
        if not hasattr(type(part), "get_input_embeddings"):  # of transformers only
            continue
        with suppress(AttributeError, NotImplementedError, TypeError):
            found: Any = part.get_input_embeddings()  # type: ignore[operator]
            if isinstance(found, nn.Module) and isinstance(getattr(found, "weight", None), Tensor):
                said.append(found)
    if said:
        return said
    tables = [(name, part) for name, part in parts if isinstance(part, nn.Embedding)]
    return [part for name, part in tables if TOKENS.search(name) and not OTHERS.search(name)]

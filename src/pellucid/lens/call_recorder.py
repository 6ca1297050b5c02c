"""Calls of attention become records: read, proven, kept, and joined where they are one text."""

import re
import sys
from collections.abc import Callable
from functools import partial

from torch import nn

from pellucid.attention.limits import readable_bytes
from pellucid.lens import module_names
from pellucid.lens.generations import Generations, Origin
from pellucid.lens.interception import call_stack
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.mask_reader import MaskReader
from pellucid.lens.pieces import Keeper, Part
from pellucid.lens.proof import Contradiction
from pellucid.lens.record import Record
from pellucid.lens.record_building import (
    Ids,
    prove_call,
    prove_weights,
    record_of_call,
    record_of_weights,
)
from pellucid.lens.running_calls import RunningCall, innermost
from pellucid.lens.token_ids import TokenIds

GENERATING = re.compile("generate", re.IGNORECASE)
"""Matches the names of methods in which several passes generate one text."""


class CallRecorder:
    """Records the calls of one open watch."""

    def __init__(
        self,
        model: nn.Module,
        modules: list[tuple[str, nn.Module]],
        records: list[Record],
        in_pieces: dict[str, str],
        keep: Keeper,
        *,
        keeps_values: bool,
        every_row: bool,
        weights_limit: int | None,
        on_missed: Callable[[str, str], None],
        is_lasting: Callable[[str, Part], bool],
    ) -> None:
        """Get ready.

        Args:
            model: the model that is watched.
            modules: its modules, by name.
            records: where records go.
            in_pieces: where it is noted why a generation has several records.
            keep: keeps tensors.
            keeps_values: whether values and contexts are kept too.
            every_row: whether every row is proven.
            weights_limit: the most bytes of weights that are kept; None = no limit.
            on_missed: called with a module and the reason why a call has no record.
            is_lasting: whether a part of a module's calls outlives them.
        """
        self._model, self._records, self._in_pieces = model, records, in_pieces
        self._keep, self._keeps_values, self._every_row = keep, keeps_values, every_row
        self._weights_limit, self._kept_weights = weights_limit, 0
        self._on_missed, self._is_lasting = on_missed, is_lasting
        self.refused: set[str] = set()
        """Modules whose records are wrong, so that no more of them are made."""
        self._broken: dict[str, str] = {}
        self._run: RunningCall | None = None
        self._turns: dict[str, list[int]] = {}
        self._masks = MaskReader(keep)
        self.token_ids = TokenIds(modules)
        self.generations = Generations(
            keep,
            self._masks,
            keeps_values=keeps_values,
            every_row=every_row,
            ids=self.token_ids.of_queries,
            withdraw=self._withdraw,
        )

    def record(self, name: str, call: Call | ModelWeights) -> None:
        self.token_ids.note_attention(name)
        if isinstance(call, ModelWeights):
            self._record_weights(name, call)
            return
        update = call.update
        if update is not None and update.before == 0:
            self._broken.pop(name, None)
        if name in self._broken:
            self._on_missed(name, self._broken[name])
        elif update is not None and update.lossy:
            self._on_missed(name, "reads a quantized cache, which is not recorded")
        elif not self.generations.extend(name, call):
            self._begin(name, call)

    def _begin(self, name: str, call: Call) -> None:
        """Record a call that stands alone or begins a generation."""
        generations = self.generations
        origin = generations.origin(call)
        record = self._record_of(name, call, origin)
        contradiction = self._contradiction(record, call, origin)
        if contradiction is not None:
            if call.model_weights is None:
                self._refuse(name, contradiction)
            else:
                self._record_weights(name, call.model_weights)
            return
        self._add(record, None if call.update is None else call.update.cache)
        if generations.has(name, call):
            why = "what the steps see follows no rule that grows, such as a triangle or a window"
            if call.hidden is not None:
                why = "an intervention hides some of what they see"
            self._in_pieces[name] = f"each step of its generation has its own record, since {why}"
        generations.begin(record, call, origin)

    def _record_of(self, name: str, call: Call, origin: Origin) -> Record:
        queries, keys = call.query.shape[-2], origin.keys.shape[-2]
        is_alone = origin.before == 0 and origin.source is None
        is_cross = module_names.is_cross(name) or (is_alone and queries != keys)
        return record_of_call(
            name,
            call,
            origin,
            self._masks.rule_of(call, queries, keys),
            self._ids(name, call.query.shape[0], queries, keys, is_cross),
            is_cross=is_cross,
            keep=self._keep,
            keeps_values=self._keeps_values,
            is_lasting=partial(self._is_lasting, name),
        )

    def _contradiction(self, record: Record, call: Call, origin: Origin) -> str | None:
        """Prove a record; returns what contradicts it, if anything does."""
        try:
            record.proof = prove_call(record, call, origin.values, every_row=self._every_row)
        except Contradiction as contradiction:
            return str(contradiction)
        return None

    def _refuse(self, name: str, why: str) -> None:
        """Record no more of a module whose record is wrong."""
        self.refused.add(name)
        self._on_missed(name, why)

    def _record_weights(self, name: str, source: ModelWeights) -> None:
        """Record the model's own weights."""
        weights = source.weights
        size = weights.numel() * weights.itemsize
        if self._weights_limit is not None and self._kept_weights + size > self._weights_limit:
            self._on_missed(
                name,
                f"computes weights that no query and key give, {readable_bytes(size)} of them, "
                f"beyond the {readable_bytes(self._weights_limit)} of weights_limit",
            )
            return
        if not source.is_plain and weights.numel() and bool(weights.amin() < 0):
            self._on_missed(
                name, "mixes its weights so that some are negative, which is not recorded"
            )
            return
        batch, _, queries, keys = weights.shape
        is_cross = module_names.is_cross(name)
        ids = self._ids(name, batch, queries, keys, is_cross)
        record = record_of_weights(
            name, source, ids, is_cross=is_cross, keep=self._keep, keeps_values=self._keeps_values
        )
        try:
            record.proof = prove_weights(record, source, every_row=self._every_row)
        except Contradiction:
            self._on_missed(name, "multiplies its weights with values in an unknown order")
            return
        self._kept_weights += size
        if queries == 1 and any(other.name == name for other in self._records):
            self._in_pieces[name] = "each step of its generation has its own record of weights"
        self._add(record)

    def _add(self, record: Record, cache: int | None = None) -> None:
        """Add a record; its cache tells its stream."""
        if cache is not None:
            if self._run is None or innermost([self._run]) is None:
                self._run, self._turns = self._generation(), {}
            turns = self._turns.setdefault(record.name, [])
            if cache not in turns:
                turns.append(cache)
            record.stream = turns.index(cache)
        self._records.append(record)

    def _withdraw(self, record: Record, why: str, is_wrong: bool) -> None:
        """Remove a record that is wrong, or a generation that cannot be joined."""
        self._records[:] = [other for other in self._records if other is not record]
        if is_wrong:
            self._refuse(record.name, why)
        else:
            self._broken[record.name] = why

    def _generation(self) -> RunningCall | None:
        """The running call of the model's `generate`, if any: texts may take turns within it."""
        for frame, module in call_stack.running_modules(sys._getframe(2)):
            if module is self._model and GENERATING.search(frame.f_code.co_name):
                return RunningCall.of(frame)
        return None

    def _ids(self, name: str, batch: int, queries: int, keys: int, cross: bool) -> Ids:
        ids = self.token_ids.of_queries(name, batch, queries)
        if cross:
            return ids, self.token_ids.of_other_keys(name, batch, keys, ids)
        return ids, ids if queries == keys else None

"""Statistics of the heads of a watched model, added up over many calls of which nothing is kept."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pellucid.lens.call_recorder import CallRecorder
from pellucid.lens.head_totals import HeadTotals
from pellucid.lens.interception.calls import Call, ModelWeights


class CallCollector(CallRecorder):
    """Adds up the statistics of calls; the first call of each module is proven."""

    def __init__(
        self, *args: Any, names: Collection[str], collected: dict[str, HeadTotals], **options: Any
    ) -> None:
        """Get ready.

        Args:
            args, options: those of a `CallRecorder`.
            names: the statistics, as for `AttentionWeights.collect`.
            collected: where they go, by module.
        """
        super().__init__(*args, **options)
        self._statistics, self._collected = names, collected

    def record(self, name: str, call: Call | ModelWeights) -> None:
        if isinstance(call, ModelWeights):
            self._on_missed(name, "computes weights that no query and key give, nor their logits")
            return
        weights = call.weights
        if weights is None or name not in self._collected:
            call = replace(call, update=None)  # each step of a generation stands alone
            origin = self.generations.origin(call)
            record = self._record_of(name, call, origin)
            if name not in self._collected:
                contradiction = self._contradiction(record, call, origin)
                if contradiction is not None:
                    self._refuse(name, contradiction)
                    return
            weights = record.weights if weights is None else weights
        totals = self._collected.setdefault(name, HeadTotals())
        totals.add(weights.collect(self._statistics))

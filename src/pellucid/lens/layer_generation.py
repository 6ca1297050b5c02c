"""The generation of one layer in progress: its record, and steps that are not proven yet."""

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.lens.interception import reporting
from pellucid.lens.pieces import Pieces
from pellucid.lens.proof import Contradiction, Evidence, prove
from pellucid.lens.record import Record


@dataclass(eq=False)
class LayerGeneration:
    """The generation of one layer in one cache."""

    record: Record
    cache: int
    """The number of the cache."""
    layer: int
    first: int
    """The position of the record's first key; the cache dropped earlier ones before the watch."""
    key: "weakref.ref[Tensor]"
    """The keys that the latest call read."""
    is_reader: bool
    """Whether it reads the keys of another layer, as the last layers of Gemma 3n do."""
    every_row: bool
    """Whether to prove every row."""
    contexts: Pieces | None = None
    """(batch, heads, queries, value_dim): the contexts of steps that are not proven yet."""
    value: Pieces | None = None
    """All values up to the latest step."""
    read: Pieces | None = None
    """All keys that the latest step read, if they are the cache's own."""

    def add_pending(self, context: Tensor, value: Tensor, read: Tensor | None) -> int:
        """Add the context of a step, and what it read; returns the number of unproven rows."""
        if self.contexts is None:
            self.contexts = Pieces(context)
        else:
            self.contexts.append(context)
        self.value = Pieces(value)
        self.read = None if read is None else Pieces(read)
        return self.contexts.length

    def prove(self) -> None:
        """Prove the pending steps.

        Raises:
            Contradiction: the record gives other contexts.
        """
        contexts, self.contexts, values, self.value = self.contexts, None, self.value, None
        if contexts is None or values is None or not contexts.is_as_added:
            return
        record, context, value = self.record, contexts.tensor, values.tensor
        read, self.read = self.read, None
        if read is not None and not _is_same(read.tensor, record.keys.tensor):
            raise Contradiction("reads keys that were written over in its cache")
        # Another layer may have added keys since, which these rows do not see.
        missing = record.keys.length - value.shape[-2]
        value = nn.functional.pad(value, (0, 0, 0, missing)) if missing > 0 else value
        evidence = Evidence(
            record=record,
            value=value[..., : record.keys.length, :],
            context=context,
            first=record.queries.length - context.shape[-2],
            every_row=self.every_row,
        )
        with reporting.unobserved():
            proof = prove(evidence)
        record.proof = proof if record.proof is None else record.proof.joined(proof)


def _is_same(read: Tensor, kept: Tensor) -> bool:
    """Whether the keys of a cache begin with the kept ones, if they can be compared."""
    if (read.dtype, read.device) != (kept.dtype, kept.device) or kept.shape[-2] > read.shape[-2]:
        return True
    return torch.equal(read[..., : kept.shape[-2], :], kept)

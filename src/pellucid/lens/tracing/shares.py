"""What each token, head and other part gave to a prediction, as every method counts it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.lens.module_names import stack
from pellucid.lens.record import Record
from pellucid.lens.tracing.written import Source


@dataclass(eq=False)
class Shares:
    """What each token, head and other part gave."""

    tokens: Tensor
    """(tokens,)"""
    heads: dict[str, Tensor] = field(default_factory=dict)
    """(heads,) of each attention, by its name."""
    pairs: dict[str, Tensor] = field(default_factory=dict)
    """(heads, keys): what each head gave by looking at each token; empty if the method does not
    say."""
    others: dict[Source, float] = field(default_factory=dict)
    """Parts beside attention."""
    source_tokens: Tensor | None = None
    """(source tokens,) of an encoder-decoder, by cross-attention."""
    absorbed: dict[str, float] = field(default_factory=dict)
    """What is given to no token, by name."""
    reading: str = ""
    """The stack of blocks that reads `tokens`; another one is the encoder of the source."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Shares":
        """Nothing yet, given the records of a run."""
        last = [record for record in records if not record.is_cross][-1]
        return cls(torch.zeros(last.shape[-1], dtype=torch.float64), reading=stack(last.name))

    def add(self, record: Record, received: Tensor) -> None:
        """Add what an attention took from each of its keys, (heads, keys)."""
        amounts = received.detach().double().cpu()
        self.pairs[record.name] = amounts
        self.heads[record.name] = amounts.sum(-1)
        of_keys = amounts.sum(0)
        if not record.is_cross and stack(record.name) == self.reading:
            self.tokens = self.tokens + of_keys
        else:
            before = self.source_tokens
            self.source_tokens = of_keys if before is None else before + of_keys

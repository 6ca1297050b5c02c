"""Recordings of one attention, of every kind that a lesson can show."""

from dataclasses import dataclass, field
from typing import Any

import torch

from pellucid.attention import masks
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility


@dataclass
class Made:
    """A recording of one attention, each size another prime."""

    tokens: int = 13
    heads: int = 6
    pairs: int = 3
    mask: masks.Mask | None = field(default_factory=masks.causal)
    options: dict[str, Any] = field(default_factory=dict)
    biased: bool = False

    def record(self) -> tuple[Recording, Record]:
        draw = torch.Generator().manual_seed(self.tokens)

        def pieces(heads: int, dim: int) -> Pieces:
            return Pieces(torch.randn(2, heads, self.tokens, dim, generator=draw))

        tokens = self.tokens
        bias = torch.randn(1, self.heads, tokens, tokens, generator=draw)
        record = Record(
            name="layers.0.attention",
            queries=pieces(self.heads, 7),
            keys=pieces(self.pairs, 7),
            values=pieces(self.pairs, 5),
            visibility=Visibility(self.mask, None, (tokens, tokens), torch.device("cpu")),
            biases=[Pieces(bias)] if self.biased else [],
            latest_queries=tokens,
            **self.options,
        )
        return Recording("Model", [record]), record


MADE = {
    "whole": Made(),
    "part": Made(tokens=131),
    "all seen": Made(tokens=131, mask=None),
    "window": Made(tokens=131, mask=masks.window(left=10, right=0)),
    "bias": Made(tokens=97, biased=True),
    "softcap": Made(options={"softcap": 1.5, "scale": 0.7}),
    "sink": Made(tokens=97, options={"sinks": torch.randn(6)}),
    "nothing seen": Made(mask=masks.padding(torch.tensor([13, 0]))),
}

"""What a model wrote to its residual stream, and where each part came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

ATTENTION, FEED, BIAS, TOKENS = "attention", "feed-forward", "bias", "token embedding"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a part of a sum came from."""

    kind: str
    """"token embedding", "position embedding", "type embedding", "attention", "feed-forward" or
    "bias"."""
    name: str
    """Of the module."""
    layer: int | None = None
    head: int | None = None

    def __str__(self) -> str:
        if self.kind == BIAS:
            return f"bias of {self.name}"
        if self.layer is None:
            return self.kind
        return f"{self.kind} {self.layer}" + ("" if self.head is None else f".{self.head}")

    def of_heads(self, heads: int) -> list["Source"]:
        """Each head of an attention."""
        return [replace(self, head=head) for head in range(heads)]


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What one module wrote."""

    source: Source
    leaf: Tensor
    """(batch, tokens, ...), where gradients arrive."""
    value: Tensor
    """As `leaf`, or broadcasting to it."""
    norms: int
    """How many norms came before."""
    heads: int | None = None
    """Of an attention, whose leaf is its context, (batch, tokens, heads * dim)."""

    def of_item(self, item: int) -> Tensor:
        """(tokens or 1, ...): the value of one item, in float64."""
        return at_item(self.value, item).double()

    def amounts(self, gradient: Tensor, item: int) -> Tensor:
        """(heads or 1, tokens): what it gives to the number whose gradient this is."""
        products = at_item(gradient, item).double() * self.of_item(item)
        if self.heads is None:  # what is pooled has one row for all tokens
            return products.reshape(1, len(products) if products.ndim > 1 else 1, -1).sum(-1)
        of_heads: Tensor = products.unflatten(-1, (self.heads, -1)).sum(-1)
        return of_heads.T


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What a block read."""

    x: Tensor
    """(batch, tokens, width), in the graph."""
    before: int
    """How much was written before."""
    norms: int
    """How many norms came before."""

    def table(self, written: Sequence[Written]) -> int:
        """The latest token embedding that was written before."""
        tables = [i for i in range(self.before) if written[i].source.kind == TOKENS]
        return tables[-1] if tables else 0

    def is_rounding(self, rest: Tensor, sizes: Tensor) -> bool:
        """Whether differences are no more than rounding explains, of sums of these sizes."""
        return bool((rest.abs() <= 16 * torch.finfo(self.x.dtype).eps * sizes).all())


def at_item(tensor: Tensor, item: int) -> Tensor:
    """(tokens or 1, ...) of one item; of positions, which are looked up once for the whole batch,
    all items depend on the same, and a number of one item on nothing else through them.
    """
    return tensor[0 if len(tensor) == 1 else item]

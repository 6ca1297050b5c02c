"""Direct logit attribution: a logit as the exact sum of what wrote to the final residual stream."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.lens.contributions import Contributions, value_of
from pellucid.lens.record import Record
from pellucid.lens.tracing.question import Answer, Question
from pellucid.lens.tracing.residual_stream import ATTENTION, ResidualStream, Source


@dataclass(eq=False)
class Shares:
    """What each token, head and other part gave."""

    tokens: Tensor
    """(tokens,)"""
    heads: dict[str, Tensor] = field(default_factory=dict)
    """(heads,) of each attention, by its name."""
    others: dict[Source, float] = field(default_factory=dict)
    """Parts beside attention."""
    source_tokens: Tensor | None = None
    """(source tokens,) of an encoder-decoder, by cross-attention."""
    absorbed: dict[str, float] = field(default_factory=dict)
    """What is given to no token, by name."""

    def add(self, record: Record, received: Tensor) -> None:
        """Add what an attention took from each of its keys, (heads, keys)."""
        amounts = received.detach().double()
        total = self.heads.get(record.name)
        self.heads[record.name] = amounts.sum(-1) + (0 if total is None else total)
        of_keys = amounts.sum(0)
        if not record.is_cross:
            self.tokens = self.tokens + of_keys
        else:
            before = self.source_tokens
            self.source_tokens = of_keys if before is None else before + of_keys


def direct_logits(question: Question, tokenizer: Any) -> tuple[Answer, Shares, ResidualStream]:
    """What each head, and by it each token, adds to a logit directly.

    The final norm is frozen at its scale, so that the logit is a sum over all that was written to
    the stream of the token that predicts: by each head, of which each token's part is its weight
    times its value, by feed-forward parts, embeddings and biases. What one head gives to another
    is not followed.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Zero-layer
    transformers" and on; by source token as Kobayashi et al. 2020, section 3, and Ferrando et al.
    2023, "Explaining How Transformers Use Context to Build Predictions", section 3.
    """
    stream = ResidualStream(question.model, tokenizer)
    with stream:
        answer = question.ask()
    amounts = stream.amounts(answer.number)
    others = {
        source: float(amount.sum())
        for source, amount in amounts.items()
        if source.kind != ATTENTION
    }
    records = {record.name: record for record in stream.seen.latest()}
    decoding = [record for record in records.values() if not record.is_cross][-1]
    shares = Shares(torch.zeros(decoding.shape[-1], dtype=torch.float64), others=others)
    reached = [one for one in stream.written if one.source in amounts and one.heads is not None]
    gradients = torch.autograd.grad(answer.number, [one.leaf for one in reached], retain_graph=True)
    for one, gradient in zip(reached, gradients, strict=True):
        record = records[one.source.name]
        # (1, tokens, heads * dim) to (1, heads, tokens, dim)
        left = gradient.unflatten(-1, (one.heads, -1)).transpose(1, 2)
        with torch.no_grad():
            given = Contributions(record, left, value_of(record)).received(answer.queries)
        shares.add(record, given[0])
    return answer, shares, stream

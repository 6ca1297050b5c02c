"""Direct logit attribution: a logit as the exact sum of what wrote to the final residual stream."""

from typing import Any

import torch

from pellucid.lens.contributions import Contributions, value_of
from pellucid.lens.tracing.question import Answer, Question
from pellucid.lens.tracing.residual_stream import ResidualStream
from pellucid.lens.tracing.shares import Shares
from pellucid.lens.tracing.written import ATTENTION, BIAS, Source

OTHERWISE = "attention of no token"
"""What heads gave that is no sum of weights times values."""
ROUNDING = 1e-5
"""How far weights times values may be from a context, over the size of what is added."""


def direct_logits(question: Question, tokenizer: Any) -> tuple[Answer, Shares]:
    """What each head, and by it each token, adds to a logit directly.

    The final norm is frozen at its scale, so that the logit is a sum over all that was written to
    the stream of the token that predicts: by each head, of which each token's part is its weight
    times its value, by feed-forward parts, embeddings and biases. What one head gives to another
    is not followed.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Zero-layer
    transformers" and on; by source token as Kobayashi et al. 2020, section 3, and Ferrando et al.
    2023, "Explaining How Transformers Use Context to Build Predictions", section 3.
    """
    stream = ResidualStream(question.model, tokenizer, scores=False)
    with stream:
        answer = question.ask(is_linear=True)
    amounts = stream.amounts(answer.number)
    others = {
        source: float(amount.sum())
        for source, amount in amounts.items()
        if source.kind != ATTENTION
    }
    if answer.bias:
        others[Source(BIAS, "the logits")] = answer.bias
    records = {record.name: record for record in stream.seen.latest()}
    shares = Shares.of(records.values())
    shares.others = others
    reached = [
        written
        for written in stream.written
        if written.source in amounts and written.heads is not None
    ]
    gradients = torch.autograd.grad(
        answer.number, [written.leaf for written in reached], retain_graph=True
    )
    for written, gradient in zip(reached, gradients, strict=True):
        record = records[written.source.name]
        # (1, tokens, heads * dim) to (1, heads, tokens, dim)
        left = gradient.unflatten(-1, (written.heads, -1)).transpose(1, 2)
        with torch.no_grad():
            given = Contributions(record, left, value_of(record)).received(answer.queries)
        shares.add(record, given[0])
        # What the output projection read, if it is no mean of values, as where heads are gated.
        rest = float(amounts[written.source].sum()) - float(given.double().sum())
        if abs(rest) > ROUNDING * max(1.0, float(given.abs().sum())):
            others[Source(OTHERWISE, written.source.name, written.source.layer)] = rest
    return answer, shares

"""trace(): which earlier tokens and heads made a model predict what it predicts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.tracing.direct_logits import direct_logits
from pellucid.lens.tracing.gradient_methods import chefer, gradients
from pellucid.lens.tracing.question import Answer, Logits, Question, output_of
from pellucid.lens.tracing.relevance_rules import relevance_rules
from pellucid.lens.tracing.shares import Shares
from pellucid.lens.tracing.written import Source

__all__ = ["Trace", "trace"]

ALLOWED = 1e-4
"""How far the sum of the parts may be from the logit, over the sum of their sizes if above 1; in
half precision, 8 roundings."""

SHOWN = 5
"""Tokens and heads that are printed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What each token and head gave to a prediction: see `trace`."""

    method: str
    token: int
    """The id whose logit is explained; of a classifier, the label."""
    against: int | None
    """The id whose logit is subtracted."""
    position: int | None
    """The token after which the prediction is made; None for a classifier."""
    number: float
    """The logit, or the difference."""
    probability: float
    """Of the token, by a softmax over all logits."""
    logits: Tensor
    """(choices,): of the vocabulary, or of all labels."""
    tokens: Tensor
    """(tokens,) float64: what each token gave."""
    source_tokens: Tensor | None
    """(source tokens,) of an encoder-decoder."""
    heads: dict[str, Tensor]
    """(heads,) float64 of each attention, by the name of its module."""
    pairs: dict[str, Tensor]
    """(heads, keys) float64 of each attention: what each head gave by looking at each token; empty
    with "lrp"."""
    others: dict[Source, float]
    """What other parts gave; only with "direct"."""
    absorbed: dict[str, float]
    """Relevance that reaches no token, by where it ends; only with "lrp"."""
    adds_up: bool
    """Whether the method says that the parts add up to the number."""

    @property
    def total(self) -> float:
        """The sum of all parts."""
        source = 0.0 if self.source_tokens is None else float(self.source_tokens.sum())
        parts = sum(self.others.values()) + sum(self.absorbed.values())
        return float(self.tokens.sum()) + source + parts

    @property
    def missing(self) -> float | None:
        """The number less the sum of all parts; None if the method does not make a sum."""
        return self.number - self.total if self.adds_up else None

    @property
    def is_exact(self) -> bool:
        """Whether the parts add up to the number within rounding."""
        sizes = float(self.tokens.abs().sum())
        if self.source_tokens is not None:
            sizes += float(self.source_tokens.abs().sum())
        sizes += sum(map(abs, (*self.others.values(), *self.absorbed.values())))
        allowed = max(ALLOWED, 8 * torch.finfo(self.logits.dtype).eps)
        return self.missing is not None and abs(self.missing) <= allowed * max(1.0, sizes)

    def __str__(self) -> str:
        place = "" if self.position is None else f" after token {self.position}"
        less = "" if self.against is None else f" less that of {self.against}"
        tokens = sorted(enumerate(self.tokens.tolist()), key=lambda pair: -abs(pair[1]))
        heads = [
            (f"{name}, {head}", amount)
            for name, amounts in self.heads.items()
            for head, amount in enumerate(amounts.tolist())
        ]
        lines = [
            f"{self.method}: the logit of {self.token}{less}{place} is {self.number:.4f}",
            *(f"{amount:+.4f}  token {place}" for place, amount in tokens[:SHOWN]),
            *(
                f"{amount:+.4f}  head {name}"
                for name, amount in sorted(heads, key=lambda pair: -abs(pair[1]))[:SHOWN]
            ),
        ]
        if self.missing is not None:
            lines.append(f"missing {self.missing:.1e}")
        return "\n".join(lines)


METHODS: dict[str, Callable[[Question, Any], tuple[Answer, Shares]]] = {
    "direct": direct_logits,
    "gradient": gradients,
    "chefer": chefer,
    "lrp": relevance_rules,
}
ADD_UP = ("direct", "lrp")
"""The methods whose parts add up to the logit."""


def trace(
    model: nn.Module,
    inputs: Tensor | Mapping[str, Any],
    *,
    token: int | None = None,
    against: int | None = None,
    position: int = -1,
    method: str = "direct",
    logits: Logits | None = None,
    tokenizer: Any = None,
) -> Trace:
    """Which earlier tokens and heads made a model predict a token.

    Args:
        model: in eval mode; for "direct" and "lrp" one that `residual_stream` takes.
        inputs: ids, (1, tokens); or the named arguments of the model, for one text.
        token: the id whose logit is explained, or a classifier's label; None = the likeliest.
        against: the id of another token: the difference of the two logits is explained.
        position: of the token after which the prediction is made, from the end if negative.
        method: how much is given to whom. The first and the last add up to the logit, the last
            with what biases and softmaxes absorb.

                direct    what each head wrote to the final residual stream, split by the tokens
                          that it looked at; feed-forward parts and embeddings are apart
                gradient  each weight times its gradient, over all layers
                chefer    positive gradients times weights, through all layers
                lrp       AttnLRP, through all parts of all layers
        logits: from the model's output to logits, (1, tokens, vocabulary) or (1, labels); None
            takes the output, or its attribute `logits`.
        tokenizer: as for `watch`.

    Raises:
        ArgumentError: an unknown method, or a model in training mode or with unknown parts.
        OutOfRangeError: there is no such token or position.
        ShapeError, TypeMismatchError: the model gives no logits of one text.

    Sources: see `direct_logits`, `gradient_methods` and `relevance_rules` in `lens.tracing`.
    """
    question = Question(
        model=model,
        run=lambda: output_of(model, inputs, position, logits),
        choose=lambda _: (token, against),
        bias=logit_bias(model),
    )
    return answered(question, method, tokenizer)


def logit_bias(model: nn.Module) -> Tensor | None:
    """(vocabulary,): what a model of Pellucid, or one like BART, adds to its logits itself."""
    config = getattr(model, "config", None)
    name = "bias" if getattr(config, "logit_bias", False) else "final_logits_bias"
    bias = getattr(model, name, None)
    return bias.detach().flatten() if isinstance(bias, Tensor) else None


@torch.enable_grad()
def answered(question: Question, method: str, tokenizer: Any = None) -> Trace:
    """Answer a question by one of `METHODS`; errors as for `trace`."""
    if method not in METHODS:
        raise ArgumentError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    answer, shares = METHODS[method](question, tokenizer)
    return Trace(
        method=method,
        token=answer.token,
        against=answer.against,
        position=answer.position,
        number=float(answer.number.detach()),
        probability=float(answer.row.double().softmax(-1)[answer.token]),
        logits=answer.row.cpu(),
        tokens=shares.tokens,
        source_tokens=shares.source_tokens,
        heads=shares.heads,
        pairs=shares.pairs,
        others=shares.others,
        absorbed=shares.absorbed,
        adds_up=method in ADD_UP,
    )

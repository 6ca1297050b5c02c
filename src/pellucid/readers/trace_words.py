"""How a trace is put into words, for the terminal and for pictures."""

from pellucid.common.wording import percent, short
from pellucid.readers.tracing import Traced

METHOD_NAMES = {
    "direct": "direct logit attribution",
    "gradient": "gradient x weights",
    "chefer": "Chefer's relevance",
    "lrp": "AttnLRP",
}
ABOUT = {
    "direct": "Direct logit attribution: what each head, by each token that it looked at, wrote "
    "into the stream that the logit is read from. The final norm is frozen at the scale that it "
    "had. What a head gives to later heads and feed-forward parts is counted as theirs.",
    "gradient": "Gradient x weights: each weight times the logit's gradient with respect to it, "
    "over all layers. A first-order effect, which need not add up to the logit.",
    "chefer": "Chefer's relevance: positive gradients x weights, through all layers. Never "
    "negative, and without a unit: only shares mean something.",
    "lrp": "AttnLRP: the logit flows back through all layers by rules for each kind of layer. "
    "Biases and softmaxes absorb some of it.",
}
"""What a method says and does not say."""
TITLES = {
    "feed-forward": "feed-forward parts",
    "bias": "biases",
    "softmax": "absorbed by softmaxes",
    "biases": "absorbed by biases",
}
"""Kinds of parts, where they are not the name of the kind."""


def quoted(text: str) -> str:
    """A choice as it is shown: a token with its spaces in quotes."""
    return f"“{short(text, 24)}”".replace("\n", "⏎")


def headline(traced: Traced) -> str:
    """What was predicted, and after what."""
    trace = traced.trace
    name, chance = quoted(traced.choice), percent(trace.probability)
    if trace.token != int(trace.logits.argmax()):  # another one was asked for
        place = "" if traced.kind == "label" else f" after token {trace.position}"
        return f"{traced.model} gives {name} {chance}{place}"
    if traced.kind == "label":
        return f"{traced.model} says {name}, {chance}, of {len(traced.tokens)} tokens"
    what = "predicts" if traced.kind == "next token" else "translates with"
    return f"{traced.model} {what} {name}, {chance}, after token {trace.position}"


def described(traced: Traced) -> str:
    """The number that is explained."""
    number, name = f"{traced.trace.number:.3f}", quoted(traced.choice)
    if traced.against is None:
        return f"the logit of {name}, {number}"
    return f"the logit of {name} less that of {quoted(traced.against)}, {number}"

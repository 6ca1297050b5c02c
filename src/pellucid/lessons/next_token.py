"""What a decoder writes next: each token's probability, and what follows if another is picked."""

import torch

from pellucid.common.files import printable
from pellucid.common.wording import percent
from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lessons.walk import Step, Walk, matrix
from pellucid.models import load
from pellucid.tasks import Sampling, generate
from pellucid.tasks.decoders import as_decoder

PROMPT = "And the king said to the"
LISTED = 8
"""Tokens whose probability is shown."""


def walk_next_token(
    prompt: str = PROMPT, *, model: str = "decoder", pick: str | None = None, follow: int = 8
) -> Walk:
    """The probabilities of the next token, and how the text goes on.

    Args:
        prompt: what the decoder has read.
        model: as for `pellucid.load`.
        pick: the token to go on with; the likeliest unless given.
        follow: how many tokens are written after it.

    Raises:
        ArgumentError: no prompt, or no decoder.
        UnknownNameError: the pick is none of the tokens listed.
    """
    if not prompt.strip():
        raise ArgumentError("prompt is empty; give some words to go on from")
    decoder = as_decoder(load(model))
    tokenizer = decoder.tokenizer
    if tokenizer is None:
        raise ArgumentError(f"model '{model}' has no tokenizer")
    (ids,) = tokenizer.encode([prompt])
    with torch.no_grad():
        logits = decoder(torch.tensor([ids]), last=True)[0].double()
    top = logits.softmax(-1).topk(LISTED)
    # A text that goes on has no mark of its end in it.
    texts = [printable(tokenizer.decode([number])) for number in top.indices.tolist()]
    names = [text.strip() or repr(text) for text in texts]
    if pick is not None and pick not in names:
        raise UnknownNameError(f"'{pick}' is not among the {LISTED} likeliest: {', '.join(names)}")
    picked = 0 if pick is None else names.index(pick)
    start = torch.tensor([[*ids, int(top.indices[picked])]])
    (written,) = generate(decoder, start, max_tokens=follow, sampling=Sampling(temperature=0))
    whole = printable(tokenizer.decode([*start[0].tolist(), *written.ids]))
    labels = tuple(names)
    end = " …" if written.stopped == "max_tokens" else ""
    return Walk(
        title=prompt,
        about=(f"The next token, by the model '{model}'.",),
        tokens=labels,
        steps=(
            Step(
                name="logits",
                formula="logits = last context · W_vocabulary",
                sentence=f"One number for each of {len(logits):,} tokens; the {LISTED} largest.",
                matrices=(
                    matrix("logits", logits[top.indices][None], ("next",), labels, decimals=2),
                ),
            ),
            Step(
                name="next token",
                formula="probability = exp(logit) / sum of exp(logits)",
                sentence=f"'{names[0]}' is the likeliest, with {percent(float(top.values[0]))}.",
                matrices=(
                    matrix("probability", top.values[None], ("next",), labels, kind="percent"),
                ),
            ),
            Step(
                name="go on",
                formula="read the token that was picked, and ask again",
                sentence=f"With '{names[picked]}' the text goes on: {whole}{end}",
                matrices=(),
            ),
        ),
        facts={"model": model, "pick": names[picked], "text": whole},
    )

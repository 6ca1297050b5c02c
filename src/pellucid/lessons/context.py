"""What an encoder does to a sentence: its vectors before and after context, groups, a verdict.

Before the first layer a word has the same vector in every sentence; after the last it knows what
stood around it (Devlin et al. 2019, section 3; Ethayarajh 2019, "How Contextual are Contextualized
Word Representations?").
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pellucid import pretrained
from pellucid.common.wording import count, percent
from pellucid.errors import ArgumentError
from pellucid.lens import watch
from pellucid.lessons.walk import Step, Walk, find_token, matrix
from pellucid.models import Encoder, load
from pellucid.tasks import Head, cluster, embed

BANKS = (
    "she sat on the bank of the river",
    "he swam from the bank of the stream",
    "the bank lent him money",
    "she took a loan from the bank",
)
VERDICT = "It was not a good film"
MOST_SENTENCES = 16


def walk_context(
    sentences: Sequence[str] = BANKS, *, word: str = "bank", model: str = pretrained.MINILM
) -> Walk:
    """One word in several sentences: how alike its vectors are, before and after context.

    Args:
        sentences: 2 to 16, each with the word in it.
        word: letter case aside; one token of the model.
        model: an encoder, as for `pellucid.load`.

    Raises:
        ArgumentError: too few or too many sentences, or no encoder.
        UnknownNameError: a sentence has no such token.
    """
    if not 2 <= len(sentences) <= MOST_SENTENCES:
        raise ArgumentError(f"give 2 to {MOST_SENTENCES} sentences, not {len(sentences)}")
    encoder = _encoder(model)
    before, after = zip(*(_vectors(encoder, sentence, word) for sentence in sentences), strict=True)
    first, last = (_likeness(torch.stack(vectors)) for vectors in (before, after))
    embeddings = embed(encoder, list(sentences)).double()
    groups = cluster(list(sentences), embeddings, groups=2).group_of
    labels = tuple(f"{i}" for i in range(len(sentences)))
    n = len(sentences)
    nearest = int((last - 2 * torch.eye(n)).argmax())
    return Walk(
        title=f"'{word}' in {count(n, 'sentence')}",
        about=(
            f"The encoder '{model}'. Likeness is the cosine of two vectors, in percent.",
            *(f"{number}: {sentence}" for number, sentence in enumerate(sentences)),
        ),
        tokens=labels,
        steps=(
            Step(
                name="before context",
                formula="X = token embeddings, before the first layer",
                sentence=f"'{word}' is the same row of the table in every sentence, so that its "
                "vectors are alike, whatever stands around it.",
                matrices=(matrix("before", first, labels, labels, kind="percent"),),
            ),
            Step(
                name="after context",
                formula="output of the last layer",
                sentence=f"Attention has mixed in the words around it: '{word}' is now most alike "
                f"in sentences {nearest // n} and {nearest % n}, at "
                f"{percent(float(last.flatten()[nearest]))}"
                + (f"; the least alike are at {percent(float(last.min()))}." if n > 2 else "."),
                matrices=(matrix("after", last, labels, labels, kind="percent"),),
            ),
            Step(
                name="groups",
                formula="mean of the tokens' vectors, then k-means with two groups",
                sentence="A whole sentence becomes one vector, and sentences form groups: "
                + "; ".join(
                    f"{', '.join(labels[i] for i in range(n) if groups[i] == group)}"
                    for group in sorted(set(groups))
                )
                + ".",
                matrices=(
                    matrix("sentences", _likeness(embeddings), labels, labels, kind="percent"),
                ),
            ),
        ),
        picture="after context",
        facts={"example": "context", "model": model, "word": word},
    )


def walk_verdict(text: str = VERDICT) -> Walk:
    """How the packaged sentiment model judges a text, and which words its verdict hangs on.

    Each word is left out in turn. That shows what a word does to the verdict; how much attention it
    gets shows only where the model looked.
    """
    words = text.split()
    if not 2 <= len(words) <= 64:
        raise ArgumentError(f"give a text of 2 to 64 words, not {len(words)}")
    encoder = _encoder("sentiment")
    head = Head.load(pretrained.SENTIMENT / "head.safetensors")
    without = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    probabilities = head.probabilities(embed(encoder, [text, *without])).double()
    best = int(probabilities[0].argmax())
    odds = probabilities[:, best].logit()
    change = odds[0] - odds[1:]
    received = _received(encoder, words)
    labels = tuple(words)
    most = int(change.abs().argmax())
    looked = int(received.argmax())
    return Walk(
        title=text,
        about=("Pellucid's sentiment model: an encoder, and a classifier on its mean vector.",),
        tokens=labels,
        steps=(
            Step(
                name="verdict",
                formula="probability = softmax(W · mean of the words' vectors + b)",
                sentence=f"The model says '{head.labels[best]}', with "
                f"{percent(float(probabilities[0, best]))}.",
                matrices=(
                    matrix(
                        "probability", probabilities[:1], ("text",), head.labels, kind="percent"
                    ),
                ),
            ),
            Step(
                name="attention",
                formula="attention received by each word, the mean over heads and words",
                sentence=f"It looked most at '{words[looked]}'.",
                matrices=(matrix("received", received[None], ("share",), labels, kind="percent"),),
            ),
            Step(
                name="without",
                formula=f"log odds of '{head.labels[best]}' with the word − without it",
                sentence=f"'{words[most]}' matters most: without it the probability of "
                f"'{head.labels[best]}' is {percent(float(probabilities[most + 1, best]))}. "
                "Where a model looks and what matters need not be the same word.",
                matrices=(matrix("effect", change[None], ("log odds",), labels, decimals=2),),
            ),
        ),
        facts={"example": "verdict", "label": head.labels[best]},
    )


def _encoder(model: str) -> Encoder:
    encoder = load(model)
    if not isinstance(encoder, Encoder) or encoder.tokenizer is None:
        raise ArgumentError(f"model '{model}' is not an encoder with a tokenizer")
    return encoder.eval()


def _vectors(encoder: Encoder, sentence: str, word: str) -> tuple[Tensor, Tensor]:
    """(width,) each: the word's row of the embedding table, and its output."""
    assert encoder.tokenizer is not None
    (ids,) = encoder.tokenizer.encode([sentence])
    tokens = tuple(encoder.tokenizer.token(number).strip("▁Ġ ") for number in ids)
    (place, *_) = find_token(tokens, word)
    table = next(part for part in encoder.modules() if isinstance(part, nn.Embedding))
    with torch.no_grad():
        output = encoder(torch.tensor([ids]))[0]
    return table.weight[ids[place]].detach().double(), output[place].double()


def _likeness(vectors: Tensor) -> Tensor:
    """(n, n): the cosines."""
    unit = nn.functional.normalize(vectors, dim=-1)
    return (unit @ unit.T).fill_diagonal_(1)  # whatever rounding says


def _received(encoder: Encoder, words: Sequence[str]) -> Tensor:
    """(words,): the share of the last layer's attention that goes to each word's tokens."""
    assert encoder.tokenizer is not None
    text = " ".join(words)
    (ids,) = encoder.tokenizer.encode([text])
    with torch.no_grad(), watch(encoder) as seen:
        encoder(torch.tensor([ids]))
    received = seen.records[-1].weights.received()[0].double().mean(0)
    spans = encoder.tokenizer.offsets(text)
    shares = torch.zeros(len(words), dtype=torch.float64)
    start = 0
    for number, word in enumerate(words):
        end = start + len(word)
        for place, (first, last) in enumerate(spans):
            if first < end and start < last:
                shares[number] += received[place]
        start = end + 1
    return shares / shares.sum()

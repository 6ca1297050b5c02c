"""A text and the name of a model as something to measure: by what the model is there for.

A decoder is measured by the distributions of its next tokens, an encoder-decoder by the
log-probability of its translation, a classifier by the logit of its label, and any other encoder
by the direction of its embedding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.ablation.every_head import Step, check_measure
from pellucid.ablation.measures import ABOUT, UNKNOWN, Answer, Distributions, fall, log_odds
from pellucid.ablation.trial import Subject, runs_of
from pellucid.common.wording import count
from pellucid.errors import ArgumentError
from pellucid.models import Encoder, EncoderDecoder
from pellucid.readers import Checkpoint
from pellucid.readers.forward_pass import inputs_of
from pellucid.readers.hugging_face import TheirCheckpoint
from pellucid.readers.outcomes import Embedded, Inputs, Labels, Outcome, open_answering, outcome_of
from pellucid.tasks.translation import translate

FITTING = {
    "next token": ("kl", "loss"),
    "translation": ("logprob", "kl", "loss"),
    "label": ("logit", "kl", "cosine"),
    "embedding": ("cosine",),
}
"""What models are measured by, the default first, by what they answer."""
KL_OF_LABELS = "KL divergence of the labels' distribution from the plain run's, in nats"
SIDES = ("input_ids", "decoder_input_ids")
LONGEST = 512
"""The most tokens that a model of transformers writes as the translation to be measured."""
FEWEST = 2
"""Tokens of a text."""


def subject_of(
    text: str,
    *,
    target: str | None = None,
    model: str | None = None,
    measure: str | None = None,
    max_tokens: int | None = None,
    step: Step = lambda name, done, of: None,
) -> Subject:
    """Open a model, and say what it reads and how it is measured.

    Args:
        text: the input.
        target: what the decoder of an encoder-decoder is to say; None is what it would say.
        model: as for `open_checkpoint`.
        measure: one of `MEASURES`; None is the first that fits the model.
        max_tokens: cut longer texts to this length.
        step: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: the measure does not fit the model, or the text is too short or too long.
        FileError: the model cannot be opened.
    """
    if measure is not None:
        check_measure(measure)
    if max_tokens is not None and max_tokens < 1:
        raise ArgumentError(f"--max-tokens must be 1 or more, not {max_tokens}")
    step("opening the model", 0, 1)
    checkpoint = open_answering(model)
    inputs = inputs_of(text, target, checkpoint, max_tokens)
    tokens = inputs["input_ids"].shape[1]
    if tokens < FEWEST:
        raise ArgumentError(
            f"the text has {count(tokens, 'token')}; heads are measured on {FEWEST} or more"
        )
    outcome = outcome_of(checkpoint, inputs, model=model)
    fitting = FITTING[outcome.kind]
    if measure is None:
        measure = fitting[0]
    if measure not in fitting:
        raise ArgumentError(
            f"{checkpoint.name} is measured by {' or '.join(fitting)}, not by {measure}"
        )
    if checkpoint.is_both:
        return _translating(checkpoint, inputs, target, measure, max_tokens)
    if outcome.kind == "next token":
        ids = inputs["input_ids"][0]
        return _predicting(checkpoint, inputs, measure, [*ids[1:].tolist(), UNKNOWN])
    return _answering(outcome, measure)


def _predicting(
    checkpoint: Checkpoint, inputs: Inputs, measure: str, targets: Sequence[int], **facts: Any
) -> Subject:
    return Subject(
        model=checkpoint.model,
        run=runs_of(checkpoint.model, inputs, checkpoint.run),
        tokens=sum(inputs[name].shape[1] for name in SIDES if name in inputs),
        measure=Distributions(name=measure, about=ABOUT[measure], targets=torch.tensor(targets)),
        name=checkpoint.name,
        tokenizer=checkpoint.tokenizer,
        facts=facts,
    )


def _translating(
    checkpoint: Checkpoint,
    inputs: Inputs,
    target: str | None,
    measure: str,
    max_tokens: int | None,
) -> Subject:
    if target is None:
        start, written = _translation(checkpoint, inputs["input_ids"])
    else:
        start = inputs["decoder_input_ids"][0, :1].tolist()
        written = checkpoint.tokenizer(
            text_target=target,
            verbose=False,
            truncation=max_tokens is not None,
            max_length=max_tokens,
        )["input_ids"]
    if not written:
        raise ArgumentError(f"{checkpoint.name} writes nothing for this text; give --target")
    inputs = {**inputs, "decoder_input_ids": torch.tensor([[*start, *written[:-1]]])}
    text = checkpoint.tokenizer.decode(written)
    return _predicting(checkpoint, inputs, measure, written, target=text)


def _translation(checkpoint: Checkpoint, ids: Tensor) -> tuple[list[int], list[int]]:
    """The start token, and what the model writes by itself, with its stop token."""
    network = checkpoint.model
    if isinstance(network, EncoderDecoder):
        assert network.tokenizer is not None
        source = network.tokenizer.decode(ids[0].tolist())
        [translation] = translate(network, [source], whole=True, protect="none")
        start = translation.start if translation.start is not None else checkpoint.starts_target
        return [start or 0], translation.ids
    assert isinstance(checkpoint, TheirCheckpoint)
    written = checkpoint.write(ids, LONGEST)[0].tolist()
    return written[:1], written[1:]


def _answering(outcome: Outcome, measure: str) -> Subject:
    facts = {}
    if measure == "cosine" and isinstance(outcome.checkpoint.model, Encoder):
        outcome = Embedded(outcome.checkpoint, outcome.inputs)
    measured = Answer(name=measure, about=ABOUT[measure], change=outcome.effect)
    if isinstance(outcome, Labels):
        label = int(outcome.run()[0].argmax())
        facts = {"label": outcome.names[label]}
        if measure == "logit":
            measured = Answer(
                name=measure,
                about=ABOUT[measure],
                read=lambda scores: log_odds(scores, label),
                change=fall,
            )
        else:
            measured = Answer(name=measure, about=KL_OF_LABELS, change=outcome.effect)
    return Subject(
        model=outcome.checkpoint.model,
        run=outcome.run,
        tokens=outcome.inputs["input_ids"].shape[1],
        measure=measured,
        name=outcome.checkpoint.name,
        tokenizer=outcome.checkpoint.tokenizer,
        facts=facts,
    )

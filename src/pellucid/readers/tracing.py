"""Which tokens of a text and which heads made a model say what it says."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.common.files import printable
from pellucid.common.wording import count, short
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.layer_labels import label_names
from pellucid.lens.spelling import running
from pellucid.lens.tracing.question import Chosen, Question
from pellucid.lens.tracing.trace import METHODS, Trace, answered, logit_bias
from pellucid.models import Decoder, EncoderDecoder
from pellucid.readers.checkpoint import Checkpoint
from pellucid.readers.forward_pass import Step, inputs_of
from pellucid.readers.outcomes import Inputs, Labels, Outcome, open_answering, outcome_of
from pellucid.tasks.translation import translate

MOST = 5
"""The likeliest choices that are kept."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A prediction, and what each token and head gave to it."""

    model: str
    kind: str
    """"next token", "label" or "translation"."""
    trace: Trace
    choice: str
    """The token or label that is explained."""
    against: str | None
    tokens: list[str]
    """The text of each token of `trace.tokens`, with the space before it."""
    source_tokens: list[str] = field(default_factory=list)
    """Likewise of an encoder-decoder's source."""
    labels: list[str] = field(default_factory=list)
    """Of the layers of `trace.heads`, in this order."""
    likeliest: list[tuple[str, float]] = field(default_factory=list)
    """The likeliest choices and their probabilities."""


@dataclass(frozen=True)
class _Choices:
    """The names of what a model chooses from: the tokens of a vocabulary, or labels."""

    checkpoint: Checkpoint
    labels: tuple[str, ...] = ()

    def name(self, number: int) -> str:
        if self.labels:
            return self.labels[number]
        return printable(self.checkpoint.tokenizer.decode([number]))

    def find(self, option: str, text: str, row: Tensor) -> int:
        """The number of a choice; of several tokens of one spelling, the likeliest."""
        if self.labels:
            if text not in self.labels:
                raise ArgumentError(f"{option} must be one of {', '.join(self.labels)}")
            return self.labels.index(text)
        special = (int(number) for number in self.checkpoint.tokenizer.all_special_ids)
        marks = [number for number in special if number < len(row) and self.name(number) == text]
        if marks:
            return marks[0]
        whole = [self._ids(spelling) for spelling in dict.fromkeys((text, f" {text.strip()}"))]
        single = [ids[0] for ids in whole if len(ids) == 1 and ids[0] < len(row)]
        if single:
            return max(single, key=lambda number: float(row[number]))
        parts = " + ".join(repr(self.name(number)) for number in whole[0])
        raise ArgumentError(
            f"{option} '{short(text, 40)}' is no single token of {self.checkpoint.name}"
            + (f", but {short(parts, 80)}; name one of these" if parts else "")
        )

    def _ids(self, text: str) -> list[int]:
        tokenizer = self.checkpoint.tokenizer
        special = {*tokenizer.all_special_ids}
        ids = tokenizer(text=text, truncation=False)["input_ids"]
        return [number for number in ids if number not in special]


def trace_text(
    text: str,
    *,
    target: str | None = None,
    model: str | None = None,
    method: str = "direct",
    token: str | None = None,
    against: str | None = None,
    position: int | None = None,
    max_tokens: int | None = None,
    step: Step,
) -> Traced:
    """Explain a prediction: of a decoder the next token, of a classifier the label, of an
    encoder-decoder a token of its translation.

    Args:
        text: the input.
        target: the translation, instead of the model's own.
        model: as for `open_checkpoint`.
        method: as for `pellucid.lens.trace`.
        token: which token or label; None is the one that is written after the position, else the
            likeliest.
        against: another, whose logit is subtracted.
        position: of the token after which the prediction is made, from the end if negative; of a
            translation, the token of it that is predicted, from 0. None is the last one.
        max_tokens: cut longer texts to this length.
        step: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: an unknown method, token or label, or a model that does not predict.
        OutOfRangeError: there is no such position.
        FileError, MissingExtraError: the model cannot be opened.
    """
    if method not in METHODS:
        raise ArgumentError(f"method must be one of {', '.join(METHODS)}, not '{method}'")
    if max_tokens is not None and max_tokens < 1:
        raise ArgumentError(f"--max-tokens must be 1 or more, not {max_tokens}")
    step("opening the model", 0, 1)
    checkpoint = open_answering(model)
    inputs = inputs_with_answer(text, target, checkpoint, max_tokens)
    outcome = outcome_of(checkpoint, inputs, model=model)
    if outcome.kind == "embedding":
        raise ArgumentError(
            f"{checkpoint.name} predicts no token and no label; trace explains a decoder, a "
            "classifier or a translator"
        )
    step(f"tracing {count(inputs['input_ids'].shape[1], 'token')}", 0, 1)
    side = "decoder_input_ids" if outcome.kind == "translation" else "input_ids"
    place, written = None, None
    if isinstance(outcome, Labels):
        if position is not None:
            raise ArgumentError(f"{checkpoint.name} labels the whole text; leave --position out")
    else:
        place, written, inputs = _place(position, inputs, side)
    choices = _Choices(checkpoint, outcome.names if isinstance(outcome, Labels) else ())

    def choose(row: Tensor) -> Chosen:
        explained = written if token is None else choices.find("--token", token, row)
        other = None if against is None else choices.find("--against", against, row)
        if other is not None and other == (int(row.argmax()) if explained is None else explained):
            raise ArgumentError(
                f"--against '{short(choices.name(other), 40)}' is what is explained itself; name "
                "another"
            )
        return explained, other

    question = Question(
        model=checkpoint.model,
        run=lambda: (_row(outcome, inputs, place), place),
        choose=choose,
        bias=_bias(outcome),
    )
    trace = answered(question, method, checkpoint.tokenizer)
    chances = trace.logits.double().softmax(-1).topk(min(MOST, len(trace.logits)))
    return Traced(
        model=checkpoint.name,
        kind=outcome.kind,
        trace=trace,
        choice=choices.name(trace.token),
        against=None if trace.against is None else choices.name(trace.against),
        tokens=spelled(checkpoint, inputs[side]),
        source_tokens=spelled(checkpoint, inputs["input_ids"]) if checkpoint.is_both else [],
        labels=label_names(list(trace.heads)),
        likeliest=[
            (choices.name(number), chance)
            for number, chance in zip(
                chances.indices.tolist(), chances.values.tolist(), strict=True
            )
        ],
    )


def inputs_with_answer(
    text: str, target: str | None, checkpoint: Checkpoint, max_tokens: int | None
) -> Inputs:
    """The inputs of a model; those of a translator end with its own translation, unless one is
    given.
    """
    network: Any = checkpoint.model
    is_translated = isinstance(network, EncoderDecoder) and target is None
    inputs = inputs_of(text, target, checkpoint, max_tokens)
    if is_translated:
        [made] = translate(network, [text], whole=True, protect="none")
        start = network.config.start if made.start is None else made.start
        return {
            "input_ids": torch.tensor([made.source_ids]),
            "decoder_input_ids": torch.tensor([[start, *made.ids]]),
        }
    if isinstance(network, Decoder):  # a token after the text would say that it has ended
        ids = inputs["input_ids"][0].tolist()
        special = {*checkpoint.tokenizer.all_special_ids}
        while len(ids) > 1 and ids[-1] in special:
            ids.pop()
        return {"input_ids": torch.tensor([ids])}
    return inputs


def _place(position: int | None, inputs: Inputs, side: str) -> tuple[int, int | None, Inputs]:
    """The position after which is predicted, the token that is written there, and the inputs.

    A decoder's text may be read to its end; a translation is read up to what is predicted.
    """
    ids = inputs[side]
    size = ids.shape[1]
    if side == "input_ids":
        place = size - 1 if position is None else position
        if not -size <= place < size:
            raise OutOfRangeError(f"--position must be from {-size} to {size - 1}, not {place}")
        place %= size
        return place, int(ids[0, place + 1]) if place + 1 < size else None, inputs
    size -= 1  # without the start token
    # The stop token comes last; the token before it is the last that is a word.
    place = max(0, size - 2) if position is None else position
    if not -size <= place < size:
        raise OutOfRangeError(f"--position must be from {-size} to {size - 1}, not {place}")
    place %= size
    read = {**inputs, side: ids[:, : place + 1]}
    return place, int(ids[0, place + 1]), read


def _row(outcome: Outcome, inputs: Inputs, place: int | None) -> Tensor:
    """(choices,): the logits, in the graph."""
    network: Any = outcome.checkpoint.model
    if isinstance(outcome, Labels):
        ids = inputs["input_ids"]
        encoded = network(ids).flatten(0, 1), torch.tensor([ids.shape[1]])
        head = outcome.head
        if head is None:
            scores: Tensor = network.logits(*encoded)
        else:
            scores = head.scores(network.embeddings(*encoded)) / head.temperature
        return scores[0]
    if isinstance(network, Decoder):
        states = network.decoder(inputs["input_ids"])
    elif isinstance(network, EncoderDecoder):
        memory = network.encode(inputs["input_ids"])
        states = network.decoder(inputs["decoder_input_ids"], memory=memory)
    else:
        row: Tensor = network(**inputs).logits[0, place]
        return row
    logits: Tensor = network.logits(states[:, place])
    return logits[0]


def _bias(outcome: Outcome) -> Tensor | None:
    """(choices,): what is added to the logits by no module."""
    if isinstance(outcome, Labels) and outcome.head is not None:
        return outcome.head.bias / outcome.head.temperature
    return logit_bias(outcome.checkpoint.model)


def spelled(checkpoint: Checkpoint, ids: Tensor) -> list[str]:
    """The text of each token, with the space before it."""
    tokens = checkpoint.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    return [printable(text) for text in running([str(token) for token in tokens], len(tokens))]

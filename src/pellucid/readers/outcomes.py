"""What a model answers, so that two runs of it can be compared: with a part of it and without.

A decoder predicts next tokens, a classifier labels, an encoder-decoder the tokens of a translation,
and an encoder alone gives an embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, FileError, MissingExtraError, OutOfRangeError
from pellucid.models import Decoder, Encoder, EncoderDecoder
from pellucid.models.checkpoints.source import directory_of
from pellucid.readers.checkpoint import Checkpoint
from pellucid.readers.divergence import divergence
from pellucid.readers.opening import open_checkpoint
from pellucid.tasks.classify import FILE, Head

AT_ONCE = 2**24
"""Probabilities that are computed at once: 64 MB."""

Kind = Literal["next token", "label", "translation", "embedding"]
Inputs = dict[str, Tensor]
"""(1, tokens) each: `input_ids`, and `decoder_input_ids` of an encoder-decoder."""


def open_answering(model: str | None) -> Checkpoint:
    """Open a model with the head that answers, if it has one.

    Args:
        model: as for `open_checkpoint`.

    Raises:
        ArgumentError, FileError, MissingExtraError: as of `open_checkpoint`.
    """
    try:
        return open_checkpoint(model, whole=True, writes=True)
    except MissingExtraError:
        raise
    except (ArgumentError, FileError):  # an encoder of a family that only transformers has
        return open_checkpoint(model, whole=True)


@dataclass(frozen=True)
class Outcome(ABC):
    """A model that reads one text, and what it answers."""

    checkpoint: Checkpoint
    inputs: Inputs
    kind: ClassVar[Kind]
    measure: ClassVar[str] = "KL divergence, nats"
    """What `effect` is."""

    @torch.no_grad()
    def run(self, items: int = 1) -> Tensor:
        """Run the model on a batch of the same text, and return what its answers follow from.

        Args:
            items: how often the text is in the batch, so that each can be intervened on in its own
                way.

        Returns:
            (items, positions, width): final hidden states, or logits if the model gives only these;
            (items, labels) or (items, width) of an encoder.
        """
        inputs = {name: ids.expand(items, -1) for name, ids in self.inputs.items()}
        return self._states(inputs)

    @abstractmethod
    def _states(self, inputs: Inputs) -> Tensor: ...

    @torch.no_grad()
    def log_probabilities(self, states: Tensor) -> Tensor:
        """(items, positions, tokens), or (items, labels), of what `run` returns.

        Raises:
            ArgumentError: the model gives no probabilities.
        """
        return self._scores(states).float().log_softmax(-1)

    def _scores(self, states: Tensor) -> Tensor:
        raise ArgumentError(f"{self.checkpoint.name} gives no probabilities")

    @torch.no_grad()
    def effect(self, before: Tensor, after: Tensor) -> Tensor:
        """How far each answer is from the one before, (items,), at least 0.

        KL(before || after) in nats, the mean over positions (see `divergence`); of an
        embedding, 1 - cosine. It is 0 where nothing has changed.

        Args:
            before: of one run of one item.
            after: of a run of any number of items.
        """
        total = torch.zeros(len(after), dtype=torch.float64, device=after.device)
        positions = 1 if after.ndim == 2 else after.shape[1]
        for some in self._blocks(before, positions, len(after)):
            p, q = (self._scores(x if x.ndim == 2 else x[:, some]) for x in (before, after))
            total += divergence(p[0], q)[0].reshape(len(after), -1).sum(-1)
        return total / positions

    def _blocks(self, before: Tensor, positions: int, items: int) -> list[slice]:
        """Positions whose probabilities are computed at once."""
        if positions == 1:
            return [slice(0, 1)]
        size = self.log_probabilities(before[:, :1]).shape[-1]
        step = max(1, AT_ONCE // (size * items))
        return [slice(start, start + step) for start in range(0, positions, step)]


@dataclass(frozen=True)
class Predicted(Outcome):
    """The tokens that are predicted after some positions."""

    positions: Sequence[int] = ()
    """Of `input_ids`, or of `decoder_input_ids` in an encoder-decoder."""

    def _states(self, inputs: Inputs) -> Tensor:
        return self._hidden(inputs)[:, list(self.positions)]

    def _hidden(self, inputs: Inputs) -> Tensor:
        """As of `run`, at all positions."""
        logits: Tensor = self.checkpoint.run(**inputs).logits
        return logits

    def _scores(self, states: Tensor) -> Tensor:
        model = self.checkpoint.model
        return model.logits(states) if isinstance(model, Decoder | EncoderDecoder) else states


@dataclass(frozen=True)
class NextToken(Predicted):
    """The next token after some positions, by a decoder."""

    kind = "next token"

    def _hidden(self, inputs: Inputs) -> Tensor:
        model = self.checkpoint.model
        if not isinstance(model, Decoder):
            return super()._hidden(inputs)
        hidden: Tensor = model.decoder(inputs["input_ids"])
        return hidden


@dataclass(frozen=True)
class Translated(Predicted):
    """The tokens of a given translation, by an encoder-decoder: each after those before it."""

    kind = "translation"

    def _hidden(self, inputs: Inputs) -> Tensor:
        model = self.checkpoint.model
        if not isinstance(model, EncoderDecoder):
            return super()._hidden(inputs)
        memory = model.encode(inputs["input_ids"])
        hidden: Tensor = model.decoder(inputs["decoder_input_ids"], memory=memory)
        return hidden


@dataclass(frozen=True)
class Labels(Outcome):
    """The labels of a text, by an encoder with a classifier or a head on its embedding."""

    head: Head | None = None
    """None for the model's own classifier."""
    kind = "label"

    @property
    def names(self) -> tuple[str, ...]:
        """The labels."""
        if self.head is not None:
            return self.head.labels
        names: tuple[str, ...] = self.checkpoint.model.config.classifier.labels
        return names

    def _states(self, inputs: Inputs) -> Tensor:
        tokens, lengths = _encoded(self.checkpoint.model, inputs)
        if self.head is None:
            scores: Tensor = self.checkpoint.model.logits(tokens, lengths)
            return scores
        embeddings = self.checkpoint.model.embeddings(tokens, lengths)
        return self.head.scores(embeddings) / self.head.temperature

    def _scores(self, states: Tensor) -> Tensor:
        return states


@dataclass(frozen=True)
class Embedded(Outcome):
    """The embedding of a text, by an encoder; the mean of its tokens where it has no pooling."""

    kind = "embedding"
    measure = "1 - cosine"

    def _states(self, inputs: Inputs) -> Tensor:
        model = self.checkpoint.model
        if isinstance(model, Encoder):
            return model.embeddings(*_encoded(model, inputs))
        given: Any = self.checkpoint.run(**inputs, output_hidden_states=True)  # type: ignore[arg-type]
        last = getattr(given, "last_hidden_state", None)
        states: Tensor = given.hidden_states[-1] if last is None else last
        return states.mean(1)

    def effect(self, before: Tensor, after: Tensor) -> Tensor:
        cosines = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
        return (1 - cosines).clamp_min(0)


def outcome_of(
    checkpoint: Checkpoint,
    inputs: Inputs,
    positions: Sequence[int] | None = None,
    *,
    model: str | None = None,
) -> Outcome:
    """What a model answers to a text, by its kind.

    Args:
        checkpoint: as of `open_answering`.
        inputs: as of `inputs_of`.
        positions: those after which a token is predicted, of `input_ids` or `decoder_input_ids`;
            negative ones count from the end. None is the last one, and of a translation all.
        model: the name that the checkpoint was opened by, beside which a head may lie.

    Raises:
        OutOfRangeError: there is no such position.
        ArgumentError: the model is an encoder, and positions are given.
    """
    network = checkpoint.model
    side = "decoder_input_ids" if checkpoint.is_both else "input_ids"
    is_causal = checkpoint.is_both or isinstance(network, Decoder)
    if not isinstance(network, Encoder | Decoder | EncoderDecoder):
        is_causal = is_causal or _predicts_next(checkpoint, inputs)
    if not is_causal:
        if positions is not None:
            raise ArgumentError(f"{checkpoint.name} predicts no next tokens; leave positions out")
        return _of_encoder(checkpoint, inputs, model)
    tokens = inputs[side].shape[1]
    if positions is None:
        positions = range(tokens) if checkpoint.is_both else [tokens - 1]
    for position in positions:
        if not -tokens <= position < tokens:
            raise OutOfRangeError(f"there is no position {position}; there are {tokens} tokens")
    kind = Translated if checkpoint.is_both else NextToken
    return kind(checkpoint, inputs, tuple(position % tokens for position in positions))


def _of_encoder(checkpoint: Checkpoint, inputs: Inputs, model: str | None) -> Outcome:
    network = checkpoint.model
    if not isinstance(network, Encoder):
        return Embedded(checkpoint, inputs)
    shape = network.config.classifier
    if shape is not None and shape.scores == "softmax":
        return Labels(checkpoint, inputs)
    beside = None if model is None else directory_of(model) / FILE
    if beside is not None and beside.is_file():
        head = Head.load(beside)
        if head.kind == "label":
            return Labels(checkpoint, inputs, head)
    return Embedded(checkpoint, inputs)


def _predicts_next(checkpoint: Checkpoint, inputs: Inputs) -> bool:
    """Whether a model of transformers gives logits, and the first ones do not depend on the rest.

    Encoders have language-model heads too, and no field of every config says which sees ahead.
    """
    whole = getattr(checkpoint.run(**inputs), "logits", None)
    if whole is None:
        return False
    first = checkpoint.run(**{name: ids[:, :1] for name, ids in inputs.items()}).logits
    return torch.allclose(first[:, 0], whole[:, 0], rtol=1e-3, atol=1e-3)


def _encoded(model: Encoder, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The encodings of all tokens, one text after the other, and the lengths of the texts."""
    ids = inputs["input_ids"]
    x: Tensor = model(ids)
    return x.flatten(0, 1), torch.full((len(ids),), ids.shape[1])

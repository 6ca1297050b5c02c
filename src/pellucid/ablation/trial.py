"""One input of a model, run with heads knocked out and measured against the plain run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.ablation.knock_outs import Edit, edited
from pellucid.ablation.measures import MOST_LOGITS, UNKNOWN, Answer, Distributions
from pellucid.errors import ArgumentError
from pellucid.lens.replays import Replay, tensor_of

BATCH_TOKENS = 8192
"""The most tokens of a batch: enough for fast products of matrices, and few enough for memory."""

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, what it reads, and how a change is measured."""

    model: nn.Module
    run: Callable[[int], Any]
    """Runs the model on so many copies of its input in one batch, without gradients."""
    tokens: int
    """Of the input, with the target of an encoder-decoder."""
    measure: Distributions | Answer
    name: str = ""
    """Of the model."""
    tokenizer: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What else a reader wants to know, such as the label that a classifier gives."""


def runs_of(
    model: nn.Module, inputs: Mapping[str, Tensor], call: Callable[..., Any]
) -> Callable[[int], Any]:
    """Runs a model on copies of inputs, (1, tokens) each, without gradients."""
    accepts = "use_cache" in signature(model.forward).parameters
    # A model of transformers need keep no keys: no tokens follow.
    options: dict[str, Any] = {"use_cache": False} if accepts else {}

    def run(items: int) -> Any:
        copies = {
            name: tensor.repeat(items, *[1] * (tensor.ndim - 1)) for name, tensor in inputs.items()
        }
        with torch.no_grad():
            return call(**copies, **options)

    return run


class Trial:
    """A plain run, and runs with edits."""

    def __init__(self, subject: Subject, attending: Sequence[str]) -> None:
        """Run the model once.

        Args:
            subject: the model, in eval mode, and its input.
            attending: the names of its modules that attend.

        Raises:
            ArgumentError: the model gives no logits, and distributions are to be measured.
        """
        self.measure = subject.measure
        self.subject = subject
        self.replay = replay = Replay(subject.model, subject.run, attending)
        self.at_once = max(1, BATCH_TOKENS // subject.tokens)
        """The most items of a batch."""
        if isinstance(self.measure, Answer):
            self._plain = self._read(replay.output, 1)
            return
        logits = tensor_of(replay.output)
        if logits.ndim != 3 or logits.shape[1] != len(self.measure.targets):
            raise ArgumentError(
                f"the model gives {tuple(logits.shape)}, not logits of each position: measure its "
                "answer instead"
            )
        self._vocabulary = logits.shape[-1]
        known = self.measure.targets[self.measure.targets != UNKNOWN]
        if bool(((known < 0) | (known >= self._vocabulary)).any()):
            raise ArgumentError(
                f"targets must be from 0 to {self._vocabulary - 1}, or {UNKNOWN} where unknown"
            )
        if replay.ends_alone:
            self._plain = replay.plain_last_block
            replay.output = None
        else:
            self._plain = logits
            self.at_once = min(self.at_once, max(1, MOST_LOGITS // logits.numel()))

    @cached_property
    def plain_loss(self) -> float | None:
        """The mean cross-entropy of the text; None if it is not measured."""
        if isinstance(self.measure, Answer) or not self.measure.known:
            return None
        total = 0.0
        for start, logits in self._logits(self._plain, 1):
            targets = self.measure.targets[start : start + logits.shape[1]].to(logits.device)
            total += float(
                nn.functional.cross_entropy(logits[0].double(), targets, reduction="sum")
            )
        return total / self.measure.known

    def fingerprint(self) -> list[float]:
        """Numbers by which another text or another model is told."""
        plain = self._plain.double()
        # Embeddings of length one have nearly the same mean and deviation: where they are large
        # tells them apart.
        ramp = torch.linspace(0, 1, plain.shape[-1], dtype=plain.dtype, device=plain.device)
        return [
            float(plain.abs().mean()),
            float(plain.std(correction=0)),
            float((plain.abs() * ramp).mean()),
            self.plain_loss or 0.0,
        ]

    def figures(self, items: Sequence[Sequence[Edit]]) -> list[Figures]:
        """What changes with the edits of each item; at most `at_once` items."""
        return self._compared(self._plain, self._changed(items))

    def figures_before(
        self, items: Sequence[Sequence[Edit]], then: Sequence[Edit]
    ) -> list[Figures]:
        """What changes from each item with its edits to the text with other ones, `then`."""
        changed = self._changed([*items, then])
        return self._compared(changed[:-1], changed[-1:])

    def _changed(self, items: Sequence[Sequence[Edit]]) -> Tensor:
        """What answers or distributions follow from, with the edits of each item."""
        start = self.replay.first([edit.name for edits in items for edit in edits])
        with edited(self.subject.model, items):
            if isinstance(self.measure, Answer):
                return self._read(self.replay.through(start, len(items)), len(items))
            if self.replay.ends_alone:
                return self.replay.last_block(start, len(items))
            return tensor_of(self.replay.through(start, len(items)))

    def _compared(self, before: Tensor, after: Tensor) -> list[Figures]:
        """What changes from one item to several, or from each of several to one."""
        measure = self.measure
        if isinstance(measure, Answer):
            return [row for item in before.split(1) for row in measure.figures(item, after)]
        both = torch.cat([before, after])
        parts = []
        for at, logits in self._logits(both, len(both)):
            plain, changed = logits[: len(before)], logits[len(before) :]
            parts.append([measure.changes(item, changed, at) for item in plain])
        figures: list[Figures] = []
        for of_pair in zip(*parts, strict=True):
            far, rise = (torch.cat(pieces, -1) for pieces in zip(*of_pair, strict=True))
            figures += measure.figures(far, rise)
        return figures

    def _read(self, output: Any, items: int) -> Tensor:
        """(items, numbers): the answers."""
        assert isinstance(self.measure, Answer)
        answers = self.measure.read(output)
        if len(answers) != items:
            raise ArgumentError(
                f"the measure must give a number for each item of the batch: {items}, not "
                f"{len(answers)}"
            )
        return answers

    def _logits(self, hidden: Tensor, count: int) -> Any:
        """Logits at a few positions after the other, and the first of these positions."""
        positions = max(1, MOST_LOGITS // (count * self._vocabulary))
        for start in range(0, hidden.shape[1], positions):
            part = hidden[:, start : start + positions]
            yield start, tensor_of(self.replay.end(part)) if self.replay.ends_alone else part

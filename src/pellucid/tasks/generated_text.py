"""A generated text: while it grows, a piece at a time, and when it is whole."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from pellucid.layers.config import Config
from pellucid.text.stream_decoder import Unfolding
from pellucid.text.tokenizer import Tokenizer

Ending = Literal["stop id", "stop string", "max_tokens", "positions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """A generated text."""

    prompt: int
    """The index of its prompt."""
    sample: int
    """Its index among the prompt's samples."""
    text: str
    """The continuation, without the prompt; "" if the model has no tokenizer."""
    prompt_ids: list[int]
    """The ids that the model read."""
    ids: list[int]
    """The new ids, including those of a stop string but not the stop id."""
    stopped: Ending
    """Why it ended: at a stop id, at a stop string, at max_tokens, or at the model's last
    position."""
    seconds: float
    """From the start of its batch, including the reading of the prompts, to its end."""

    @property
    def tokens_per_second(self) -> float:
        return len(self.ids) / self.seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What one more token adds to a text."""

    prompt: int
    sample: int
    id: int
    """The token's id; the last may be a stop id, which is not part of the text."""
    text: str
    """Text that is final; often a word, sometimes empty."""
    done: Generated | None = None
    """The whole text, if this piece is its last."""


@dataclass(eq=False)
class RunningText:
    """A text that is being generated."""

    prompt: int
    sample: int
    prompt_ids: list[int]
    tokenizer: Tokenizer | None
    stop: Sequence[str]
    seed: int
    ids: list[int] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        # A seed sequence: sample 1 of seed 0 is unrelated to sample 0 of seed 1.
        [start] = np.random.SeedSequence([self.seed, self.sample]).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(start))
        self.decoder = None
        if self.tokenizer is not None:
            self.decoder = Unfolding(self.tokenizer, self.prompt_ids, self.stop)

    def add(
        self, token: int, max_tokens: int, config: Config, ends: frozenset[int]
    ) -> tuple[str, Ending | None]:
        """Add a token; returns the text that it completes, and why the text ends if it does."""
        ending: Ending | None = None
        text = ""
        if token in ends:
            ending = "stop id"
        else:
            self.ids.append(token)
            if self.decoder is not None:
                text = self.decoder.add(token)
            if self.decoder is not None and self.decoder.is_stopped:
                ending = "stop string"
            elif len(self.ids) == max_tokens:
                ending = "max_tokens"
            elif config.positions is not None:
                # The last token is never read, so it needs no position.
                is_full = len(self.prompt_ids) + len(self.ids) >= config.positions
                ending = "positions" if is_full else None
        if ending is not None and self.decoder is not None:
            text += self.decoder.end()
        self.text += text
        return text, ending

    def done(self, stopped: Ending, start: float) -> Generated:
        return Generated(
            prompt=self.prompt,
            sample=self.sample,
            text=self.text,
            prompt_ids=self.prompt_ids,
            ids=self.ids,
            stopped=stopped,
            seconds=time.perf_counter() - start,
        )

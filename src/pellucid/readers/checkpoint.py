"""A model that reads text, for those who watch it do so, whoever has made it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpoint(ABC):
    """A trained model that reads text."""

    name: str
    """For people."""
    model: Any
    """The torch.nn.Module to watch, in float32: whole, or the encoder of an encoder-decoder."""
    tokenizer: Any
    """As those of transformers are called."""
    limit: int | None
    """The most tokens the model has positions for, if it has a limit."""

    @property
    @abstractmethod
    def is_both(self) -> bool:
        """Whether it is an encoder-decoder."""

    @property
    @abstractmethod
    def starts_target(self) -> int | None:
        """The token by which the decoder of an encoder-decoder begins."""

    @abstractmethod
    def run(self, **inputs: torch.Tensor) -> Any:
        """Run the model, for those who watch it; gives what it gives.

        Args:
            inputs: (1, tokens) each, `input_ids` and what else a model of transformers takes;
                `decoder_input_ids` for an encoder-decoder.

        Raises:
            ArgumentError: it does not run on this.
        """

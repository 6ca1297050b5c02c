"""The interface of a model that reads text, whatever library it is from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from pellucid.models import EncoderDecoder


@dataclass(frozen=True)
class Checkpoint(ABC):
    """A trained model and its tokenizer."""

    name: str
    """For messages and output."""
    model: Any
    """The torch.nn.Module to watch, in float32: whole, or the encoder of an encoder-decoder."""
    tokenizer: Any
    """Called as those of transformers."""
    limit: int | None
    """The most tokens that the model has positions for; None without a limit."""

    @property
    @abstractmethod
    def is_both(self) -> bool:
        """Whether it is an encoder-decoder."""

    @property
    @abstractmethod
    def starts_target(self) -> int | None:
        """The id of the token with which the decoder of an encoder-decoder starts."""

    @property
    def alignment_heads(self) -> list[tuple[str, int]]:
        """The module and the number of each head that the model names for word alignment."""
        return self.model.alignment_heads if isinstance(self.model, EncoderDecoder) else []

    @abstractmethod
    def run(self, **inputs: torch.Tensor) -> Any:
        """Run the model without gradients, and return its output.

        Args:
            inputs: (1, tokens) each: `input_ids`, `decoder_input_ids` for an encoder-decoder, and
                others that a model of transformers takes.

        Raises:
            ArgumentError: the model does not run on these inputs.
        """

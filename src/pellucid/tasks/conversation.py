"""A conversation with a model: messages in turn, each reply generated after all before it."""

from collections.abc import Iterator
from typing import Any

from pellucid.errors import ArgumentError
from pellucid.models import Decoder
from pellucid.tasks.generated_text import Generated, Piece
from pellucid.tasks.generation import stream
from pellucid.tasks.prefix_memory import Memory
from pellucid.text.chat import rendered, template_of


def prompt_of(model: Decoder, message: str, system: str | None = None) -> str:
    """The text after which a model replies to one message.

    Args:
        model: with a tokenizer that has a chat template.
        message: the user's.
        system: what the model is told first; the template's own by default.

    Raises:
        ArgumentError, FileError, MissingExtraError: as `text.chat.rendered`.
    """
    assert model.tokenizer is not None
    first = [] if system is None else [{"role": "system", "content": system}]
    return rendered(model.tokenizer, [*first, {"role": "user", "content": message}])


class Conversation:
    """Messages so far, and the cache of what the model has read of them."""

    def __init__(self, model: Decoder, system: str | None = None) -> None:
        """Begin a conversation.

        Args:
            model: with a tokenizer that has a chat template.
            system: what the model is told first; the template's own by default.

        Raises:
            ArgumentError: the model has no chat template.
        """
        if model.tokenizer is None:
            raise ArgumentError("the model has no tokenizer")
        template_of(model.tokenizer)
        self.model, self.tokenizer, self.system = model, model.tokenizer, system
        self.last: Generated | None = None
        """The last reply."""
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.memory, self.last = Memory(), None

    def reply(self, message: str, **options: Any) -> Iterator[Piece]:
        """The model's reply to a message, in pieces; a reply that is cut short counts as said.

        Args:
            message: the user's.
            options: of `stream`, without names, plain, samples or memory.

        Raises:
            ArgumentError: the message is blank, or the conversation is longer than the model's
                positions; it stays as it was.
        """
        messages = [*self.messages, {"role": "user", "content": message}]
        pieces = stream(
            self.model,
            [rendered(self.tokenizer, messages)],
            names=["the conversation"],
            plain=True,
            strict=True,
            memory=self.memory,
            **options,
        )
        return self._recorded(messages, pieces)

    def _recorded(self, messages: list[dict[str, str]], pieces: Iterator[Piece]) -> Iterator[Piece]:
        text = ""
        try:
            for piece in pieces:
                text += piece.text
                if piece.done is not None:
                    self.last, text = piece.done, piece.done.text
                yield piece
        finally:
            self.messages = [*messages, {"role": "assistant", "content": text}]

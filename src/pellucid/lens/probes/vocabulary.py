"""What probes ask of a tokenizer: ids without marks, the marks at the start, single-token words."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.spelling import special_ids_of

BEFORE = "and"
"""A word that texts follow, so that their tokens are those of the middle of a text."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The ids that a model reads, and the tokenizer that makes them, if there is one."""

    size: int
    """The ids are 0 to size - 1."""
    tokenizer: Any = None

    def __post_init__(self) -> None:
        if self.tokenizer is not None and not self.text(BEFORE):
            raise ArgumentError(f"the tokenizer makes no tokens of '{BEFORE}'")

    @property
    def plain(self) -> Tensor:
        """(n,) int64: the ids that are not special."""
        special = special_ids_of(self.tokenizer)
        size = self.size
        if hasattr(self.tokenizer, "__len__"):
            size = min(size, len(self.tokenizer))
        return torch.tensor([number for number in range(size) if number not in special])

    @property
    def start(self) -> list[int]:
        """The marks with which the tokenizer begins a text."""
        if self.tokenizer is None:
            return []
        special = special_ids_of(self.tokenizer)
        start = []
        for number in self._ids(BEFORE):
            if number not in special:
                break
            start.append(number)
        return start

    def text(self, text: str) -> list[int]:
        """The ids of a text at the start, without marks."""
        special = special_ids_of(self.tokenizer)
        ids = self._ids(text)
        first = next((i for i, number in enumerate(ids) if number not in special), len(ids))
        last = next((i for i, number in enumerate(ids[::-1]) if number not in special), 0)
        return ids[first : len(ids) - last]

    def following(self, text: str) -> list[int]:
        """The ids of a text that follows another after a space, without marks.

        Raises:
            ArgumentError: the tokenizer joins words across a space, or knows nothing of it.
        """
        ids = self._following(text)
        if not ids:
            raise ArgumentError(f"the tokenizer makes no tokens of '{text}'")
        return ids

    def _following(self, text: str) -> list[int]:
        before, both = self.text(BEFORE), self.text(f"{BEFORE} {text}")
        if both[: len(before)] != before:
            raise ArgumentError(f"the tokenizer joins '{BEFORE}' and '{text}'")
        return both[len(before) :]

    def single(self, words: Iterable[str]) -> dict[str, int]:
        """The ids of those words that are one token inside a text."""
        tokens: dict[str, int] = {}
        for word in words:
            ids = self._following(word)
            if len(ids) == 1 and ids[0] not in tokens.values():
                tokens[word] = ids[0]
        return tokens

    def _ids(self, text: str) -> list[int]:
        if callable(self.tokenizer):
            ids = self.tokenizer(text, truncation=False)["input_ids"]
        elif hasattr(self.tokenizer, "encode"):
            [ids] = self.tokenizer.encode([text])
        else:
            raise TypeMismatchError(
                f"tokenizer must make ids of a text, got {type(self.tokenizer).__name__}"
            )
        return list(map(int, ids))

"""Requests to the page's API: their numbers and options, checked, and what an answer may be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from torch import Tensor

from pellucid.errors import ArgumentError, OutOfRangeError, PellucidError

LARGEST = 10**9 - 1
"""Of the numbers in a request."""
Pace = Literal["soon", "slow", "measuring"]
"""At once; perhaps a pass over many weights; a pass over all weights."""
Given = dict[str, Any]
"""The numbers and options of one request, by name."""


class BrokenError(PellucidError, RuntimeError):
    """The answer could not be computed."""


class Numbers(NamedTuple):
    """An answer in numbers, and whether it is exact or made of sampled rows."""

    values: Tensor
    is_exact: bool = True


Answer = Numbers | dict[str, Any]


class IntegerOption(NamedTuple):
    """An option that is a whole number within bounds, ends included."""

    least: int
    most: int
    usual: int

    def read(self, name: str, text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > len(str(LARGEST)):
            raise ArgumentError(f"{name} must be a whole number")
        if not self.least <= int(text) <= self.most:
            raise ArgumentError(f"{name} must be from {self.least} to {self.most}, not {text}")
        return int(text)


class ChoiceOption(NamedTuple):
    """An option that is one of some words."""

    words: tuple[str, ...]
    usual: str

    def read(self, name: str, text: str) -> str:
        if text not in self.words:
            raise ArgumentError(f"{name} must be one of {', '.join(self.words)}")
        return text


class TextOption(NamedTuple):
    """An option that is any text of so many letters; empty unless given."""

    most: int
    usual: str = ""

    def read(self, name: str, text: str) -> str:
        if len(text) > self.most:
            raise ArgumentError(f"{name} has {len(text):,} letters, more than {self.most:,}")
        return text


Option = IntegerOption | ChoiceOption | TextOption


@dataclass(frozen=True)
class Endpoint:
    """A kind of request."""

    about: str
    """What the answer is, for the schema."""
    answer: Callable[[Any, Given], Answer]
    numbers: tuple[str, ...] = ()
    """What the numbers in the path are."""
    options: Mapping[str, Option] | None = None
    pace: Pace | Callable[[Given], Pace] = "soon"
    is_json: bool = True

    def read(self, parts: list[str], query: Mapping[str, str]) -> Given:
        """The numbers and options of one request.

        Raises:
            OutOfRangeError: the path does not belong to this endpoint.
            ArgumentError: an option is unknown, or its value is invalid.
        """
        if len(parts) != len(self.numbers) or not all(map(_is_number, parts)):
            raise OutOfRangeError("there is no such endpoint")
        options = self.options or {}
        for name in query:
            if name not in options:
                raise ArgumentError(f"unknown option '{name[:40]}'")
        given: Given = dict(zip(self.numbers, map(int, parts), strict=True))
        for name, option in options.items():
            given[name] = option.read(name, query[name]) if name in query else option.usual
        return given


class PendingAnswer(NamedTuple):
    """A valid request that has not been answered yet."""

    pace: Pace
    find: Callable[[], Answer]
    """Compute the answer; raises only PellucidErrors."""


def parsed(path: str) -> tuple[str, dict[str, str]]:
    """What stands before "?" in a path, and the options after it."""
    name, _, options = path.partition("?")
    return name, dict(parse_qsl(options, keep_blank_values=True))


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) <= len(str(LARGEST))

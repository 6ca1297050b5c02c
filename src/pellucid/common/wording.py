"""Parts of sentences: percentages, lists, counts; and values that JSON can hold."""

import math
from typing import Any


def percent(fraction: float) -> str:
    """A fraction in whole percent; 0% and 100% only if exact."""
    if 0 < fraction < 0.005:
        return "<1%"
    if 0.995 <= fraction < 1:
        return ">99%"
    return f"{100 * fraction:.0f}%"


def listing(parts: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def short(text: str, length: int) -> str:
    """Text cut to a length, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def count(number: int, noun: str) -> str:
    """'1 token', '2 tokens'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plain(value: Any) -> Any:
    """The value as JSON can hold it: infinity and NaN become null, and text valid UTF-8."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # the name of a file may be invalid UTF-8
        return value.encode(errors="replace").decode()
    return value

"""Small pieces of sentences: shares, lists, counts; and answers as JSON can hold them."""

import math
from typing import Any


def percent(fraction: float) -> str:
    """A fraction as whole percents, never rounded to 0% or 100% when it is neither."""
    if 0 < fraction < 0.005:
        return "<1%"
    if 0.995 <= fraction < 1:
        return ">99%"
    return f"{100 * fraction:.0f}%"


def listing(parts: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def short(text: str, length: int) -> str:
    """Text cut to a length, the cut marked."""
    return text if len(text) <= length else text[: length - 1] + "…"


def count(number: int, noun: str) -> str:
    """'1 token', '2 tokens'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plain(told: Any) -> Any:
    """The same as JSON can hold it: it knows no infinity and no NaN, null here, and only UTF-8."""
    if isinstance(told, dict):
        return {name: plain(part) for name, part in told.items()}
    if isinstance(told, list | tuple):
        return [plain(part) for part in told]
    if isinstance(told, float) and not math.isfinite(told):
        return None
    if isinstance(told, str):  # names of files are sometimes bytes that are no text
        return told.encode(errors="replace").decode()
    return told

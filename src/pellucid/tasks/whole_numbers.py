"""Checks of whole-number arguments."""

from pellucid.errors import ArgumentError, TypeMismatchError

LONGEST = 2**31 - 1
"""The largest number of tokens that is accepted."""


def check_whole(name: str, value: int, least: int = 1, most: int | None = None) -> None:
    """Check that an argument is an int from `least` to `most`, inclusive.

    Raises:
        TypeMismatchError: it is not an int; bools are refused too.
        ArgumentError: it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeMismatchError(f"{name} must be an int, not {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most:,}"
        raise ArgumentError(f"{name} must be {bounds}, not {value:,}")

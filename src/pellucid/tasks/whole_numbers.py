"""Numbers that a caller gives, refused by name where they make no sense."""

from pellucid.errors import ArgumentError, TypeMismatchError

LONGEST = 2**31 - 1
"""Tokens beyond which no number of them makes sense."""


def check_whole(name: str, value: int, least: int = 1, most: int | None = None) -> None:
    """Refuse what is no whole number within bounds, both of them included.

    Raises:
        TypeMismatchError: it is no int; True and False are none here.
        ArgumentError: it is below or above.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeMismatchError(f"{name} must be an int, not {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most:,}"
        raise ArgumentError(f"{name} must be {bounds}, not {value:,}")

"""Numbers as people write them: 1,5 or 1,037.5 or $5 or 20%; read only where it is clear which."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from pellucid.common.wording import short
from pellucid.errors import ArgumentError

_MINUS = "\N{MINUS SIGN}"
_SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_PARTS = re.compile(
    rf"(?P<before>[^\d\s.,+\-{_MINUS}]?)\s*(?P<sign>[+\-{_MINUS}]?)\s*(?P<unit>[^\d\s.,+\-{_MINUS}]?)\s*"
    rf"(?P<digits>[\d.,][\d.,'’{_SPACES}]*(?:[eE][+\-]?\d+)?)\s*(?P<after>\D?)"
)
_CODE = re.compile(r"0\d")
"""How a postcode may begin, but no number."""
_MISSING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "-nan", "null"))
"""What stands for a number that is not known, in any case of letters, as pandas takes it."""
_FEW = 0.1
"""The share of other words among numbers up to which they are hardly names themselves."""


@dataclass(frozen=True, slots=True)
class Notation:
    """How numbers are written."""

    decimal: str = "."
    thousands: str = ""
    """Characters any of which stands between groups of three digits."""
    unit: str = ""
    """A currency or %, before or after each; it is left out, so 20% is 20."""

    def number(self, cell: str) -> float:
        """The number of a cell.

        Raises:
            ArgumentError: it is none that is written so.
        """
        parted = _number_parts(cell)
        if parted is None or parted[1] != self.unit or not self.fits(parted[0]):
            raise ArgumentError(f"'{short(cell, 40)}' is not a number to learn")
        digits = parted[0].translate(dict.fromkeys(map(ord, self.thousands)))
        return float(digits.replace(self.decimal, "."))

    def fits(self, digits: str) -> bool:
        """Whether digits with their sign may be written so."""
        point = re.escape(self.decimal)
        whole = r"\d+"
        if self.thousands:
            whole = rf"(?:[1-9]\d{{0,2}}(?:[{re.escape(self.thousands)}]\d{{3}})+|\d+)"
        pattern = rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
        return re.fullmatch(pattern, digits) is not None


PLAIN = Notation()
_NOTATIONS = (
    *((".", thousands) for thousands in ("", ",", "'’", _SPACES)),
    *((",", thousands) for thousands in ("", ".", _SPACES)),
)


def notation(cells: Collection[str]) -> Notation | None:
    """How numbers are written, the same for all; None if they are no numbers.

    Raises:
        ArgumentError: some are no numbers but stand for one, or are too few to be names; or it is
            unclear which numbers are meant.
    """
    parted = {cell: _number_parts(cell) for cell in cells}
    numbers = {cell: parts for cell, parts in parted.items() if parts is not None}
    others = [cell for cell in cells if parted[cell] is None]
    if not numbers or any(_CODE.match(digits.lstrip("+-")) for digits, _ in numbers.values()):
        return None
    fitting = [
        marks for marks in _NOTATIONS if all(Notation(*marks).fits(x) for x, _ in numbers.values())
    ]
    if not fitting or (
        others and not any(map(is_missing, others)) and len(others) > _FEW * len(parted)
    ):
        return None
    if others:
        raise ArgumentError(
            f"'{short(others[0], 40)}' is no number, but {len(numbers)} of {len(parted)} different "
            "labels are; leave out the rows without one, or learn them as names: --predict label"
        )
    units = {unit: cell for cell, (_, unit) in numbers.items()}
    if len(units) > 1:
        first, second = [short(cell, 40) for cell in units.values()][:2]
        raise ArgumentError(
            f"'{first}' and '{second}' are numbers of different units; write all in one, or learn "
            "them as names: --predict label"
        )
    (unit,) = units
    candidates = [Notation(*marks, unit) for marks in fitting]
    if candidates[0] == Notation(unit=unit):
        return candidates[0]
    for cell in numbers:
        values = {candidate.number(cell) for candidate in candidates}
        if len(values) > 1:
            either = " or ".join(f"{value:.15g}" for value in sorted(values, reverse=True))
            raise ArgumentError(
                f"'{short(cell, 40)}' may be {either}; write the numbers with a decimal point, or "
                "learn them as names: --predict label"
            )
    return candidates[0]


def is_missing(cell: str) -> bool:
    """Whether a cell stands for a value that is not known."""
    return cell.strip().lower() in _MISSING


def _number_parts(cell: str) -> tuple[str, str] | None:
    """The digits of a number with their sign, and its unit; None if it is no number."""
    match = _PARTS.fullmatch(cell.strip())
    if match is None:
        return None
    units = [match[part] for part in ("before", "unit", "after") if match[part]]
    if len(units) > 1 or not all(x == "%" or unicodedata.category(x) == "Sc" for x in units):
        return None
    sign = match["sign"].replace(_MINUS, "-")
    return sign + match["digits"].rstrip(_SPACES), "".join(units)

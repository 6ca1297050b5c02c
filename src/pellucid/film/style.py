"""Sizes and colours: where things stand in a picture of each shape, and what colour says what."""

from dataclasses import dataclass, replace
from typing import Literal

from pellucid.common import colours
from pellucid.common.colours import Colour

Theme = Literal["light", "dark"]
SIZES = {
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "square": (1080, 1080),
    "upright": (1080, 1920),
}
"""Widths and heights in pixels."""


def colour(text: str) -> Colour:
    """Of '#rrggbb'."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def mixed(first: Colour, second: Colour, part: float) -> Colour:
    """So much of the other in the one."""
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The colours, which are those of the page; a role has the same one all through."""

    paper: Colour
    panel: Colour
    ink: Colour
    soft: Colour
    line: Colour
    query: Colour
    key: Colour
    value: Colour
    result: Colour
    ramp: tuple[Colour, ...]
    """Of shares."""

    def role(self, letter: str) -> Colour:
        """Of a matrix by its name."""
        roles = {"Q": self.query, "K": self.key, "V": self.value, "context": self.result}
        return roles.get(letter, self.soft)


LOOKS: dict[str, Look] = {
    "light": Look(
        paper=colour("#ffffff"),
        panel=colour("#eff4f8"),
        ink=colour("#12202e"),
        soft=colour("#51616f"),
        line=colour("#c9d4de"),
        query=colour("#0072b2"),
        key=colour("#a56200"),
        value=colour("#007a58"),
        result=colour("#a23f77"),
        ramp=colours.LIGHT,
    ),
    "dark": Look(
        paper=colour("#10171f"),
        panel=colour("#1b2632"),
        ink=colour("#e5eef5"),
        soft=colour("#9db0c0"),
        line=colour("#33424f"),
        query=colour("#56b4e9"),
        key=colour("#e69f00"),
        value=colour("#2fbf93"),
        result=colour("#d98cb6"),
        ramp=colours.DARK,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things stand, in units of which a picture is so many wide and high."""

    wide: float
    high: float
    margin: float
    header: float
    """Baseline of the scene's title and its formula."""
    formula: float
    """Baseline of the formula: beside the title, or below it."""
    sentence: float
    rows: tuple[float, float]
    """Top and bottom."""
    row: float
    """The most that a row is high."""
    query: tuple[float, float]
    """Left side and middle of the query's cells."""
    label: float
    """Right side of the keys' names."""
    label_room: float
    cells: float
    """Width of a vector."""
    key: float
    bar: tuple[float, float]
    """Left and right side of the scores."""
    value: float
    caption: float
    """Baseline of the last line of a caption."""
    is_wide: bool


WIDE = Layout(
    wide=1920,
    high=1080,
    margin=120,
    header=110,
    formula=110,
    sentence=196,
    rows=(272, 848),
    row=88,
    query=(120, 530),
    label=650,
    label_room=230,
    cells=250,
    key=676,
    bar=(970, 1370),
    value=1540,
    caption=1016,
    is_wide=True,
)
SQUARE = Layout(
    wide=1080,
    high=1080,
    margin=60,
    header=76,
    formula=118,
    sentence=170,
    rows=(330, 804),
    row=76,
    query=(415, 272),
    label=222,
    label_room=160,
    cells=200,
    key=240,
    bar=(470, 672),
    value=820,
    caption=1030,
    is_wide=False,
)
UPRIGHT = replace(
    SQUARE,
    high=1920,
    header=170,
    formula=226,
    sentence=330,
    rows=(560, 1360),
    row=110,
    query=(415, 470),
    caption=1720,
)


def layout_for(width: int, height: int) -> Layout:
    """Those for a picture of this size."""
    if width > 1.2 * height:
        return WIDE
    return UPRIGHT if height > 1.2 * width else SQUARE

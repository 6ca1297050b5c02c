"""Ten stations from a soft database to a translation: an idea, a guess, a change and a check each.

Their text is in stations.toml; every number in it is computed from what the station shows (see
`station_numbers`).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.resources import files as resources
from typing import Any

from pellucid.common import files
from pellucid.errors import UnknownNameError
from pellucid.lessons.lesson import Lesson
from pellucid.lessons.station_numbers import NUMBERS
from pellucid.lessons.walk import Walk

PAPER = "Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762"
_TEXTS = tomllib.loads(resources(__package__).joinpath("stations.toml").read_text("utf-8"))
STATIONS: dict[str, str] = {name: text["title"] for name, text in _TEXTS.items()}
"""The title of each station, in the order of the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An answer to choose."""

    text: str
    is_right: bool = False
    why: str
    """What makes it right or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with several answers, one of which is right."""

    text: str
    choices: tuple[Choice, ...]

    @property
    def right(self) -> int:
        """The number of the right answer."""
        return next(i for i, choice in enumerate(self.choices) if choice.is_right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing to change, and what follows."""

    text: str
    walk: Walk
    step: str = "softmax"
    """The step in which the change shows."""
    lesson: Lesson | None = None
    """The changed lesson; None where a trained model's numbers are shown."""
    call: str = ""
    """The Python that computes the walk where there is no lesson."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One stop on the way."""

    name: str
    title: str
    idea: str
    predict: Question
    """To be guessed before the numbers are seen."""
    walk: Walk
    step: str
    """The step of the walk that has the answer."""
    lesson: Lesson | None = None
    """What the walk was computed from, to be changed; None where a trained model's is shown."""
    call: str = ""
    """The Python that computes the walk where there is no lesson."""
    change: Change
    own: str
    """A command for one's own sentence."""
    check: Question
    source: str


def station(name: str) -> Station:
    """One station, by its name or its number from 1.

    Raises:
        UnknownNameError: there is no such station.
    """
    names = list(STATIONS)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        name = names[int(name) - 1]
    name = name.casefold()
    if name not in STATIONS:
        near = get_close_matches(name, names, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}, or 1 to 10"
        raise UnknownNameError(f"no station '{name}'; {meant}")
    text, shown, number = _TEXTS[name], NUMBERS[name](), names.index(name)
    values = {"paper": PAPER, **shown.values}
    return Station(
        name=name,
        title=text["title"],
        idea=text["idea"],
        # The right answer is not always at the same place.
        predict=_question(text["predict"], values, shown.right, number),
        walk=shown.walk,
        step=text["step"],
        lesson=shown.lesson,
        call=shown.call,
        change=Change(
            text=text["change"].format_map(values),
            walk=shown.changed_walk,
            step=text.get("change_step", "softmax"),
            lesson=shown.changed_lesson,
            call=shown.changed_call,
        ),
        own=text["own"],
        check=_question(text["check"], values, None, number // 2),
        source=text["source"].format_map(values),
    )


def _question(
    text: Mapping[str, Any], values: Mapping[str, Any], right: int | None, by: int
) -> Question:
    """A question with its numbers filled in, and its choices rotated by some places."""
    right = text["right"] if right is None else right
    choices = [
        Choice(text=answer.format_map(values), is_right=at == right, why=why.format_map(values))
        for at, (answer, why) in enumerate(text["choices"])
    ]
    by %= len(choices)
    return Question(text=text["text"].format_map(values), choices=(*choices[by:], *choices[:by]))


def to_json(stop: Station) -> str:
    """Everything of a station as JSON."""
    return files.to_json(asdict(stop), indent=1)

"""The script of a film: scenes, lines, numbers and times. Plain data, from a walk alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pellucid.film.numbers import Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A sentence that the narrator says; the subtitles have the same words."""

    name: str
    """What the picture knows it by, within its scene."""
    text: str
    numbers: tuple[Number, ...] = ()
    """Those that it says, in order."""
    names: tuple[str, ...] = ()
    """The words that it quotes, as they stand in it: any digits there are theirs."""
    detail: int = 1
    """1 = every film has it; 2 and 3 = only those that are long enough."""
    at: float = 0.0
    until: float = 0.0
    """Seconds: when it is said."""
    words: tuple[tuple[int, float], ...] = ()
    """Where words begin in the text, and when they are said, as far as the voice tells."""

    def moment(self, part: str = "") -> float:
        """When a part of it is said: when the word is that it begins with, if the voice tells."""
        place = self.text.find(part)
        times = [time for start, time in self.words if start <= max(place, 0)]
        return times[-1] if part and place > 0 and times else self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One idea: what is said of it, and the numbers that are shown meanwhile."""

    name: str
    title: str
    lines: tuple[Line, ...]
    formula: str = ""
    query: int = 0
    """The row of the walk's matrices that it is about."""
    keys: tuple[int, ...] = ()
    """The columns that are shown, in order."""
    labels: tuple[str, ...] = ()
    """A name for each of these."""
    rest: Number | None = None
    """How many columns are not shown, if any."""
    text: str = ""
    """What is shown in words: how much of a vector is drawn, or what has been written so far."""
    tables: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    """Matrices that are shown whole: name, rows and columns."""
    numbers: dict[str, tuple[Number, ...]] = field(default_factory=dict)
    """What is shown, by what it is."""
    at: float = 0.0
    until: float = 0.0

    def line(self, name: str) -> Line | None:
        """A line by name, if the film has it."""
        return next((line for line in self.lines if line.name == name), None)

    def moment(self, name: str, part: str = "") -> float:
        """When a line, or a part of it, is said; the scene's beginning if there is no such line."""
        line = self.line(name)
        return self.at if line is None else line.moment(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A whole film."""

    title: str
    about: tuple[str, ...]
    tokens: tuple[str, ...]
    """What asks: the rows of the walk."""
    sources: tuple[str, ...]
    """What is looked at: the columns. The same, unless it is cross-attention."""
    glued: tuple[bool, ...]
    """Which of the sources go on the word before."""
    targets_glued: tuple[bool, ...]
    """The same of the tokens."""
    scenes: tuple[Scene, ...]
    pause: float = 0.5
    """Seconds between two lines."""

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for scene in self.scenes for line in scene.lines)

    @property
    def until(self) -> float:
        """How long the film is, in seconds."""
        return self.scenes[-1].until

    @property
    def is_cross(self) -> bool:
        return self.tokens != self.sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """How long a line takes, and when its words begin, in seconds from its own beginning."""

    seconds: float
    words: tuple[tuple[int, float], ...] = ()


BEFORE, AFTER = 0.6, 0.9
"""Seconds of a scene before its first line and after its last, at the usual pace."""
USUAL_PAUSE = 0.5


def timed(script: Script, spoken: Sequence[Spoken], pause: float = USUAL_PAUSE) -> Script:
    """The script with times, one thing after another.

    Args:
        script: whose times do not count.
        spoken: for each line.
        pause: seconds between two lines; those between scenes grow with it.
    """
    now, scenes, voices = 0.0, [], iter(spoken)
    stretch = pause / USUAL_PAUSE
    for scene in script.scenes:
        at = now
        now += BEFORE * stretch
        lines = []
        for line in scene.lines:
            voice = next(voices)
            words = tuple((place, now + when) for place, when in voice.words)
            lines.append(replace(line, at=now, until=now + voice.seconds, words=words))
            now += voice.seconds + pause
        now += AFTER * stretch - pause
        scenes.append(replace(scene, lines=tuple(lines), at=at, until=now))
    return replace(script, scenes=tuple(scenes), pause=pause)


def with_detail(script: Script, detail: int) -> Script:
    """The script without lines of more detail, and without scenes that have no lines then."""
    scenes = (
        replace(scene, lines=tuple(line for line in scene.lines if line.detail <= detail))
        for scene in script.scenes
    )
    return replace(script, scenes=tuple(scene for scene in scenes if scene.lines))

"""A film, from what is wanted to the files."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pellucid.common.files import check_writable, written_whole
from pellucid.errors import ArgumentError
from pellucid.film import fonts, subtitles
from pellucid.film.encoding import write_gif, write_mp4
from pellucid.film.layout import stage
from pellucid.film.narration import write
from pellucid.film.script import USUAL_PAUSE, Script, timed, with_detail
from pellucid.film.shapes import Picture
from pellucid.film.sound import track
from pellucid.film.style import SIZES, Theme
from pellucid.film.voices import Silence, Sound, Voice
from pellucid.lessons.walk import Walk

Progress = Callable[[str, int, int], None]
"""Called with the name of what is done, how much of it is, and of how much."""
MINUTES = (0.1, 60)
"""How long a film may be."""
PAUSES = (0.15, 2.5)
"""The shortest and the longest pause between two lines, in seconds."""


HURRY = 1.2
"""How much faster a voice may become so that a film is not too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film before it is drawn: what is said, and how it sounds."""

    script: Script
    sounds: tuple[Sound, ...]
    has_sound: bool


def compose(
    walk: Walk,
    voice: Voice | None = None,
    *,
    query: int | None = None,
    finds: Sequence[int] = (),
    minutes: float | None = None,
    pace: float = 1.0,
) -> Film:
    """Write the script of a walk, and have it spoken.

    Args:
        walk: what it shows.
        voice: who speaks; nobody if None.
        query: as for `narration.write`.
        finds: likewise.
        minutes: how long it is to be, about; as long as it takes if None.
        pace: above 1 the voice is faster.
    """
    check_minutes(minutes)
    speaker = voice or Silence()
    sounds: dict[tuple[str, float], Sound] = {}

    def spoken(script: Script, pace: float) -> list[Sound]:
        for line in script.lines:
            if (line.text, pace) not in sounds:
                sounds[line.text, pace] = speaker.say(line.text, pace)
        return [sounds[line.text, pace] for line in script.lines]

    def at(script: Script, pause: float, pace: float) -> Script:
        return timed(script, [sound.spoken for sound in spoken(script, pace)], pause)

    def written(chapters: int, detail: int) -> Script:
        script = write(walk, query=query, finds=finds, chapters=chapters, brief=not detail)
        return with_detail(script, max(1, detail))

    pause = USUAL_PAUSE / pace
    if minutes is None:
        script = at(written(1, 2), pause, pace)
    else:
        wanted = 60 * minutes
        script = _fitting(
            written, lambda draft: at(draft, pause, pace).until, wanted, len(walk.tokens)
        )
        # What is too long without pauses is said faster, as far as one can listen to that.
        pace *= max(1.0, min(HURRY, at(script, PAUSES[0], pace).until / wanted))
        script = _stretched(script, lambda draft, pause: at(draft, pause, pace), wanted)
    return Film(script=script, sounds=tuple(spoken(script, pace)), has_sound=voice is not None)


def check_minutes(minutes: float | None) -> None:
    """Refuse a length that no film has.

    Raises:
        ArgumentError: it is outside what is allowed.
    """
    if minutes is not None and not MINUTES[0] <= minutes <= MINUTES[1]:
        raise ArgumentError(f"minutes must be from {MINUTES[0]} to {MINUTES[1]}, not {minutes}")


def check_installed() -> None:
    """Refuse, before any work, to make a film without what draws it and writes it.

    Raises:
        MissingExtraError: it is not installed.
    """
    for module in ("skia", "av", "fontpkg_inter"):
        fonts.needed(module)


def _fitting(
    made: Callable[[int, int], Script],
    length: Callable[[Script], float],
    wanted: float,
    most: int,
) -> Script:
    """The script whose length is nearest: first more detail, then more rows."""
    best = made(1, 0)
    for chapters, detail in (
        (1, 1),
        (1, 2),
        (1, 3),
        *((chapters, 3) for chapters in range(2, most + 1)),
    ):
        longer = made(chapters, detail)
        if abs(length(longer) - wanted) > abs(length(best) - wanted):
            break
        best = longer
    return best


def _stretched(script: Script, at: Callable[[Script, float], Script], wanted: float) -> Script:
    """With pauses that make it as long as it is to be, as far as pauses do."""
    low, high = PAUSES
    for _ in range(24):
        pause = (low + high) / 2
        low, high = (pause, high) if at(script, pause).until < wanted else (low, pause)
    return at(script, (low + high) / 2)


def pictured(
    film: Film,
    *,
    size: tuple[int, int] = SIZES["1080p"],
    theme: Theme = "light",
    captions: bool | None = None,
) -> Picture:
    """The picture of a film; with captions, unless told otherwise, where there is no sound."""
    return stage(
        film.script,
        fonts.width,
        size=size,
        theme=theme,
        captions=not film.has_sound if captions is None else captions,
    )


def beside(path: Path) -> dict[str, Path]:
    """The files of what is said, beside a film: kinds and paths."""
    return {kind: path.with_suffix(f".{kind}") for kind in ("vtt", "srt", "txt")}


def save(
    film: Film,
    output: Path | None,
    gif: Path | None = None,
    *,
    size: str = "1080p",
    theme: Theme = "light",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw a film, and write it with its subtitles and transcript; gives the files.

    Whatever happens meanwhile, no half file is left: the film grows in a file without a name.

    Args:
        film: what `compose` gives.
        output: the MP4.
        gif: the GIF, a third as large.
        size: one of `looks.SIZES`.
        theme: light or dark.
        overwrite: whether files of the same kinds may be replaced.
        progress: is told how far it is.
    """
    if size not in SIZES:
        raise ArgumentError(f"size must be one of {', '.join(SIZES)}, not '{size}'")

    def reporter(name: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, of: progress(name, done, of)

    wanted = {} if output is None else {output: "mp4"} | {p: k for k, p in beside(output).items()}
    for path, kind in (wanted | ({} if gif is None else {gif: "gif"})).items():
        check_writable(path, kind, overwrite=overwrite)
    _warn_of_missing(film.script)
    made: list[Path] = []
    if output is not None:
        samples = track(film.script, film.sounds) if film.has_sound else None
        picture = pictured(film, size=SIZES[size], theme=theme)
        with _nameless(output) as file:
            write_mp4(file, picture, samples, reporter("drawing the film"), film.script.title)
            _put(file, output, "mp4", overwrite)
        made.append(output)
    if gif is not None:
        wide, high = SIZES[size]
        part = 640 / max(wide, high)
        small = (round(wide * part / 2) * 2, round(high * part / 2) * 2)
        picture = pictured(film, size=small, theme=theme, captions=True)
        with _nameless(gif) as file:
            write_gif(file, picture, reporter("drawing the GIF"))
            _put(file, gif, "gif", overwrite)
        made.append(gif)
    if output is not None:
        texts = {
            "vtt": subtitles.to_vtt(film.script),
            "srt": subtitles.to_srt(film.script),
            "txt": subtitles.to_transcript(film.script),
        }
        for kind, path in beside(output).items():
            with written_whole(path, kind, overwrite=overwrite) as aside:
                aside.write_text(texts[kind], encoding="utf-8")
            made.append(path)
    return made


def _warn_of_missing(script: Script) -> None:
    """Say which letters of the sentence no font here has."""
    lacking = fonts.missing([script.title, *script.tokens, *script.sources])
    if lacking:
        warnings.warn(
            f"no font on this machine has {lacking[:20]}: boxes are drawn instead; install one "
            "that does, such as Noto's for that script",
            stacklevel=3,
        )


def _nameless(path: Path) -> IO[bytes]:
    """A file where the film will be, without a name if the system can do that: nothing is left of
    it when the process is killed.
    """
    return tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path)), prefix=".pellucid-")


def _put(file: IO[bytes], path: Path, kind: str, overwrite: bool) -> None:
    """Give a file without a name its place."""
    with written_whole(path, kind, overwrite=overwrite) as aside, aside.open("wb") as target:
        file.seek(0)
        with suppress(AttributeError):
            file.flush()
        shutil.copyfileobj(file, target, 2**20)

"""What is said, to read: WebVTT, SubRip, and a transcript."""

from textwrap import fill

from pellucid.film.script import Script

_WIDTH = 42
"""Letters in a line of a subtitle (BBC Subtitle Guidelines, "Line length": 37 to 42)."""


def to_vtt(script: Script) -> str:
    """WebVTT."""
    cues = (
        f"{_time(line.at, '.')} --> {_time(line.until, '.')}\n{_safe(fill(line.text, _WIDTH))}\n"
        for line in script.lines
    )
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(script: Script) -> str:
    """SubRip."""
    return "\n".join(
        f"{number}\n{_time(line.at, ',')} --> {_time(line.until, ',')}\n{fill(line.text, _WIDTH)}\n"
        for number, line in enumerate(script.lines, start=1)
    )


def to_transcript(script: Script) -> str:
    """The whole text, scene by scene, and where its numbers come from."""
    parts = [script.title, *script.about]
    for scene in script.scenes:
        minutes, seconds = divmod(round(scene.at), 60)
        title = scene.title or scene.name.capitalize()
        lines = " ".join(line.text for line in scene.lines)
        formula = f"{scene.formula}\n" if scene.formula else ""
        parts.append(f"\n{minutes}:{seconds:02} {title}\n{formula}{fill(lines, 100)}")
    return "\n".join(parts) + "\n"


def _time(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

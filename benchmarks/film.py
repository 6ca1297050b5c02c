"""What `pellucid film` must reach: each figure beside its bar.

    python -m benchmarks.film [--only SECTION] [--json FILE]

A minute of 1080p of the trained decoder in the package, narrated, from the sentence to the files;
every core.
"""

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import skia

from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.film import fonts, render, sound, voices
from pellucid.film.encoding import FRAMES, write_mp4
from pellucid.film.layout import stage
from pellucid.film.prompt import understood
from pellucid.film.style import SIZES
from pellucid.film.verify import verify
from pellucid.film.walk_sources import walk_wished

PROMPT = "show how 'it' finds 'the animal' in 'The animal did not cross because it was tired'"
MINUTES = 1.0


def whole() -> Iterator[Row]:
    """From the sentence to the files."""
    for size in ("1080p", "720p"):
        begun, worked = time.perf_counter(), time.process_time()
        walk, query, finds = walk_wished(understood(PROMPT))
        film = render.compose(walk, voices.open_voice(), query=query, finds=finds, minutes=MINUTES)
        with TemporaryDirectory() as folder:
            render.save(film, Path(folder) / "film.mp4", size=size)
            bytes_ = (Path(folder) / "film.mp4").stat().st_size
        seconds, worked = time.perf_counter() - begun, time.process_time() - worked
        setting = f"{size}, {film.script.until:.0f} s at {FRAMES} frames a second"
        yield Row(
            figure="a narrated film",
            setting=setting,
            ours=duration(seconds),
            value=seconds * 60 / film.script.until,
            unit="s a minute",
            bar=120 if size == "1080p" else None,
        )
        yield Row(
            figure="its processor time",
            setting=setting,
            ours=duration(worked),
            value=worked * 60 / film.script.until,
            unit="s a minute",
            bar=None,
        )
        yield Row(
            figure="its file",
            setting=setting,
            ours=f"{bytes_ / 1e6:.2f} MB",
            value=bytes_ / 1e6,
            unit="MB",
            bar=None,
        )


def parts() -> Iterator[Row]:
    """Where the time goes."""
    walk, query, finds = walk_wished(understood(PROMPT))
    begun = time.perf_counter()
    film = render.compose(walk, voices.open_voice(), query=query, finds=finds, minutes=MINUTES)
    spoken = time.perf_counter()
    picture = stage(film.script, fonts.width, size=SIZES["1080p"])
    track = sound.track(film.script, film.sounds)
    staged = time.perf_counter()
    with TemporaryDirectory() as folder, (Path(folder) / "film.mp4").open("w+b") as file:
        drawn = write_mp4(file, picture, track)
    written = time.perf_counter()
    assert not verify(walk, film.script, picture, track)
    checked = time.perf_counter()
    frames = round(picture.seconds * FRAMES)
    for name, seconds in (
        ("writing and speaking", spoken - begun),
        ("staging and sound", staged - spoken),
        (f"drawing and encoding, {drawn} of {frames} frames drawn", written - staged),
        ("checking every frame", checked - written),
    ):
        yield Row(
            figure=name, setting="1080p", ours=duration(seconds), value=seconds, unit="s", bar=None
        )


def memory() -> Iterator[Row]:
    """The most that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    yield Row(
        figure="peak memory",
        setting="of the process, model included",
        ours=f"{peak / 2**20:.0f} MiB",
        value=peak / 2**20,
        unit="MiB",
        bar=None,
    )


if __name__ == "__main__":
    run(
        "benchmarks.film",
        __doc__,
        f"skia {skia.__version__}, av {av.__version__}",
        (whole, parts, memory),
    )

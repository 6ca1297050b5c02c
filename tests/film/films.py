"""What the tests of films share: small films, and their files read again."""

from dataclasses import dataclass

import numpy as np
import pytest

from pellucid.film import fonts, render, voices
from pellucid.film.layout import stage
from pellucid.lessons.examples import walk_example

for module in ("skia", "av", "fontpkg_inter", "espeakng_loader"):
    pytest.importorskip(module, reason="needs the extra film", exc_type=ImportError)


SMALL = (320, 180)
SHAPES = {"wide": SMALL, "square": (180, 180), "upright": (180, 320)}


def composed(walk=None, *, spoken=True, minutes=0.5, **options):
    """The film of a walk, as short as it can be."""
    walk = walk or walk_example("poem")
    voice = voices.open_voice() if spoken else None
    return render.compose(walk, voice, minutes=minutes, **options)


def staged(film, size=SMALL, captions=False):
    return stage(film.script, fonts.width, size=size, captions=captions)


@dataclass
class Read:
    """A file that was decoded."""

    times: list
    frames: list
    samples: np.ndarray
    rate: int
    start: float
    """Seconds, of the sound."""
    codecs: dict


def read(path):
    """All frames, at a quarter of a byte's precision, and all sound."""
    import av

    times, frames, parts, starts = [], [], [], []
    with av.open(str(path)) as container:
        codecs = {stream.type: stream.codec_context.name for stream in container.streams}
        for frame in container.decode(video=0):
            times.append(float(frame.time))
            frames.append(frame.to_ndarray(format="gray"))
    rate = 0
    if "audio" in codecs:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                starts.append(float(frame.time))
                parts.append(frame.to_ndarray()[0])
                rate = frame.sample_rate
    samples = np.concatenate(parts) if parts else np.zeros(0)
    return Read(times, frames, samples, rate, starts[0] if starts else 0.0, codecs)

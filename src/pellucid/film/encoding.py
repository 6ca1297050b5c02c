"""Frames and sound as a file: MP4 with H.264 and AAC, or GIF without sound (PyAV)."""

from collections.abc import Callable
from fractions import Fraction
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pellucid.common.colours import Colour
from pellucid.film import fonts
from pellucid.film.drawing import Frame, Painter, frames
from pellucid.film.shapes import Picture
from pellucid.film.sound import RATE
from pellucid.film.voices import Samples

FRAMES = 30
"""A second, of MP4."""
GIF_FRAMES = 15
Progress = Callable[[int, int], None]
_BLOCK = 1024
"""Samples of a frame of AAC."""


def write_mp4(
    file: IO[bytes],
    picture: Picture,
    samples: Samples | None,
    progress: Progress | None = None,
    title: str = "",
) -> int:
    """Write the film; gives how many frames had to be drawn.

    Args:
        file: to write to, and to move about in.
        picture: what is seen.
        samples: what is heard, at `sound.RATE`; None = nothing.
        progress: called with the frames that are done, and all.
        title: what players call it.
    """
    av = fonts.needed("av")
    with av.open(file, "w", format="mp4") as container:
        container.metadata["title"] = title
        video = container.add_stream("libx264", rate=FRAMES)
        video.width, video.height, video.pix_fmt = picture.width, picture.height, "yuv420p"
        video.codec_context.time_base = Fraction(1, FRAMES)
        # Flat colours and still parts: even the quickest search finds them.
        video.options = {"preset": "veryfast", "crf": "20", "tune": "animation"}
        video.codec_context.color_range = 1
        video.codec_context.colorspace = 1
        video.codec_context.color_primaries = 1
        video.codec_context.color_trc = 1
        audio = None
        if samples is not None:
            audio = container.add_stream("aac", rate=RATE)
            audio.layout, audio.bit_rate = "mono", 96_000
        sound = _Sound(av, container, audio, samples)
        painter: Painter | None = None
        frame: Any = None
        total = round(picture.seconds * FRAMES)
        for number, painter, is_new in frames(picture, FRAMES):
            if is_new or frame is None:
                shown = av.VideoFrame.from_ndarray(painter.pixels, format="rgba")
                frame = shown.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES)
            container.mux(video.encode(frame))
            sound.write(until=(number + 1) / FRAMES)
            if progress is not None:
                progress(number + 1, total)
        container.mux(video.encode(None))
        sound.finish()
        return 0 if painter is None else painter.drawn


class _Sound:
    """Samples that go into the file beside the pictures that they belong to."""

    def __init__(self, av: Any, container: Any, stream: Any, samples: Samples | None) -> None:
        self._av, self._container, self._stream = av, container, stream
        self._samples, self._at = samples, 0

    def write(self, until: float) -> None:
        """All whole blocks before a time, in seconds."""
        if self._samples is None:
            return
        while self._at + _BLOCK <= min(until * RATE, len(self._samples)):
            self._put(self._samples[self._at : self._at + _BLOCK])

    def finish(self) -> None:
        """What is left."""
        if self._samples is None:
            return
        self.write(until=len(self._samples) / RATE)
        if self._at < len(self._samples):
            self._put(self._samples[self._at :])
        self._container.mux(self._stream.encode(None))

    def _put(self, block: Samples) -> None:
        frame = self._av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._container.mux(self._stream.encode(frame))
        self._at += len(block)


def write_gif(file: IO[bytes], picture: Picture, progress: Progress | None = None) -> int:
    """Write the film as a GIF, which plays on and on; gives how many frames were drawn."""
    av = fonts.needed("av")
    palette = _palette(picture)
    table = _nearest(palette)
    with av.open(file, "w", format="gif") as container:
        video = container.add_stream("gif", rate=GIF_FRAMES)
        video.width, video.height, video.pix_fmt = picture.width, picture.height, "pal8"
        total = round(picture.seconds * GIF_FRAMES)
        painter: Painter | None = None
        for number, painter, is_new in frames(picture, GIF_FRAMES):
            # A still frame is left out: the one before is shown for longer. The last one is
            # written, or the film would end with the last change.
            if is_new or number == total - 1:
                frame = av.VideoFrame.from_ndarray(
                    (_indexed(painter.pixels, table), palette), format="pal8"
                )
                frame.pts, frame.time_base = number, Fraction(1, GIF_FRAMES)
                container.mux(video.encode(frame))
            if progress is not None:
                progress(number + 1, total)
        container.mux(video.encode(None))
        return 0 if painter is None else painter.drawn


def _palette(picture: Picture) -> NDArray[np.uint8]:
    """(256, 4) alpha, red, green, blue: the colours of the marks, and steps from paper to each."""
    used: dict[Colour, float] = {}
    for mark in picture.marks:
        for colour in {pose.colour for pose in mark.poses} | {mark.under}:
            used[colour] = used.get(colour, 0) + 1
    common = sorted(used, key=lambda colour: -used[colour])[:32]
    entries: dict[Colour, None] = {picture.paper: None}
    for steps in (1, 2, 3, 4, 6, 8, 12):
        for colour in common:
            for step in range(1, steps + 1):
                red, green, blue = (
                    round(a + (b - a) * step / steps)
                    for a, b in zip(picture.paper, colour, strict=True)
                )
                if len(entries) < 256:
                    entries[(red, green, blue)] = None
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(entries), 1:] = np.array(list(entries), np.uint8)
    palette[len(entries) :, 1:] = picture.paper
    return palette


def _nearest(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(32, 32, 32): the place in the palette of each colour, five bits a part."""
    steps = np.arange(32) * 255 / 31
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    colours = palette[:, 1:].astype(np.float64)
    # (a - b)^2 = a^2 - 2ab + b^2, without the array of all differences.
    far = (colours**2).sum(1) - 2 * grid @ colours.T
    indices: NDArray[np.uint8] = far.argmin(axis=1).astype(np.uint8).reshape(32, 32, 32)
    return indices


def _indexed(pixels: Frame, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = (pixels[:, :, part] >> 3 for part in range(3))
    indices: NDArray[np.uint8] = table[red, green, blue]
    return indices

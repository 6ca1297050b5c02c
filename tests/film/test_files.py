"""The files of a film, read again: streams, times, movement, sound, subtitles."""

import re

import numpy as np
import pytest

from pellucid.errors import ArgumentError, ExistsError
from pellucid.film import render, style
from pellucid.film.encoding import FRAMES, GIF_FRAMES
from pellucid.film.shapes import same
from tests.film.films import SMALL, composed, read, staged


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A narrated film, as files and read again."""
    film = composed()
    path = tmp_path_factory.mktemp("film") / "poem.mp4"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.SIZES, "720p", SMALL)
        written = render.save(film, path, size="720p")
    return film, path, written, read(path)


def test_streams_and_duration(made):
    film, path, written, found = made
    assert written == [path, *(path.with_suffix(f".{kind}") for kind in ("vtt", "srt", "txt"))]
    assert found.codecs == {"video": "h264", "audio": "aac"}
    assert found.frames[0].shape == SMALL[::-1]
    assert len(found.frames) == round(film.script.until * FRAMES)
    np.testing.assert_allclose(np.diff(found.times), 1 / FRAMES, atol=1e-4)
    assert len(found.samples) / found.rate == pytest.approx(film.script.until, abs=0.1)


def moving_seconds(picture):
    """The whole seconds in which a mark is told to change."""
    seconds = set()
    for mark in picture.marks:
        for one, other in zip(mark.poses, mark.poses[1:], strict=False):
            if not same(one, other) and one.t >= 0 and other.t - one.t > 0.3:
                seconds.add(int(one.t + 0.1))
    return {one for one in seconds if one + 1 < picture.seconds}


def test_no_frame_is_black_and_nothing_is_frozen_that_should_move(made):
    film, _, _, found = made
    assert min(frame.mean() for frame in found.frames) > 128
    seconds = moving_seconds(staged(film))
    assert len(seconds) > 10
    for second in seconds:
        part = np.stack(found.frames[second * FRAMES : (second + 1) * FRAMES + FRAMES]).astype(
            float
        )
        assert np.abs(np.diff(part, axis=0)).max() > 8, second


def test_each_line_is_heard_when_its_subtitle_is_shown(made):
    film, path, _, found = made
    text = path.with_suffix(".vtt").read_text(encoding="utf-8")
    assert text.startswith("WEBVTT\n")
    cues = re.findall(r"(\d\d):(\d\d):([\d.]+) --> (\d\d):(\d\d):([\d.]+)\n(.+(?:\n.+)*)", text)
    assert [cue[-1].replace("\n", " ") for cue in cues] == [line.text for line in film.script.lines]
    loud = np.abs(found.samples) > 0.02
    for cue in cues:
        start, end = (60 * int(m) + float(s) for m, s in (cue[1:3], cue[4:6]))
        first = round((start - found.start - 0.12) * found.rate)
        part = loud[first : round((end - found.start) * found.rate)]
        begins = start - 0.12 + np.flatnonzero(part)[0] / found.rate
        assert begins == pytest.approx(start, abs=0.1)
    before = [0.0, *(line.until for line in film.script.lines)]
    for silent, line in zip(before, film.script.lines, strict=False):
        quiet = slice(
            *(round((t - found.start) * found.rate) for t in (silent + 0.1, line.at - 0.05))
        )
        assert not loud[quiet].any()


def test_srt_and_transcript_say_the_same(made):
    film, path, _, _ = made
    srt = path.with_suffix(".srt").read_text(encoding="utf-8")
    said = re.findall(r"^\d+\n[\d:,]+ --> [\d:,]+\n((?:.+\n)+)", srt, re.MULTILINE)
    assert [" ".join(one.split()) for one in said] == [line.text for line in film.script.lines]
    transcript = " ".join(path.with_suffix(".txt").read_text(encoding="utf-8").split())
    for line in film.script.lines:
        assert line.text in transcript
    assert "Example 'poem' of the students' notes" in transcript


def test_a_gif_moves_and_lasts_as_long(tmp_path):
    film = composed(spoken=False, minutes=0.1)
    path = tmp_path / "poem.gif"
    assert render.save(film, None, path) == [path]
    found = read(path)
    assert found.codecs == {"video": "gif"}
    assert found.times[-1] == pytest.approx(film.script.until, abs=2 / GIF_FRAMES)
    assert len(found.frames) > 50
    assert (
        max(
            np.abs(a.astype(int) - b).max()
            for a, b in zip(found.frames, found.frames[1:], strict=False)
        )
        > 50
    )


def test_without_sound_there_is_one_stream_and_captions(tmp_path, monkeypatch):
    monkeypatch.setitem(style.SIZES, "720p", SMALL)
    film = composed(spoken=False, minutes=0.1)
    path = tmp_path / "poem.mp4"
    render.save(film, path, size="720p")
    assert read(path).codecs == {"video": "h264"}
    words = " ".join(mark.text for mark in render.pictured(film).marks)
    assert film.script.lines[0].text in words


def test_what_is_there_stays(tmp_path):
    film = composed(spoken=False, minutes=0.1)
    there = tmp_path / "poem.gif"
    there.write_bytes(b"GIF89a")
    with pytest.raises(ExistsError, match="overwrite=True replaces it"):
        render.save(film, None, there)
    assert there.read_bytes() == b"GIF89a"
    assert list(tmp_path.iterdir()) == [there]


def test_a_size_that_there_is_not(tmp_path):
    with pytest.raises(
        ArgumentError, match="size must be one of 720p, 1080p, square, upright, not '4k'"
    ):
        render.save(composed(spoken=False, minutes=0.1), tmp_path / "a.mp4", size="4k")

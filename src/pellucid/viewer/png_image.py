"""A static picture of all heads, for notebooks without a kernel.

PNG by hand: Pillow would be a dependency in place of the ten lines of `_png`.
"""

import struct
import zlib
from math import isqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from pellucid.common import colours
from pellucid.viewer.catalogue import THUMBNAIL, Catalogue

Pixels = npt.NDArray[np.uint8]

MOST = 2**18
"""Pixels of all heads together, as long as each can be seen."""
SMALLEST, LARGEST = 12, 128
"""Pixels of a head, each way; a single head may take twice as many."""
ACROSS = 32
"""Heads in a row; a layer with more takes several rows."""
GAP = 3
MARKS = 4
"""Of the scale, beside that of zero; colours follow the square root, as in the page's overview."""
PAPER, INK = 254, 255
"""Colours that stand for no weight."""
GLYPHS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717",
    "6": "74757", "7": "71222", "8": "75757", "9": "75717", "d": "11757", "e": "25743",
    "x": "05250", "A": "25755", "C": "34443", "D": "65556", "E": "74647", "F": "74644",
    "G": "34553", "H": "55755", "I": "72227", "L": "44447", "N": "65555", "O": "25552",
    "R": "65655", "S": "34216", "T": "72222", "Y": "55222", "%": "51245",
}  # fmt: skip
"""What labels are written with, 3 x 5 pixels each: a digit per row, a bit per pixel."""
SCALE = "OF THE STRONGEST IN EACH HEAD"
"""What the numbers of the scale are shares of."""
SIZE = 2
"""Pixels of the picture for each of a letter."""


def still(catalogue: Catalogue) -> bytes:
    """The heads of the first text as a PNG: a row per layer, a column per head, with labels, and
    the scale of the colours below. Long texts are sampled.
    """
    count = sum(layer.heads for layer in catalogue.layers)
    side = max(SMALLEST, min(isqrt(MOST // count), LARGEST if count > 1 else 2 * LARGEST))
    rows = [
        (number, range(first, min(first + ACROSS, layer.heads)))
        for number, layer in enumerate(catalogue.layers)
        for first in range(0, layer.heads, ACROSS)
    ]
    layers = [f"{layer.stack}{layer.number}" for layer in catalogue.layers]
    line, step = 5 * SIZE + 2 * GAP, side + GAP
    left, above = _width(max("LAYER", *layers, key=len)) + 2 * GAP, 2 * line
    across = max(len(heads) for _, heads in rows)
    scale = _scale()
    high, wide = above + len(rows) * step, max(left + across * step, 2 * GAP + scale.shape[1])
    picture = np.full((high + 2 * GAP + len(scale), wide), PAPER, np.uint8)
    picture[high + GAP : high + GAP + len(scale), GAP : GAP + scale.shape[1]] = scale
    _write(picture, "HEAD", left, GAP)
    _write(picture, "LAYER", GAP, line)
    every = -(-_width(str(across)) // side)  # names that would run into each other are left out
    for head in range(0, across, every):
        _write(picture, str(head), left + head * step, line)
    for place, (number, heads) in enumerate(rows):
        top = above + place * step
        _write(picture, layers[number], GAP, top)
        thumbnails = catalogue.thumbnails(number, 0, min(side, THUMBNAIL))
        for column, head in enumerate(heads):
            start = left + column * step
            picture[top : top + side, start : start + side] = _shades(thumbnails[head], side)
    return _png(picture)


def _scale() -> Pixels:
    """The colours from the weakest weight that is shown to the strongest, with their numbers."""
    marks = [f"{100 * (place / MARKS) ** 2:.0f}%" for place in range(MARKS + 1)]
    part = max(map(_width, marks)) + 2 * GAP
    line, length = 5 * SIZE + GAP, MARKS * part
    wide = max(length + max(map(_width, marks)), _width(SCALE))
    pixels = np.full((3 * line, wide), PAPER, np.uint8)
    pixels[:line, :length] = np.linspace(0, PAPER - 1, length).round().astype(np.uint8)
    for place, mark in enumerate(marks):
        _write(pixels, mark, place * part, line + GAP)
    _write(pixels, SCALE, 0, 2 * line + GAP)
    return pixels


def _shades(weights: Tensor, side: int) -> Pixels:
    """(side, side) of a map, (rows, columns): the largest weights where it has more."""
    weights = weights.detach().float().cpu()
    high, wide = (min(side, size) for size in weights.shape)
    pooled = adaptive_max_pool2d(weights[None], (high, wide))[0]
    rows, columns = (torch.arange(side) * size // side for size in (high, wide))
    shades = (pooled[rows][:, columns] / pooled.max().clamp_min(1e-30)).sqrt().nan_to_num(0)
    pixels: Pixels = (shades * (PAPER - 1)).round().to(torch.uint8).numpy()
    return pixels


def _width(text: str) -> int:
    return 4 * SIZE * len(text)


def _write(picture: Pixels, text: str, left: int, top: int) -> None:
    for place, letter in enumerate(text):
        bits = [[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in GLYPHS.get(letter, "00000")]
        ink = np.kron(np.array(bits, bool), np.ones((SIZE, SIZE), bool))
        start = left + place * _width("0")
        part = picture[top : top + len(ink), start : start + ink.shape[1]]
        part[ink[: len(part), : part.shape[1]]] = INK


def _png(pixels: Pixels) -> bytes:
    """Of numbers of colours (PNG, third edition: IHDR, PLTE, IDAT, IEND)."""
    shades = [colours.shade(step / (PAPER - 1), colours.LIGHT) for step in range(PAPER)]
    palette = [*shades, colours.WHITE, colours.BLACK]
    height, width = pixels.shape
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # each begins with its filter: none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": bytes(part for colour in palette for part in colour),
        b"IDAT": zlib.compress(rows.tobytes(), 9),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )

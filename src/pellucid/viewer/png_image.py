"""A static picture of all heads, for notebooks without a kernel: PNG, without a library."""

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
DECADES = 4
"""Of the logarithmic scale, as on the page."""
PAPER, INK = 254, 255
"""Colours that stand for no weight."""
GLYPHS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717",
    "6": "74757", "7": "71222", "8": "75757", "9": "75717", "d": "11757", "e": "25743",
    "x": "05250",
}  # fmt: skip
"""The characters of layer and head labels, 3 x 5 pixels: a digit per row, a bit per pixel."""
SIZE = 2
"""Pixels of the picture for each of a letter."""


def still(catalogue: Catalogue) -> bytes:
    """The heads of the first text as a PNG: a row per layer, a column per head, with labels. Long
    texts are sampled.
    """
    count = sum(layer.heads for layer in catalogue.layers)
    side = max(SMALLEST, min(isqrt(MOST // count), LARGEST if count > 1 else 2 * LARGEST))
    rows = [
        (number, range(first, min(first + ACROSS, layer.heads)))
        for number, layer in enumerate(catalogue.layers)
        for first in range(0, layer.heads, ACROSS)
    ]
    layers = [f"{layer.stack}{layer.number}" for layer in catalogue.layers]
    left, above, step = _width(max(layers, key=len)) + 2 * GAP, 5 * SIZE + 2 * GAP, side + GAP
    across = max(len(heads) for _, heads in rows)
    picture = np.full((above + len(rows) * step, left + across * step), PAPER, np.uint8)
    every = -(-_width(str(across)) // side)  # names that would run into each other are left out
    for head in range(0, across, every):
        _write(picture, str(head), left + head * step, GAP)
    for place, (number, heads) in enumerate(rows):
        top = above + place * step
        _write(picture, layers[number], GAP, top)
        thumbnails = catalogue.thumbnails(number, 0, min(side, THUMBNAIL))
        for column, head in enumerate(heads):
            start = left + column * step
            picture[top : top + side, start : start + side] = _shades(thumbnails[head], side)
    return _png(picture)


def _shades(weights: Tensor, side: int) -> Pixels:
    """(side, side) of a map, (rows, columns): the largest weights where it has more."""
    weights = weights.detach().float().cpu()
    high, wide = (min(side, size) for size in weights.shape)
    pooled = adaptive_max_pool2d(weights[None], (high, wide))[0]
    rows, columns = (torch.arange(side) * size // side for size in (high, wide))
    pooled = pooled[rows][:, columns] / pooled.max().clamp_min(1e-30)
    shades = (1 + pooled.clamp_min(1e-30).log10() / DECADES).clamp(0, 1).nan_to_num(0)
    found: Pixels = (shades * (PAPER - 1)).round().to(torch.uint8).numpy()
    return found


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

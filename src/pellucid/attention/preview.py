"""A notebook's first look at attention weights: one small picture a head, a few kilobytes."""

import struct
import zlib
from base64 import b64encode
from html import escape

import torch
from torch import Tensor

SIDE = 128
"""Pixels that a picture takes on the page."""


def preview(caption: str, pictures: dict[str, Tensor]) -> str:
    """HTML with a heat map for each (rows, cols) picture of weights, dark where they are large."""
    figures = "".join(
        '<figure style="display:inline-block;margin:4px;text-align:center">'
        f'<img alt="attention weights, {escape(name)}" src="data:image/png;base64,{_png(weights)}" '
        f'style="width:{SIDE}px;height:{SIDE}px;image-rendering:pixelated;border:1px solid #8888">'
        f'<figcaption style="font:11px sans-serif">{escape(name)}</figcaption></figure>'
        for name, weights in pictures.items()
    )
    return f'<div>{figures}<div style="font:12px monospace">{escape(caption)}</div></div>'


def _png(weights: Tensor) -> str:
    """A greyscale PNG, base64; the square root lets small weights be seen beside large ones."""
    shade = (weights / weights.max().clamp_min(1e-12)).clamp(0, 1).sqrt().nan_to_num(0)
    pixels = (255 - 255 * shade).to(torch.uint8).cpu()
    height, width = pixels.shape
    rows = b"".join(b"\0" + bytes(row) for row in pixels.tolist())
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()

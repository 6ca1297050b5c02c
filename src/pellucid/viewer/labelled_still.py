"""The still picture of all heads, and below it the one with most to show, with its words."""

import re
import struct
from base64 import b64encode

import torch

from pellucid.common.drawing import to_png
from pellucid.errors import MissingExtraError
from pellucid.lessons.picture import to_svg
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.walk import Step, Walk, matrix
from pellucid.viewer.catalogue import Catalogue
from pellucid.viewer.telling import telling

MOST = 24
"""Words of a text that is labelled."""
GAP = 12


def labelled(catalogue: Catalogue, heads: bytes) -> tuple[bytes, int | None]:
    """A picture with words, and how wide it is to be shown; in pixels of its own if None.

    Only the picture of the heads where the text is long or its words are not known, or where the
    extra `png` is not installed.
    """
    shown = telling(catalogue, 0)["telling"]
    words = None if shown is None else catalogue.words(shown["layer"], 0, "keys")
    if words is None or len(words) > MOST:
        return heads, None
    layer, head = catalogue.layers[shown["layer"]], shown["head"]
    with torch.no_grad():
        weights = catalogue.layer(shown["layer"], 0, known=False)
        dense = weights[head].float().cpu()
        visible = weights.masked[head].cpu() > -torch.inf
    names = tuple(word.strip() or "·" for word in words)
    step = Step(
        name="softmax",
        formula="",
        sentence=Speaker(names, shown["token"]).softmax(dense),
        matrices=(matrix("weights", dense, names, names, kind="percent", visible=visible),),
    )
    title = f"Layer {layer.stack}{layer.number}, head {head}"
    about = ("Of the heads above, the one that has most to show.",)
    below = to_svg(Walk(title=title, about=about, tokens=names, steps=(step,)), styled=False)
    try:
        return _joined(heads, below)
    except MissingExtraError:
        return heads, None


def _joined(above: bytes, below: str) -> tuple[bytes, int]:
    """A PNG above an SVG, as a PNG."""
    wide, high = struct.unpack(">II", above[16:24])  # of IHDR
    size = re.search(r'width="([\d.]+)" height="([\d.]+)"', below)
    assert size is not None  # `frame` writes it
    width, height = max(wide, float(size[1])), high + GAP + float(size[2])
    image = b64encode(above).decode()
    whole = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'class="pellucid"><rect width="100%" height="100%" class="paper"/>'
        f'<image width="{wide}" height="{high}" image-rendering="optimizeSpeed" '
        f'href="data:image/png;base64,{image}"/>'
        f'<g transform="translate(0 {high + GAP})">{below}</g></svg>'
    )
    return to_png(whole), round(width)

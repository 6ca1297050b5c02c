"""The page as one file that works offline: it contains what its views request, or computes it.

Of a head it contains query and key (see computed_heads.py), from which the page computes every
weight; where it cannot, or where that takes less space, all tiles. Numbers are stored one after
another as float32, little-endian, in gzip and base64; offline_source.js reads them. Text is stored
as JSON in which no tag can begin.
"""

import json
import os
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from torch import Tensor

from pellucid.attention.limits import readable_bytes
from pellucid.common.drawing import safe
from pellucid.common.files import check_writable, write_whole
from pellucid.errors import ArgumentError, OutOfRangeError, TooLargeError
from pellucid.lens.recording import Recording
from pellucid.viewer import alignment
from pellucid.viewer.api import MOST_WORDS, Api
from pellucid.viewer.catalogue import THUMBNAIL, Catalogue, Layer, Place, Side, Volume
from pellucid.viewer.computed_heads import GZIP, ComputedHeads, Parts, described
from pellucid.viewer.requests import Answer, Numbers, parsed
from pellucid.viewer.tile_pyramid import SIDE, Reduce, top_level

LIMIT = 64 * 2**20
"""The default limit: bytes of numbers in a file, before compression."""


@dataclass(frozen=True)
class Wanted:
    """What a file contains."""

    catalogue: Catalogue
    heads: Collection[int] | None = None
    """The heads of each layer whose maps it contains; all if None."""

    def texts(self) -> Iterator[tuple[int, int, Layer]]:
        """(layer, item, what is known of the layer)"""
        for number, layer in enumerate(self.catalogue.layers):
            for item in range(layer.items):
                yield number, item, layer

    def maps(self) -> Iterator[tuple[Place, Layer]]:
        for number, item, layer in self.texts():
            for head in range(layer.heads):
                if self.heads is None or head in self.heads:
                    yield Place(number, item, head), layer

    @cached_property
    def computed_heads(self) -> ComputedHeads:
        return ComputedHeads(self.catalogue)

    @cached_property
    def computed(self) -> list[Place]:
        """The heads whose weights the page computes; of all others it contains the tiles."""
        heads = self.computed_heads
        return [
            place
            for place, layer in self.maps()
            if not heads.plan(place).reason
            and heads.bytes_of([place]) < 4 * sum(part.numbers for part in tiles_of(place, layer))
        ]


class Part(NamedTuple):
    """Some requests to one endpoint, as the page makes them."""

    paths: Iterable[str]
    numbers: int = 0
    """At most, in all answers together; JSON is short and not counted."""


Every = Callable[[Wanted], Iterator[Part]]


def _once(name: str) -> Every:
    return lambda wanted: iter([Part([name])])


def _words(side: Side) -> Every:
    def every(wanted: Wanted) -> Iterator[Part]:
        for number, item, layer in wanted.texts():
            firsts = range(0, getattr(layer, side), MOST_WORDS)
            name = f"{side}/{number}/{item}"
            yield Part([f"{name}?first={first}&count={MOST_WORDS}" for first in firsts])

    return every


def _thumbnails(wanted: Wanted) -> Iterator[Part]:
    for number, item, layer in wanted.texts():
        high, wide = (_cells(size, -(-size // THUMBNAIL)) for size in (layer.queries, layer.keys))
        yield Part([f"thumbnails/{number}/{item}"], layer.heads * high * wide)


def _tiles(wanted: Wanted) -> Iterator[Part]:
    computed = set(wanted.computed)
    for place, layer in wanted.maps():
        if place not in computed:
            yield from tiles_of(place, layer)


def tiles_of(place: Place, layer: Layer) -> Iterator[Part]:
    """All tiles of one head."""
    for level in range(top_level(layer.queries, layer.keys) + 1):
        high, wide = (_cells(size, 2**level) for size in (layer.queries, layer.keys))
        # A single weight is its own mean and maximum.
        ways = [f"?reduce={reduction}" for reduction in get_args(Reduce)] if level else [""]
        name = "/".join(map(str, ("tile", *place, level)))
        paths = (
            f"{name}/{row}/{column}{way}"
            for way in ways
            for row in range(_cells(high, SIDE))
            for column in range(_cells(wide, SIDE))
        )
        yield Part(paths, len(ways) * high * wide)


def _recordings(name: str) -> Every:
    def every(wanted: Wanted) -> Iterator[Part]:
        yield Part([f"{name}/{number}" for number in range(len(wanted.catalogue.volumes))])

    return every


def _alignments(wanted: Wanted) -> Iterator[Part]:
    pairs = {(layer.recording, item) for _, item, layer in wanted.texts() if layer.is_cross}
    yield Part([f"alignment/{recording}/{item}" for recording, item in sorted(pairs)])


def _aligned(wanted: Wanted) -> Iterator[Part]:
    for number, item, layer in wanted.texts():
        # There are no more words than tokens.
        if layer.is_cross and layer.queries * layer.keys <= alignment.MOST:
            yield Part([f"aligned/{number}/{item}"], layer.heads * layer.queries * layer.keys)


HELD: dict[str, Every] = {
    "about": _once("about"),
    "heads": _once("heads"),
    "examples": _once("examples"),
    "queries": _words("queries"),
    "keys": _words("keys"),
    "thumbnails": _thumbnails,
    "tile": _tiles,
    "written": _recordings("written"),
    "telling": _recordings("telling"),
    "alignment": _alignments,
    "aligned": _aligned,
}
"""The endpoints whose answers a file contains, and the requests to each."""
MADE = {"row", "column", "layer-row", "layer-column", "weights", "mean"}
"""Those that the page computes from single weights."""
LEFT_OUT = {
    *("lesson", "walk", "rollout-row", "rollout-column"),
    *("stations", "station", "station-file", "training"),
    *("ablated", "effects"),
}
"""Those that it cannot answer: there are too many requests, and each is slow or runs the model."""


def export(
    seen: Recording,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    heads: Iterable[int] | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> None:
    """`Recording.export`."""
    check_writable(path, "html", overwrite=overwrite)
    catalogue = Catalogue(Volume(seen, seen.model if title is None else title))
    some = None if heads is None else list(heads)
    page = exported(catalogue, heads=some, limit=LIMIT if limit is None else limit)
    write_whole(Path(path), page, "html", overwrite=overwrite)


def exported(
    catalogue: Catalogue,
    *,
    heads: Collection[int] | None = None,
    limit: int = LIMIT,
    step: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> str:
    """A standalone page, as HTML. It opens where a page of a server would.

    Args:
        catalogue: what it shows.
        heads: those of each layer whose maps it contains; all unless given.
        limit: bytes of numbers that it may contain, before compression.
        step: called with a description, the bytes done and the bytes in all.

    Raises:
        TooLargeError: it would contain more numbers.
        OutOfRangeError: there is no such head.
    """
    wanted = Wanted(catalogue, heads)
    most = max(layer.heads for layer in catalogue.layers)
    for head in heads or ():
        if not 0 <= head < most:
            raise OutOfRangeError(f"there is no head {head}; layers have at most {most} heads")
    of = held_bytes(wanted)
    if of > limit:
        reasons = {wanted.computed_heads.plan(place).reason for place, _ in wanted.maps()} - {""}
        why = "".join(
            f"; it cannot compute some weights, as {reason}" for reason in sorted(reasons)
        )
        raise TooLargeError(
            f"the page would contain {readable_bytes(of)} of numbers, more than the limit of "
            f"{readable_bytes(limit)}: select some --layers or --heads, record fewer tokens, or "
            f"raise --limit{why}"
        )
    api = Api(catalogue)
    answers: dict[str, Any] = {}
    packer = zlib.compressobj(wbits=GZIP)
    packed, count = [], 0
    parts, computed = Parts(), dict[str, Any]()
    shipped = wanted.computed_heads.bytes_of(wanted.computed)
    for number, place in enumerate(wanted.computed):
        step("computing weights", shipped * number // len(wanted.computed), of)
        computed["/".join(map(str, place))] = described(wanted.computed_heads, place, parts)
    for every in HELD.values():
        for part in every(wanted):
            for path in part.paths:
                try:
                    answer = ask(api, path)
                except ArgumentError as error:  # as of words that are not known
                    answers[path] = {"error": str(error)}
                    continue
                if isinstance(answer, Numbers):
                    values = as_bytes(answer.values)
                    entry = {"shape": list(answer.values.shape), "exact": answer.is_exact}
                    answers[path] = entry | {"at": count}
                    packed.append(packer.compress(values))
                    count += answer.values.numel()
                else:
                    answers[path] = {"json": answer}
                step("computing weights", shipped + 4 * count, of)
    packed.append(packer.flush())
    numbers = b64encode(b"".join(packed)).decode()
    best = answers["telling/0"]["json"]["telling"]
    is_held = best is None or heads is None or best["head"] in heads
    address = "" if is_held else "overview"  # "": where the page finds best
    data = {"address": address, "answers": answers, "numbers": numbers}
    data |= {"heads": computed, "parts": parts.packed}
    fill = {
        "title": safe(answers["about"]["json"]["title"]),
        "style": source("style.css"),
        "script": source("bundle.js").replace("</script", "<\\/script"),
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda name: fill[name[1]], source("file.html"))


def held_bytes(wanted: Wanted) -> int:
    """Bytes of all numbers in the file before compression, without computing any of them."""
    stored = 4 * sum(part.numbers for every in HELD.values() for part in every(wanted))
    return stored + wanted.computed_heads.bytes_of(wanted.computed)


def ask(api: Api, path: str) -> Answer:
    """The complete answer to a path with its options."""
    pending = api.ask(*parsed(path))
    answer = pending.find()
    while isinstance(answer, dict) and "done" in answer and answer["done"] != answer["of"]:
        answer = pending.find()
    return answer


def as_bytes(values: Tensor) -> bytes:
    """As the page reads numbers: float32, little-endian, row by row."""
    return np.ascontiguousarray(values.detach().float().cpu().numpy().astype("<f4")).tobytes()


def source(name: str) -> str:
    """A file of the page."""
    return (files("pellucid.viewer") / "page" / name).read_text(encoding="utf-8")


def _cells(size: int, cell: int) -> int:
    return -(-size // cell)

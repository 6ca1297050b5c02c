"""What `pellucid view` must reach: each figure beside its bar.

    python -m benchmarks.viewer [--only FIGURE] [--json FILE]

Recordings of queries and keys made up to look like a model's (what is near, one of some topics, a
first token that all look at), saved, opened by the command as a user would, and asked over HTTP in
the order in which the page asks; float32, every core.
"""

import functools
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
import uvicorn
from torch import Tensor

from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid import masks
from pellucid.attention.masks import Mask
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility
from pellucid.viewer.tile_pyramid import SIDE

LAYERS, HEADS, HEAD_DIM = 6, 12, 64
LONG, VERY_LONG = 16_384, 65_536
MASKS: dict[str, Mask | None] = {"bidirectional": None, "causal": masks.causal()}
OPENED, PANNED = 4, 24
"""Heads whose map is opened, and tiles that are then looked at in each."""
SHARE = 0.95
"""The share of tiles that must be there in time."""


def recording(layers: int, tokens: int, mask: Mask | None) -> Recording:
    draw = torch.Generator().manual_seed(tokens)
    normal = functools.partial(torch.randn, generator=draw)
    ids = torch.randint(30_000, (1, tokens), generator=draw)
    place = torch.arange(tokens)[:, None] * 0.5 ** torch.arange(1, 13)
    near = torch.cat([place.cos(), place.sin()], 1)

    def made() -> tuple[Tensor, Tensor]:
        topics = normal(HEADS, tokens // 64 + 1, 8).repeat_interleave(64, 1)[:, :tokens]
        weights = 2 * torch.rand(HEADS, 1, 3, generator=draw)
        shared = torch.cat(
            [near.expand(HEADS, -1, -1) * weights[..., :1], topics * weights[..., 1:2]], -1
        )
        query, key = (
            torch.cat([shared, normal(HEADS, tokens, HEAD_DIM - shared.shape[-1])], -1)
            for _ in range(2)
        )
        query[..., -1], key[:, 1:, -1] = 3, 0
        key[:, 0, -1] = 12 * weights[:, 0, 2]
        return query[None], key[None]

    records = []
    for layer in range(layers):
        query, key = made()
        records.append(
            Record(
                name=f"layers.{layer}.attention",
                queries=Pieces(query),
                keys=Pieces(key),
                visibility=Visibility(mask, None, (tokens, tokens), torch.device("cpu")),
                query_tokens=Pieces(ids, -1),
                key_tokens=Pieces(ids, -1),
                latest_queries=tokens,
            )
        )
    return Recording("Made", records)


@functools.cache
def place() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


@functools.cache
def saved(layers: int, tokens: int, kind: str) -> Path:
    path = Path(place().name) / f"{kind}-{tokens}.safetensors"
    recording(layers, tokens, MASKS[kind]).save(path)
    return path


class Place(NamedTuple):
    """A tile."""

    sheet: int
    head: int
    level: int
    row: int
    column: int


class Viewer:
    """A running `pellucid view`, asked as the page asks."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process, self.address = process, urlsplit(address)
        self._connection = self._connected()

    def _connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            str(self.address.hostname), self.address.port, timeout=600
        )

    def get(self, path: str) -> tuple[bytes, http.client.HTTPMessage]:
        try:
            self._connection.request("GET", f"/{path}")
            answer = self._connection.getresponse()
        except http.client.RemoteDisconnected:  # the server closes what is silent for a while
            self._connection.close()
            self._connection.request("GET", f"/{path}")
            answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body, answer.headers

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[0])

    def numbers(self, path: str) -> tuple[Tensor, bool]:
        body, headers = self.get(path)
        shape = [int(size) for size in headers["X-Shape"].split(",")]
        values = torch.from_numpy(np.frombuffer(body, "<f4").reshape(shape).copy())
        return values, headers["X-Exact"] == "1"

    def tile(self, at: Place, reduce: str = "max", exact: bool = True) -> tuple[Tensor, bool]:
        path = f"tile/{at.sheet}/0/{at.head}/{at.level}/{at.row}/{at.column}?reduce={reduce}"
        return self.numbers(path if exact else f"{path}&exact=0")

    @contextmanager
    def meanwhile(self, *paths: str) -> Iterator[threading.Thread]:
        """Something asked at the same time, whose answer nobody waits for in the end."""
        other = self._connected()

        def ask() -> None:
            try:
                for path in paths:
                    other.request("GET", f"/{path}")
                    other.getresponse().read()
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                pass  # hung up

        thread = threading.Thread(target=ask)
        thread.start()
        yield thread
        if other.sock is not None and thread.is_alive():
            other.sock.shutdown(2)
        thread.join()
        other.close()

    def peak(self) -> int:
        """The most resident memory of the server so far, bytes (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def viewing(path: Path) -> Iterator[Viewer]:
    command = [sys.executable, "-m", "pellucid", "view", str(path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Viewer(process, process.stdout.readline().strip())
        finally:
            process.send_signal(signal.SIGINT)


def code_of(viewer: Viewer, path: str = "", seen: frozenset[str] = frozenset()) -> dict[str, int]:
    """What a browser loads for the page, and how many bytes each answer takes, headers included."""
    body, headers = viewer.get(path)
    found = {path: len(body) + len(bytes(headers))}
    text = body.decode()
    linked = r'(?:href|src)="(page/[^"]+)"' if not path else r'(?:from|import)\s*\(?\s*"\./([^"]+)"'
    for name in re.findall(linked, text) if path in ("",) or path.endswith(".js") else ():
        other = name if not path else f"page/{name}"
        if other not in found and other not in seen:
            found |= code_of(viewer, other, seen | found.keys())
    return found


def top_level(tokens: int) -> int:
    return (-(-tokens // SIDE) - 1).bit_length()


def opened(viewer: Viewer, layers: int, tokens: int) -> float:
    """Seconds to the overview's pictures and the first one of a map, heads being measured."""
    start = time.perf_counter()
    viewer.json("about")
    with viewer.meanwhile("heads"):
        for sheet in range(layers):
            values, _ = viewer.numbers(f"thumbnails/{sheet}/0")
            assert values.shape == (HEADS, 64, 64)
    viewer.tile(Place(0, 1, top_level(tokens), 0, 0), exact=False)
    return time.perf_counter() - start


class Pans(NamedTuple):
    """Seconds, a tile each."""

    first: list[float]
    """To something to look at."""
    exact: list[float]
    """To all of it."""
    again: list[float]
    """Asked another time."""


def pan(viewer: Viewer, layers: int, tokens: int, heads: int, tiles: int) -> Pans:
    """Look at random tiles of some heads, a map each: the whole comes first, as on the page."""
    drawn, top = random.Random(0), top_level(tokens)
    found = Pans([], [], [])
    seen = []
    for number in range(heads):
        sheet, head = drawn.randrange(layers), (2 + number) % HEADS
        whole = Place(sheet, head, top, 0, 0)
        viewer.tile(whole, exact=False)
        path = f"tile/{sheet}/0/{head}/{top}/0/0?reduce=max"
        with viewer.meanwhile(path) as making:
            looked_at: set[Place] = set()
            while len(looked_at) < tiles:
                level = drawn.randrange(top)
                most = 2 ** (top - level)
                at = Place(sheet, head, level, drawn.randrange(most), drawn.randrange(most))
                if at in looked_at:
                    continue
                looked_at.add(at)
                start = time.perf_counter()
                _, is_exact = viewer.tile(at, exact=False)
                found.first.append(time.perf_counter() - start)
                if not is_exact:
                    viewer.tile(at)
                found.exact.append(time.perf_counter() - start)
            making.join()
        seen += sorted(looked_at)
    for at in seen[-2 * tiles :]:
        start = time.perf_counter()
        _, is_exact = viewer.tile(at, exact=False)
        found.again.append(time.perf_counter() - start)
        assert is_exact
    return found


def late(times: list[float]) -> float:
    return float(np.quantile(times, SHARE))


def told(times: list[float]) -> str:
    return f"median {duration(float(np.median(times)))}, most {duration(max(times))}"


def page() -> Iterator[Row]:
    with viewing(saved(LAYERS, LONG, "causal")) as viewer:
        files = code_of(viewer)
    assert len(files) > 3
    yield Row(
        figure="code of the first view",
        setting="bytes sent for the page, its modules and its style",
        ours=f"{len(files)} answers",
        value=sum(files.values()) / 1e3,
        unit="kB",
        bar=300,
    )


def first_picture() -> Iterator[Row]:
    for kind in MASKS:
        with viewing(saved(LAYERS, LONG, kind)) as viewer:
            took = opened(viewer, LAYERS, LONG)
        yield Row(
            figure="first picture",
            setting=f"{LONG:,} tokens, {kind}: {LAYERS * HEADS} thumbnails and a map",
            ours=duration(took),
            value=took,
            unit="s",
            bar=1.5,
        )


def panning() -> Iterator[Row]:
    for kind in MASKS:
        with viewing(saved(LAYERS, LONG, kind)) as viewer:
            found = pan(viewer, LAYERS, LONG, OPENED, PANNED)
        yield from of_pans(found, f"{LONG:,} tokens, {kind}", 150, 20)


def of_pans(found: Pans, setting: str, soon: float | None, again: float | None) -> Iterator[Row]:
    parts = (
        ("a tile while panning", found.first, soon),
        ("an exact tile while panning", found.exact, None),
        ("a tile asked for again", found.again, again),
    )
    for figure, times, bar in parts:
        yield Row(
            figure=f"{figure}, {SHARE:.0%} within",
            setting=setting,
            ours=told(times),
            value=late(times) * 1e3,
            unit="ms",
            bar=bar,
        )


def very_long() -> Iterator[Row]:
    for kind in MASKS:
        setting = f"{VERY_LONG:,} tokens, {kind}, a layer of {HEADS} heads"
        with viewing(saved(1, VERY_LONG, kind)) as viewer:
            took = opened(viewer, 1, VERY_LONG)
            found = pan(viewer, 1, VERY_LONG, 1, PANNED)
            peak = viewer.peak()
        yield Row(
            figure="first picture",
            setting=setting,
            ours=duration(took),
            value=took,
            unit="s",
            bar=None,
        )
        yield from of_pans(found, setting, None, None)
        yield Row(
            figure="memory of the server",
            setting=setting,
            ours=f"{peak / 1e9:.2f} GB, the recording included",
            value=peak / 1e9,
            unit="GB",
            bar=3,
        )


def truth() -> Iterator[Row]:
    """Tiles beside `weights[...]` of the recording, opened here."""
    drawn = random.Random(1)
    for kind in MASKS:
        path = saved(LAYERS, LONG, kind)
        records = Recording.load(path).latest()
        different, furthest = 0, 0.0
        with viewing(path) as viewer:
            for level in [0] * 12 + [1, 2, 3, 4, 5]:
                most = 2 ** (top_level(LONG) - level)
                row = drawn.randrange(most)
                column = drawn.randrange(row + 1) if kind == "causal" else drawn.randrange(most)
                at = Place(drawn.randrange(LAYERS), drawn.randrange(HEADS), level, row, column)
                weights = records[at.sheet].weights.head(0, at.head)
                cell = 2**level
                cols = slice(column * SIDE * cell, (column + 1) * SIDE * cell)
                if level == 0:
                    rows = slice(row * SIDE, (row + 1) * SIDE)
                    different += int((viewer.tile(at)[0] != weights[0, rows, cols]).sum())
                    continue
                means, maxima = [], []
                step = max(1, 256 // cell) * cell
                for start in range(row * SIDE * cell, (row + 1) * SIDE * cell, step):
                    some = weights[0, start : start + step, cols].double()
                    squares = some.unflatten(1, (-1, cell)).unflatten(0, (-1, cell))
                    means.append(squares.mean((1, 3)))
                    maxima.append(squares.amax((1, 3)))
                for reduce, expected in (("mean", torch.cat(means)), ("max", torch.cat(maxima))):
                    shown = viewer.tile(at, reduce)[0].double()
                    apart = (shown - expected).abs() / expected.clamp_min(1e-30)
                    furthest = max(furthest, float(apart.max()))
        yield Row(
            figure="single weights that differ from weights[...] in any bit",
            setting=f"{LONG:,} tokens, {kind}",
            ours=f"of {12 * SIDE**2:,}",
            value=different,
            unit="",
            bar=0,
        )
        yield Row(
            figure="means and maxima beside those of weights[...] in float64",
            setting=f"{LONG:,} tokens, {kind}",
            ours="relative, the furthest",
            value=furthest,
            unit="",
            bar=1e-5,
        )


SECTIONS = (page, first_picture, panning, very_long, truth)


if __name__ == "__main__":
    run("benchmarks.viewer", __doc__, f"uvicorn {uvicorn.__version__}", SECTIONS)

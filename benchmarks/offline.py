"""What `pellucid export` must reach: each figure beside its bar.

    python -m benchmarks.offline [--only SECTION] [--json FILE]

A layer whose heads are made up as in benchmarks.viewer, exported with one head's map, and opened
from disk in a Chromium without a graphics card. Its worker is asked as the page asks it: random
tiles of all levels, first for something to look at and then exactly.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from playwright.sync_api import Page
from torch import Tensor

from benchmarks.command import run
from benchmarks.frames import chromium
from benchmarks.heart import Row, duration
from benchmarks.viewer import LONG, MASKS, SHARE, late, place, recording, told, top_level
from pellucid.lens.record import Record
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.html_export import exported, source
from pellucid.viewer.tile_pyramid import SIDE

SHORT = 2048
HEAD = 3
TILES = 24
"""Of each level."""
UNIT = 2.0**-11
"""The unit roundoff of float16."""
WORKERS = (
    "window.Worker = class extends Worker { constructor(url) { super(url); window.one = this; } }"
)
ASK = """async (question) => {
  const start = performance.now();
  const answer = await new Promise((found) => {
    const hear = ({ data }) => {
      if (data.id !== question.id) return;
      one.removeEventListener("message", hear);
      found(data);
    };
    one.addEventListener("message", hear);
    one.postMessage(question);
  });
  const took = performance.now() - start;
  return { took, values: Array.from(answer.values), shape: answer.shape, isExact: answer.isExact };
}"""


class File(NamedTuple):
    path: Path
    record: Record
    seconds: float


@cache
def page_of(tokens: int, kind: str) -> File:
    """An exported page with the map of one head."""
    path = Path(place().name) / f"{kind}-{tokens}.html"
    seen = recording(1, tokens, MASKS[kind])
    start = time.perf_counter()
    path.write_text(exported(Catalogue(Volume(seen, "Made")), heads=[HEAD]), encoding="utf-8")
    return File(path, seen.latest()[0], time.perf_counter() - start)


@contextmanager
def opened(path: Path) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        page.add_init_script(WORKERS)
        page.goto(path.as_uri())
        page.get_by_role("main").wait_for()
        yield page


class Asked:
    """Questions, each with a number of its own."""

    def __init__(self, page: Page) -> None:
        self._page, self._last = page, 10**6

    def tile(self, *tile: int, draft: bool = False) -> tuple[float, Tensor, bool]:
        """Seconds, the cells and whether they are exact."""
        self._last += 1
        question = {"id": self._last, "head": f"0/0/{HEAD}", "tile": tile, "reduce": "max"}
        found: dict[str, Any] = self._page.evaluate(ASK, question | {"isDraft": draft})
        values = torch.tensor(found["values"], dtype=torch.float64).reshape(found["shape"])
        return found["took"] / 1e3, values, found["isExact"]


def size() -> Iterator[Row]:
    code = sum(len(source(name).encode()) for name in ("bundle.js", "style.css"))
    for tokens in (SHORT, LONG):
        for kind in MASKS:
            file = page_of(tokens, kind)
            yield Row(
                figure="size of a file with the map of one head",
                setting=f"{tokens:,} tokens, {kind}",
                ours=f"{code / 1e6:.2f} MB of it code; exported in {duration(file.seconds)}",
                value=file.path.stat().st_size / 1e6,
                unit="MB",
                bar=5 if tokens == LONG else None,
            )


def tiles() -> Iterator[Row]:
    drawn = random.Random(0)
    for tokens in (SHORT, LONG):
        for kind in MASKS:
            top = top_level(tokens)
            soon, exact = list[float](), list[list[float]]()
            with opened(page_of(tokens, kind).path) as page:
                asked = Asked(page)
                first, *_ = asked.tile(top, 0, 0, draft=True)
                for level in range(top + 1):
                    most = -(-tokens // (SIDE << level))
                    places = [(row, column) for row in range(most) for column in range(most)]
                    exact.append([])
                    for spot in drawn.sample(places, min(TILES, len(places))):
                        took, _, is_exact = asked.tile(level, *spot, draft=True)
                        soon.append(took)
                        exact[-1].append(took + (0 if is_exact else asked.tile(level, *spot)[0]))
            setting = f"{tokens:,} tokens, {kind}"
            yield Row(
                figure=f"a tile, {SHARE:.0%} within",
                setting=setting,
                ours=f"{told(soon)}; the first of a head {duration(first)}",
                value=late(soon) * 1e3,
                unit="ms",
                bar=50,
            )
            yield Row(
                figure="an exact tile",
                setting=f"{setting}, the slowest",
                ours="medians by level: " + ", ".join(duration(float(np.median(x))) for x in exact),
                value=max(map(max, exact)),
                unit="s",
                bar=None,
            )


def truth() -> Iterator[Row]:
    """Single weights beside those of the recording in float64, in shares of what is allowed."""
    drawn = random.Random(1)
    for kind in MASKS:
        path, record, _ = page_of(LONG, kind)
        weights = record.weights.head(0, HEAD).to(torch.float64)
        query, key = (x[0, HEAD].double() for x in (record.query, record.key))
        furthest = 0.0
        with opened(path) as page:
            asked = Asked(page)
            for _ in range(12):
                row, column = (drawn.randrange(LONG // SIDE) for _ in range(2))
                rows, cols = (slice(at * SIDE, (at + 1) * SIDE) for at in (row, column))
                expected = weights.rows(rows)[0]
                # By how much scores may be off, and with them the logsumexp of their row.
                apart = (query[rows].abs() @ key.abs().mT) * weights.scale * (2 * UNIT + UNIT**2)
                apart = apart.masked_fill(expected == 0, 0)
                allowed = torch.expm1(apart + apart.amax(1, keepdim=True)) + 1e-5
                budget = (expected * allowed + 1e-9)[:, cols]
                off = (asked.tile(0, row, column)[1] - expected[:, cols]).abs() / budget
                furthest = max(furthest, float(off.max()))
        yield Row(
            figure="weights beside those of the library in float64",
            setting=f"{LONG:,} tokens, {kind}: {12 * SIDE**2:,} of them",
            ours="in shares of what rounding to float16 allows",
            value=furthest,
            unit="",
            bar=1,
        )


if __name__ == "__main__":
    run("benchmarks.offline", __doc__, f"playwright {version('playwright')}", (size, tiles, truth))

"""How smoothly the page moves: no frame may take over 50 ms.

    python -m benchmarks.frames [--only SECTION] [--json FILE]

A Chromium that draws without a graphics card opens what `pellucid view` shows of one layer of 12
heads: the map of one at 16,384 tokens, zoomed and moved with the mouse for 10 s, and the text of
65,536, scrolled for 10 s. A frame is the time between two calls of requestAnimationFrame: whatever
else the machine does makes it longer. So beside it stands how long a processor worked on the
longest task of the page's own thread, by the recorded trace; what that was is said on stderr. The
traces are kept in the directory that PELLUCID_TRACES names, for the performance panel of Chromium.
"""

import json
import math
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlunsplit

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.command import run
from benchmarks.heart import Row
from benchmarks.viewer import LONG, VERY_LONG, saved, viewing

SECONDS = 10
BAR = 50.0
"""Milliseconds."""
WIDTH, HEIGHT = 1280, 800
SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CATEGORIES = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "v8"]
WATCH = """
  window.frames_ = [];
  let before = 0;
  const next = (now) => {
    if (before) window.frames_.push(now - before);
    before = now;
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Milliseconds each."""

    frames: list[float]
    tasks: list[tuple[float, float, str]]
    """Of the page's main thread, the longest first: how long the processor worked on each, how
    long it took, and what took most of it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    flags = ["--disable-gpu"] + ["--no-sandbox"] * (os.getuid() == 0)
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, SYSTEM)), None)
        one = playwright.chromium.launch(executable_path=path, args=flags)
        yield one
        one.close()


def record(tokens: int, view: str, use: Callable[[Page, float], None]) -> Recorded:
    """Open a view, use it for a while and say how it went."""
    with (
        viewing(saved(1, tokens, "causal")) as viewer,
        chromium() as browser,
        TemporaryDirectory() as scratch,
    ):
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"{urlunsplit(viewer.address)}#{view}?layer=0&head=3")
        page.get_by_role("main").locator("canvas, button").first.wait_for()
        page.wait_for_timeout(3000)  # what opening costs is no frame of using it
        page.evaluate(WATCH)
        path = Path(os.environ.get("PELLUCID_TRACES", scratch)) / f"{view}.json"
        browser.start_tracing(page=page, path=path, categories=CATEGORIES)
        use(page, time.perf_counter() + SECONDS)
        browser.stop_tracing()
        frames = page.evaluate("frames_")
        return Recorded(frames=frames, tasks=tasks(json.loads(path.read_text())))


def tasks(trace: dict[str, Any]) -> list[tuple[float, float, str]]:
    """Those of the thread that ran the page."""
    events = [one for one in trace["traceEvents"] if one.get("ph") == "X" and "tdur" in one]
    busy: dict[tuple[int, int], int] = defaultdict(int)
    for one in events:
        if one["name"] == "FunctionCall":
            busy[one["pid"], one["tid"]] += one["tdur"]
    main = max(busy, key=lambda thread: busy[thread])
    here = [one for one in events if (one["pid"], one["tid"]) == main]
    found = []
    for task in here:
        if not task["name"].endswith("ControllerImpl::RunTask"):
            continue
        what = ""
        if task["tdur"] > 500 * BAR:
            end = task["ts"] + task["dur"]
            within = [one for one in here if task["ts"] <= one["ts"] < end and one is not task]
            most = sorted(within, key=lambda one: -one["tdur"])[:6]
            what = ", ".join(f"{one['name']} {one['tdur'] / 1000:.0f} ms" for one in most)
        found.append((task["tdur"] / 1000, task["dur"] / 1000, what))
    return sorted(found, reverse=True)


def rows(figure: str, setting: str, found: Recorded) -> Iterator[Row]:
    ordered = sorted(found.frames)
    over = sum(one > BAR for one in ordered)
    work, took, _ = found.tasks[0]
    for worked, lasted, what in found.tasks[:5]:
        if what:
            print(f"{figure}: work of {worked:.0f} ms in {lasted:.0f} ms: {what}", file=sys.stderr)
    yield Row(
        figure=f"{figure}: the longest frame",
        setting=setting,
        ours=f"{over} of {len(ordered):,} over {BAR:.0f} ms",
        value=ordered[-1],
        unit="ms",
        bar=BAR,
    )
    yield Row(
        figure=f"{figure}: the most work at once",
        setting="what the page's own thread needs of a processor",
        ours=f"a task of {took:.0f} ms",
        value=work,
        unit="ms",
        bar=BAR,
    )


def pan_and_zoom(page: Page, end: float) -> None:
    """In circles over the map, deeper and out again."""
    box = page.get_by_role("main").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    step = 0
    while time.perf_counter() < end:
        step += 1
        if step % 80 < 40:
            page.mouse.wheel(0, -120 if step % 400 < 240 else 160)
        elif step % 80 == 40:
            page.mouse.down()
        elif step % 80 == 79:
            page.mouse.up()
            page.mouse.move(*middle)
        else:
            turn = step / 10
            across, down = 260 * math.cos(turn), 200 * math.sin(turn)
            page.mouse.move(middle[0] + across, middle[1] + down)


def scroll(page: Page, end: float) -> None:
    """Down, fast and slowly, with a jump now and then."""
    page.mouse.move(WIDTH / 2, HEIGHT / 2)
    step = 0
    while time.perf_counter() < end:
        step += 1
        page.mouse.wheel(0, 2500 if step % 100 == 0 else 400 if step % 40 < 20 else 60)


def moving_a_map() -> Iterator[Row]:
    setting = f"{LONG:,} tokens, panned and zoomed for {SECONDS} s"
    yield from rows("map", setting, record(LONG, "map", pan_and_zoom))


def scrolling_a_text() -> Iterator[Row]:
    setting = f"{VERY_LONG:,} tokens, scrolled for {SECONDS} s"
    yield from rows("text", setting, record(VERY_LONG, "text", scroll))


SECTIONS = (moving_a_map, scrolling_a_text)


if __name__ == "__main__":
    run("benchmarks.frames", __doc__, f"{WIDTH} x {HEIGHT} pixels", SECTIONS)

"""A real browser before a real server, and pages on which nothing may go wrong unseen.

    def test_something(shown, opened):
        page = opened(shown("decoder"), "map", "layer=1&head=2", color_scheme="dark")
        page.get_by_role("button", name="Zoom in").click()

With PELLUCID_PICTURES=DIRECTORY a picture of each page is kept at the end of its test.
"""

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

from pellucid.lens.recording import Recording
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.server import Server
from tests.viewer import recordings

MAKERS: dict[str, Callable[[], Recording | Volume]] = {
    "decoder": recordings.decoder,
    "encoder": recordings.encoder,
    "written": recordings.written,
    "translated": recordings.translated,
    "both": recordings.both,
    "batch": recordings.batch,
    "long": recordings.made,
}
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
"""The script that checks a page for accessibility."""
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
OF_COLOUR = ["color-contrast", "link-in-text-block"]
"""Those of its rules within LEVELS that look at colours."""
# What is right is counted, not told: to describe it costs several times as much as to find it.
CHECK = """
(runOnly) => axe.run({ runOnly, resultTypes: ["violations"] }).then(({ passes, violations }) => (
  { passed: passes.length, violations }
))
"""
SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Each new window would load two pages of Chromium's own below its address bar, in 200 scripts: half
# of the work of all that is tested here.
OF_THE_ADDRESS_BAR = ["WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup"]
# Who names features on the command line names all: these, Playwright would have disabled.
OF_PLAYWRIGHT = [
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
]
FLAGS = [
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-dev-shm-usage",
    f"--disable-features={','.join([*OF_THE_ADDRESS_BAR, *OF_PLAYWRIGHT])}",
]
PATIENCE = 30_000
"""Milliseconds until a page that does not do what it should has failed."""
SETTLED = 100
"""Milliseconds without a request after which a page has all it asks for."""
# Of a view nothing is left when the address says another. But the frame around it, where menus
# open and themes change, stays: a page on which it was used is not used again.
WATCH = """
addEventListener('securitypolicyviolation', (e) => console.error('CSP: ' + e.blockedURI));
for (const kind of ['click', 'input']) addEventListener(kind, ({ target }) => {
  if (target.closest?.('header') && !target.closest('.controls')) globalThis.isUsed = true;
}, true);
"""
PHONE = {
    "viewport": {"width": 844, "height": 390},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
"""One on its side."""


# Of the package: while a browser is there, its thread has an event loop that others would meet.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The machine's Chromium or Chrome, or else the one that `playwright install` brought."""
    found = next(filter(None, map(shutil.which, SYSTEM)), None)
    flags = [*FLAGS, "--no-sandbox"] if os.getuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        try:
            one = playwright.chromium.launch(executable_path=found, args=flags)
        except Error as error:
            if found is not None:
                raise
            pytest.skip(f"there is no browser: neither {' nor '.join(SYSTEM)}, and {error}"[:300])
        yield one
        one.close()


class Shown:
    """A recording on a server of its own."""

    stays = False
    """Whether it is there as long as the browser is: no other gets its address."""

    def __init__(self, *volumes: Volume, models: Mapping[str, str] | None = None) -> None:
        self.seen = [one.seen for one in volumes]
        self.catalogue = Catalogue(*volumes)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        app = Server(self.catalogue, models=models).app
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, args=([listening],))
        self._thread.start()

    def weights(self, layer: int, head: int) -> Any:
        """(queries, keys) of one head, as the library gives them."""
        return [one for seen in self.seen for one in seen.latest()][layer].weights[0, head]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="package")
def shown() -> Iterator[Callable[..., Shown]]:
    """A function from names of recordings to a server that shows them; it is started once."""
    started: dict[tuple[str, ...], Shown] = {}
    made: dict[str, Volume] = {}

    def show(*names: str) -> Shown:
        for name in names:
            if name not in made:
                one = MAKERS[name]()
                made[name] = one if isinstance(one, Volume) else Volume(one, name)
        if names not in started:
            started[names] = Shown(*(made[name] for name in names))
            started[names].stays = True
        return started[names]

    yield show
    for one in started.values():
        one.stop()


class Watched:
    """A page, what went wrong on it, and whether it still waits for something."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self.said, self._origin = page, list[str](), origin
        self._waiting: set[Request] = set()
        self._asked_for = 0
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "console": self._console,
            "pageerror": lambda error: self.said.append(f"uncaught: {error}"),
            "crash": lambda _: self.said.append("the page crashed"),
            "request": self._asked,
            "requestfinished": lambda one: self._waiting.discard(one),
            "requestfailed": lambda one: self._waiting.discard(one),
        }
        for event, handler in self._handlers.items():
            page.on(event, handler)

    def leave(self) -> None:
        """Watch no more."""
        for event, handler in self._handlers.items():
            self.page.remove_listener(event, handler)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        self._waiting.add(request)
        self._asked_for += 1
        if not request.url.startswith((self._origin, "data:", "blob:")):
            self.said.append(f"asks elsewhere: {request.url}")

    def settle(self) -> None:
        """Until nothing is asked for a while, and the page has had its turn meanwhile."""
        end = time.monotonic() + PATIENCE / 1000
        asked = -1
        while self._waiting or asked != self._asked_for:
            asked = self._asked_for
            self.page.wait_for_timeout(SETTLED)
            self.page.evaluate("new Promise((go) => requestAnimationFrame(() => setTimeout(go)))")
            if time.monotonic() > end:
                raise AssertionError(f"still waiting for {[one.url for one in self._waiting]}")


LOADED_ANEW = ("lesson", "learn")
"""Views that keep more than their address says."""
MOST_FREE = 8
"""Windows of one kind that are kept for later."""


class Windows:
    """Windows of a browser, each with a profile of its own.

    To open one costs more than most of what a test does in it, and so does to load a page: each is
    used again.
    """

    def __init__(self, browser: Browser, server: str, disk: str) -> None:
        """`server` and `disk`: an empty page on this machine's server, and one on its disk."""
        self._browser, self._server, self._disk = browser, server, disk
        self._free: dict[str, list[Page]] = {}

    def take(self, options: dict[str, Any], loaded: str | None = None) -> Page:
        """A window with nothing in it, or if there is one, with a page of the origin `loaded`.

        `options` as for `new_context`.
        """
        free, nothing = self._alike(options), self._nothing(options)
        origins = [nothing] if loaded is None else [loaded, nothing]
        found = [one for origin in origins for one in free if one.url.startswith(origin)]
        if not found and len(free) >= MOST_FREE:
            found = free[:1]  # which was given back before the others
        if found:
            page = found[0]
            free.remove(page)
            if loaded is None or not page.url.startswith(loaded):
                self._empty(page, options)
            if page.viewport_size != options["viewport"]:
                page.set_viewport_size(options["viewport"])
            page.emulate_media(color_scheme=options["color_scheme"])
            return page
        page = self._browser.new_context(**options).new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(WATCH)
        return page

    def give_back(self, page: Page, options: dict[str, Any], loaded: str | None = None) -> None:
        """Make a window ready for who comes next; with what is `loaded`, if that is a page's."""
        if page.is_closed() or page.context.pages != [page]:
            page.context.close()
            return
        page.unroute_all(behavior="ignoreErrors")
        if loaded is None or page.evaluate("globalThis.isUsed"):
            self._empty(page, options)
        page.mouse.move(-1, -1)
        self._alike(options).append(page)

    def _alike(self, options: dict[str, Any]) -> list[Page]:
        """The free windows that differ at most in their size and colours."""
        own = options | {"viewport": None, "color_scheme": None}
        return self._free.setdefault(repr(own), [])

    def _nothing(self, options: dict[str, Any]) -> str:
        return self._disk if options.get("offline") else self._server

    def _empty(self, page: Page, options: dict[str, Any]) -> None:
        nothing = self._nothing(options)
        if page.url != nothing:
            page.goto(nothing)


NOTHING = b'<link rel="icon" href="data:,">'
"""A page with nothing on it, for which nothing else is asked."""


class Nothing(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(NOTHING)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="package")
def windows(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    # From where pages come from: about:blank would end their process, and the next page start
    # another, which costs as much as all that it does.
    disk = tmp_path_factory.mktemp("nothing") / "nothing.html"
    disk.write_bytes(NOTHING)
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever).start()
        yield Windows(browser, f"http://127.0.0.1:{server.server_port}/", disk.as_uri())
        server.shutdown()


class Views:
    """Opens views, and tells what went wrong in them."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._watched: dict[Page, tuple[Watched, dict[str, Any], str | None]] = {}

    def __call__(
        self,
        shown: Shown,
        view: str = "overview",
        asked: str = "",
        anew: bool | None = None,
        **window: Any,
    ) -> Page:
        """A view of what is shown, when it has all it asks for; `window` as `new_context`.

        Not `anew`: on the page that an earlier test left, if there is one, by a change of the
        address alone. To load a page costs more than all that most tests do on it. It is loaded
        anew for views that need it, and for tests that ask for it: those that change what belongs
        to the page, such as its `fetch`.
        """
        if anew is None:
            anew = view in LOADED_ANEW or not shown.stays
        place = f"#{view}?{asked}" if asked else f"#{view}" if view else ""
        page = self._visit(shown.address + place, shown.address, anew, **window)
        if not anew:
            self.settle(page)  # until what the view before said is gone
        page.get_by_role("status").filter(has_text=re.compile(".")).wait_for()
        self.settle(page)
        return page

    def visit(self, address: str, origin: str, anew: bool = True, **window: Any) -> Page:
        """Any address, from which on nothing may be asked but of its origin."""
        page = self._visit(address, origin, anew, **window)
        self.settle(page)
        return page

    def _visit(self, address: str, origin: str, anew: bool, **window: Any) -> Page:
        loaded = None if anew else origin
        usual = {"color_scheme": "light", "viewport": {"width": 1024, "height": 720}}
        options = {**usual, **window}
        page = self._windows.take(options, loaded)
        self._watched[page] = Watched(page, origin), options, loaded
        page.goto(address)
        return page

    def settle(self, page: Page) -> None:
        """Wait until a page has all that it asks for, and has drawn it."""
        self._watched[page][0].settle()

    def forgive(self, page: Page, what: str) -> None:
        """Something went wrong, as it should."""
        said = self._watched[page][0].said
        assert any(what in one for one in said)
        said[:] = [one for one in said if what not in one]

    def close(self, name: str) -> list[str]:
        """Leave them all, and tell what went wrong."""
        for number, (page, (watched, *window)) in enumerate(self._watched.items()):
            if not page.is_closed():
                keep_picture(page, f"{name}-{number}")
            watched.leave()
            self._windows.give_back(page, *window)
        return [said for watched, *_ in self._watched.values() for said in watched.said]


@pytest.fixture
def opened(windows: Windows, request: pytest.FixtureRequest) -> Iterator[Views]:
    """A function that opens a view in an empty window.

    The test fails where a page complained or asked anything of another origin.
    """
    views = Views(windows)
    yield views
    said = views.close(request.node.name)
    assert not said, "\n".join(said)


def keep_picture(page: Page, name: str) -> None:
    directory = os.environ.get("PELLUCID_PICTURES")
    if directory:
        name = re.sub(r"[^\w.-]+", "-", name)
        page.screenshot(path=Path(directory) / f"{name}.png")


def barriers(page: Page, rules: list[str] = LEVELS) -> list[str]:
    """What of the Web Content Accessibility Guidelines a page does not keep, element by element.

    `rules`: levels, or rules by name: those OF_COLOUR are enough where only colours have changed.
    """
    if page.evaluate("!window.axe"):
        page.evaluate(AXE)
    found = page.evaluate(CHECK, rules)
    assert found["passed"] > (10 if rules == LEVELS else 0)
    return [
        f"{one['id']}: {one['help']}: {node['html']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def percents(text: str) -> list[Decimal]:
    """The percentages in a text, each with the digits that are shown."""
    return [Decimal(number) for number in re.findall(r"([\d.]+(?:e[-+]?\d+)?) ?%", text)]


def is_shown(percentage: Decimal, weight: float) -> bool:
    """Whether a weight rounds to what is shown, up to the rounding that it went out with."""
    exact = Decimal(weight) * 100
    _, digits, exponent = percentage.as_tuple()
    assert isinstance(exponent, int)
    if not percentage:  # 0, or nearly
        return exact < Decimal("0.001")
    assert len(digits) >= 2, "fewer than two digits are shown"
    rounding = exact * Decimal(recordings.ROUNDING)
    return abs(exact - percentage) <= Decimal(10) ** exponent / 2 + rounding

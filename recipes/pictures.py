"""Make the pictures of the page in docs/images: what docs/view.md shows, as the page is now.

python -m recipes.pictures

It needs Playwright and a browser, as the tests do.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
TEXT = "In the beginning God created"
NEW_TOKENS = 22
SIZE = {"width": 1280, "height": 720}
PLACE = "layer=2&head=1"
VIEWS = {
    "map": f"map?{PLACE}&query=12&key=5",
    "links": f"links?{PLACE}&token=12",
    "lesson": "lesson?example=poem",
}


@contextmanager
def served() -> Iterator[str]:
    """The address of a server that shows the text and what the decoder made of it."""
    options = ["--new-tokens", str(NEW_TOKENS), "--no-browser"]
    command = [sys.executable, "-m", "pellucid", "view", TEXT, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield next(
                found[0] for line in server.stdout if (found := re.search(r"http://\S+", line))
            )
        finally:
            server.terminate()


def typed(page: Page) -> None:
    """Type another number into W_key."""
    cell = page.locator("[data-cell='Wk.0.0']")
    cell.scroll_into_view_if_needed()
    cell.dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.type("0.8")
    page.keyboard.press("Enter")
    cell.focus()


def main() -> None:
    """Write them."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        for name, place in VIEWS.items():
            page.goto("about:blank")
            page.goto(f"{address}#{place}")
            page.wait_for_load_state("networkidle")
            if name == "lesson":
                typed(page)
            page.wait_for_timeout(500)
            path = IMAGES / f"view-{name}.png"
            path.write_bytes(page.screenshot())
            print(f"wrote {path.name}: {path.stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()

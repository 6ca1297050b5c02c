"""What is read off a page in a browser, and chosen on it."""

import re

from playwright.sync_api import Locator, Page

from tests.viewer.browser import is_shown, percents


def status(page: Page) -> str:
    return page.get_by_role("status").inner_text()


def the_map(page: Page) -> Locator:
    return page.get_by_role("main").get_by_role("application")


def chosen(page: Page, name: str) -> Locator:
    """What one chooses under a name."""
    return page.get_by_role("combobox", name=re.compile(f"^{name}"))


def pointed(page: Page) -> tuple[int, int, str]:
    """The query and key that the status line is about, and what it says after them."""
    found = re.search(r"\((\d+)\) attends to .*?\((\d+)\)(?:: ([^·]*))?", status(page))
    assert found, status(page)
    return int(found[1]), int(found[2]), found[3] or ""


def is_told(said: str, weight: float) -> bool:
    """Whether the status line gives a weight; a dash is what a mask hides."""
    return weight == 0 if said.strip() == "–" else is_shown(percents(said)[0], weight)


def check(page: Page, weights) -> tuple[int, int]:
    """Compare what the status line says with the library."""
    query, key, said = pointed(page)
    assert is_told(said, weights[query, key].item()), (query, key, said)
    return query, key


def place(page: Page, across: float, down: float) -> tuple[float, float]:
    """A point of the map, in shares of its canvas."""
    box = the_map(page).first.bounding_box()
    return box["x"] + box["width"] * across, box["y"] + box["height"] * down


def asked(page: Page) -> dict[str, str]:
    """What the address says, once it is as the page is."""
    page.wait_for_timeout(250)
    said = page.evaluate("location.hash").partition("?")[2]
    return dict(part.split("=") for part in said.split("&"))

"""What is read off a page in a browser, and chosen on it."""

import re

from playwright.sync_api import Locator, Page

from tests.viewer.browser import is_shown, percents


def status(page: Page) -> str:
    return page.get_by_role("status").inner_text()


def the_map(page: Page) -> Locator:
    return page.get_by_role("main").get_by_role("application")


def lines_at(page: Page, points: list[tuple[int, int]]) -> list[str]:
    """The status line with the pointer at each point of the map's canvas, when that is drawn.

    The pointer is moved on the page itself: real ones cost several messages each.
    """
    lines: list[str] = the_map(page).evaluate(
        """async (canvas, points) => {
          const { left, top } = canvas.getBoundingClientRect();
          const status = document.querySelector("[role=status]"), lines = [];
          for (const [x, y] of points) {
            const at = { clientX: left + x, clientY: top + y };
            const mouse = { pointerId: 1, pointerType: "mouse", isPrimary: true, bubbles: true };
            canvas.dispatchEvent(new PointerEvent("pointermove", { ...mouse, ...at }));
            await new Promise((go) => { requestAnimationFrame(() => setTimeout(go)); });
            lines.push(status.innerText);
          }
          return lines;
        }""",
        points,
    )
    return lines


def chosen(page: Page, name: str) -> Locator:
    """What one chooses under a name."""
    return page.get_by_role("combobox", name=re.compile(f"^{name}"))


def names(some: Locator) -> list[str]:
    """What each of them is called; asked for once, as each question costs a message."""
    found: list[str] = some.evaluate_all(
        "(all) => all.map((one) => one.getAttribute('aria-label'))"
    )
    return found


def pointed(page: Page) -> tuple[int, int, str]:
    """The query and key that the status line is about, and what it says after them."""
    return weight_told(status(page))


def weight_told(line: str) -> tuple[int, int, str]:
    """The query and key that a status line is about, and what it says after them."""
    found = re.search(r"\((\d+)\) attends to .*?\((\d+)\)(?:: ([^·]*))?", line)
    assert found, line
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
    later(page)
    said = page.evaluate("location.hash").partition("?")[2]
    return dict(part.split("=") for part in said.split("&"))


def later(page: Page, milliseconds: int = 250) -> None:
    """When so long has passed on the page: what it meant to do before then is done.

    By the timers of the page itself, which keep their order however slow the machine is.
    """
    page.evaluate("(wait) => new Promise((go) => setTimeout(go, wait))", milliseconds)

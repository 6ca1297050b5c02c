"""What a page saves, and how it is read."""

import csv
from pathlib import Path
from xml.etree import ElementTree

from playwright.sync_api import Page

from tests.viewer.browser import Views

TEXT = "{http://www.w3.org/2000/svg}text"


def saved(page: Page, way: str) -> Path:
    """What a page exports, as PNG, SVG, CSV or HTML."""
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Export as {way}").click()
    return download.value.path()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def texts(path: Path) -> list[str]:
    """All that is written in a picture, in the order of its drawing."""
    return [one.text or "" for one in ElementTree.parse(path).getroot().iter(TEXT)]


def alone(opened: Views, file: Path) -> Page:
    """A saved page, opened from disk with the network off."""
    copy = file.with_suffix(".html")
    copy.write_bytes(file.read_bytes())
    return opened.visit(copy.as_uri(), copy.as_uri(), offline=True)

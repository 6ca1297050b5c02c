"""What a page saves, and how it is read."""

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
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


def kept(page):
    """What is in a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found)


READ = """async ([text, paths]) => {
  const { openOfflineSource } = await import("./page/offline_source.js");
  const { source } = await openOfflineSource({ textContent: text });
  const one = async (path) => {
    const { values, shape, isExact } = await source.numbers(path);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const letters = Array.from(bytes, (one) => String.fromCharCode(one)).join("");
    return { values: letters, shape, isExact };
  };
  return Promise.all(paths.map((path) => one(path).catch((error) => error.message)));
}"""


def read_by_page(page, text, paths):
    """Answers in numbers, as the page reads them out of a file."""
    found = page.evaluate(READ, [json.dumps(kept(text)), paths])
    for answer in found:
        if isinstance(answer, dict):
            values = np.frombuffer(answer["values"].encode("latin-1"), "<f4")
            answer["values"] = torch.tensor(values).reshape(answer["shape"])
    return found

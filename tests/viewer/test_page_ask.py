"""The text box of a served page, where the page opens, and what fingers find."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from pellucid.viewer import volumes
from tests import writers
from tests.viewer.browser import Shown, barriers, is_shown, percents
from tests.viewer.files import alone, saved
from tests.viewer.page import chosen, status

UPRIGHT = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
FINGER = 44
"""Pixels that a finger finds (WCAG 2.2, 2.5.5)."""


@pytest.fixture
def reads(tmp_path) -> Iterator[Shown]:
    """A server with a model, and with nothing to show so far."""
    writers.writer().save(tmp_path / "writer")
    found = Shown(models={"writer": str(tmp_path / "writer")})
    yield found
    found.stop()


def read(page: Page, opened, text: str) -> None:
    page.get_by_role("textbox", name="Text", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(text)
    opened.settle(page)


def test_what_is_typed_is_read_shown_and_compared(reads, opened, tmp_path):
    page = opened(reads, "")
    assert "No text so far" in status(page)
    read(page, opened, "a red ball")
    assert re.search(r"#text\?layer=\d&head=\d&token=\d+$", page.url)
    # What the page says is what the library gives.
    wanted = volumes.read(
        "a red ball", "", model=str(tmp_path / "writer"), step=lambda *_: None
    ).seen.latest()
    asked = dict(part.split("=") for part in page.url.partition("?")[2].split("&"))
    row = wanted[int(asked["layer"])].weights[0, int(asked["head"]), int(asked["token"])]
    assert is_shown(percents(status(page))[0], row.max().item())
    read(page, opened, "a blue ball")
    page.get_by_role("link", name="Compare").click()
    opened.settle(page)
    first, second = (chosen(page, name).evaluate("one => one.selectedOptions[0].text")
                     for name in ("First", "Second"))  # fmt: skip
    assert first.startswith("a blue ball: ")
    assert second.startswith("a red ball: ")


def test_what_was_read_is_at_hand(reads, opened):
    page = opened(reads, "")
    page.get_by_label("New tokens").fill("3")
    read(page, opened, "a red ball")
    assert "#generation" in page.url
    assert page.get_by_label("New tokens").input_value() == "3"
    page.get_by_label("New tokens").fill("0")
    read(page, opened, "a blue ball")
    page.reload()
    opened.settle(page)
    recent = page.get_by_role("combobox", name="Recent")
    assert recent.locator("option").all_inner_texts()[1:] == [
        "a blue ball (writer)",
        "a red ball (writer)",
    ]
    recent.select_option(label="a red ball (writer)")
    expect(page.get_by_role("main").locator(".player")).to_be_visible()
    assert page.evaluate("localStorage.length") == 1


def test_what_cannot_be_read_is_said(reads, opened):
    page = opened(reads, "")
    page.get_by_role("textbox", name="Text", exact=True).fill("a ball " * writers.POSITIONS)
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(re.compile(rf"{writers.POSITIONS} positions\.$"))
    opened.forgive(page, "400")
    read(page, opened, "a ball")
    assert page.get_by_role("alert").count() == 0


@pytest.mark.parametrize("window", [{}, UPRIGHT], ids=["wide", "upright"])
def test_the_text_box_is_accessible(reads, opened, window):
    page = opened(reads, "", **window)
    read(page, opened, "a red ball")
    if window:
        assert not page.get_by_role("textbox", name="Text", exact=True).is_visible()
        page.get_by_role("button", name="Read another text").tap()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        wrong = barriers(page)
        assert not wrong, "\n".join([scheme, *wrong])


def test_a_file_reads_nothing(reads, opened):
    page = opened(reads, "")
    read(page, opened, "a red ball")
    again = alone(opened, saved(page, "HTML"))
    assert again.get_by_role("textbox", name="Text", exact=True).count() == 0
    assert again.get_by_role("heading", level=1).inner_text() == "a red ball"


@pytest.mark.parametrize(
    ("names", "view"),
    [
        (("decoder",), "text"),
        (("long",), "overview"),
        (("written",), "generation"),
        (("both",), "links"),
        (("decoder", "encoder"), "compare"),
    ],
)
def test_a_page_opens_where_it_was_meant(shown, opened, names, view):
    page = opened(shown(*names), "")
    assert page.url.partition("#")[2].partition("?")[0] == view
    current = page.get_by_role("navigation").locator("[aria-current=page]")
    assert current.inner_text().lower() == view
    if view == "text":
        assert "attends to" in status(page)
        assert page.locator(".token[aria-selected=true]").count() == 1


@pytest.mark.parametrize(
    ("view", "asked", "names"),
    [
        ("overview", "layer=0&head=1", ("decoder",)),
        ("map", "layer=0&head=1&query=7&key=3", ("decoder",)),
        ("text", "layer=0&head=1", ("decoder",)),
        ("links", "", ("translated",)),
        ("generation", "step=7", ("written",)),
        ("compare", "", ("decoder",)),
    ],
)
def test_on_a_phone_held_upright(shown, opened, view, asked, names):
    page = opened(shown(*names), view, asked, **UPRIGHT)
    assert page.evaluate("document.scrollingElement.scrollWidth - innerWidth") <= 0
    assert page.get_by_role("main").bounding_box()["height"] >= 844 / 2
    small = page.evaluate(
        """(least) => [...document.querySelectorAll(
          "header :is(a, button, select, summary), :is(.foot, .player, .pinned, .which) button",
        )].filter((one) => one.checkVisibility()).map((one) => [one, one.getBoundingClientRect()])
          .filter(([, { width, height }]) => Math.min(width, height) < least - 0.5)
          .map(([one]) => one.outerHTML.slice(0, 80))""",
        FINGER,
    )
    assert not small
    assert not re.search("[Cc]lick|[Pp]oint at", page.locator("body").inner_text())


def test_letters_stand_whole_and_start_where_their_script_does(opened, tmp_path):
    writers.writer().save(tmp_path / "writer")
    text = "שלום 👩‍👧 é\nball"
    one = volumes.read(text, text, model=str(tmp_path / "writer"), step=lambda *_: None)
    of = Shown(one)
    try:
        page = opened(of, "text", "layer=0&head=1")
        found = page.locator(".token").all_inner_texts()
        assert {"ש", "ל", "👩‍👧"} <= {word.strip() for word in found}
        assert "\ufffd" not in "".join(found)
        letters = page.locator(".token:not(.part)")
        first, last = letters.first.bounding_box(), letters.last.bounding_box()
        box = page.get_by_role("listbox").bounding_box()
        middle = box["x"] + box["width"] / 2
        assert first["x"] > middle > last["x"]
    finally:
        of.stop()


def test_little_attention_does_not_look_like_all(shown, opened):
    of = shown("encoder")
    page = opened(of, "text", "layer=0&head=1&token=5")
    assert chosen(page, "Scale").input_value() == "full"
    weights = of.weights(0, 1)[5]
    legend = page.locator(".legend").inner_text()
    assert "100 %" in legend
    assert is_shown(percents(legend.partition("strongest:")[2])[0], weights.max().item())
    strongest = page.locator(".token").nth(int(weights.argmax()))
    full = strongest.evaluate("one => one.style.background")
    chosen(page, "Scale").select_option("root")
    assert strongest.evaluate("one => one.style.background") != full
    assert "100 %" not in page.locator(".legend").inner_text()


def test_heads_are_tinted_by_a_measure(shown, opened):
    page = opened(shown("decoder"), "overview", "tint=first")
    rows = json.loads(page.evaluate("fetch('heads').then((one) => one.text())"))["rows"]
    notes = page.locator(".head .note")
    assert notes.count() == len(rows)
    said = [percents(one)[0] for one in notes.all_inner_texts()]
    assert all(is_shown(one, row["first"]) for one, row in zip(said, rows, strict=True))
    papers = notes.evaluate_all("all => all.map((one) => one.style.background)")
    assert len(set(papers)) > 1
    list_box = page.locator(".list").bounding_box()
    last = page.locator(".head").last.bounding_box()
    assert last["y"] + last["height"] <= list_box["y"] + list_box["height"]

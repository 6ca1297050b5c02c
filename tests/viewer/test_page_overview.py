"""All heads at a glance: where they stand, what they do and how much, as the library says."""

import math
import re
from itertools import pairwise

import pytest
import torch
from playwright.sync_api import Locator, Page

from pellucid import lens
from pellucid.attention import masks
from pellucid.lens.head_measures import CLEAR, EVEN
from pellucid.lens.head_table import HeadRow
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility
from pellucid.viewer.catalogue import Volume
from tests.viewer.browser import Shown, is_shown, percents
from tests.viewer.files import saved, table, texts
from tests.viewer.page import asked, chosen, later, status
from tests.viewer.page import names as names_of
from tests.viewer.recordings import HEADS, LAYERS, SOURCE, WORDS, Spelling, made

MEASURES = (
    "distance", "first", "itself", "previous", "duplicates", "induction", "punctuation", "special",
)  # fmt: skip


def heads(page: Page) -> Locator:
    return page.get_by_role("button", name=re.compile("^layer .*, head"))


def names(page: Page) -> list[str]:
    return names_of(heads(page))


def place(row: HeadRow) -> str:
    return f"layer {row.label}, head {row.head}"


def about(page: Page) -> str:
    return page.get_by_role("region", name="About the head").inner_text()


@pytest.fixture(scope="module")
def repeating():
    """Heads that look at the token before, at the same token, and at what followed it."""
    period, count = 11, 53
    places = torch.arange(count)
    ids = (places % period)[None]
    eye = 9 * torch.eye(count)
    wanted = [places - 1, places - period + 1, places - period, 0 * places, places]
    queries = torch.stack([eye[where.clamp(min=0)] for where in wanted])[None]
    keys = 9 * torch.eye(count).expand(1, len(wanted), -1, -1).contiguous()
    record = Record(
        name="layers.0.attention",
        queries=Pieces(queries),
        keys=Pieces(keys),
        visibility=Visibility(masks.causal(), None, (count, count), torch.device("cpu")),
        query_tokens=Pieces(ids, -1),
        key_tokens=Pieces(ids, -1),
        latest_queries=count,
    )
    one = Shown(Volume(Recording("Model", [record], tokenizer=Spelling(WORDS)), "repeating"))
    yield one
    one.stop()


def test_a_row_a_layer_and_a_column_a_head(shown, opened):
    page = opened(shown("decoder"))
    boxes = [one.bounding_box() for one in heads(page).all()]
    assert len(boxes) == LAYERS * HEADS
    rows = [boxes[i : i + HEADS] for i in range(0, len(boxes), HEADS)]
    for row in rows:
        assert len({round(one["y"]) for one in row}) == 1
    for column in zip(*rows, strict=True):
        assert len({round(one["x"]) for one in column}) == 1
    assert rows[0][0]["y"] + rows[0][0]["height"] <= rows[1][0]["y"]
    assert boxes[0]["width"] > 150, "there is room"


def test_stacks_and_recordings_have_headings(shown, opened):
    page = opened(shown("both", "decoder"))
    said = page.get_by_role("main").get_by_role("heading", level=2).all_inner_texts()
    assert [one.split(":")[0] for one in said[:4]] == [
        "both · Encoder",
        "both · Decoder",
        "both · Cross-attention",
        "decoder",
    ]
    crossing = [name for name in names(page) if "cross-attention" in name]
    assert len(crossing) == LAYERS * HEADS
    assert all(name.startswith("layer x") for name in crossing)


@pytest.mark.parametrize("by", MEASURES)
def test_the_order_is_the_library_s(shown, opened, by):
    of = shown("both")
    page = opened(of, "overview", f"sort={by}")
    rows = lens.heads(of.seen[0]).sort(by)
    found = names(page)
    assert len(found) == len(rows)
    for name, row in zip(found, rows, strict=True):
        assert name.startswith(place(row))
        value = getattr(row, by)
        if math.isnan(value):
            assert name.endswith("–")
        elif by == "distance":
            assert name.endswith(f"{value:.2f}")
        else:
            assert is_shown(percents(name)[0], value)
    assert "from highest to lowest" in status(page)


def test_a_behaviour_is_explained_on_focus_and_under_the_pointer(repeating, opened):
    page = opened(repeating)
    rows = lens.heads(repeating.seen[0])
    roles = [row.role for row in rows]
    assert roles == ["previous token", "induction", "duplicates", "first token", "itself"]
    said = {
        "previous token": "just before",
        "induction": "Olsson et al. 2022",
        "duplicates": "Wang et al. 2023",
        "first token": "Xiao et al. 2024",
        "itself": "Clark et al. 2019",
    }
    assert "All heads at a glance" in about(page)
    heads(page).first.focus()
    for row in rows:
        assert f"Layer {row.layer}, head {row.head}" in about(page)
        assert row.role in about(page)
        assert said[row.role] in about(page)
        page.keyboard.press("ArrowRight")
    for number, row in reversed(list(enumerate(rows))):
        heads(page).nth(number).hover()
        assert said[row.role] in about(page)
        lines = about(page).splitlines()
        for name in ("itself", "previous", "induction"):
            label = "previous token" if name == "previous" else name
            at = len(lines) - 1 - lines[::-1].index(label)
            assert is_shown(percents(" ".join(lines[at:]))[0], getattr(row, name))
    description = heads(page).nth(1).get_attribute("aria-description")
    assert "what came next" in description


def test_only_heads_of_one_behaviour(repeating, opened):
    page = opened(repeating)
    chosen(page, "Behaviour").select_option("induction")
    (name,) = names(page)
    assert name.startswith("layer 0, head 1, induction")
    assert "1 of 5 heads: induction" in status(page)
    again = opened(repeating, "overview", page.url.partition("?")[2])
    assert names(again) == [name]
    chosen(page, "Behaviour").select_option("broad")
    assert names(page) == []
    assert "No head does this clearly." in page.get_by_role("main").inner_text()
    options = chosen(page, "Behaviour").locator("option").all_inner_texts()
    assert "first token (1)" in options
    assert "broad (0)" in options


def test_arrows_go_from_head_to_head(shown, opened):
    page = opened(shown("decoder"))
    focused = "document.activeElement.getAttribute('aria-label')"
    heads(page).first.focus()
    for key, where in [
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 1)),
        ("ArrowLeft", (1, 0)),
        ("ArrowUp", (0, 0)),
        ("End", (1, 2)),
        ("Home", (0, 0)),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(focused).startswith(f"layer {where[0]}, head {where[1]}")
    page.keyboard.press("End")
    assert asked(page) == {"layer": "1", "head": "2"}
    page.keyboard.press("Enter")
    opened.settle(page)
    assert page.evaluate("location.hash").startswith("#map?")
    assert {"layer": "1", "head": "2"}.items() <= asked(page).items()


def test_each_text_of_a_batch_has_its_pictures(shown, opened):
    page = opened(shown("batch"))
    drawn = "[...document.querySelectorAll('.list canvas')].map((one) => one.toDataURL())"
    first = page.evaluate(drawn)
    chosen(page, "Text").select_option("1")
    opened.settle(page)
    assert asked(page) == {"item": "1"}
    second = page.evaluate(drawn)
    assert len(first) == len(second)
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_thumbnail_is_the_darker_the_larger_the_weight(shown, opened):
    of = shown("both")
    page = opened(of)
    record = next(i for i, layer in enumerate(of.catalogue.layers) if not layer.is_cross)
    weights = of.weights(record, 1)
    assert weights.shape == (SOURCE, SOURCE)
    light = (
        heads(page)
        .nth(1)
        .locator("canvas")
        .evaluate(
            """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return Array.from(data).filter((_, i) => i % 4 === 1);
        }"""
        )
    )
    assert len(light) == SOURCE**2
    ordered = sorted(zip(weights.flatten().tolist(), light, strict=True), reverse=True)
    assert len(set(light)) > 20
    assert all(one[1] <= other[1] for one, other in pairwise(ordered))


def test_many_heads_are_asked_for_no_longer_than_they_are_looked_at(opened):
    of = Shown(Volume(made(101, layers=13, heads=2), "many"))
    try:
        page = opened(of, "text", "layer=0&head=0")
        asks: list[str] = []
        page.on("request", lambda one: asks.append(one.url))
        page.evaluate("location.hash = 'overview'")
        page.wait_for_function("() => document.querySelectorAll('.head').length === 26")
        page.evaluate("location.hash = 'text?layer=0&head=0'")
        opened.settle(page)
        count = len(asks)
        later(page, 300)
        assert len(asks) == count
    finally:
        of.stop()


def test_what_is_exported(shown, opened):
    of = shown("both")
    page = opened(of, "overview", "sort=distance")
    rows = table(saved(page, "CSV"))
    wanted = lens.heads(of.seen[0]).sort("distance")
    assert len(rows) == len(wanted)
    for row, one in zip(rows, wanted, strict=True):
        assert (row["module"], row["layer"], row["head"]) == (one.name, one.label, str(one.head))
        assert row["role"] == one.role
        for name in ("entropy", *MEASURES):
            value = getattr(one, name)
            assert row[name] == "" if math.isnan(value) else math.isclose(float(row[name]), value)
    written = texts(saved(page, "SVG"))
    numbers = [f"{one.distance:.2f}" for one in wanted[:6]]
    assert all(any(number in text for text in written) for number in numbers)


def test_what_is_said_of_names_is_so(shown, opened):
    page = opened(shown("decoder"))
    assert f"at least {100 * CLEAR:.0f} % of its attention" in about(page)
    assert f"entropy is at least {100 * EVEN:.0f} % of the maximum" in about(page)

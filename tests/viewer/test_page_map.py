"""The map: cells, profiles, hands on it, and its files hold the library's numbers."""

import re

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, Route, expect

from tests.viewer.browser import PHONE, barriers, is_shown, percents
from tests.viewer.files import alone, saved, table, texts
from tests.viewer.page import asked, check, chosen, later, place, pointed, status, the_map
from tests.viewer.recordings import LONG, ROUNDING, SOURCE


def pinned(page: Page) -> Locator:
    return page.get_by_role("region", name="Pinned")


def test_a_short_text_has_a_number_in_each_cell(shown, opened):
    of = shown("encoder")
    weights = of.weights(1, 2)
    page = opened(of, "map", "layer=1&head=2", viewport={"width": 1280, "height": 720})
    assert asked(page)["scale"] == "linear"
    said = texts(saved(page, "SVG"))
    numbers = said[: weights.numel()]
    assert len({text.endswith(" %") for text in numbers}) == 1  # behind all of them, or behind none
    for text, weight in zip(numbers, weights.flatten().tolist(), strict=True):
        assert is_shown(percents(f"{text.removesuffix(' %')} %")[0], weight)
    words = of.catalogue.words(1, 0, "keys")
    along = said[SOURCE**2 : SOURCE**2 + 2 * SOURCE]
    assert along == [word.strip() or "⏎" for word in 2 * words]


def test_no_scale_ends_beyond_what_a_weight_can_be(shown, opened):
    page = opened(shown("encoder"), "overview")

    def round_up(route: Route) -> None:
        answer = route.fetch()
        numbers = np.frombuffer(answer.body(), "<f4").copy()
        numbers[0] = np.nextafter(np.float32(1), np.float32(2))
        route.fulfill(response=answer, body=numbers.tobytes())

    page.route("**/tile/**", round_up)
    page.evaluate("location.hash = 'map?layer=1'")
    page.get_by_text(f"{SOURCE} × {SOURCE} weights").wait_for()
    opened.settle(page)
    said = texts(saved(page, "SVG"))
    assert {"100.0", "100.0 %"} & set(said)
    assert "100 %" in said
    assert "200 %" not in said


def test_a_click_pins_a_row_and_a_column(shown, opened):
    of = shown("decoder")
    weights = of.weights(1, 1)
    page = opened(of, "map", "layer=1&head=1")
    assert pinned(page).is_hidden()
    page.mouse.click(*place(page, 0.3, 0.7))
    pinned(page).wait_for()
    opened.settle(page)
    query, key, _ = pointed(page)
    told = asked(page)
    assert (int(told["query"]), int(told["key"])) == (query, key)
    check_profiles(page, weights, query, key)
    again = opened(of, "map", "&".join(f"{name}={value}" for name, value in told.items()))
    check_profiles(again, weights, query, key)
    page.keyboard.press("Escape")
    assert pinned(page).is_hidden()
    assert "query" not in asked(page)
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    opened.settle(page)
    query, key = check(page, weights)
    check_profiles(page, weights, query, key)
    page.get_by_role("button", name="Unpin").click()
    assert pinned(page).is_hidden()


def check_profiles(page: Page, weights, query: int, key: int) -> None:
    """The five strongest of a row and a column, in their order."""
    row, column = pinned(page).locator("p").all_inner_texts()
    assert f"({query}) attends to" in row
    assert f"({key}) is attended to by" in column
    for line, values in ((row, weights[query]), (column, weights[:, key])):
        found = re.findall(r"\((\d+)\) ([\d.e-]+ %)", line)
        strongest = values.topk(5)
        assert len(found) == min(5, int((values > 0).sum()))
        for (at, said), weight in zip(found, strongest.values.tolist(), strict=False):
            assert values[int(at)] == weight
            assert is_shown(percents(said)[0], weight)


def test_profiles_have_bars_with_numbers(shown, opened):
    of = shown("encoder")
    weights = of.weights(0, 1)
    page = opened(
        of, "map", "layer=0&head=1&query=5&key=7", viewport={"width": 1820, "height": 900}
    )
    said = [one for one in texts(saved(page, "SVG")) if "%" in one]
    # Cells first, then what stands below and beside them, then the legend.
    column = said[SOURCE**2 + SOURCE : SOURCE**2 + 2 * SOURCE]
    row = said[SOURCE**2 : SOURCE**2 + SOURCE]
    for found, expected in ((row, weights[5]), (column, weights[:, 7])):
        assert len(found) == SOURCE
        for text, weight in zip(found, expected.tolist(), strict=True):
            assert is_shown(percents(text)[0], weight)


def test_a_drag_and_two_clicks_pin_nothing(shown, opened):
    of = shown("long")
    weights = of.weights(1, 1)
    page = opened(of, "map", "layer=1&head=1&zoom=9&x=300&y=480")
    at = place(page, 0.45, 0.5)
    page.mouse.move(*at)
    opened.settle(page)
    before = check(page, weights)
    page.mouse.dblclick(*at)
    opened.settle(page)
    assert check(page, weights) == before
    assert float(asked(page)["zoom"]) == pytest.approx(9 * 1.6**2)
    page.mouse.down()
    page.mouse.move(at[0] + 60, at[1] - 50, steps=4)
    page.mouse.up()
    later(page, 400)
    page.mouse.move(at[0] + 60, at[1] - 50.5)
    opened.settle(page)
    assert check(page, weights) == before
    assert pinned(page).is_hidden()
    assert "query" not in asked(page)


@pytest.mark.parametrize(("way", "said"), [("maximum", "at most"), ("mean", "on average")])
def test_cells_of_many_weights_say_what_they_stand_for(shown, opened, way, said):
    of = shown("long")
    weights = of.weights(0, 2)
    page = opened(of, "map", "layer=0&head=2", viewport={"width": 601, "height": 503})
    assert asked(page)["scale"] == "log"
    chosen(page, "Pooling").select_option(label=way)
    page.mouse.move(*place(page, 0.3, 0.8))
    opened.settle(page)
    found = re.search(
        r"\((\d+)–(\d+)\) attend to .*\((\d+)–(\d+)\): (.*?) ([\d.e-]+ %)", status(page)
    )
    assert found, status(page)
    top, bottom, left, right = map(int, found.groups()[:4])
    cell = weights[top : bottom + 1, left : right + 1]
    assert cell.numel() > 1
    assert found[5] == said
    value = cell.max() if way == "maximum" else cell.mean(dtype=torch.float64)
    assert is_shown(percents(found[6])[0], value.item())


def test_the_small_map_leads_to_any_place(shown, opened):
    of = shown("long")
    page = opened(of, "map", "layer=0&head=1&zoom=20&x=0&y=0")
    box = the_map(page).bounding_box()
    assert asked(page)["x"] == "0"
    # It is 120 pixels wide, in the lower right corner.
    page.mouse.click(box["x"] + box["width"] - 40 - 6 - 60, box["y"] + box["height"] - 10 - 6 - 60)
    told = asked(page)
    shown_keys = (box["width"] - 104 - 40) / 20
    assert float(told["x"]) + shown_keys / 2 == pytest.approx(LONG / 2, abs=6)
    assert pinned(page).is_hidden()
    page.mouse.move(*place(page, 0.4, 0.4))
    opened.settle(page)
    check(page, of.weights(0, 1))


def test_two_fingers_zoom(shown, opened):
    of = shown("long")
    page = opened(of, "map", "layer=0&head=1&zoom=6&x=400&y=500", **PHONE)
    x, y = place(page, 0.4, 0.5)
    hands = page.context.new_cdp_session(page)

    def touch(kind: str, *apart: float) -> None:
        points = [{"x": x + way * one, "y": y, "id": way} for one in apart for way in (-1, 1)]
        hands.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for apart in range(35, 91, 5):
        touch("touchMove", apart)
    touch("touchEnd")
    opened.settle(page)
    assert float(asked(page)["zoom"]) == pytest.approx(18, rel=0.2)
    assert pinned(page).is_hidden()
    page.touchscreen.tap(x, y)
    pinned(page).wait_for()
    opened.settle(page)
    query, key, _ = pointed(page)
    check_profiles(page, of.weights(0, 1), query, key)


@pytest.mark.parametrize("view", ["map", "compare"])
def test_what_is_sampled_is_made_exact(shown, opened, view):
    of = shown("decoder")
    expected = opened(of, view)
    page = opened(of)
    waiting = []

    def draft(route: Route) -> None:
        """Answer with something else, and say that it is not exact."""
        found = route.fetch()
        told = found.headers | {"x-exact": "0"}
        route.fulfill(response=found, headers=told, body=found.body()[::-1])

    page.route(re.compile(r"/tile/.*exact=0"), draft)
    page.route(re.compile(r"/tile/(?!.*exact=0)"), lambda route: waiting.append(route))
    page.goto(expected.url)
    page.get_by_text("approximate, refining").wait_for()
    maps = range(the_map(page).count())
    for at in maps:
        assert the_map(page).nth(at).screenshot() != the_map(expected).nth(at).screenshot()
    for one in waiting:
        one.continue_()
    opened.settle(page)
    assert status(page) == status(expected)
    for at in maps:
        assert the_map(page).nth(at).screenshot() == the_map(expected).nth(at).screenshot()


def test_the_texts_of_a_batch(shown, opened):
    batch = shown("batch")
    weights = batch.seen[0].latest()[0].weights[1, 2]
    page = opened(batch, "map", "layer=0&head=2")
    chosen(page, "Text").select_option(label="2 of 2")
    opened.settle(page)
    assert asked(page)["item"] == "1"
    page.mouse.move(*place(page, 0.4, 0.6))
    opened.settle(page)
    check(page, weights)
    words = batch.catalogue.words(0, 1, "queries")
    query, *_ = pointed(page)
    assert f"“{words[query].strip() or '⏎'}” ({query})" in status(page)


def test_the_numbers_in_view(shown, opened):
    of = shown("long")
    weights = of.weights(1, 0)
    page = opened(of, "map", "layer=1&head=0&zoom=40&x=500&y=505")
    rows = table(saved(page, "CSV"))
    words = of.catalogue.words(1, 0, "keys")
    places = [(int(row["query position"]), int(row["key position"])) for row in rows]
    assert places[0] == (505, 500)
    assert len(set(places)) == len(places) > 200
    assert max(query for query, _ in places) > 512 < max(key for _, key in places)
    for row, (query, key) in zip(rows, places, strict=True):
        assert (row["query token"], row["key token"]) == (words[query], words[key])
        assert float(row["weight"]) == pytest.approx(weights[query, key].item(), rel=ROUNDING)


def test_the_numbers_of_coarser_cells(shown, opened):
    of = shown("long")
    weights = of.weights(1, 0)
    page = opened(of, "map", "layer=1&head=0", viewport={"width": 601, "height": 503})
    rows = table(saved(page, "CSV"))
    assert len(rows) == (-(-LONG // 4)) ** 2
    for row in (*rows[::997], rows[-1]):
        top, bottom, left, right = (
            int(row[name]) for name in ("first query", "last query", "first key", "last key")
        )
        cell = weights[top : bottom + 1, left : right + 1]
        assert float(row["max"]) == pytest.approx(cell.max().item(), rel=ROUNDING)
    assert (int(rows[-1]["last query"]), int(rows[-1]["last key"])) == (LONG - 1, LONG - 1)


def test_more_than_a_million_numbers_are_not_written(shown, opened):
    page = opened(shown("long"), "map", "", viewport={"width": 1620, "height": 1300})
    page.get_by_text("Export", exact=True).click()
    page.get_by_role("button", name="Export as CSV").click()
    page.get_by_text("Export failed: more than a million cells are visible").wait_for()


def test_pictures_of_it(shown, opened):
    page = opened(shown("decoder"), "map", "layer=1&head=1&query=17&key=3", color_scheme="dark")
    png = saved(page, "PNG").read_bytes()
    box = page.get_by_role("main").bounding_box()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    size = [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)]
    assert size == pytest.approx([2 * box["width"], 2 * box["height"]], abs=1)


def test_a_page_of_its_own(shown, opened):
    of = shown("long")
    page = opened(of, "map", "layer=1&head=2&zoom=40&x=500&y=505&query=508&key=503")
    again = alone(opened, saved(page, "HTML"))
    for one in (page, again):
        one.mouse.move(*place(one, 0.3, 0.3))
        opened.settle(one)
    assert status(again) == status(page)
    check(again, of.weights(1, 2))
    check_profiles(again, of.weights(1, 2), 508, 503)
    assert asked(again) == asked(page)
    assert the_map(again).screenshot() == the_map(page).screenshot()


def test_a_page_of_its_own_waits_for_what_is_sampled(shown, opened):
    of = shown("long")
    page = opened(of)
    waiting, is_free = [], False

    def draft(route: Route) -> None:
        """Answer with something else, and say that it is not exact."""
        found = route.fetch()
        told = found.headers | {"x-exact": "0"}
        route.fulfill(response=found, headers=told, body=found.body()[::-1])

    def exact(route: Route) -> None:
        if is_free:
            route.continue_()
        else:
            waiting.append(route)

    page.route(re.compile(r"/tile/.*exact=0"), draft)
    page.route(re.compile(r"/tile/(?!.*exact=0)"), exact)
    page.evaluate("location.hash = 'map?layer=1&head=2&zoom=40&x=500&y=505'")
    page.get_by_text("approximate, refining").wait_for()
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as HTML").click()
        is_free = True
        for one in waiting:
            one.continue_()
    again = alone(opened, download.value.path())
    again.mouse.move(*place(again, 0.3, 0.3))
    opened.settle(again)
    assert "sampled" not in status(again)
    check(again, of.weights(1, 2))


def test_a_page_of_its_own_after_much_has_been_seen(shown, opened):
    of = shown("long")
    page = opened(of, anew=True)

    page.evaluate(  # more than a view remembers
        """() => {
            const ask = window.fetch;
            const headers = {"X-Shape": 2 ** 24};
            const row = () => new Response(new ArrayBuffer(2 ** 26), {headers});
            window.fetch = (path, ...rest) => path.startsWith("row/") ? row() : ask(path, ...rest);
        }"""
    )
    page.evaluate("location.hash = 'map?layer=1&head=2&zoom=40&x=500&y=505&query=508&key=503'")
    page.get_by_text("is attended to by").wait_for()
    opened.settle(page)
    page.get_by_role("button", name="Unpin").click()
    again = alone(opened, saved(page, "HTML"))
    again.mouse.move(*place(again, 0.3, 0.3))
    opened.settle(again)
    check(again, of.weights(1, 2))


def test_the_small_map_leads_anywhere(shown, opened):
    page = opened(shown("long"), "map", "layer=1&head=2&zoom=40&x=500&y=505")
    box = the_map(page).bounding_box()
    room = {key: float(value) for key, value in asked(page).items() if key in ("x", "y")}
    assert room == {"x": 500, "y": 505}
    # It lies in the corner within the margins: where it ends, both texts do.
    page.mouse.click(box["x"] + box["width"] - 50, box["y"] + box["height"] - 20)
    opened.settle(page)
    there = asked(page)
    assert float(there["zoom"]) == 40
    assert 900 < float(there["x"]) < LONG
    assert 900 < float(there["y"]) < LONG
    assert "query" not in there, "what is clicked there is no weight"


def test_on_a_phone_what_a_head_does_stands_below_its_map(shown, opened):
    upright = {"width": 390, "height": 844}
    page = opened(shown("decoder"), "map", "layer=1&head=2", viewport=upright)
    panel = page.get_by_role("region", name="About the head")
    expect(panel.get_by_role("heading", name="Layer 1, head 2")).to_be_visible()
    above, below = page.locator("canvas.map").bounding_box(), panel.bounding_box()
    assert above["y"] + above["height"] <= below["y"] + 1
    assert below["width"] == upright["width"]
    assert not barriers(page)

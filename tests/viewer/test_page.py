"""The page in a real browser: its numbers are the library's, and everybody can reach them."""

import re
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, Page

from pellucid import lens
from tests import writers
from tests.viewer.browser import (
    LEVELS,
    OF_COLOUR,
    PHONE,
    barriers,
    is_shown,
    keep_picture,
    percents,
)
from tests.viewer.files import alone, saved, table, texts
from tests.viewer.page import (
    check,
    chosen,
    is_told,
    lines_at,
    names,
    status,
    the_map,
    weight_told,
)
from tests.viewer.recordings import HEADS, LAYERS, TOKENS


class View(NamedTuple):
    """What each view must stand: see the tests of VIEWS."""

    name: str
    asked: str
    recordings: tuple[str, ...] = ("decoder",)


VIEWS = [
    View("overview", ""),
    View("map", "layer=1&head=2"),
    View("map", "layer=3&head=1", ("both",)),
    View("map", "layer=1&head=2&query=37&key=11"),
    View("compare", ""),
    View("compare", "show=difference", ("encoder", "both")),
    View("text", "layer=1&head=2"),
    View("text", "layer=1&head=2&token=37"),
    View("lesson", ""),
    View("lesson", 'words=dog+bites+man&source=a+cat&heads=2&with={"energy":"cosine"}'),
    View("learn", "station=mask"),
    View("links", "layer=1&head=all"),
    View("links", "layer=0&head=2&token=37"),
    View("links", "", ("translated",)),
    View("generation", "step=7", ("written",)),
    View("ablate", "edits=head.1.2_word.4.1", ("translated",)),
    View("generation", "layer=6&head=2&step=3", ("translated",)),
]

# One after the other of the same recordings: what is loaded stays.
VIEWS.sort(key=lambda view: view.recordings)


# Of the module: all that one view must stand comes in a row, and it is opened once for most of it.
@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view.name}-{view.asked}")
def view(request):
    return request.param


def test_the_page_weighs_little() -> None:
    page = files("pellucid.viewer") / "page"
    loaded = ("index.html", "bundle.js", "style.css", "icon.svg")
    assert sum(len((page / name).read_bytes()) for name in loaded) <= 300_000


# What every view must stand.


def test_accessible_light_and_dark(shown, opened, view):
    page = opened(shown(*view.recordings), view.name, view.asked, anew=False)
    papers = set()
    for scheme, rules in (("light", LEVELS), ("dark", OF_COLOUR)):
        page.emulate_media(color_scheme=scheme)
        opened.settle(page)
        keep_picture(page, f"{view.name}-{view.asked}-{scheme}")
        papers.add(page.get_by_role("status").evaluate("(one) => getComputedStyle(one).background"))
        wrong = barriers(page, rules)
        assert not wrong, "\n".join([scheme, *wrong])
    assert len(papers) == 2, "dark is as light"


def test_on_a_phone_on_its_side(shown, opened, view):
    page = opened(shown(*view.recordings), view.name, view.asked, anew=False, **PHONE)
    wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page is wider than the phone"
    main = page.get_by_role("main")
    box = main.bounding_box()
    assert box["height"] >= 390 / 2, "half of the phone is taken by what stands around the view"
    covered = main.evaluate(
        """(main) => {
          const { left, top, width, height } = main.getBoundingClientRect();
          const found = [];
          for (let i = 1; i < 10; i++) for (let j = 1; j < 10; j++) {
            const [x, y] = [left + (width * i) / 10, top + (height * j) / 10];
            const on = main.getRootNode().elementFromPoint(x, y);
            if (!main.contains(on)) found.push(`${x}, ${y}: ${on?.outerHTML.slice(0, 80)}`);
          }
          return found;
        }"""
    )
    assert not covered


def test_an_address_shows_the_same_again(shown, opened, view):
    of = shown(*view.recordings)
    first = opened(of, view.name, view.asked, anew=False)
    name, _, asked = first.evaluate("location.hash.slice(1)").partition("?")
    again = opened(of, name, asked, anew=True)
    assert again.url == first.url
    assert status(again) == status(first)
    assert looks(again) == looks(first)


def test_by_keyboard_alone(shown, opened, view):
    page = opened(shown(*view.recordings), view.name, view.asked, anew=False)
    # What can be used, of radio buttons and the like one of each group.
    controls = page.evaluate(
        """() => {
          const found = [];
          const walk = (root) => root.querySelectorAll("*").forEach((one) => {
            if (one.shadowRoot) walk(one.shadowRoot);
            if (one.tabIndex >= 0 && !one.disabled && one.checkVisibility()) found.push(one);
          });
          walk(document);
          found.forEach((one, number) => { one.controlNumber = number; });
          return found.map((one) => one.outerHTML.slice(0, 80));
        }"""
    )
    assert len(controls) > 5
    # What the focus comes to is noted on the page: each question would cost as much as the key.
    page.evaluate(
        """() => {
          globalThis.reached = [];
          globalThis.note = ({ target }) => {
            const style = getComputedStyle(target);
            const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
            reached.push([target.controlNumber, seen, target.outerHTML.slice(0, 80)]);
          };
          addEventListener("focusin", note);
        }"""
    )
    for _ in range(len(controls) + 2):
        page.keyboard.press("Tab")
    found = page.evaluate("() => { removeEventListener('focusin', note); return reached; }")
    unseen = [what for number, is_seen, what in found if number is not None and not is_seen]
    assert not unseen, "one does not see that the focus is on them"
    reached = {number for number, *_ in found}
    assert [one for number, one in enumerate(controls) if number not in reached] == []
    # Where the focus is may be told: not to who opens the same address next.
    page.evaluate("location.hash = 'text'")


@pytest.mark.parametrize(
    "asked",
    [
        "overview?sort=toString&behaviour=constructor&layer=-1&head=1e9&item=7",
        "map?layer=99&zoom=-1&x=1e308&y=NaN&query=999999999&key=%3Cscript%3E&scale=valueOf",
        "compare?a=9.9.9&b=0.0&show=__proto__&zoom=1e308&x=-5&y=-5",
        "text?by=toString&way=up&token=999999999&scale=constructor&item=-0",
        "links?picture=constructor&least=101&off=x.-1&first=1e9&firstkey=&token=0x10",
        "generation?step=-3&recording=5&head=99&layer=1&token=999",
        "lesson?layer=1&scale=1e308&temperature=1e-300&width=1e9&mask=toString&around=-1",
        "lesson?example=__proto__&query=99&temperature=Infinity",
        'lesson?with={"heads":-1,"about":5,"__proto__":{"x":1},"W_query":[[null]]}',
        "lesson?with=~AAAA&words=%20&seed=1e9&size=0",
        "lesson?words=a+b&source=c&mask=causal&size=999&heads=64&width=64",
        "learn?station=__proto__&class=1&part=99",
        "toString?layer=0",
    ],
)
def test_an_address_without_sense_shows_what_is_usual(shown, opened, asked):
    page = opened(shown("decoder"), anew=False)
    page.evaluate("(to) => { location.hash = to; }", asked)
    opened.settle(page)
    assert status(page)
    said = page.locator("body").inner_text()
    assert not re.search(r"NaN|undefined|Infinity|\[object|Pellucid:", said)


def looks(page: Page) -> tuple[str, list[str]]:
    """The view as it is read and drawn; screenshots differ by rounding at edges."""
    main = page.get_by_role("main")
    drawn = "(main) => [...main.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
    return main.aria_snapshot(), main.evaluate(drawn)


# Overview.


def test_there_is_a_thumbnail_of_each_head(shown, opened):
    page = opened(shown("decoder"))
    heads = page.get_by_role("button", name=re.compile("^layer .*, head"))
    assert heads.count() == LAYERS * HEADS
    assert status(page) == f"{LAYERS * HEADS} heads"
    for canvas in heads.locator("canvas").all():
        assert colours(canvas) > 10


def colours(canvas: Locator) -> int:
    return canvas.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )


def test_heads_are_in_the_order_of_what_they_do(shown, opened):
    of = shown("both")
    page = opened(of)
    chosen(page, "Sort by").select_option(label="entropy")
    found = names(page.get_by_role("button", name=re.compile("^layer .*, head")))
    rows = sorted(lens.heads(of.seen[0]), key=lambda row: -row.entropy)
    assert len(found) == len(rows) == 6 * HEADS
    for name, row in zip(found, rows, strict=True):
        assert name.startswith(f"layer {row.label}, head {row.head}")
        assert name.endswith(f"entropy {row.entropy:.2f}")


def test_a_thumbnail_leads_to_its_map_and_back(shown, opened):
    page = opened(shown("decoder"))
    page.get_by_role("button", name=re.compile("^layer 1, head 2")).click()
    opened.settle(page)
    assert the_map(page).is_visible()
    assert page.evaluate("location.hash").startswith("#map?")
    selected = chosen(page, "Head").evaluate("(one) => one.selectedOptions[0].text")
    assert selected == "layer 1, head 2"
    page.go_back()
    opened.settle(page)
    assert page.get_by_role("button", name=re.compile("^layer .*, head")).count() == LAYERS * HEADS


def test_views_are_opened_with_enter(shown, opened):
    page = opened(shown("decoder"))
    page.get_by_role("link", name="Text").focus()
    page.keyboard.press("Enter")
    opened.settle(page)
    assert page.get_by_role("link", name="Text").get_attribute("aria-current") == "page"
    page.get_by_role("listbox").focus()
    for key in ("Home", *5 * ["ArrowRight"], "Enter"):
        page.keyboard.press(key)
    opened.settle(page)
    assert "(5) attends to" in status(page)


# Map.


@pytest.mark.parametrize(("name", "layer"), [("decoder", 1), ("both", 3)])
def test_the_keyboard_reads_single_weights(shown, opened, name, layer):
    of = shown(name)
    weights = of.weights(layer, 2)
    page = opened(of, "map", f"layer={layer}&head=2")
    the_map(page).focus()
    page.keyboard.press("ArrowRight")
    seen = set()
    for way in ["ArrowDown", "ArrowRight", "ArrowDown", "ArrowDown", "+", "ArrowRight", "ArrowUp"]:
        page.keyboard.press(way)
        opened.settle(page)
        seen.add(check(page, weights))
    assert len(seen) == 6
    for _ in range(9):
        page.keyboard.press("+")
    opened.settle(page)
    assert check(page, weights) in seen
    page.keyboard.press("0")
    opened.settle(page)
    queries, keys = weights.shape
    assert f"{queries} × {keys} weights" in status(page)


def test_the_wheel_zooms_to_single_weights(shown, opened):
    of = shown("long")
    page = opened(of, "map", "layer=1&head=1", viewport={"width": 601, "height": 503})
    assert "1,009 × 1,009 weights" in status(page)
    assert "each cell is the maximum of" in status(page)
    box = the_map(page).bounding_box()
    place = box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.7
    page.mouse.move(*place)
    for _ in range(20):
        page.mouse.wheel(0, -300)
    opened.settle(page)
    page.mouse.move(place[0] + 1, place[1])
    opened.settle(page)
    assert "each cell is" not in status(page)
    first = check(page, of.weights(1, 1))
    assert min(first) > 100
    # Drag what is shown one cell to the left and up.
    page.mouse.down()
    page.mouse.move(place[0] - 95, place[1] - 96, steps=3)
    page.mouse.up()
    page.mouse.move(place[0] + 1, place[1])
    opened.settle(page)
    query, key = check(page, of.weights(1, 1))
    assert (query, key) == (first[0] + 1, first[1] + 1)


@pytest.mark.parametrize(
    ("scheme", "scale", "several"), [("light", "logarithmic", 10), ("dark", "linear", 3)]
)
def test_colours_are_in_the_order_of_the_weights(shown, opened, scheme, scale, several):
    """Where four tiles meet: the darker the light page, the lighter the dark one, the more."""
    of = shown("long")
    weights = of.weights(0, 2)
    page = opened(of, "map", "layer=0&head=2&zoom=9&x=480&y=490", color_scheme=scheme)
    chosen(page, "Scale").select_option(label=scale)
    points, found = [(130 + 77 * i, 110 + 61 * j) for i in range(7) for j in range(6)], []
    for line in lines_at(page, points):
        query, key, said = weight_told(line)
        assert is_told(said, weights[query, key].item())
        found.append((query, key))
    assert min(query for query, _ in found) < 512 <= max(query for query, _ in found)
    assert min(key for _, key in found) < 512 <= max(key for _, key in found)
    # The last one is under the mark of the pointer.
    lights = dict(zip(found[:-1], light(the_map(page), points), strict=False))
    ordered = sorted(lights, key=lambda place: weights[place].item(), reverse=scheme == "light")
    assert len({round(one) for one in lights.values()}) > several
    for less, more in pairwise(ordered):
        assert lights[less] <= lights[more] + 1, (less, more)


def light(canvas: Locator, points: list[tuple[float, float]]) -> list[float]:
    """How light a canvas is at each point."""
    return canvas.evaluate(
        """(canvas, points) => {
          const { width, height, clientWidth } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          return points.map((point) => {
            const [x, y] = point.map((one) => Math.floor(one * width / clientWidth));
            const [r, g, b] = data.subarray(4 * (y * width + x));
            return 0.299 * r + 0.587 * g + 0.114 * b;
          });
        }""",
        points,
    )


def test_another_head_is_another_map(shown, opened):
    of = shown("decoder")
    page = opened(of, "map", "layer=0&head=0")
    chosen(page, "Head").select_option(label="layer 1, head 1")
    opened.settle(page)
    box = the_map(page).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.8)
    opened.settle(page)
    check(page, of.weights(1, 1))


# Text.


def words(page: Page) -> Locator:
    return page.get_by_role("listbox").get_by_role("option")


def test_a_word_shows_what_it_attends_to(shown, opened):
    of = shown("decoder")
    weights = of.weights(1, 2)
    page = opened(of, "text", "layer=1&head=2")
    assert words(page).count() == TOKENS
    read = re.sub(r"[\s␣⏎]", "", "".join(words(page).all_inner_texts()))
    assert "".join(writers.TEXT.split()).startswith(read)
    words(page).nth(37).click()
    opened.settle(page)
    check_words(page, weights[37])
    assert "(37) attends to" in status_of_all(page)
    chosen(page, "Shade").select_option("from")
    opened.settle(page)
    check_words(page, weights[:, 37])
    assert "(37) is attended to by" in status_of_all(page)


def status_of_all(page: Page) -> str:
    """What the status line says when the pointer is on no word."""
    page.mouse.move(1, 1)
    return status(page)


def check_words(page: Page, weights) -> None:
    """What the words are called, and the strongest in the status line."""
    said = names(words(page))
    for name, weight in zip(said, weights.tolist(), strict=True):
        assert is_shown(percents(name)[-1], weight)
    strongest = re.findall(r"\((\d+)\) ([\d.e-]+ %)", status_of_all(page))
    assert len(strongest) == 3
    for (number, percentage), (weight, place) in zip(
        strongest, zip(*(one.tolist() for one in weights.topk(3)), strict=True), strict=True
    ):
        assert int(number) == place
        assert is_shown(percents(percentage)[0], weight)
    (pressed,) = page.get_by_role("listbox").get_by_role("option", selected=True).all()
    assert pressed.inner_text() == words(page).nth(37).inner_text()


def test_a_long_text_opens_where_its_token_stands(shown, opened):
    of = shown("long")
    page = opened(of, "text", "layer=1&head=0&token=1000")
    assert "(1000) attends to" in status(page)
    assert 0 < words(page).count() < of.weights(1, 0).shape[-1]
    (pressed,) = page.get_by_role("listbox").get_by_role("option", selected=True).all()
    paper, word = page.get_by_role("main").bounding_box(), pressed.bounding_box()
    assert paper["y"] <= word["y"] <= paper["y"] + paper["height"]
    strongest = of.weights(1, 0)[1000].max().item()
    assert is_shown(percents(status(page))[0], strongest)


# More than one.


def test_a_tab_that_is_closed_leaves_the_others_alone(shown, opened):
    of = shown("long")
    weights = of.weights(0, 0)
    stays, goes = opened(of, "text", "layer=0&head=0"), opened(of, "map", "layer=1&head=0")
    goes.evaluate("for (let i = 0; i < 50; i++) fetch(`column/0/0/${i % 3}/${i}`).catch(() => 0)")
    goes.close()
    words(stays).nth(40).click()
    opened.settle(stays)
    assert is_shown(percents(status_of_all(stays))[0], weights[40].max().item())
    assert stays.request.get(f"{of.address}about").ok


# Each view once, at an address at which there is something to export.
EXPORTED = [
    View("overview", ""),
    View("map", "layer=1&head=2"),
    View("compare", "show=difference"),
    View("text", "layer=1&head=2&token=37"),
    View("lesson", "example=poem"),
    View("learn", "station=scale"),
    View("links", "layer=0&head=2&token=37"),
    View("generation", "step=7", ("written",)),
]


@pytest.mark.parametrize("view", EXPORTED, ids=lambda view: view.name)
def test_what_is_shown_is_saved_in_every_way(shown, opened, view):
    page = opened(shown(*view.recordings), view.name, view.asked)
    box = page.get_by_role("main").bounding_box()
    png = saved(page, "PNG").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    size = [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)]
    assert size == pytest.approx([2 * box["width"], 2 * box["height"]], abs=2)
    assert len(texts(saved(page, "SVG"))) > 5
    first, *_ = rows = table(saved(page, "CSV"))
    assert len(rows) > 5
    assert len(first) > 2
    opened.settle(page)
    again = alone(opened, saved(page, "HTML"))
    assert again.get_by_role("main").inner_text() == page.get_by_role("main").inner_text()
    assert again.evaluate("location.hash") == page.evaluate("location.hash")

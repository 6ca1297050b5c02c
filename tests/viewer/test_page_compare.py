"""Two heads beside each other, and their difference: the numbers are the library's."""

import re
from decimal import Decimal

import pytest
from playwright.sync_api import Page

from pellucid.viewer.telling import telling
from tests.viewer.browser import is_shown, percents
from tests.viewer.files import alone, saved, table, texts
from tests.viewer.page import (
    asked,
    chosen,
    is_told,
    lines_at,
    place,
    status,
    the_map,
    weight_told,
)
from tests.viewer.recordings import ROUNDING, SOURCE, TOKENS

SIDES = ("First", "Second")
NUMBER = r"([+−]?[\d.]+(?:e[-+]?\d+)? %|–)"


def pointed(page: Page) -> tuple[int, int, list[str]]:
    """The query and key that the status line is about, and all numbers that it gives."""
    found = re.search(r"\((\d+)\) attends to .*?\((\d+)\)", status(page))
    assert found, status(page)
    return int(found[1]), int(found[2]), re.findall(NUMBER, status(page))


def is_signed(said: str, difference: float) -> bool:
    """Whether a difference is shown with its sign."""
    if said.startswith("≈"):
        return 0 < abs(difference) < 1e-5
    sign = {"+": 1, "−": -1}.get(said[0], 0)
    (percentage,) = percents(said)
    return sign == (difference > 0) - (difference < 0) and is_shown(percentage, abs(difference))


def check(page: Page, first, second, *, difference: bool = False) -> tuple[int, int]:
    query, key, said = pointed(page)
    one, two = first[query, key].item(), second[query, key].item()
    assert is_told(said[0], one)
    assert is_told(said[1], two)
    if difference:
        assert is_signed(said[2], one - two)
    assert len(said) == 2 + difference
    return query, key


def test_two_heads_move_together(shown, opened):
    of = shown("decoder")
    first, second = of.weights(0, 1), of.weights(1, 2)
    page = opened(of, "compare", "a=0.0.1&b=1.0.2")
    assert the_map(page).count() == 2
    page.mouse.move(*place(page, 0.3, 0.6))
    opened.settle(page)
    before = check(page, first, second)
    box = the_map(page).nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.6)
    opened.settle(page)
    assert check(page, first, second) == before
    for _ in range(3):
        page.mouse.wheel(0, -300)
    opened.settle(page)
    nearer = check(page, first, second)
    page.mouse.move(*place(page, 0.3, 0.6))
    opened.settle(page)
    assert check(page, first, second) == nearer
    # What is written beside both is the same.
    said = [one.strip() for one in texts(saved(page, "SVG")) if "%" not in one]
    words = said[said.index("layer 0, head 1") + 1 : said.index("Second")]
    others = said[said.index("layer 1, head 2") + 1 :]
    assert len(words) > 20
    assert words == others
    assert float(asked(page)["zoom"]) > 10


def test_the_keyboard_reads_both(shown, opened):
    of = shown("decoder")
    page = opened(of, "compare", "a=0.0.1&b=1.0.2")
    the_map(page).nth(1).focus()
    seen = set()
    for way in ["ArrowDown", "ArrowDown", "ArrowRight", "+", "+", "ArrowRight", "ArrowDown"]:
        page.keyboard.press(way)
        opened.settle(page)
        seen.add(check(page, of.weights(0, 1), of.weights(1, 2)))
    assert len(seen) == 5


def test_the_difference_is_the_librarys(shown, opened):
    of = shown("encoder")
    first, second = of.weights(0, 1), of.weights(1, 2)
    page = opened(
        of, "compare", "a=0.0.1&b=1.0.2&show=difference", viewport={"width": 1500, "height": 1100}
    )
    assert the_map(page).count() == 1
    seen = set()
    for across, down in [(0.3, 0.3), (0.3, 0.7), (0.6, 0.5), (0.7, 0.7)]:
        page.mouse.move(*place(page, across, down))
        opened.settle(page)
        seen.add(check(page, first, second, difference=True))
    assert len(seen) == 4
    said = [one for one in texts(saved(page, "SVG")) if "%" in one]
    expected = (first - second).flatten().tolist()
    assert min(expected) < 0 < max(expected)
    for text, value in zip(said, expected, strict=False):
        assert is_signed(text, value)
    low, high = said[SOURCE**2 :]
    assert low == "−" + high.removeprefix("+")
    rows = table(saved(page, "CSV"))
    assert len(rows) == SOURCE**2
    for row in rows:
        query, key = int(row["query position"]), int(row["key position"])
        one, other = first[query, key].item(), second[query, key].item()
        assert float(row["first"]) == pytest.approx(one, rel=ROUNDING)
        assert float(row["second"]) == pytest.approx(other, rel=ROUNDING)
        of_both = ROUNDING * (one + other)
        assert float(row["difference"]) == pytest.approx(one - other, abs=of_both)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_more_is_orange_and_less_is_blue(shown, opened, scheme):
    of = shown("decoder")
    difference = of.weights(0, 1) - of.weights(1, 2)
    page = opened(of, "compare", "a=0.0.1&b=1.0.2&show=difference", color_scheme=scheme)
    seen = []
    points = [(104 + 20 * i, 90 + 17 * j) for i in range(1, 30) for j in range(25)]
    box = the_map(page).bounding_box()
    for (x, y), line in zip(points[::7], lines_at(page, points[::7]), strict=True):
        if "attends" in line:
            query, key, _ = weight_told(line)
            seen.append((difference[query, key].item(), x, y))
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    opened.settle(page)
    colours = the_map(page).evaluate(
        """(canvas, points) => {
          const { width, height } = canvas, scale = width / canvas.clientWidth;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          const start = ([x, y]) => 4 * (Math.floor(y * scale) * width + Math.floor(x * scale));
          return points.map((at) => [...data.subarray(start(at), start(at) + 4)]);
        }""",
        [[x, y] for _, x, y in seen],
    )
    warm, cold = 0, 0
    for (value, *_), (red, _green, blue, _) in zip(seen, colours, strict=True):
        if value > 0.3:
            assert red > blue + 40
            warm += 1
        elif value < -0.3:
            assert blue > red + 40
            cold += 1
        elif value == 0:
            assert abs(red - blue) < 20
    assert min(warm, cold) > 0
    assert warm + cold > 3


def test_maps_of_different_sizes_have_no_difference(shown, opened):
    of = shown("decoder", "both")
    page = opened(of, "compare", "a=0.0.1&b=2.0.2&show=difference")
    said = page.get_by_role("main").inner_text()
    assert f"The first head has {TOKENS} × {TOKENS} weights" in said
    assert f"the second {SOURCE} × {SOURCE}" in said
    chosen(page, "Show").select_option(label="side by side")
    opened.settle(page)
    page.mouse.move(*place(page, 0.25, 0.3))
    opened.settle(page)
    check(page, of.weights(0, 1), of.weights(2, 2))
    page.mouse.move(*place(page, 0.25, 0.7))
    opened.settle(page)
    query, key, said = pointed(page)
    assert query > SOURCE
    assert is_told(said[0], of.weights(0, 1)[query, key].item())
    assert "second has no such cell" in status(page)
    rows = table(saved(page, "CSV"))
    assert len(rows) == SOURCE**2


def test_without_a_choice_both_heads_are_the_telling_ones(shown, opened):
    of = shown("decoder", "encoder")
    page = opened(of, "compare")
    for side, recording in (("a", 0), ("b", 1)):
        best = telling(of.catalogue, recording)["telling"]
        assert asked(page)[side] == f"{best['layer']}.0.{best['head']}"


def test_two_texts_each_have_their_words(shown, opened):
    of = shown("encoder", "both")
    page = opened(of, "compare", "layer=1&head=2")
    # The same head of the other recording, unless another is chosen.
    assert (asked(page)["a"], asked(page)["b"]) == ("1.0.2", "3.0.2")
    said = [chosen(page, name).evaluate("(one) => one.selectedOptions[0].text") for name in SIDES]
    assert [one.split(":")[0] for one in said] == ["encoder", "both"]
    page.mouse.move(*place(page, 0.4, 0.6))
    opened.settle(page)
    query, _ = check(page, of.weights(1, 2), of.weights(3, 2))
    mine, other = (of.catalogue.words(layer, 0, "keys") for layer in (1, 3))
    assert mine != other
    for words in (mine, other):
        assert f"“{words[query].strip() or '⏎'}” ({query})" in status(page)
    page = opened(of, "compare", "a=1.0.2&b=3.0.2&show=difference")
    rows = table(saved(page, "CSV"))
    for row in rows[:SOURCE]:
        at = int(row["key position"])
        both = [mine[at].strip(), other[at].strip()]
        expected = mine[at] if mine[at] == other[at] else "/".join(both)
        assert row["key token"] == expected


def test_another_head_is_compared(shown, opened):
    of = shown("decoder")
    page = opened(of, "compare")
    assert (asked(page)["a"], asked(page)["b"]) == ("0.0.0", "0.0.1")
    chosen(page, "Second").select_option(label="layer 1, head 2")
    opened.settle(page)
    page.mouse.move(*place(page, 0.3, 0.6))
    opened.settle(page)
    check(page, of.weights(0, 0), of.weights(1, 2))
    page.go_back()
    opened.settle(page)
    assert asked(page)["b"] == "0.0.1"


def test_a_page_of_its_own(shown, opened):
    of = shown("long")
    page = opened(of, "compare", "a=0.0.1&b=1.0.2&show=difference&zoom=30&x=500&y=505")
    again = alone(opened, saved(page, "HTML"))
    for one in (page, again):
        one.mouse.move(*place(one, 0.3, 0.3))
        opened.settle(one)
    assert status(again) == status(page)
    check(again, of.weights(0, 1), of.weights(1, 2), difference=True)
    assert the_map(again).screenshot() == the_map(page).screenshot()


def test_coarser_cells_are_means(shown, opened):
    of = shown("long")
    first, second = of.weights(0, 1), of.weights(1, 2)
    page = opened(
        of, "compare", "a=0.0.1&b=1.0.2&show=difference", viewport={"width": 601, "height": 503}
    )
    rows = table(saved(page, "CSV"))
    for row in rows[::997]:
        top, bottom, left, right = (
            int(row[name]) for name in ("first query", "last query", "first key", "last key")
        )
        one, other = (
            whole[top : bottom + 1, left : right + 1].double() for whole in (first, second)
        )
        assert one.numel() > 1
        of_both = ROUNDING * (one + other).mean().item()
        difference = (one - other).mean().item()
        assert float(row["difference"]) == pytest.approx(difference, abs=of_both)
    assert Decimal(rows[0]["first"]) > 0

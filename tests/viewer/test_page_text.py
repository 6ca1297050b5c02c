"""The document itself: shading is the library's, and only what is near the window is there."""

import math
import re
from itertools import pairwise

import pytest
import torch
from playwright.sync_api import Locator, Page

import pellucid
from pellucid import lens
from pellucid.viewer.catalogue import Volume
from tests.viewer.browser import AXE, Shown, is_shown, percents
from tests.viewer.files import alone, saved, table, texts
from tests.viewer.page import asked, chosen, names, status, the_map
from tests.viewer.recordings import HEADS, SOURCE, TARGET, TOKENS, WORDS, Spelling, made

LONG = 5003
MOST = 1500
"""Words that may be in the page at once, of a text of any length."""


def paper(page: Page, number: int = 0) -> Locator:
    return page.get_by_role("listbox").nth(number)


def words(page: Page, number: int = 0) -> Locator:
    return paper(page, number).get_by_role("option")


def summary(page: Page) -> str:
    page.mouse.move(1, 1)
    return status(page)


def check(page: Page, weights, number: int = 0) -> None:
    """Every word says its percentage, and the status line the three largest."""
    for label, weight in zip(names(words(page, number)), weights.tolist(), strict=True):
        assert is_shown(percents(label)[-1], weight), (label, weight)
    strongest = re.findall(r"\((\d+)\) ([\d.e-]+ %)", summary(page))
    assert [int(place) for place, _ in strongest] == weights.topk(3).indices.tolist()
    for place, said in strongest:
        assert is_shown(percents(said)[0], weights[int(place)].item())


@pytest.fixture(scope="module")
def long():
    one = Shown(Volume(made(LONG, heads=2), "long"))
    yield one
    one.stop()


@pytest.mark.parametrize("way", ["to", "from"])
def test_below_a_short_text_stands_what_each_head_does(shown, opened, way):
    of = shown("encoder")
    page = opened(of, "text", f"layer=1&head=2&token=5&way={way}", color_scheme="dark")
    each = page.get_by_role("region", name="Each head of this layer")
    rows = [row.get_by_role("cell").all_inner_texts() for row in each.get_by_role("row").all()[1:]]
    assert len(rows) == HEADS
    for head, cells in enumerate(rows):
        weights = of.weights(1, head)
        line = weights[5] if way == "to" else weights[:, 5]
        for said, weight in zip(cells, line.tolist(), strict=True):
            assert "<" in said or is_shown(percents(said)[0], weight)
    page.evaluate(AXE)
    found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa'] })")
    assert [one["id"] for one in found["violations"]] == []
    each.get_by_role("button", name="Shade the text by head 0").click()
    assert asked(page)["head"] == "0"
    opened.settle(page)
    check(page, of.weights(1, 0)[5] if way == "to" else of.weights(1, 0)[:, 5])
    pressed = each.get_by_role("button", pressed=True)
    assert pressed.inner_text() == "0"
    assert pressed.evaluate("(one) => one === document.activeElement")


def test_a_head_is_kept_where_a_view_has_none(shown, opened):
    page = opened(shown("encoder"), "text", "layer=1&head=2&token=5")
    for view in ("Learn", "Compare", "Text"):
        page.get_by_role("link", name=view).click()
        opened.settle(page)
    assert {asked(page)[name] for name in ("layer", "head", "token")} == {"1", "2", "5"}


def test_a_view_that_is_left_writes_no_address(shown, opened):
    page = opened(shown("encoder"), "map", "layer=1&head=2")
    the_map(page).focus()
    # The browser tells of a new address only in a moment; of this one, never.
    page.evaluate(
        """() => {
          const key = new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true });
          document.activeElement.dispatchEvent(key);
          history.pushState(null, "", "#text?layer=0");
        }"""
    )
    assert asked(page) == {"layer": "0"}


@pytest.mark.parametrize(("by", "scheme"), [("2", "light"), ("layer", "dark"), ("rollout", "dark")])
def test_shading_is_the_library_s(shown, opened, by, scheme):
    of = shown("decoder")
    records = of.seen[0].latest()
    weights = {
        "2": of.weights(1, 2),
        "layer": records[1].weights[0].mean(0),
        "rollout": lens.rollout(of.seen[0])[0],
    }[by]
    assert weights.shape == (TOKENS, TOKENS)
    page = opened(of, "text", "layer=1", color_scheme=scheme)
    chosen(page, "Head").select_option(by)
    words(page).nth(37).click()
    opened.settle(page)
    check(page, weights[37])
    chosen(page, "Shade").select_option("from")
    opened.settle(page)
    check(page, weights[:, 37])
    words(page).nth(11).hover()
    (said,) = percents(status(page))
    assert is_shown(said, weights[11, 37].item())
    chosen(page, "Layer").select_option("0")
    opened.settle(page)
    first = {
        "2": of.weights(0, 2),
        "layer": records[0].weights[0].mean(0),
        "rollout": lens.rollout(records[:1])[0],
    }[by]
    check(page, first[:, 37])
    assert asked(page)["layer"] == "0"


def test_only_words_that_have_a_share_are_named(shown, opened):
    page = opened(shown("decoder"), "text", "layer=1&token=0")
    assert re.fullmatch(r"“[^”]+” \(0\) attends to “[^”]+” \(0\) 100.0 %", summary(page))


def test_stronger_is_darker_on_every_scale(shown, opened):
    of = shown("decoder")
    weights = of.weights(1, 2)[53]
    page = opened(of, "text", "layer=1&head=2&token=53")
    ways = {}
    for scale in ("linear", "root", "log"):
        chosen(page, "Scale").select_option(scale)
        lights = words(page).evaluate_all(
            """(all) => all.map((one) => {
              const [r, g, b] = getComputedStyle(one).backgroundColor.match(/[\\d.]+/g).map(Number);
              return 0.299 * r + 0.587 * g + 0.114 * b;
            })"""
        )
        seen = sorted(zip(weights[:54].tolist(), lights[:54], strict=True))
        assert all(seen[i][1] >= seen[i + 1][1] for i in range(53)), scale
        ways[scale] = sum(lights[:54])
        # The legend ends at the largest weight.
        assert is_shown(percents(page.locator(".legend").inner_text())[2], weights.max().item())
    assert ways["linear"] > ways["root"] > ways["log"]


def test_two_texts_where_one_attends_to_the_other(shown, opened):
    of = shown("both")
    layer = next(i for i, one in enumerate(of.catalogue.layers) if one.is_cross)
    page = opened(of, "text", f"layer={layer}&head=2")
    assert (words(page, 0).count(), words(page, 1).count()) == (TARGET, SOURCE)
    assert "rollout" not in chosen(page, "Head").inner_text()
    assert "cross-attention" in chosen(page, "Layer").inner_text()
    for by in ("2", "layer"):
        chosen(page, "Head").select_option(by)
        whole = of.seen[0].latest()[layer].weights[0]
        weights = whole[2] if by == "2" else whole.mean(0)
        words(page, 0).nth(17).click()
        opened.settle(page)
        check(page, weights[17], 1)
        assert words(page, 0).nth(17).get_attribute("aria-selected") == "true"
        words(page, 1).nth(5).click()
        opened.settle(page)
        check(page, weights[:, 5], 0)
        assert asked(page)["way"] == "from"
        assert words(page, 1).nth(5).get_attribute("aria-selected") == "true"
        assert page.locator(".token[aria-selected=true]").count() == 1


def test_why_there_is_no_rollout_is_said(opened):
    torch.manual_seed(3)
    layer = torch.nn.TransformerEncoderLayer(12, 3, 17, batch_first=True).eval()
    with torch.no_grad(), pellucid.watch(layer) as seen:
        layer(layer(torch.randn(1, 7, 12)))
    of = Shown(Volume(seen, "shared"))
    try:
        page = opened(of, "text", "layer=0&head=1&token=3")
        check(page, seen.latest()[0].weights[0, 1, 3])
        assert paper(page).inner_text().startswith("#0 #1 #2")
        chosen(page, "Head").select_option("rollout")
        opened.settle(page)
        assert "several times in a row" in status(page)
        assert words(page).first.get_attribute("aria-label") is None
        opened.forgive(page, "400")
    finally:
        of.stop()


def test_a_long_text_is_there_only_near_the_window(long, opened):
    page = opened(long, "text", "layer=1&head=1")
    seen: set[int] = set()
    size = page.evaluate("document.querySelector('.virtual-text').scrollHeight")
    for top in range(0, size + 4000, 500):
        page.evaluate(f"document.querySelector('.virtual-text').scrollTop = {top}")
        opened.settle(page)
        there = page.evaluate("[...document.querySelectorAll('.token')].map((one) => one.number)")
        assert 0 < len(there) <= MOST
        seen.update(there)
    assert seen == set(range(LONG))
    paper(page).focus()
    page.keyboard.press("Home")
    opened.settle(page)
    assert page.evaluate("document.querySelector('.virtual-text').scrollTop") < 50
    now = page.evaluate("document.querySelector('.virtual-text').scrollHeight")
    assert math.isclose(now, size, rel_tol=0.05), "what is scrolled past keeps its height"


@pytest.mark.parametrize("by", ["head=1", "by=layer", "by=rollout"])
def test_a_long_text_is_shaded_as_the_library_says(long, opened, by):
    seen = long.seen[0]
    record = seen.latest()[1]
    token = 4001
    page = opened(long, "text", f"layer=1&{by}&token={token}")
    row = {
        "head=1": lambda: record.weights[0, 1, token],
        "by=layer": lambda: record.weights[0, :, token].mean(0),
        "by=rollout": lambda: lens.rollout(seen, token)[0, 0],
    }[by]()
    there = words(page).evaluate_all("(all) => all.map((one) => [one.number, one.ariaLabel])")
    assert token in dict(there)
    for place, label in there:
        assert is_shown(percents(label)[-1], row[place].item())
    (place, said), *_ = re.findall(r"\((\d+)\) ([\d.e-]+ %)", status(page))
    assert is_shown(percents(said)[0], row[int(place)].item())
    assert is_shown(percents(said)[0], row.max().item())


def test_by_keyboard(shown, opened):
    of = shown("decoder")
    page = opened(of, "text", "layer=1&head=2", viewport={"width": 701, "height": 601})
    stops = page.locator(".virtual-text, .virtual-text *").evaluate_all(
        "(all) => all.map((one) => one.tabIndex)"
    )
    assert [one for one in stops if one >= 0] == [0]
    active = """() => {
      const id = document.activeElement.getAttribute('aria-activedescendant');
      const one = document.getElementById(id), box = one.getBoundingClientRect();
      return [one.number, box.left, box.top, getComputedStyle(one).outlineStyle];
    }"""
    paper(page).focus()
    page.keyboard.press("Home")
    for key, number in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowRight", 2)]:
        page.keyboard.press(key)
        found, x, y, outline = page.evaluate(active)
        assert found == number
        assert outline != "none"
    page.keyboard.press("ArrowDown")
    down, _, lower, _ = page.evaluate(active)
    assert down > 5
    assert lower > y + 10
    page.keyboard.press("ArrowUp")
    up, left, upper, _ = page.evaluate(active)
    assert upper == y
    assert abs(left - x) < 80
    page.keyboard.press("Enter")
    opened.settle(page)
    assert f"({up}) attends to" in status(page)
    assert asked(page)["token"] == str(up)
    page.keyboard.press("End")
    assert page.evaluate(active)[0] == TOKENS - 1
    page.keyboard.press("Space")
    opened.settle(page)
    check(page, of.weights(1, 2)[TOKENS - 1])


def test_words_are_found(long, opened):
    page = opened(long, "text", "layer=0&head=0")
    ids = long.seen[0].latest()[0].key_ids[0].tolist()
    # "t to" is in " sent to" and in " servant to".
    ends = {WORDS.index(" sent"), WORDS.index(" servant")}
    both = enumerate(pairwise(ids))
    places = [i for i, (one, other) in both if one in ends and WORDS[other] == " to"]
    assert len(places) > 7
    box = page.get_by_role("searchbox")
    box.fill("T To")
    found = []
    for number in range(1, 4):
        box.press("Enter")
        opened.settle(page)
        assert f"match {number} of {len(places)}" in status(page)
        found.append(
            page.evaluate("[...document.querySelectorAll('.found')].map((one) => one.number)")
        )
        seen = page.locator(".found").first.bounding_box()
        around = paper(page).bounding_box()
        assert around["y"] <= seen["y"] <= around["y"] + around["height"]
    assert found == [[place, place + 1] for place in places[:3]]
    box.press("Shift+Enter")
    assert f"match 2 of {len(places)}" in status(page)
    box.fill("a (king")
    box.press("Enter")
    assert status(page) == "“a (king” was not found"


def test_what_cannot_be_seen_and_what_is_no_word(opened):
    seen = made(13, layers=1)
    spelt = (
        "<|end|>",
        " un",
        "believ",
        "able",
        " ",
        "\n",
        " <b>",
        "\t",
        "!",
        "\n\n",
        "the",
        "\x07",
    )
    seen._tokenizer = Spelling(spelt)
    of = Shown(Volume(seen, "signs"))
    try:
        page = opened(of, "text")
        ids = seen.latest()[0].key_ids[0].tolist()
        shown = {
            "<|end|>": "<|end|>", " un": "un", " ": "␣", "\n": "⏎", " <b>": "<b>", "\t": "⇥",
            "\n\n": "⏎⏎", "\x07": "␇",
        }  # fmt: skip
        wanted = [spelt[one % len(spelt)] for one in ids]
        found = words(page).evaluate_all("(all) => all.map((one) => one.textContent)")
        assert found == [shown.get(one, one) for one in wanted]
        special = page.locator(".special").evaluate_all(
            "(all) => all.map((one) => one.textContent)"
        )
        assert special == [one.strip() for one in wanted if one.startswith(("<|", " <b"))]
    finally:
        of.stop()


def test_an_address_opens_what_it_was(shown, opened):
    of = shown("decoder")
    page = opened(of, "text", "layer=0&head=0")
    chosen(page, "Layer").select_option("1")
    chosen(page, "Head").select_option("rollout")
    chosen(page, "Shade").select_option("from")
    chosen(page, "Scale").select_option("log")
    words(page).nth(23).click()
    opened.settle(page)
    again = opened(of, "text", page.url.partition("?")[2])
    assert again.url == page.url
    assert summary(again) == summary(page)
    assert "(23) is part of" in summary(page)
    assert paper(again).inner_html() == paper(page).inner_html().replace(" active", "").replace(
        re.search(r' id="token-\d+"', paper(page).inner_html())[0], ""
    )
    for name in ("Layer", "Head", "Shade", "Scale"):
        assert chosen(again, name).input_value() == chosen(page, name).input_value()


def test_each_text_of_a_batch(shown, opened):
    batch = shown("batch")
    page = opened(batch, "text", "layer=0&head=1&token=3")
    weights = batch.seen[0].latest()[0].weights
    check(page, weights[0, 1, 3])
    chosen(page, "Text").select_option("1")
    opened.settle(page)
    check(page, weights[1, 1, 3])


def test_words_of_a_document_turn_no_numbers(opened):
    seen = made(13, layers=1)
    seen._tokenizer = Spelling(
        (" \u202eno", "שלום", "\u2066so")
    )  # signs of a right-to-left override
    of = Shown(Volume(seen, "\u202dturned"))
    try:
        page = opened(of)
        for view in ("map", "links", "generation", "lesson", "text"):
            page.goto(f"{of.address}#{view}?layer=0&token=12&query=12&key=0")
            opened.settle(page)
            assert page.get_by_role("link", name=view.title()).get_attribute("aria-current")
            assert "\ufffd" in page.locator("body").inner_text()
            assert not re.search("[\u202a-\u202e\u2066\u2067]", page.locator("body").inner_text())
        ids = seen.latest()[0].key_ids[0].tolist()
        at = [one % 3 for one in ids].index(1)
        page.get_by_role("listbox").get_by_role("option").nth(at).hover()
        assert status(page).startswith(f"“\u2068שלום\u2069” ({at}): ")  # apart from its number
    finally:
        of.stop()


def test_a_word_longer_than_a_line_is_drawn_in_all_its_lines(opened):
    seen = made(3, layers=1)
    long = "".join(chr(0x4E00 + one) for one in range(151))
    seen._tokenizer = Spelling((long,))
    of = Shown(Volume(seen, "long"))
    try:
        page = opened(of, "text")
        written = [one for one in texts(saved(page, "SVG")) if one and one in long]
        assert len(written) > 3
        assert "".join(written) == 3 * long
    finally:
        of.stop()


@pytest.mark.parametrize("by", ["head=2", "by=layer", "by=rollout"])
def test_what_is_exported(shown, opened, by):
    of = shown("decoder")
    page = opened(of, "text", f"layer=1&{by}&token=41")
    weights = {
        "head=2": of.weights(1, 2),
        "by=layer": of.seen[0].latest()[1].weights[0].mean(0),
        "by=rollout": lens.rollout(of.seen[0])[0],
    }[by]
    rows = table(saved(page, "CSV"))
    assert [int(row["position"]) for row in rows] == list(range(TOKENS))
    assert "".join(row["token"] for row in rows).startswith(rows[0]["token"])
    for row, weight in zip(rows, weights[41].tolist(), strict=True):
        assert math.isclose(float(row["weight"]), weight, rel_tol=1e-5, abs_tol=1e-9)
    written = texts(saved(page, "SVG"))
    largest = weights[41].max().item()
    assert any(is_shown(one, largest) for text in written for one in percents(text))
    first = {one.strip() for one in words(page).all_inner_texts()[:9]}
    assert first <= {one.strip() for one in written}
    # Of a short text all words of a head or layer are in the file.
    again = alone(opened, saved(page, "HTML"))
    check(again, weights[41])
    if by != "by=rollout":
        words(again).nth(29).click()
        check(again, weights[29])


def test_nothing_chosen_has_no_numbers(shown, opened):
    page = opened(shown("decoder"), "text")
    page.get_by_text("Export", exact=True).click()
    page.get_by_role("button", name="Export as CSV").click()
    opened.settle(page)
    assert status(page) == "Export failed: select a word first"

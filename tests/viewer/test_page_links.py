"""Links: the percentages beside words are the library's weights, and so is the grid's alignment."""

import csv
import io
import re

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from pellucid import lens
from tests.viewer.browser import is_shown, percents
from tests.viewer.files import saved
from tests.viewer.recordings import HEADS, LONG, ROUNDING, TOKENS

MOST = 200


def side(page: Page, name: str) -> Locator:
    return page.locator(f"ol.{name}")


def words(page: Page, name: str) -> Locator:
    return side(page, name).get_by_role("button")


def chosen(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name)


def status(page: Page) -> str:
    return page.get_by_role("status").inner_text()


def check_shares(page: Page, name: str, expected) -> None:
    """Compare what stands beside the words of one side, and that nothing does on the other."""
    shares = side(page, name).locator(".share").all_inner_texts()
    assert len(shares) == len(expected)
    for said, weight in zip(shares, expected.tolist(), strict=True):
        if said == "–":
            assert weight == 0
        elif said == "< 0.01 %":
            assert 0 < weight < 1e-4
        else:
            assert is_shown(percents(said)[0], weight), (said, weight)
    other = {"keys": "queries", "queries": "keys"}[name]
    assert set(side(page, other).locator(".share").all_inner_texts()) == {""}


def test_a_word_shows_what_it_attends_to_and_a_key_what_attends_to_it(shown, opened):
    of = shown("decoder")
    weights = of.weights(1, 2)
    page = opened(of, "links", "layer=1&head=2")
    assert words(page, "queries").count() == words(page, "keys").count() == TOKENS
    words(page, "queries").nth(37).hover()
    check_shares(page, "keys", weights[37])
    assert "(37) attends to" in status(page)
    words(page, "keys").nth(5).hover()
    check_shares(page, "queries", weights[:, 5])
    assert "(5) is attended to by" in status(page)
    strongest = re.findall(r"\((\d+)\) ([\d.e-]+ %)", status(page))
    places = weights[:, 5].topk(3).indices.tolist()
    assert [int(place) for place, _ in strongest] == places
    page.mouse.move(1, 1)
    assert set(page.locator(".share").all_inner_texts()) == {""}


def test_heads_together_are_their_mean_and_can_be_put_out(shown, opened):
    of = shown("decoder")
    weights = torch.stack([of.weights(1, head) for head in range(HEADS)])
    page = opened(of, "links", "layer=1&token=41")
    heads = page.get_by_role("group", name="Heads shown")
    assert heads.get_by_role("button", pressed=True).count() == HEADS
    check_shares(page, "keys", weights[:, 41].mean(0))
    heads.get_by_role("button", name="Head 1:").click()
    check_shares(page, "keys", weights[[0, 2], 41].mean(0))
    assert f"2 of {HEADS} heads, mean of heads" in status(page)
    assert "off=1" in page.url
    heads.get_by_role("button", name="Head 2:").dblclick()
    check_shares(page, "keys", weights[2, 41])
    heads.get_by_role("button", name="Show all heads").click()
    check_shares(page, "keys", weights[:, 41].mean(0))
    chosen(page, "Heads").select_option(label="mean of all")
    opened.settle(page)
    check_shares(page, "keys", weights[:, 41].mean(0))
    chosen(page, "Layer").select_option(label="0")
    opened.settle(page)
    check_shares(
        page, "keys", torch.stack([of.weights(0, head) for head in range(HEADS)])[:, 41].mean(0)
    )


def test_a_click_keeps_a_word_and_another_lets_it_go(shown, opened):
    of = shown("decoder")
    weights = of.weights(0, 1)
    page = opened(of, "links", "layer=0&head=1")
    words(page, "queries").nth(11).click()
    page.mouse.move(1, 1)
    check_shares(page, "keys", weights[11])
    assert page.get_by_role("button", name="token 11, query", pressed=True).count() == 1
    assert "token=11" in page.url
    words(page, "keys").nth(3).hover()  # for a moment
    check_shares(page, "queries", weights[:, 3])
    page.mouse.move(1, 1)
    check_shares(page, "keys", weights[11])
    again = opened(of, "links", page.url.split("?")[1])
    check_shares(again, "keys", weights[11])
    words(page, "queries").nth(11).click()
    page.mouse.move(1, 1)
    assert set(page.locator(".share").all_inner_texts()) == {""}
    assert "token" not in page.url


def test_by_keyboard(shown, opened):
    of = shown("decoder")
    weights = of.weights(1, 0)
    page = opened(of, "links", "layer=1&head=0")
    page.get_by_label("Hide weights below").focus()
    page.keyboard.press("Tab")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    check_shares(page, "keys", weights[2])
    page.keyboard.press("End")
    check_shares(page, "keys", weights[TOKENS - 1])
    page.keyboard.press("ArrowRight")
    check_shares(page, "queries", weights[:, TOKENS - 1])
    page.keyboard.press("Enter")
    chosen(page, "Layer").focus()
    check_shares(page, "queries", weights[:, TOKENS - 1])
    assert f"key={TOKENS - 1}" in page.url
    words(page, "keys").nth(TOKENS - 1).focus()
    page.keyboard.press("Escape")
    chosen(page, "Layer").focus()
    assert set(page.locator(".share").all_inner_texts()) == {""}


def lines(svg: str) -> list[str]:
    return re.findall(r'<path d="M[^"]*C[^"]*" fill="none"[^>]*>', svg)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_are_curves_and_as_many_as_weights(shown, opened, scheme):
    of = shown("decoder")
    weights = of.weights(1, 2)
    page = opened(of, "links", "layer=1&head=2&least=20", color_scheme=scheme)
    expected = (weights >= 0.04).sum().item()
    assert f" · {expected} weights of 4.0 % or more" in status(page)
    assert len(lines(saved(page, "SVG").read_text("utf-8"))) == expected
    words(page, "queries").nth(29).click()
    assert len(lines(saved(page, "SVG").read_text("utf-8"))) == (weights[29] >= 0.04).sum()
    slider = page.get_by_label("Hide weights below")
    slider.fill("0")
    assert slider.get_attribute("aria-valuetext") == "0 %"
    drawn = lines(saved(page, "SVG").read_text("utf-8"))
    assert len(drawn) == (weights[29] > 0).sum()
    # The wider and the less transparent, the more.
    wide = [float(re.search(r'stroke-width="([\d.]+)"', one)[1]) for one in drawn]
    full = [float(re.search(r' opacity="([\d.]+)"', one)[1]) for one in drawn]
    assert wide == sorted(wide)
    assert full == sorted(full)
    assert wide[-1] > wide[0]
    assert full[-1] == pytest.approx(0.05 + 0.95 * weights[29].max().item(), abs=0.01)


def test_the_numbers_of_what_is_drawn(shown, opened):
    of = shown("decoder")
    page = opened(of, "links", "layer=1&head=all&off=0&least=30")
    head, *rows = csv.reader(io.StringIO(saved(page, "CSV").read_text("utf-8")))
    assert head == ["query position", "query", "key position", "key", "head", "weight"]
    found = {(int(row[4]), int(row[0]), int(row[2])): float(row[5]) for row in rows}
    for one in (1, 2):
        weights = of.weights(1, one)
        places = (weights >= 0.09).nonzero().tolist()
        assert {(query, key) for head, query, key in found if head == one} == set(
            map(tuple, places)
        )
        for query, key in places:
            assert found[one, query, key] == pytest.approx(weights[query, key].item(), rel=ROUNDING)
    assert {head for head, *_ in found} == {1, 2}


def test_a_phone_has_room_for_both_columns(shown, opened):
    page = opened(shown("decoder"), "links", "head=all", viewport={"width": 390, "height": 844})
    words(page, "queries").nth(1).click()
    wide = page.get_by_role("main").evaluate("(one) => one.scrollWidth - one.clientWidth")
    assert wide <= 0


def test_of_a_long_text_a_part_is_shown(shown, opened):
    of = shown("long")
    weights = of.weights(1, 2)
    page = opened(of, "links", "layer=1&head=2")
    assert words(page, "queries").count() == words(page, "keys").count() == MOST
    assert "to 199 of 1,009" in page.get_by_role("main").inner_text()
    first = page.get_by_label("First of the tokens shown")
    first.fill("503")
    first.press("Enter")
    opened.settle(page)
    assert first.evaluate("(one) => one === document.activeElement")
    words(page, "queries").nth(97).hover()
    check_shares(page, "keys", weights[600, 503:703])
    assert "(600) attends to" in status(page)
    outside = percents(re.search(r"· ([\d.]+ %) to tokens not shown", status(page))[1])[0]
    assert is_shown(outside, 1 - weights[600, 503:703].sum().item())
    page.get_by_role("button", name="Later tokens").click()
    opened.settle(page)
    assert first.input_value() == "603"
    for _ in range(3):
        page.get_by_role("button", name="Later tokens").click()
    opened.settle(page)
    assert first.input_value() == str(LONG - MOST)
    # A token that was chosen elsewhere is in it.
    other = opened(of, "links", "layer=1&head=2&token=800")
    check_shares(other, "keys", weights[800, 750:950])


# The grid.


def cells(page: Page) -> list[list[str]]:
    return [
        row.locator("td").all_inner_texts()
        for row in page.locator(".attention-grid tbody tr").all()
    ]


def test_links_open_at_the_newest_text(shown, opened):
    """Which comes first, even where another one is a translation."""
    page = opened(shown("encoder", "translated"), "links", "")
    assert chosen(page, "Layer").locator("option:checked").inner_text().startswith("encoder: 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_alignment_is_the_library_s(shown, opened, scheme):
    of = shown("translated")
    expected = lens.align(of.seen[0], layers=["decoder.blocks.2.cross"], heads=0)
    page = opened(of, "links", color_scheme=scheme)
    assert chosen(page, "Show as").input_value() == "grid"
    assert page.locator(".attention-grid thead th").all_inner_texts() == expected.source
    assert page.locator(".attention-grid tbody th").all_inner_texts() == expected.target
    for row, weights in zip(cells(page), expected.weights.tolist(), strict=True):
        assert row == [str(round(100 * one)) if one >= 0.005 else "" for one in weights]
    strongest = page.locator("td.best")
    assert strongest.count() == len(expected.target)
    for cell, best in zip(strongest.all(), expected.best(), strict=True):
        assert expected.source[int(cell.get_attribute("data-column"))] == best.source
    assert (
        "Layer x2, head 0, which the model lists for alignment"
        in page.locator(".note").inner_text()
    )


def test_of_other_heads_too(shown, opened):
    of = shown("translated")
    page = opened(of, "links")
    chosen(page, "Layer").select_option(label="x3, cross-attention")
    opened.settle(page)
    every = lens.align(of.seen[0], layers=["decoder.blocks.3.cross"])
    one = lens.align(of.seen[0], layers=["decoder.blocks.3.cross"], heads=2)
    for label, expected in (("mean of all", every), ("head 2", one)):
        chosen(page, "Heads").select_option(label=label)
        opened.settle(page)
        for row, weights in zip(cells(page), expected.weights.tolist(), strict=True):
            assert row == [str(round(100 * one)) if one >= 0.005 else "" for one in weights]
    chosen(page, "Show as").select_option(label="curves")
    opened.settle(page)
    words(page, "queries").nth(3).hover()
    check_shares(page, "keys", one.weights[3])


def test_the_grid_by_keyboard(shown, opened):
    of = shown("translated")
    expected = lens.align(of.seen[0], layers=["decoder.blocks.2.cross"], heads=0)
    page = opened(of, "links")
    chosen(page, "Show as").focus()
    page.keyboard.press("Tab")
    row = column = 0
    for key, down, right in (("ArrowDown", 1, 0), ("ArrowRight", 0, 1), ("ArrowDown", 1, 0)):
        page.keyboard.press(key)
        row, column = row + down, column + right
        said = status(page)
        assert f"“{expected.target[row]}” attended to “{expected.source[column]}”" in said
        assert is_shown(percents(said)[0], expected.weights[row, column].item())


def test_the_grid_of_any_attention(shown, opened):
    of = shown("long")
    weights = of.weights(0, 1)
    page = opened(of, "links", "layer=0&head=1&picture=grid&first=700")
    found = cells(page)
    assert len(found) == len(found[0]) == 64
    for row, expected in zip(found, weights[700:764, 700:764].tolist(), strict=True):
        assert row == [str(round(100 * one)) if one >= 0.005 else "" for one in expected]
    page.locator(".attention-grid tbody td").nth(2).hover()
    assert "(700) attends to" in status(page)


def test_the_numbers_of_the_grid(shown, opened):
    of = shown("translated")
    expected = lens.align(of.seen[0], layers=["decoder.blocks.2.cross"], heads=0)
    head, *rows = csv.reader(io.StringIO(saved(opened(of, "links"), "CSV").read_text("utf-8")))
    assert head == ["", *expected.source]
    assert [row[0] for row in rows] == expected.target
    found = torch.tensor([[float(one) for one in row[1:]] for row in rows])
    assert torch.allclose(found, expected.weights, rtol=1e-5)
    assert (
        saved(opened(of, "links", "layer=5&head=1&picture=links"), "SVG")
        .read_text("utf-8")
        .count("<path")
        > 10
    )


def test_an_address_that_makes_no_sense_shows_what_is_usual(shown, opened):
    page = opened(shown("decoder"), "links", "layer=1&picture=toString&off=a.1.-2&head=all")
    assert chosen(page, "Show as").input_value() == "links"
    assert "&off=1" in page.url
    assert "2 of 3 heads" in status(page)


def test_an_address_opens_at_its_word(shown, opened):
    page = opened(
        shown("long"), "links", "layer=0&token=503", viewport={"width": 844, "height": 390}
    )
    kept = words(page, "queries").filter(has=page.locator("xpath=self::*[@aria-pressed='true']"))
    expect(kept).to_be_in_viewport()
    assert status(page).split(" attends")[0].endswith("(503)")


def test_lines_start_with_the_strongest(shown, opened):
    """A few dozen at most, and those of a word from 1 % on, until somebody chooses."""
    of = shown("decoder")
    weights = torch.stack([of.weights(1, head) for head in range(HEADS)])
    page = opened(of, "links", "layer=1&head=all")
    slider = page.get_by_label("Hide weights below")
    (limit,) = percents(slider.get_attribute("aria-valuetext"))
    count = (weights >= float(limit) / 100).sum().item()
    assert 20 <= count <= 36
    assert f" · {count} weights of {limit} % or more" in status(page)
    assert "least" not in page.url
    row = weights.mean(0)[TOKENS - 1]
    words(page, "queries").nth(TOKENS - 1).hover()
    shares = page.locator(".keys .word:not(.dim)")
    assert shares.count() == (row >= 0.01).sum().item()
    assert (slider.input_value(), slider.get_attribute("aria-valuetext")) == ("10", "1.0 %")
    page.mouse.move(1, 1)
    slider.fill("10")
    assert f" · {(weights >= 0.01).sum().item():,} weights of 1.0 % or more" in status(page)
    # What somebody chose stays, and is in the address.
    again = opened(of, "links", page.url.split("?")[1])
    assert "weights of 1.0 % or more" in status(again)

"""Generation: each step shows its token, what that looked at, and what else it could have been."""

import csv
import io
import re

import pytest
import torch
from playwright.sync_api import Locator, Page

from pellucid.lens.spelling import running
from tests.viewer.browser import is_shown, percents
from tests.viewer.files import alone, saved
from tests.viewer.recordings import HEADS, LAYERS, LONG, NEW, ROUNDING, TOKENS


def status(page: Page) -> str:
    return page.get_by_role("status").inner_text()


def tokens(page: Page, block: str) -> Locator:
    return page.locator(f".block.{block} p span")


def titles(some: Locator) -> list[str]:
    return some.evaluate_all("(all) => all.map((one) => one.title)")


def rows(page: Page, name: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    table = page.get_by_role("heading", name=name, exact=True).locator("xpath=following::table[1]")
    return table.locator("tr").evaluate_all(
        """(all) => all.map((row) => [
          row.querySelector("th").innerText, [...row.querySelectorAll("td")].at(-1).innerText,
        ])"""
    )


def count(page: Page) -> tuple[int, int]:
    found = re.search(r"(\d+) of (\d+)", page.locator(".player .count").inner_text())
    return int(found[1]), int(found[2])


def check(page: Page, of, step: int, weights) -> None:
    """Compare a step with what was recorded: the new token, and what it looked at."""
    written = of.catalogue.volumes[0].written
    at = written.prompt + step
    words = running(of.seen[0].strings(torch.tensor(written.ids)))
    assert count(page) == (step + 1, NEW)
    shown = page.locator(".output .new")
    assert shown.count() == 1
    assert int(shown.get_attribute("data-at")) == at
    assert (words[at].strip() or "␣") in (shown.inner_text(), page.locator(".token").inner_text())
    said = titles(tokens(page, "prompt")) + titles(tokens(page, "output"))
    assert len(said) == len(words)
    for title, weight in zip(said[:at], weights[at - 1, :at].tolist(), strict=True):
        assert is_shown(percents(title)[0], weight), (title, weight)
    later = page.locator(".output .later")
    assert later.count() == NEW - step - 1
    assert not any(one.is_visible() for one in later.all()[:3])
    best = rows(page, "Most attended to")
    strongest = weights[at - 1, :at].topk(min(5, at))
    assert [
        int(re.search(r"\((\d+)\)$", name)[1]) for name, _ in best
    ] == strongest.indices.tolist()
    for (_, said), weight in zip(best, strongest.values.tolist(), strict=True):
        assert is_shown(percents(said)[0], weight)


def mean(of, layer: int):
    return torch.stack([of.weights(layer, head) for head in range(HEADS)]).mean(0)


def test_each_step_shows_its_token_and_what_it_looked_at(shown, opened):
    of = shown("written")
    page = opened(of, "generation", "layer=1&head=2&step=0")
    for step in range(NEW):
        check(page, of, step, of.weights(1, 2))
        if step < NEW - 1:
            page.get_by_role("button", name="Next").click()
            opened.settle(page)
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_role("button", name="Back").click()
    opened.settle(page)
    check(page, of, NEW - 2, of.weights(1, 2))
    assert f"step={NEW - 2}" in page.url


def test_of_a_layer_and_of_all(shown, opened):
    of = shown("written")
    page = opened(of, "generation", "step=9")
    check(page, of, 9, torch.stack([mean(of, layer) for layer in range(LAYERS)]).mean(0))
    page.get_by_label("Attention of").select_option(label="layer 1")
    opened.settle(page)
    check(page, of, 9, mean(of, 1))
    assert page.get_by_label("Attention of").evaluate("(one) => one === document.activeElement")
    page.get_by_label("Head").select_option(label="head 1")
    opened.settle(page)
    check(page, of, 9, of.weights(1, 1))
    assert "layer=1&head=1" in page.url


def test_alternatives_are_those_of_the_model(shown, opened):
    of = shown("written")
    page = opened(of, "generation", "step=3")
    written = of.catalogue.volumes[0].written
    found = rows(page, "Most likely tokens")
    assert len(found) == len(written.steps[3])
    for (name, said), (number, probability) in zip(found, written.steps[3], strict=True):
        assert is_shown(percents(said)[0], probability)
        assert name.startswith("●") == (number == written.ids[written.prompt + 3])
    bars = [
        one.bounding_box()["width"]
        for one in page.locator(".step table").first.locator(".bar").all()
    ]
    assert bars == sorted(bars, reverse=True)


def test_by_keyboard(shown, opened):
    of = shown("written")
    page = opened(of, "generation")
    assert count(page) == (NEW, NEW)
    for key, step in (("Home", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        page.keyboard.press(key)
        opened.settle(page)
        assert count(page) == (step, NEW)
    check(page, of, 1, torch.stack([mean(of, layer) for layer in range(LAYERS)]).mean(0))
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("ArrowRight")
    opened.settle(page)
    assert count(page) == (3, NEW)
    page.keyboard.press("End")
    opened.settle(page)
    assert count(page) == (NEW, NEW)


def test_it_plays_and_pauses(shown, opened):
    page = opened(shown("written"), "generation", "step=2")
    page.clock.install()
    page.keyboard.press(" ")
    assert page.get_by_role("button", name="Pause").is_visible()
    page.clock.run_for(2200)
    assert count(page)[0] in (6, 7)
    page.keyboard.press(" ")
    before = count(page)
    page.clock.run_for(5000)
    assert count(page) == before
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(60_000)
    assert count(page) == (NEW, NEW)
    assert page.get_by_role("button", name="Play").is_visible()
    page.get_by_role("button", name="Play").click()  # from the beginning
    assert count(page) == (1, NEW)


def test_a_click_on_a_token_goes_to_its_step(shown, opened):
    page = opened(shown("written"), "generation")
    tokens(page, "output").nth(4).click()
    opened.settle(page)
    assert count(page) == (5, NEW)
    tokens(page, "prompt").nth(1).click()
    opened.settle(page)
    assert count(page) == (5, NEW)


def test_a_translation_has_its_source_beside_it(shown, opened):
    of = shown("translated")
    layers = of.catalogue.layers
    own = next(i for i, one in enumerate(layers) if one.is_causal and one.number == 2)
    across = next(i for i, one in enumerate(layers) if one.is_cross and one.number == 2)
    page = opened(of, "generation", f"layer={own}&head=0&step=5")
    said = titles(tokens(page, "source"))
    for title, weight in zip(said, of.weights(across, 0)[5].tolist(), strict=True):
        assert is_shown(percents(title)[0], weight)
    said = titles(tokens(page, "prompt")) + titles(tokens(page, "output"))
    for title, weight in zip(said[:6], of.weights(own, 0)[5, :6].tolist(), strict=True):
        assert is_shown(percents(title)[0], weight)
    assert page.locator(".output .new").inner_text() == "su"
    assert rows(page, "Most attended to in the source")[0][0] == "his (3)"


def test_what_is_not_known_is_said(shown, opened):
    of = shown("decoder")
    page = opened(of, "generation", "layer=0&head=1&step=10")
    assert "as if only the first token had been given" in page.locator(".note").inner_text()
    assert count(page) == (11, TOKENS - 1)
    said = titles(tokens(page, "prompt")) + titles(tokens(page, "output"))
    for title, weight in zip(said[:11], of.weights(0, 1)[10, :11].tolist(), strict=True):
        assert is_shown(percents(title)[0], weight)
    assert page.get_by_role("heading", name="Most likely tokens").count() == 0


def test_a_long_one(shown, opened):
    of = shown("long")
    page = opened(of, "generation", "layer=1&head=0&step=700")
    said = titles(tokens(page, "prompt")) + titles(tokens(page, "output"))
    assert len(said) == LONG
    for title, weight in zip(said[:701], of.weights(1, 0)[700, :701].tolist(), strict=True):
        assert is_shown(percents(title)[0], weight)
    assert page.locator(".output .new").is_visible()


def test_where_nothing_is_generated_that_is_said(shown, opened):
    page = opened(shown("encoder"), "generation")
    said = page.get_by_role("main").inner_text()
    assert "There is no generated text here: in Encoder, tokens also attend to later tokens" in said
    assert 'pellucid view "In the beginning" --new-tokens 40' in said


def test_the_numbers_of_a_step(shown, opened):
    of = shown("written")
    written = of.catalogue.volumes[0].written
    page = opened(of, "generation", "layer=1&head=2&step=6")
    with saved(page, "CSV").open(encoding="utf-8", newline="") as file:
        head, *found = csv.reader(io.StringIO(file.read()))
    assert head == ["what", "position", "token", "weight", "probability"]
    at = written.prompt + 6
    looked = [row for row in found if row[0] in ("prompt", "output")]
    assert [int(row[1]) for row in looked] == list(range(at))
    assert [row[0] for row in looked].count("prompt") == written.prompt
    for row, weight in zip(looked, of.weights(1, 2)[at - 1].tolist(), strict=False):
        assert float(row[3]) == pytest.approx(weight, rel=ROUNDING)
    others = [float(row[4]) for row in found if row[0] == "alternative"]
    assert others == pytest.approx([probability for _, probability in written.steps[6]], rel=1e-6)


def test_a_page_of_its_own_can_be_stepped_through(shown, opened):
    of = shown("written")
    page = opened(of, "generation", "layer=1&head=2&step=6")
    again = alone(opened, saved(page, "HTML"))
    check(again, of, 6, of.weights(1, 2))
    for step in (7, 8, 9):
        again.keyboard.press("ArrowRight")
        opened.settle(again)
        check(again, of, step, of.weights(1, 2))


@pytest.mark.parametrize("way", ["SVG", "PNG"])
def test_pictures(shown, opened, way):
    page = opened(shown("translated"), "generation", "step=4")
    content = saved(page, way).read_bytes()
    if way == "PNG":
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    else:
        text = content.decode()
        assert "servant" in text
        assert "envió" in text
        assert "siervo" not in text.split("Most likely tokens")[0]  # it comes later

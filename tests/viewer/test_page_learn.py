"""The path of ten stations on the page: guess, see, change, check; and the race of two models."""

import json
import re

import pytest
import torch
from playwright.sync_api import expect

from pellucid.lessons import stations
from pellucid.lessons.lesson import from_json, random_lesson
from pellucid.lessons.scaling_training import train_both
from pellucid.viewer import learning
from tests.viewer.browser import LEVELS, OF_COLOUR, barriers
from tests.viewer.files import saved

QUICK = [name for name in stations.STATIONS if name not in ("stacks", "generation")]
"""Those that load no model."""


def test_every_station_is_answered_changed_and_kept(shown, opened):
    page = opened(shown("decoder"), "learn")
    main = page.get_by_role("main")
    for number, name in enumerate(QUICK):
        stop = stations.station(name)
        expect(main.get_by_role("heading", level=2).first).to_have_text(
            re.sub(r"_", "", stop.title)
        )
        see = main.get_by_role("heading", name="See", exact=True)
        assert not see.is_visible()  # the guess comes first
        wrong = (stop.predict.right + 1) % len(stop.predict.choices)
        page.keyboard.press(str(wrong + 1))
        expect(main).to_contain_text("Not this one. The right answer is marked.")
        right = main.locator(".part.guess .choice.right")
        assert right.count() == 1
        assert right.locator("kbd").inner_text() == str(stop.predict.right + 1)
        assert see.is_visible()
        main.get_by_role("button", name="Change it").click()
        expect(main.locator(".said").first).to_contain_text("Now:")
        page.locator("h2").first.click()
        page.keyboard.press(str(stop.check.right + 1))
        expect(main).to_contain_text("You are right.")
        if number < len(QUICK) - 1:
            main.get_by_role("button", name="Next station").click()
            opened.settle(page)
    page.goto(page.url.partition("#")[0] + "#learn?station=mask")
    page.reload()
    opened.settle(page)
    done = page.get_by_role("navigation", name="Stations").get_by_role("button", name="done")
    assert done.count() == len(QUICK)
    expect(main).to_contain_text("You are right.")


@pytest.mark.parametrize(
    "size", [(390, 844), pytest.param((1280, 720), marks=pytest.mark.slow)], ids=str
)
def test_what_is_revealed_is_accessible(shown, opened, size):
    width, height = size
    page = opened(
        shown("decoder"), "learn", "station=scale", viewport={"width": width, "height": height}
    )
    for name in ("scale", "mask", "lookup"):
        page.evaluate(f"location.hash = 'learn?station={name}'")
        opened.settle(page)
        page.keyboard.press("1")
        page.get_by_role("button", name="Change it").click()
        page.locator("h2").first.click()
        page.keyboard.press("1")
        wide = page.get_by_role("main").evaluate("(one) => one.scrollWidth - one.clientWidth")
        assert wide <= 0, "the station is wider than the window"
        for scheme, rules in (("light", LEVELS), ("dark", OF_COLOUR)):
            page.emulate_media(color_scheme=scheme)
            opened.settle(page)
            wrong = barriers(page, rules)
            assert not wrong, "\n".join([f"{name} {scheme}", *wrong])


def test_names_are_set_and_commands_are_code(shown, opened):
    page = opened(shown("decoder"), "learn", "station=scale")
    expect(page.get_by_role("status")).to_have_text("Station 4 of 10: Why divide by √dₖ")
    page.keyboard.press("1")
    page.get_by_role("button", name="Change it").click()
    step = page.locator("section[data-step=scale]")
    expect(step).to_contain_text("Multiplied by 1, the scores stay as they are")
    page.locator("h2").first.click()
    page.keyboard.press("1")
    expect(page.locator(".part.check code")).to_have_text("pellucid scaling --train")


def test_a_station_is_saved_as_notebook_and_slides(shown, opened):
    page = opened(shown("decoder"), "learn", "station=mask")
    notebook = json.loads(saved(page, "Notebook").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert "The mask" in saved(page, "Slides").read_text(encoding="utf-8")
    lesson = json.loads(saved(page, "JSON").read_text(encoding="utf-8"))
    assert lesson["mask"] == "causal"


def test_ones_own_sentence_becomes_a_lesson(shown, opened):
    page = opened(shown("decoder"), "learn", "station=heads")
    page.keyboard.press("1")
    page.get_by_label("A sentence of your own").fill("we look both ways")
    page.keyboard.press("Enter")
    opened.settle(page)
    lesson = from_json(json.loads(saved(page, "JSON").read_text(encoding="utf-8")))
    drawn = random_lesson("we look both ways", heads=3, form="linear")
    assert (lesson.tokens, lesson.heads) == (drawn.tokens, 3)
    torch.testing.assert_close(lesson.matrix("W_output"), drawn.matrix("W_output"))


def test_a_class_is_led_by_keyboard_alone(shown, opened):
    page = opened(shown("decoder"), "learn", "station=softmax&class=1")
    main = page.get_by_role("main")
    heading = main.locator("section.part:not([hidden]) h3")
    seen = [heading.inner_text()]
    page.keyboard.press("Enter")
    expect(main.locator(".part.guess .choice.right")).to_be_visible()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(heading.inner_text())
        if len(seen) == 3:
            page.keyboard.press("Enter")
            expect(main.locator(".said").first).to_contain_text("Now:")
    assert [one.casefold() for one in seen] == [
        "guess first",
        "see",
        "change one thing",
        "try your own sentence",
        "check yourself",
    ]
    page.keyboard.press("ArrowRight")
    opened.settle(page)
    assert "station=mask&class=1" in page.url
    page.keyboard.press("ArrowRight")
    for key, is_down in (("ArrowDown", True), ("ArrowUp", False)):
        page.keyboard.press(key)
        page.keyboard.press(key)
        page.wait_for_function(
            "(wanted) => document.querySelector('main').scrollTop > 0 === wanted", arg=is_down
        )


def test_the_race_is_that_of_the_library(monkeypatch, shown, opened):
    monkeypatch.setattr(learning, "RACE", 7)
    race = learning.Race()
    steps, sentence = [], None
    while sentence is None:
        answer = race.steps(16, 0, len(steps))
        steps += answer["steps"]
        sentence = answer["sentence"]
    for pair, right in zip(steps, train_both(16, steps=learning.length(16)), strict=True):
        assert pair[0][0] == pytest.approx(right[0].loss)
        assert pair[1][2] == pytest.approx(right[1].max_logit)
    page = opened(shown("decoder"), "learn", "station=scale")
    page.keyboard.press("2")
    page.get_by_role("button", name="Train both models").click()
    expect(page.locator(".race .said")).to_contain_text("Neither model learnt the task in 7 steps")

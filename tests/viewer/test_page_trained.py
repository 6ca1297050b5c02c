"""Examples that a trained model works out: the page shows the library's numbers, for any text."""

import re

import pytest
from playwright.sync_api import expect

from pellucid.errors import ArgumentError
from pellucid.lessons.examples import walk_example
from pellucid.viewer import trained
from pellucid.viewer.api import ENDPOINTS
from tests.viewer.browser import barriers, is_shown, percents
from tests.viewer.files import alone, saved, table

PHONE = {"width": 390, "height": 844}


def shares(page, step):
    """The percentages of a step, as they are shown."""
    heading = page.get_by_role("heading", name=re.compile(rf"^\d+ ?{step}$"))
    return percents(page.locator("section", has=heading).locator("table").inner_text())


def check(page, walk, *steps):
    for step in walk.steps:
        if step.name in steps:
            right = [one for row in step.matrices[0].values for one in row]
            shown = shares(page, step.name.capitalize())
            assert len(shown) == len(right)
            assert all(map(is_shown, shown, right))


def test_a_verdict_says_which_words_it_looked_at(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=verdict", viewport=PHONE)
    check(page, walk_example("verdict"), "verdict", "attention")
    assert not barriers(page)
    # By keyboard alone.
    page.get_by_label("What somebody wrote of it").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("I loved every minute")
    page.keyboard.press("Enter")
    opened.settle(page)
    walk = walk_example("verdict", text=["I loved every minute"])
    check(page, walk, "verdict", "attention")
    expect(page.get_by_role("main")).to_contain_text(walk.steps[1].sentence)
    rows = table(saved(page, "CSV"))
    assert len(rows) == len(walk.steps) - 1  # the first is the head
    again = alone(opened, saved(page, "HTML"))
    check(again, walk, "verdict", "attention")
    names = again.get_by_label("Numbers from").locator("option").all_inner_texts()
    assert trained.EXAMPLES["verdict"].title in names
    assert trained.EXAMPLES["next"].title not in names  # nothing there could work it out
    # What cannot be read is told, beside the field.
    page.get_by_label("What somebody wrote of it").fill("dull")
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_role("alert").filter(has_text="2 to 64 words")).to_be_visible()
    opened.forgive(page, "400")
    expect(page.get_by_label("What somebody wrote of it")).to_have_value("dull")


def test_another_token_is_picked(shown, opened):
    page = opened(shown("decoder"), "learn", "station=generation")
    page.keyboard.press("1")
    page.get_by_label("A beginning of your own").fill("And God said to")
    page.keyboard.press("Enter")
    opened.settle(page)
    first = walk_example("next", text=["And God said to"])
    check(page, first, "next token")
    other = first.tokens[2]
    page.get_by_role("button", name=other, exact=True).press("Enter")
    opened.settle(page)
    walk = walk_example("next", text=["And God said to"], query=other)
    expect(page.get_by_role("main")).to_contain_text(walk.steps[-1].sentence)
    pressed = page.get_by_role("button", pressed=True)
    assert pressed.all_inner_texts() == [other]


def test_a_sentence_is_a_line():
    walk = trained.walk("verdict", "  It was not\n a good film ")
    assert walk == trained.walk("verdict")
    with pytest.raises(ArgumentError, match="2 to 16 sentences, not 1"):
        trained.walk("context", "the bank\n")


def test_no_text_is_too_long_for_the_server_to_read():
    question = ENDPOINTS["walk"]
    most = "a" * trained.MOST_TEXT
    assert question.read([], {"text": most})["text"] == most
    with pytest.raises(ArgumentError, match="more than 2,000"):
        question.read([], {"text": f"{most}a"})

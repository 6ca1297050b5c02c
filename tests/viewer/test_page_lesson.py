"""A lesson that is changed on the page is worked out as the library does."""

import json
import re
from dataclasses import replace

import pytest
import torch
from playwright.sync_api import Page, expect

from pellucid.common.wording import plain
from pellucid.lessons.examples import example_lesson
from pellucid.lessons.lesson import Lesson, from_json, random_lesson
from pellucid.lessons.steps import walk_lesson
from pellucid.viewer import lesson as viewer_lesson
from tests.viewer.files import saved, texts
from tests.viewer.made_heads import MADE
from tests.viewer.page import chosen, later

KINDS = {"scores": "score", "scaled": "scaled", "masked": "masked", "weights": "weight"}
READ = """() => Object.fromEntries([...document.querySelectorAll("td[data-cell]")]
  .map((one) => [one.dataset.cell, one.textContent]))"""


def lesson_of(page: Page) -> Lesson:
    """The lesson that the page exports."""
    return from_json(json.loads(saved(page, "JSON").read_text(encoding="utf-8")))


def check(page: Page, head: int = 0) -> Lesson:
    """Compare every number from the scores on with the library's, at display precision."""
    lesson = lesson_of(page)
    cells: dict[str, str] = page.evaluate(READ)
    i = lesson.speaker
    checked = set()
    for step in walk_lesson(lesson, head=head).steps:
        for one in step.matrices:
            kind = KINDS.get(one.name, one.name)
            if kind not in ("context", "output", "concat", *KINDS.values()):
                continue
            name = {"output": "out", "concat": "cat"}.get(kind, kind)
            for j, number in enumerate(one.values[i]):
                hidden = one.hidden is not None and one.hidden[i][j]
                compare(cells[f"{name}.{j}"], number, hidden, is_share=kind == "weight")
            checked.add(kind)
    assert {"score", "scaled", "masked", "weight", "context"} <= checked
    return lesson


def compare(text: str, number: float, hidden: bool, is_share: bool) -> None:
    if text == "−∞":
        assert number == -torch.inf
    elif text == "–":
        assert hidden
    elif text.startswith("<"):
        assert 0 <= number < 0.001
    else:
        shown = float(text.replace("−", "-").removesuffix(" %"))
        places = len(text.partition(".")[2].removesuffix(" %"))
        right = 100 * number if is_share else number
        assert shown == pytest.approx(right, abs=0.5 * 10**-places + 1e-9), (text, number)


def type_into(page: Page, cell: str, text: str, end: str = "Enter") -> None:
    """By keyboard alone, once the cell has the focus."""
    page.locator(f"td[data-cell='{cell}']").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.type(text)
    page.keyboard.press(end)


def test_numbers_can_be_typed_undone_and_shared(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=poem")
    type_into(page, "X.0.1", "-1.5")
    type_into(page, "Wq.1.0", "0,25", end="Tab")
    focused = page.locator("td:focus")
    assert focused.get_attribute("data-cell") == "Wq.1.1"
    page.keyboard.type("2")  # begins at once
    page.keyboard.press("ArrowDown")
    wanted = example_lesson("poem")
    x, W = wanted.matrix("embeddings"), wanted.matrix("W_query")
    x[0, 1], W[1, 0], W[1, 1] = -1.5, 0.25, 2
    wanted = wanted.change(embeddings=x, W_query=W)
    lesson = check(page)
    torch.testing.assert_close(lesson.matrix("W_query"), wanted.matrix("W_query"))
    torch.testing.assert_close(lesson.matrix("embeddings"), wanted.matrix("embeddings"))

    # What is no number is refused, and said to be.
    type_into(page, "X.2.0", "four")
    entry = page.get_by_label("Type a number", exact=True)
    assert entry.get_attribute("aria-invalid") == "true"
    expect(page.get_by_role("group", name="How the number")).to_contain_text("not a number")
    page.keyboard.press("Escape")
    assert page.locator("td[data-cell='X.2.0']").first.inner_text() == "4.41"

    for name, value in (("Scale", "0.31"), ("Temperature", "2.5")):
        page.get_by_label(f"{name}: type a number").fill(value)
        page.keyboard.press("Enter")
    changed = check(page)
    assert (changed.scale, changed.temperature) == (0.31, 2.5)

    opened.settle(page)
    later(page)
    again = opened.visit(page.url, shown("decoder").address)
    assert lesson_of(again) == changed

    page.get_by_role("radio", name="write").focus()
    for _ in range(3):
        page.keyboard.press("Control+z")
    assert check(page).matrix("W_query")[1, 1] == pytest.approx(0.6496, abs=1e-4)
    page.keyboard.press("Control+y")
    assert check(page).matrix("W_query")[1, 1] == 2
    said = page.get_by_role("status")
    for _ in range(4):
        page.keyboard.press("Control+z")
    expect(said).not_to_contain_text("changed by hand")
    page.keyboard.press("Control+y")
    expect(said).to_contain_text("changed by hand")
    page.get_by_role("button", name="Back to the numbers of the example").click()
    assert lesson_of(page) == example_lesson("poem")


def test_words_sizes_and_seeds_are_those_of_python(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=poem")
    page.get_by_role("textbox", name="Words").fill("the cat sat on it")
    page.keyboard.press("Enter")
    check(page)
    for name, value in (("Width", "6"), ("Heads", "3"), ("Seed", "4")):
        page.get_by_label(name, exact=True).fill(value)
        page.keyboard.press("Enter")
    chosen(page, "Weights").select_option("linear")
    page.get_by_label("add position embeddings").check()
    for head in (0, 2):
        page.get_by_role("radio", name=f"head {head}").click()
        lesson = check(page, head)
    drawn = random_lesson("the cat sat on it", width=6, size=2, heads=3, seed=4, form="linear")
    for name in ("embeddings", "W_query", "W_key", "W_value", "W_output"):
        torch.testing.assert_close(lesson.matrix(name), drawn.matrix(name), atol=1e-6, rtol=1e-5)

    # One word is renamed, one removed: the others keep their numbers.
    page.get_by_role("textbox", name="Words").fill("the dog sat on it")
    page.keyboard.press("Enter")
    renamed = check(page, 2)
    assert renamed.embeddings == lesson.embeddings
    page.get_by_role("textbox", name="Words").fill("the sat on it")
    page.keyboard.press("Enter")
    rows = lesson.embeddings
    assert check(page, 2).embeddings == (rows[0], *rows[2:])
    assert {"the sat on it", "6", "4"} <= set(texts(saved(page, "SVG")))
    page.get_by_role("button", name="Put the words in the opposite order").click()
    assert check(page, 2).tokens == ("it", "on", "sat", "the")

    page.get_by_role("textbox", name="Attend to").fill("a mat")
    page.keyboard.press("Enter")
    assert check(page, 2).keys == ("a", "mat")


def test_energies_and_masks(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=journey")
    for energy in ("cosine", "bilinear", "additive"):
        page.get_by_role("radio", name=energy).click()
        if energy != "cosine":
            type_into(page, "We.0.1", "0.7")
        assert check(page).energy == energy
    page.get_by_role("radio", name="dot product").click()
    page.get_by_role("radio", name="causal").click()
    page.get_by_role("radio", name="window").click()
    page.keyboard.press("Control+z")
    assert check(page).mask == "causal"
    page.get_by_role("radio", name="by hand").click()
    type_into(page, "M.1.3", "-2")
    page.keyboard.press("ArrowUp")
    page.locator("td[data-cell='M.1.0']").focus()
    page.keyboard.press("Space")
    lesson = check(page)
    assert lesson.mask[1] == (-torch.inf, 0, -torch.inf, -2, -torch.inf, -torch.inf)
    page.get_by_role("radio", name="(QKᵀ + M)/√d").click()
    before = check(page)
    assert before == replace(lesson, mask_before_scale=True)
    main = page.get_by_role("main")
    expect(main).to_contain_text("M is added before the scale, which multiplies it by 0.7071 too")
    expect(main).to_contain_text("Among the keys it may see, the query of 'journey' fits")


def test_a_table_of_ones_own_is_looked_up(shown, opened):
    page = opened(shown("decoder"), "lesson", "example=lookup")
    page.get_by_role("textbox", name="Queries").fill("blue")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="Keys").fill("red yellow azure")
    page.keyboard.press("Enter")
    type_into(page, "V.2.0", "490")
    lesson = check(page)
    assert (lesson.tokens, lesson.keys) == (("blue",), ("red", "yellow", "azure"))
    assert lesson.query[0] == pytest.approx((-0.5, -(3**0.5) / 2))
    page.get_by_role("button", name="Scale 100").click()
    assert check(page).scale == 100
    assert page.locator("td[data-cell='context.0']").inner_text() == "490.0"
    page.get_by_role("textbox", name="Keys").fill("red cat")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="How the number")).to_contain_text("not a colour")


def test_a_lesson_that_python_saved_is_opened(shown, opened, tmp_path):
    of = shown("decoder")
    page = opened(of, "lesson")
    lesson = random_lesson("a rose is a rose", source="no thorn", heads=2, seed=11)
    saved_by_python = tmp_path / "lesson.json"
    saved_by_python.write_text(lesson.change(temperature=0.7).to_json(), encoding="utf-8")
    page.locator("input[type=file]").set_input_files(saved_by_python)
    page.get_by_role("radio", name="rose").first.wait_for()
    assert check(page) == lesson.change(temperature=0.7)
    saved_by_python.write_text('{"tokens": ["a"], "query": [[1]], "key": [[1, 2]], "value": [[1]]}')
    page.locator("input[type=file]").set_input_files(saved_by_python)
    expect(page.get_by_role("status")).to_contain_text("query, key and value do not fit")


AS_LESSON = """async (answer) => {
  const { ofHead } = await import("./page/steps.js");
  const { difference, fromRecording } = await import("./page/lesson_document.js");
  const given = ofHead(answer, { keys: answer.keys.length, number: 0 });
  return JSON.stringify(difference(fromRecording(given, 0)));
}"""


def test_a_recording_becomes_a_lesson(shown, opened):
    page = opened(shown("decoder"), "lesson")
    for name in ("whole", "bias"):
        made = replace(MADE[name], tokens=13)
        seen, record = made.record()
        answer = plain(viewer_lesson.head(seen, record, 1, 4))
        lesson = from_json(json.loads(page.evaluate(AS_LESSON, answer)))
        (weights,) = (
            s.matrices[0].values for s in walk_lesson(lesson).steps if s.name == "softmax"
        )
        right = record.weights[1, 4].double()
        torch.testing.assert_close(torch.tensor(weights).double(), right, atol=1e-5, rtol=1e-4)


def test_a_recording_opens_where_there_is_something_to_see(shown, opened):
    of = shown("decoder")
    page = opened(of, "lesson")
    chosen(page, "Numbers from").select_option("recording")
    opened.settle(page)
    asked = dict(re.findall(r"(\w+)=(\d+)", page.url))
    layer, head, token = (int(asked[name]) for name in ("layer", "head", "token"))
    row = of.weights(layer, head)[token]
    assert row[token] < 0.5  # it does not look at itself alone
    assert page.locator("td[data-cell='weight.0']").count()

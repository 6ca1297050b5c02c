"""Knock out a head, a word or a link by clicking: what the page shows is what the API answers."""

import re

import pytest
from playwright.sync_api import expect

from pellucid.viewer import volumes
from pellucid.viewer.api import Api
from tests import writers
from tests.viewer.browser import Shown, is_shown, percents
from tests.viewer.files import alone, saved, table
from tests.viewer.page import asked, chosen, status
from tests.viewer.recordings import HEADS, LAYERS

TEXT = "Once upon a time there was a little girl"
SILENT = {"step": lambda *_: None}


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory):
    """A server that has the model of what it shows."""
    directory = tmp_path_factory.mktemp("decoder")
    writers.writer().save(directory)
    one = Shown(volumes.read(TEXT, "one", model=str(directory), **SILENT))
    one.api = Api(one.catalogue)
    yield one
    one.stop()


def answer(shown, path, **options):
    return shown.api.ask(path, options).find()


def panel(page):
    return page.get_by_role("region", name="What the model answers")


def compare(page, shown, edits):
    """The panel beside the API."""
    found = answer(shown, "ablated/0", edits=edits)
    expect(page.get_by_role("status")).to_contain_text("KL divergence")
    rows = panel(page).get_by_role("row").all()[1:]
    assert len(rows) == len(found["names"])
    for row, before, after in zip(rows, found["before"], found["after"], strict=True):
        said = percents(row.inner_text())
        assert is_shown(said[-2], before)
        assert is_shown(said[-1], after)
    effect = float(re.search(r"nats: (\S+)", panel(page).inner_text())[1])
    assert effect == pytest.approx(found["effect"], rel=0.06)
    assert asked(page)["edits"] == edits


def test_heads_words_and_links(at_hand, opened):
    page = opened(at_hand, "ablate", "")
    expect(panel(page)).to_contain_text("The next token after token")
    head = page.get_by_role("button", name="Knock out head 2 of layer 1")
    head.click()
    compare(page, at_hand, "head.1.2")
    assert head.get_attribute("aria-pressed") == "true"
    words = answer(at_hand, "keys/0/0")["words"]
    some = page.get_by_role("region", name="What can be knocked out").locator(".token")
    assert some.count() == len(words)
    some.nth(3).press("Enter")
    compare(page, at_hand, "head.1.2_word.0.3")
    chosen(page, "A click on a word").select_option("links")
    chosen(page, "in layer").select_option("1")
    some.nth(9).click()
    assert "will not attend to" in status(page)
    some.nth(5).click()
    compare(page, at_hand, "head.1.2_word.0.3_link.1.all.9.5")
    page.get_by_role("button", name="Put back head 1.2").click()
    compare(page, at_hand, "word.0.3_link.1.all.9.5")
    page.get_by_role("button", name="Put all back").click()
    expect(page.get_by_role("status")).to_contain_text("nothing is knocked out")
    assert "edits" not in asked(page)


def test_another_position(at_hand, opened):
    page = opened(at_hand, "ablate", "edits=head.0.1")
    position = panel(page).get_by_role("spinbutton")
    position.fill("4")
    position.press("Enter")
    found = answer(at_hand, "ablated/0", edits="head.0.1", after="5")
    first = panel(page).get_by_role("row").nth(1)
    expect(first).to_contain_text(found["names"][0].strip() or "␣")
    expect(page.get_by_role("status")).to_contain_text("KL divergence")
    assert is_shown(percents(first.inner_text())[-2], found["before"][0])
    assert asked(page)["after"] == "4"


def test_an_address_that_names_an_edit_twice_and_what_is_not_there(at_hand, opened):
    page = opened(at_hand, "ablate", "edits=head.0.1_head.0.1_head.0.99_head.00.1_x&after=9999")
    expect(page.get_by_role("alert")).to_contain_text("head.0.99, x, after=9999")
    expect(page.get_by_role("list", name="Knocked out").get_by_role("listitem")).to_have_count(1)
    compare(page, at_hand, "head.0.1")
    assert "after" not in asked(page)


def test_overview_is_sorted_by_what_heads_matter(at_hand, opened):
    page = opened(at_hand, "overview", "sort=effect&tint=effect")
    heads = page.get_by_role("button", name=re.compile("^layer .*effect"))
    expect(heads).to_have_count(LAYERS * HEADS)
    rows = [answer(at_hand, "effects") for _ in range(LAYERS)][-1]["rows"]
    rows.sort(key=lambda row: -row["effect"])
    said = [heads.nth(i).get_attribute("aria-label") for i in range(len(rows))]
    for line, row in zip(said, rows, strict=True):
        assert line.startswith(f"layer {row['layer_index']}, head {row['head']},")
        assert float(line.rpartition(" ")[2]) == pytest.approx(row["effect"], rel=0.06)
    colours = heads.locator(".note b").evaluate_all(
        "(all) => all.map((one) => [one, one.parentElement].map((x) => getComputedStyle(x).color))"
    )
    assert len(colours) == len(rows)
    assert all(name == number for name, number in colours)  # both can be read on the tint


def test_all_heads_are_tinted(at_hand, opened):
    page = opened(at_hand, "ablate", "")
    page.get_by_role("button", name="Measure all heads").click()
    expect(page.get_by_role("status")).to_contain_text("All heads are measured")
    some = page.get_by_role("button", name=re.compile("^Knock out head"))
    colours = some.evaluate_all("(all) => all.map((one) => one.style.background)")
    assert all(colours)
    assert len(set(colours)) > 2


def test_what_is_shown_can_be_exported(at_hand, opened):
    page = opened(at_hand, "ablate", "edits=head.1.0")
    expect(page.get_by_role("status")).to_contain_text("KL divergence")
    rows = table(saved(page, "CSV"))
    found = answer(at_hand, "ablated/0", edits="head.1.0")
    shares = [float(row["after"]) for row in rows if row["what"] == "probability"]
    assert shares == pytest.approx(found["after"], rel=1e-5)
    assert rows[-1] == {"what": "knocked out", "name": "head 1.0", "before": "", "after": ""}


def test_a_saved_page_shows_what_was_shown_and_cannot_run_the_model(at_hand, opened):
    page = opened(at_hand, "ablate", "edits=head.1.0")
    expect(page.get_by_role("status")).to_contain_text("KL divergence")
    before = panel(page).inner_text()
    file = alone(opened, saved(page, "HTML"))
    expect(file.get_by_role("status")).to_contain_text("KL divergence")
    assert panel(file).inner_text() == before
    file.get_by_role("button", name="Knock out head 2 of layer 1").click()
    expect(file.get_by_role("status")).to_contain_text("has no model")
    file.get_by_role("button", name="Put back head 1.2").click()
    expect(file.get_by_role("status")).to_contain_text("KL divergence")


def test_a_recording_without_its_model_says_so(shown, opened):
    page = opened(shown("encoder"), "ablate", "")
    assert "This recording comes without its model" in status(page)
    assert "pellucid view" in page.get_by_role("main").inner_text()
    page.get_by_role("link", name="Overview").click()
    options = chosen(page, "Sort by").locator("option").all_inner_texts()
    assert "effect" not in options

"""Exported pages work from disk, offline, and their numbers are the library's."""

import json
import re
from itertools import product
from pathlib import Path

import pytest
import torch

from pellucid.errors import OutOfRangeError, TooLargeError
from pellucid.lens.pieces import Pieces
from pellucid.lens.recording import Recording
from pellucid.viewer import html_export
from pellucid.viewer.api import ENDPOINTS, MOST_WORDS, Api
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.requests import Numbers
from pellucid.viewer.telling import telling
from pellucid.viewer.tile_pyramid import Map
from tests.command_line import refused, run  # noqa: F401
from tests.viewer import recordings
from tests.viewer.files import kept, read_by_page
from tests.viewer.page import check, the_map
from tests.viewer.recordings import HEADS, LAYERS, ROUNDING, SOURCE, TARGET

DIM = 7
TOKENS = 283  # two tiles each way on the lowest level
HOSTILE = (
    "</script>",
    "<!--<script>",
    "<img/src=x/onerror=alert(1)>",
    "&lt;",
    "{{style}}",
    "$&",
    "\u2028",
    "\ud800",
)


@pytest.fixture(scope="module")
def seen():
    """Of numbers that float16 holds, so that what the page computes is the same to rounding."""
    found = recordings.made(TOKENS)
    for record in found.records:
        record.queries, record.keys = (Pieces(x.half().float()) for x in (record.query, record.key))
    return found


@pytest.fixture(scope="module")
def whole(seen):
    """All of it as a page."""
    return html_export.exported(catalogue_of(seen))


@pytest.fixture(scope="module")
def hostile():
    found = recordings.made(53)
    found._tokenizer = recordings.Spelling(HOSTILE)
    return found


def catalogue_of(seen, title="a title"):
    return Catalogue(Volume(seen, title))


def test_every_question_is_answered_or_said_to_be_left_out():
    assert set(ENDPOINTS) == {*html_export.HELD, *html_export.MADE, *html_export.LEFT_OUT}
    assert len(ENDPOINTS) == len(html_export.HELD) + len(html_export.MADE) + len(
        html_export.LEFT_OUT
    )


def test_words_are_asked_for_as_the_page_does():
    (chunk,) = re.findall(r"const CHUNK = (\d+);", html_export.source("tokens.js"))
    assert int(chunk) == MOST_WORDS


def test_numbers_are_those_of_the_desk_whatever_is_asked(shown, opened, seen, whole):
    page = opened(shown("decoder"), bypass_csp=True)  # which forbids workers, and a file does not
    api = Api(catalogue_of(seen))
    answers = kept(whole)["answers"]
    held = [path for path, answer in answers.items() if "shape" in answer]
    drafts = [f"tile/1/0/2/1/0/0?reduce={way}&exact=0" for way in ("mean", "max")]
    single = [f"tile/0/0/1/0/1/{column}?reduce=max" for column in (0, 1)]
    lines = [f"{kind}/1/0/2/{token}" for kind in ("row", "column") for token in (0, 255, 256, 282)]
    parts = [
        f"{name}/13/11?queries=251&keys=271" for name in ("weights/1/0/2", "mean/1/0", "mean/0/0")
    ]
    lines += [f"layer-{kind}/1/0/{token}" for kind in ("row", "column") for token in (0, 282)]
    parts += ["weights/0/0/1/251/0", "weights/0/0/0/0/277?queries=7", "mean/1/0/5/282?queries=1"]
    tiles = [f"tile/{layer}/0/{head}/1/0/0" for layer in range(LAYERS) for head in range(HEADS)]
    asked = [*held, *tiles, *drafts, *single, *lines, *parts]
    assert len(held) == LAYERS
    found = read_by_page(page, whole, asked)
    for path, answer in zip(asked, found, strict=True):
        wanted = html_export.ask(api, path)
        assert isinstance(wanted, Numbers)
        assert answer["shape"] == list(wanted.values.shape), path
        assert answer["isExact"], path
        torch.testing.assert_close(
            answer["values"], wanted.values.float(), rtol=ROUNDING, atol=1e-9
        )


def test_weights_that_the_model_made_are_there_to_the_last_bit(shown, opened, seen):
    page = opened(shown("decoder"))
    made = torch.stack([record.weights[0] for record in seen.latest()])
    text = html_export.exported(catalogue_of(Recording.from_attentions([made])))
    places = list(product(range(2), range(2)))
    paths = [f"tile/0/1/2/0/{row}/{column}" for row, column in places]
    found = read_by_page(page, text, paths)
    for (row, column), answer in zip(places, found, strict=True):
        rows, cols = (slice(256 * at, min(256 * (at + 1), TOKENS)) for at in (row, column))
        assert torch.equal(answer["values"], made[1, 2, rows, cols])


def test_a_translation_is_there_with_its_words(shown, opened):
    seen = shown("both").seen[0]
    text = html_export.exported(catalogue_of(seen))
    answers = kept(text)["answers"]
    assert len(answers["queries/3/0?first=0&count=4096"]["json"]["words"]) == TARGET
    assert len(answers["keys/3/0?first=0&count=4096"]["json"]["words"]) == SOURCE
    crossing = [i for i, record in enumerate(seen.latest()) if record.is_cross]
    assert crossing
    for layer in crossing:
        assert f"aligned/{layer}/0" in answers
    assert "json" in answers["alignment/0/0"] or "error" in answers["alignment/0/0"]


def test_a_part_of_the_heads_has_its_maps(shown, opened, seen):
    page = opened(shown("decoder"), bypass_csp=True)
    text = html_export.exported(catalogue_of(seen), heads=[2])
    assert len(kept(text)["answers"]["heads"]["json"]["rows"]) == LAYERS * HEADS
    row, other, tile = read_by_page(page, text, ["row/0/0/2/5", "row/0/0/1/5", "tile/0/0/0/0/0/0"])
    assert row["shape"] == [TOKENS]
    assert other == tile == "this file does not contain it"
    with pytest.raises(OutOfRangeError, match=r"there is no head 3; layers have at most 3 heads"):
        html_export.exported(catalogue_of(seen), heads=[3])


def test_what_it_would_hold_is_known_before_anything_is_looked_at(seen, whole, monkeypatch):
    catalogue = catalogue_of(seen)
    answers = kept(whole)["answers"].values()
    sizes = [torch.Size(answer["shape"]).numel() for answer in answers if "shape" in answer]
    needed = 4 * sum(sizes) + LAYERS * HEADS * TOKENS * (2 * 2 * DIM + 4)
    assert html_export.held_bytes(html_export.Wanted(catalogue)) == needed
    assert html_export.exported(catalogue, limit=needed) == whole
    for name in ("tile", "row"):
        monkeypatch.setattr(Map, name, None)
    monkeypatch.setattr(Catalogue, "thumbnails", None)
    wanted = (
        r"would contain 1\d\d\.\d KiB of numbers, more than the limit of .*: select some --layers"
    )
    with pytest.raises(TooLargeError, match=wanted):
        html_export.exported(catalogue, limit=needed - 1)


def test_it_is_told_how_far_it_is(seen):
    told = []
    html_export.exported(catalogue_of(seen), step=lambda name, done, of: told.append((done, of)))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("title", HOSTILE)
def test_text_never_becomes_html(hostile, title):
    page = html_export.exported(catalogue_of(hostile, title), heads=[])
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "<!--" not in page
    assert kept(page)["answers"]["about"]["json"]["title"] == title.replace("\ud800", "?")
    words = kept(page)["answers"]["queries/0/0?first=0&count=4096"]["json"]["words"]
    assert {word.strip(" ") for word in words} <= set(HOSTILE) | {"\ufffd", "?", "\u2028"}


def test_numbers_that_are_none_are_left_open():
    seen = recordings.both()
    for record in seen.records:
        record.keys = Pieces(record.key * torch.nan)
    answers = kept(html_export.exported(catalogue_of(seen), heads=[]))["answers"]
    assert {row["entropy"] for row in answers["heads"]["json"]["rows"]} == {None}
    weights = answers["alignment/0/0"]["json"]["weights"]
    assert {weight for row in weights for weight in row} == {None}


# In the browser, from disk, with the network off.


def visited(opened, path, place=""):
    address = path.as_uri()
    return opened.visit(address + place, address, offline=True)


def test_it_works_from_disk_with_the_network_off(opened, seen, whole, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(whole, encoding="utf-8")
    page = visited(opened, path)
    assert page.title() == "a title — Pellucid"
    (worker,) = page.workers
    header = "Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)"
    assert worker.evaluate(f"new WebAssembly.Module({header}) instanceof WebAssembly.Module")
    best = telling(catalogue_of(seen), 0)["telling"]
    assert page.url.endswith("#text?layer={layer}&head={head}&token={token}".format(**best))
    page.get_by_role("link", name="Overview").click()
    heads = page.get_by_role("button", name=re.compile("^layer .*, head"))
    heads.first.wait_for()
    assert heads.count() == LAYERS * HEADS
    assert page.get_by_role("status").inner_text() == f"{LAYERS * HEADS} heads"
    heads.nth(HEADS + 1).click()
    opened.settle(page)
    assert re.search(r"#map\?layer=1&(item=0&)?head=1", page.url)
    the_map(page).focus()
    for _ in range(9):
        page.keyboard.press("+")
    weights = seen.latest()[1].weights[0, 1]
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        opened.settle(page)
        check(page, weights)
    page = visited(opened, path, "#text?layer=1&head=1&token=281")
    assert "(281) attends to" in page.get_by_role("status").inner_text()


def test_hostile_words_are_words(opened, hostile, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(html_export.exported(catalogue_of(hostile, HOSTILE[1])), encoding="utf-8")
    page = visited(opened, path, "#text")
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE[1]
    shown = page.get_by_role("main").inner_text()
    used = {HOSTILE[i % len(HOSTILE)] for i in hostile.latest()[0].query_ids[0].tolist()}
    assert used == set(HOSTILE)
    for word in used:
        assert word in shown or not word.isascii()


def test_what_is_not_in_the_file_says_so(opened, seen, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(html_export.exported(catalogue_of(seen), heads=[0]), encoding="utf-8")
    page = visited(opened, path, "#text?layer=0&head=1&token=3")
    assert "this file does not contain it" in page.locator("body").inner_text()


# The command.


def test_a_recording_is_exported(run, tmp_path, seen):  # noqa: F811
    recording, page = tmp_path / "read.safetensors", tmp_path / "page.html"
    seen.save(recording)
    page.write_text("<!doctype html>what was there", encoding="utf-8")
    parts = ("--layers", "-1", "--heads", "0, 2")
    status, out, err = run("export", recording, "-o", page, *parts, "--overwrite")
    assert (status, out) == (0, "")
    text = page.read_text(encoding="utf-8")
    assert err == f"wrote {page}, {page.stat().st_size / 1024:.1f} KiB\n"
    answers = kept(text)["answers"]
    (layer,) = answers["about"]["json"]["layers"]
    assert layer["name"] == "layers.1.attention"
    assert layer["number"] == 1
    assert answers["about"]["json"]["title"] == "read.safetensors"
    assert kept(text)["heads"].keys() == {"0/0/0", "0/0/2"}
    assert not any(path.startswith("tile/") for path in answers)
    assert not list(tmp_path.glob(".pellucid-*"))


def test_a_text_is_exported(run, tmp_path):  # noqa: F811
    page = tmp_path / "page.html"
    status, out, _ = run("export", "Write a poem", "-o", page, "--title", "A <poem>", "--json")
    assert status == 0
    assert json.loads(out)["bytes"] == page.stat().st_size
    text = page.read_text(encoding="utf-8")
    assert "<title>A &lt;poem&gt; — Pellucid</title>" in text
    words = kept(text)["answers"]["keys/0/0?first=0&count=4096"]["json"]["words"]
    assert "".join(words).endswith("Write a poem")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x", "-o", "page.txt"], "--output must end in .html or .htm, not 'page.txt'"),
        (["a", "b", "-o", "p.html"], 'export takes one text; put it in quotes: "a b"'),
        (["x", "-o", "p.html", "--heads", "1,-2"], "--heads must be numbers separated by commas"),
        (["x", "-o", "p.html", "--limit", "0"], "--limit must be 1 or more, not 0"),
        (["no.safetensors", "-o", "p.html"], "there is no file 'no.safetensors'"),
        (
            ["no.safetensors", "-o", "p.html", "--max-tokens", "7"],
            "a recording is exported as it is",
        ),
        (["no.safetensors"], "Missing option '--output'"),
    ],
)
def test_what_it_cannot_export(refused, arguments, complaint, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert refused("export", *arguments).startswith(complaint)
    assert not list(Path().iterdir())


def test_too_much_is_refused_and_nothing_is_written(refused, tmp_path, seen):  # noqa: F811
    recording = tmp_path / "read.safetensors"
    made = {record.name: record.weights[:] for record in seen.latest()}
    Recording.from_attentions(made).save(recording)
    complaint = refused("export", recording, "-o", tmp_path / "page.html", "--limit", "1")
    assert re.match(
        r"the page would contain 2\.\d MiB of numbers, more than the limit of 1\.0 MiB.*; "
        r"it cannot compute some weights, as they are no softmax of dot products",
        complaint,
    )
    assert list(tmp_path.iterdir()) == [recording]


def test_it_needs_no_server(tmp_path, monkeypatch, run):  # noqa: F811
    for name in ("starlette", "uvicorn"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert run("export", "Write a poem", "-o", tmp_path / "page.html")[0] == 0

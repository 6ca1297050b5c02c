"""What notebooks show: the page, which asks the kernel; a picture of it; or words."""

import gc
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import weakref
import zlib
from base64 import b64decode
from concurrent.futures import wait
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pellucid
from pellucid.attention import attention_weights, masks
from pellucid.errors import PellucidError
from pellucid.lens import Recording
from pellucid.viewer import labelled_still, notebook, png_image
from pellucid.viewer.api import Api
from pellucid.viewer.html_export import as_bytes, source
from pellucid.viewer.requests import Numbers, parsed
from pellucid.viewer.telling import telling
from pellucid.viewer.tile_pyramid import Map
from tests.viewer import recordings
from tests.viewer.browser import keep_picture
from tests.viewer.recordings import HEADS, LAYERS, TOKENS

ROOT = Path(__file__).parents[2]
BATCH, QUERIES, KEYS, DIM = 2, 5, 7, 11
KERNEL = SimpleNamespace(kernel=object())
TERMINAL = SimpleNamespace()


@pytest.fixture
def seen():
    return recordings.made(TOKENS)


@pytest.fixture
def kernel(monkeypatch):
    """As if a kernel ran; what is opened is closed."""
    monkeypatch.setattr(notebook, "_shell", lambda: KERNEL)
    yield
    for page in list(notebook._pages.values()):
        page.close()


class Heard:
    """A page whose answers are heard."""

    def __init__(self, thing):
        self.page, self.answers = notebook._page(thing), {}
        self.page.send = self.keep

    def keep(self, content, buffers=None):
        self.answers[content["number"]] = content, buffers

    def ask(self, *paths):
        """What the page is sent, in order, for so many questions at once."""
        numbers = [f"window.{i}" for i in range(len(paths))]
        for number, path in zip(numbers, paths, strict=True):
            self.page._receive(self.page, {"number": number, "path": path}, [])
        wait(list(self.page._waiting.values()))
        return [self.answers.pop(number) for number in numbers]


def weights_of(**options):
    draw = torch.Generator().manual_seed(3)
    q, k = (
        torch.randn(BATCH, HEADS, size, DIM, generator=draw, requires_grad=True)
        for size in (QUERIES, KEYS)
    )
    return pellucid.attention(q, k, torch.randn(BATCH, HEADS, KEYS, 13), **options)[1]


# Which of them is shown.


def test_the_page_a_picture_and_words_are_given(kernel, seen):
    data, told = seen._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png", notebook.WIDGET}
    assert data["text/plain"] == repr(seen)
    assert data[notebook.WIDGET]["model_id"] == notebook._page(seen).model_id
    assert told["image/png"]["alt"].endswith("Model: 2 attention calls recorded")


@pytest.mark.parametrize(
    ("include", "exclude", "given"),
    [
        ({"text/plain"}, None, {"text/plain"}),
        (["text/plain", "image/png"], ["image/png"], {"text/plain"}),
        (None, {notebook.WIDGET, "image/png"}, {"text/plain"}),
        ((), (), {"text/plain", "image/png", notebook.WIDGET}),
        ({"text/html"}, None, set()),
    ],
)
def test_what_is_wanted_is_given_and_nothing_else_made(
    kernel, seen, monkeypatch, include, exclude, given
):
    if "image/png" not in given:
        monkeypatch.setattr(png_image, "still", None)
    if notebook.WIDGET not in given:
        monkeypatch.setattr(notebook, "_page", None)
    data, _ = seen._repr_mimebundle_(include=include, exclude=exclude)
    assert set(data) == given


@pytest.mark.parametrize(
    ("shell", "has_widgets", "given"),
    [
        (KERNEL, False, {"text/plain", "image/png"}),
        (TERMINAL, True, {"text/plain"}),
        (None, True, {"text/plain", "image/png"}),
    ],
)
def test_where_widgets_cannot_run(monkeypatch, seen, shell, has_widgets, given):
    monkeypatch.setattr(notebook, "_shell", lambda: shell)
    if not has_widgets:
        monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    data, _ = weights_of()._repr_mimebundle_()
    assert set(data) == given
    assert set(seen._repr_mimebundle_()[0]) == given


def test_nothing_to_see_is_said_in_words(kernel):
    nothing = Recording("Model")
    assert nothing._repr_mimebundle_() == ({"text/plain": repr(nothing)}, {})


def test_what_cannot_be_looked_at_is_said_in_words(monkeypatch):
    monkeypatch.setattr(notebook, "_shell", lambda: None)
    nowhere = torch.randn(BATCH, HEADS, QUERIES, DIM, device="meta")
    data, _ = attention_weights(nowhere, nowhere)._repr_mimebundle_()
    assert set(data) == {"text/plain"}
    assert "no picture: " in data["text/plain"]

    with pellucid.watch(layer := torch.nn.MultiheadAttention(DIM, 1)) as seen:
        layer(*[torch.randn(QUERIES, DIM)] * 3)
    (record,) = seen.records
    record.query.detach().zero_()
    data, _ = seen._repr_mimebundle_()
    assert re.search("no picture: .* changed in place", data["text/plain"])


def test_ipython_takes_what_is_given(monkeypatch, seen):
    from IPython.core.formatters import DisplayFormatter

    monkeypatch.setattr(notebook, "_shell", lambda: None)
    data, told = DisplayFormatter().format(seen)
    assert set(data) == {"text/plain", "image/png"}
    assert data["text/plain"] == repr(seen)
    assert set(told) == {"image/png"}


def test_what_is_below_does_not_load_the_page():
    code = (
        "import sys, pellucid.attention.weights, pellucid.lens.recording; "
        "print([name for name in sys.modules if 'viewer' in name or 'widget' in name])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout == "[]\n"


# The page asks.


def test_answers_are_those_of_the_desk(kernel, seen):
    paths = [
        "about",
        "queries/1/0?first=7&count=11",
        "thumbnails/1/0",
        "tile/1/0/2/0/0/0?reduce=max&exact=0",
        "column/0/0/1/17",
        "heads",
    ]
    api = Api(notebook.catalogue_of(seen))
    for path, (said, buffers) in zip(paths, Heard(seen).ask(*paths), strict=True):
        wanted = api.ask(*parsed(path)).find()
        if isinstance(wanted, Numbers):
            assert said["shape"] == list(wanted.values.shape)
            assert said["exact"] is wanted.is_exact
            assert buffers == [as_bytes(wanted.values)]
        else:
            assert json.loads(json.dumps(said["json"], allow_nan=False)) == wanted


@pytest.mark.parametrize("path", ["", "about/1", "no", "row/0/0/0/61", "tile/0/0/0/0/0/0?way=up"])
def test_a_wrong_question_is_told_so(kernel, seen, path):
    ((said, buffers),) = Heard(seen).ask(path)
    assert said["error"]
    assert buffers is None
    with pytest.raises(PellucidError, match=re.escape(said["error"])):
        Api(notebook.catalogue_of(seen)).ask(*parsed(path)).find()


def test_what_nobody_asks_any_more_is_not_looked_for(kernel, seen, monkeypatch):
    begun, go_on = Event(), Event()

    def slowly(one, key):
        begun.set()
        assert go_on.wait(10)
        return torch.zeros(TOKENS)

    heard = Heard(seen)
    monkeypatch.setattr(Map, "column", slowly)
    heard.page._receive(None, {"number": "a", "path": "column/0/0/0/0"}, [])
    heard.page._receive(None, {"number": "b", "path": "column/0/0/0/1"}, [])
    assert begun.wait(10)
    waiting = list(heard.page._waiting.values())
    heard.page._receive(None, {"drop": "b"}, [])
    heard.page._receive(None, {"drop": "a"}, [])  # is being answered already
    heard.page._receive(None, {"drop": "never asked"}, [])
    go_on.set()
    wait(waiting)
    assert set(heard.answers) <= {"a"}


def test_a_page_keeps_what_it_shows_only_while_it_is_open(kernel):
    seen = recordings.made(TOKENS)
    heard = Heard(seen)
    heard.ask("tile/0/0/0/0/0/0", "heads")
    alive = weakref.ref(seen), weakref.ref(seen.latest()[0])
    page = heard.page
    del seen, heard
    gc.collect()
    assert None not in [one() for one in alive]
    page.close()
    page._receive(page, {"number": "a", "path": "about"}, [])  # and answers nothing any more
    gc.collect()
    assert [one() for one in alive] == [None, None]


def test_a_cell_that_runs_again_shows_the_same_page(kernel, seen):
    model = seen._repr_mimebundle_()[0][notebook.WIDGET]["model_id"]
    assert seen._repr_mimebundle_()[0][notebook.WIDGET]["model_id"] == model
    other = recordings.made(TOKENS)
    assert other._repr_mimebundle_()[0][notebook.WIDGET]["model_id"] != model
    seen._records += other.latest()  # it has gone on recording
    more = seen._repr_mimebundle_()[0][notebook.WIDGET]["model_id"]
    assert more != model
    notebook._page(seen).close()
    assert seen._repr_mimebundle_()[0][notebook.WIDGET]["model_id"] != more


def test_the_page_comes_from_the_package(kernel, seen):
    page = notebook._page(seen)
    state = page.get_state()
    assert state["_esm"] == source("bundle.js")
    assert state["css"] == source("style.css")
    assert (state["height"], state["address"]) == (560, "overview")
    assert "https:" not in state["_esm"] + state["css"]


# Weights that nobody recorded.


MASKS = [None, masks.causal(offset=2), masks.padding(torch.tensor([4, 7]))]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_weights_are_one_sheet_without_words(kernel, mask):
    weights = weights_of(mask=mask)
    about, words, tile, heads = (
        said | {"buffers": buffers}
        for said, buffers in Heard(weights).ask("about", "keys/0/1", "tile/0/1/2/0/0/0", "heads")
    )
    (layer,) = about["json"]["layers"]
    assert [layer[name] for name in ("items", "heads", "queries", "keys")] == [
        BATCH, HEADS, QUERIES, KEYS,
    ]  # fmt: skip
    assert words["json"] == {"words": None}
    got = np.frombuffer(tile["buffers"][0], "<f4").reshape(tile["shape"])
    with torch.no_grad():  # under autograd what is hidden is masked in a copy
        wanted = weights[1, 2].numpy()
    assert (got == wanted).all()
    assert len(heads["json"]["rows"]) == HEADS
    entropy = weights.entropy().detach()[:, 0]
    if mask is None:
        assert heads["json"]["rows"][0]["entropy"] == pytest.approx(float(entropy.mean()))


def test_weights_with_a_graph_keep_it(kernel):
    weights = weights_of()
    assert weights[0, 0, 0, 0].requires_grad
    data, _ = weights._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png", notebook.WIDGET}
    assert data["text/plain"] == repr(weights)
    (gradient,) = torch.autograd.grad(weights[0, 0, 0, 0], weights.operands.query)
    assert gradient.abs().max() > 0


def test_one_head_is_opened_at_its_map(kernel):
    assert notebook._page(weights_of()).address == "overview"
    assert notebook._page(weights_of().head(1, 2)).address == "map"


def test_long_weights_are_shown_without_making_them(kernel):
    draw = torch.Generator().manual_seed(5)
    q, k = (torch.randn(1, 2, 65_536, 3, generator=draw) for _ in range(2))
    data, _ = attention_weights(q, k)._repr_mimebundle_()
    assert len(data["image/png"]) < 200_000


# The picture.


def read_png(data):
    """The colours of a palette PNG without filters, (rows, columns, 3)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (
            zlib.crc32(kind + body),
        )
        chunks[kind] = body
        at += 12 + size
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 3, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[rows[:, 1:]]


def test_the_picture_has_a_map_of_each_head():
    weights = weights_of(mask=masks.causal(offset=2))
    picture = read_png(b64decode(weights._repr_mimebundle_(include={"image/png"})[0]["image/png"]))
    side = png_image.LARGEST
    above = 2 * (5 * png_image.SIZE + 2 * png_image.GAP)
    left = len("LAYER") * 4 * png_image.SIZE + 2 * png_image.GAP
    assert picture.shape[0] > above + side
    assert picture.shape[1] >= left + HEADS * (side + png_image.GAP)
    dense = weights[0].detach()
    for head in range(HEADS):
        start = left + head * (side + png_image.GAP)
        part = picture[above : above + side, start : start + side].astype(int)
        middles = [
            [(2 * i + 1) * side // (2 * size) for i in range(size)] for size in (QUERIES, KEYS)
        ]
        light = torch.tensor(part.sum(-1))[middles[0]][:, middles[1]]
        shown = dense[head] > 0
        order = dense[head][shown].argsort()
        assert (light[shown][order].diff() <= 0).all()  # the larger the darker
        assert (light[~shown] == light.max()).all()
        assert light[shown].max() < light.max()


def test_the_picture_of_a_short_text_has_its_words(monkeypatch):
    catalogue = notebook.catalogue_of(recordings.encoder())
    best = telling(catalogue, 0)["telling"]
    heads = png_image.still(catalogue)
    drawn = []
    monkeypatch.setattr(labelled_still, "to_png", lambda svg: drawn.append(svg) or b"drawn")
    assert labelled_still.labelled(catalogue, heads) == (b"drawn", 846)
    (svg,) = drawn
    words = [word.strip() or "·" for word in catalogue.words(best["layer"], 0, "keys")]
    labels = re.findall(r'class="mono">([^<]*)</text>', svg)
    assert labels == words + words  # above the columns, and beside the rows
    weight = catalogue.layer(best["layer"], 0, known=False)[best["head"]][2, 3].item()
    assert f"<title>{words[2]} → {words[3]}: {100 * weight:.1f}%</title>" in svg
    monkeypatch.undo()
    data, told = labelled_still.labelled(catalogue, heads)
    assert (data[:4], told) == (b"\x89PNG", 846)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert labelled_still.labelled(catalogue, heads) == (heads, None)


def test_pictures_of_many_heads_stay_small():
    many = recordings.made(tokens=7, layers=43, heads=37, dim=2)
    data = png_image.still(notebook.catalogue_of(many))
    picture = read_png(data)
    step = png_image.SMALLEST + png_image.GAP
    assert picture.shape[0] == pytest.approx(2 * 43 * step, abs=100)  # two lines a layer
    assert picture.shape[1] == pytest.approx(png_image.ACROSS * step, abs=60)
    assert len(data) < 200_000


# In a real JupyterLab.


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab of its own, with a notebook that has one cell."""
    cell = "from tests.viewer import recordings\nseen = recordings.decoder()\nseen"
    told = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    code = {"cell_type": "code", "id": "one", "execution_count": None, "metadata": {}}
    book = {"cells": [code | {"outputs": [], "source": cell}], "metadata": told}
    (tmp_path / "book.ipynb").write_text(json.dumps(book | {"nbformat": 4, "nbformat_minor": 5}))
    settings = tmp_path / "config" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)  # JupyterLab asks whether it may ask for its news
    news = {"@jupyterlab/apputils-extension:announcements": True}
    settings.write_text(json.dumps({"disabledExtensions": news}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        origin = f"127.0.0.1:{free.getsockname()[1]}"
    own = {
        "JUPYTER_CONFIG_DIR": tmp_path / "config",
        "JUPYTER_DATA_DIR": tmp_path / "data",
        "JUPYTER_RUNTIME_DIR": tmp_path / "runtime",
        "IPYTHONDIR": tmp_path / "ipython",
        "PYTHONPATH": ROOT,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.port_retries=0"]
    command += ["--port", origin.split(":")[1], f"--ServerApp.root_dir={tmp_path}"]
    command += ["--IdentityProvider.token=secret"] + ["--allow-root"] * (os.getuid() == 0)
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | {k: str(v) for k, v in own.items()}, stdout=log, stderr=log
        )
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://{origin}/api", timeout=10).close()
                    break
                except OSError:
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.3)
            yield origin
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jupyter") is None, reason="JupyterLab is not installed")
def test_in_jupyterlab(browser, lab, request):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(90_000)
    elsewhere, errors = [], []
    own = (f"http://{lab}", f"ws://{lab}", "blob:", "data:")
    page.on("request", lambda one: one.url.startswith(own) or elsewhere.append(one.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://{lab}/lab/tree/book.ipynb?token=secret")
    page.locator(".jp-Cell .cm-content").first.click()
    page.wait_for_function(
        "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"
    )
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-OutputArea").first
    heads = output.get_by_role("button", name=re.compile("^layer .*, head"))
    heads.first.wait_for()
    assert heads.count() == LAYERS * HEADS
    output.get_by_text(f"{LAYERS * HEADS} heads").wait_for()
    keep_picture(page, request.node.name + "-overview")
    assert output.evaluate("(one) => one.querySelector('button.head')") is None  # its own root
    heads.nth(HEADS + 2).click()
    the_map = output.get_by_role("application")
    the_map.focus()
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for key in ("ArrowDown", "ArrowDown", "d", "d", "b"):  # JupyterLab would delete the cell
        page.keyboard.press(key)
    output.get_by_text(re.compile(r"\(\d+\) attends to .*%")).wait_for()
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    keep_picture(page, request.node.name + "-map")
    context.close()
    assert not elsewhere
    assert not errors

"""The pictures are well formed, load nothing, and can be read in light and in dark."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.common import colours
from pellucid.common.drawing import LEVELS, level
from pellucid.lessons.examples import NAMES, walk_example
from pellucid.lessons.page import to_html
from pellucid.lessons.picture import to_svg
from pellucid.lessons.scaling import measure_scaling
from pellucid.lessons.scaling_picture import to_svg as scaling_svg
from pellucid.lessons.walk import Matrix, Step, Walk

SVG = "{http://www.w3.org/2000/svg}"


def walk_of(tokens: tuple[str, ...]) -> Walk:
    values = tuple(tuple(float(i == j) for j in range(len(tokens))) for i in range(len(tokens)))
    matrix = Matrix(
        name="weights", values=values, row_labels=tokens, column_labels=tokens, kind="percent"
    )
    step = Step(name="softmax", formula="f", sentence=" ".join(tokens), matrices=(matrix,))
    return Walk(title=" ".join(tokens), about=tokens[:1], tokens=tokens, steps=(step,))


class Page(HTMLParser):
    """Checks that elements close in order, and gathers the text and the attributes."""

    EMPTY = ("meta", "rect", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def loads_nothing(text: str) -> bool:
    rest = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    return not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|<image|src=|href=", rest)


def test_the_heat_map_has_every_percentage_and_a_name():
    root = ElementTree.fromstring(to_svg(walk_example("poem")))
    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title"
    assert "'write' gives 36% of its attention to itself" in root[0].text
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert [text for text in texts if text.endswith("%")][:9] == [
        "36%", "40%", "24%", "34%", "60%", "5%", "7%", "3%", "90%",
    ]  # fmt: skip
    cells = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(cells) == 9
    assert cells[1].find(f"{SVG}title").text == "write → a: 40.1%"
    assert cells[1].get("class") == "w8"  # 40.1% of twenty steps
    assert texts.count("write") == 2


@pytest.mark.parametrize("example", NAMES)
def test_pictures_and_pages_load_nothing(example):
    walk = walk_example(example)
    svg, html = to_svg(walk), to_html(walk)
    assert loads_nothing(svg)
    assert loads_nothing(html)
    ElementTree.fromstring(svg)
    page = Page(html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    for step in walk.steps:
        assert step.formula in page.text
        assert step.sentence in page.text
        for matrix in step.matrices:
            for row in matrix.values:
                assert all(matrix.text(number) in page.text for number in row)
    assert page.tags.count("svg") == 1


@given(st.lists(st.text(max_size=30), min_size=1, max_size=7).map(tuple))
def test_any_text_is_escaped(tokens):
    walk = walk_of(tokens)
    ElementTree.fromstring(to_svg(walk))
    Page(to_html(walk))


def test_markup_stays_text():
    walk = walk_of(("<script>alert(1)</script>", "&amp;", "\x00\x1b", "\"'>"))
    page = Page(to_html(walk))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    root = ElementTree.fromstring(to_svg(walk))
    assert any(element.text == "&amp;" for element in root.iter(f"{SVG}text"))


def test_long_texts_are_cut_and_say_so():
    tokens = tuple(f"token{i}" for i in range(67))
    svg = to_svg(walk_of(tokens))
    assert "The first 48 of 67 tokens." in svg
    assert svg.count("<title>") == 1 + 48 * 48
    html = to_html(walk_of(tokens))
    assert "… of 67" in html
    assert "token47" in html


@pytest.mark.parametrize("size", [1, 2, 5, 12, 29, 48])
def test_nothing_is_drawn_outside(size):
    root = ElementTree.fromstring(to_svg(walk_of(tuple(f"word{i}" for i in range(size)))))
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for rect in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for text in root.iter(f"{SVG}text"):
        if text.get("text-anchor") is None and text.get("x"):
            assert (
                float(text.get("x")) + 0.5 * float(text.get("font-size")) * len(text.text) <= width
            )
            assert float(text.get("y")) < height


def test_one_row_in_focus_is_one_row_of_cells():
    svg = to_svg(walk_example("journey", query="step"))
    assert svg.count("<title>") == 1 + 6


@pytest.mark.parametrize("ramp", [colours.LIGHT, colours.DARK])
def test_the_scale_rises_evenly_and_its_text_can_be_read(ramp):
    shades = [colours.shade(step / LEVELS, ramp) for step in range(LEVELS + 1)]
    for shade in shades:
        assert colours.contrast(shade, colours.ink(shade)) >= 4.5  # WCAG 2.2, level AA
    # Lightness alone tells the numbers apart: it moves one way only.
    against = [colours.contrast(shade, ramp[0]) for shade in shades]
    assert against == sorted(against)
    assert against[-1] > 8


def test_contrast_is_that_of_the_standard():
    assert colours.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert colours.contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)
    assert colours.css((1, 171, 255)) == "#01abff"
    assert [level(number) for number in (-1, 0, 0.5, 1, 7)] == [0, 0, 10, 20, 20]


def test_the_colours_follow_the_reader():
    svg = to_svg(walk_example("poem"))
    light, dark = svg.split("@media(prefers-color-scheme:dark)")
    assert colours.css(colours.LIGHT[-1]) in light
    assert colours.css(colours.DARK[-1]) in dark


def test_the_picture_of_the_scaling():
    svg = scaling_svg(measure_scaling((2, 8, 32), keys=13, samples=19))
    root = ElementTree.fromstring(svg)
    assert loads_nothing(svg)
    assert root.get("role") == "img"
    assert len(list(root.iter(f"{SVG}circle"))) == 4 * 2 * 3
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts.count("32") == 4
    ElementTree.fromstring(scaling_svg(measure_scaling((7,), samples=2)))


def test_a_title_as_long_as_a_book_stays_a_title():
    svg = to_svg(replace(walk_example("poem"), title="word " * 600))
    assert float(ElementTree.fromstring(svg).get("height")) < 700


def test_the_likeliest_tokens_are_not_all():
    walk = walk_of(("king", "woman"))
    (step,) = walk.steps
    (matrix,) = step.matrices
    likely = replace(matrix, name="probability", values=((0.3, 0.1),), row_labels=("next",))
    svg = to_svg(replace(walk, steps=(replace(step, matrices=(likely,)),)))
    assert "together 40%; all other tokens share the rest" in svg
    assert "sums to 100%" not in svg
    assert "sums to 100%" in to_svg(walk)

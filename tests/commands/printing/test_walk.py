"""What a person sees, on wide and narrow terminals, with and without colour."""

import io
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.fuzzing import few_or_many

from pellucid.commands.printing.walk import show
from pellucid.lessons.examples import NAMES, walk_example
from pellucid.lessons.walk import Matrix, Step, Walk


def printed(walk: Walk, width: int = 80, **options) -> str:
    stream = io.StringIO()
    show(walk, Console(file=stream, width=width, **options))
    return stream.getvalue()


def walk_of(size: int, columns: int = 37, rows: int | None = None, name: str = "tok") -> Walk:
    """A walk of `size` tokens, whose row i gives all to token i; `rows` of them in focus."""
    tokens = tuple(f"{name}{i}" for i in range(size))
    shown = tokens[:rows]
    step = Step(
        name="softmax",
        formula="weights = …",
        sentence="Something is said.",
        matrices=(
            Matrix(
                name="weights",
                values=tuple(tuple(float(i == j) for j in range(size)) for i in range(len(shown))),
                row_labels=shown,
                column_labels=tokens,
                kind="percent",
            ),
            Matrix(
                name="Q",
                values=tuple((0.25,) * columns for _ in shown),
                row_labels=shown,
                column_labels=tuple(map(str, range(columns))),
            ),
        ),
    )
    return Walk(title="A title", about=("About.",), tokens=tokens, steps=(step,))


@cache
def whole(example):
    return walk_example(example, query=None)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("example", NAMES)
def test_every_line_fits(example, width):
    lines = printed(whole(example), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) > 20


@few_or_many(7)
def test_whatever_the_sizes_every_line_fits(examples):
    @given(
        size=st.integers(1, 40),
        columns=st.integers(1, 37),
        rows=st.integers(1, 3),
        width=st.integers(28, 130),
        name=st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=20),
    )
    @examples
    def every_line_fits(size, columns, rows, width, name):
        for walk in (walk_of(size, columns, name=name), walk_of(size, columns, rows, name)):
            assert max(map(len, printed(walk, width).splitlines())) <= width

    every_line_fits()


def test_wide_matrices_say_how_many_columns_there_are():
    out = printed(walk_of(5), 60)
    assert "of 37" in out
    assert "0.2500 …" in out
    assert "of 37" not in printed(walk_of(5), 400)


@pytest.mark.parametrize("width", [34, 60, 100])
def test_the_heat_map_shows_every_column_at_any_width(width):
    out = printed(walk_of(19, columns=2), width)
    assert out.count("100%") == 19
    assert all(f"tok{i}" in out for i in range(19))
    assert "Too long" not in out


def test_labels_are_cut_where_that_saves_a_band():
    walk = walk_of(11, columns=2, name="to")
    step = walk.steps[0]
    long = tuple(f"{'extraordinary' if i in (2, 7) else 'a'}{i}" for i in range(11))
    weights = replace(step.matrices[0], column_labels=long, row_labels=long)
    walk = replace(walk, steps=(replace(step, matrices=(weights,)),))
    out = printed(walk, 82)
    assert out.count("a10") == 2
    assert out.count("extraordinary2") == 0
    assert printed(walk, 120).count("extraordinary2") == 2


def test_a_band_leaves_out_rows_that_see_none_of_it():
    walk = walk_of(19, columns=2, name="word")
    step = walk.steps[0]
    hidden = tuple(tuple(j > i for j in range(19)) for i in range(19))
    weights = replace(step.matrices[0], hidden=hidden)
    walk = replace(walk, steps=(replace(step, matrices=(weights,)),))
    lines = [line.split() for line in printed(walk, 80).splitlines() if "word" in line]
    shown = [line[0] for line in lines if line[0] != "weights"]
    assert lines[20][0] == "weights"
    first = int(lines[20][1].removeprefix("word"))
    assert shown == [f"word{i}" for i in (*range(19), *range(first, 19))]


def test_the_picture_of_a_lookup_has_its_answers():
    stream = io.StringIO()
    show(walk_example("lookup", query="amber"), Console(file=stream, width=80), steps=False)
    out = stream.getvalue()
    assert "595.0" in next(line for line in out.splitlines() if line.startswith("×300"))
    assert "Attention answers 595.0 nm, where a database answers nothing" in out


def test_a_long_heat_map_is_cut_and_says_so():
    out = printed(walk_of(41), 100)
    assert "… 41 rows" in out
    assert "of 41" in out
    assert "--query WORD" in out


def test_one_word_is_shown_as_bars():
    out = printed(walk_of(7, rows=1), 60)
    assert "tok0 100% ████" in out
    assert "tok6   0%" in out
    many = printed(walk_of(41, rows=1), 60)
    assert "… 25 more" in many


def test_colour_is_only_an_addition(monkeypatch):
    walk = walk_example("poem")
    plain = printed(walk)
    assert "\x1b" not in plain
    assert " 36%" in plain
    coloured = printed(walk, force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b[38;2" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    without = printed(walk, force_terminal=True, color_system="truecolor")
    assert "38;2" not in without
    assert " 36%" in without


def test_no_line_ends_in_the_middle_of_markup():
    # Square brackets are rich's markup, and the names of a model's own marks.
    walk = walk_of(3, name="[/bold]")
    assert "[/bold]0" in printed(walk)

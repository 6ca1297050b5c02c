"""The script of a walk: its numbers are the walk's, its words are its own, its times fit."""

import re

import pytest

from pellucid.errors import ArgumentError
from pellucid.film import render
from pellucid.film.attention_narration import MOST_KEYS
from pellucid.film.narration import write
from pellucid.film.numbers import Figures, matrices
from pellucid.film.script import Spoken, timed, with_detail
from pellucid.film.voices import Silence
from pellucid.lessons.examples import NAMES, walk_example
from pellucid.lessons.model import walk_model

SENTENCE = "The animal did not cross because it was tired"


def said(script, scene, line):
    (found,) = (one for one in script.scenes if one.name == scene)
    return found.line(line).text


def test_the_notes_numbers_worked_out_by_hand():
    # The notes' example: "The word "write" is 36% similar to itself", 40% to "a" and 24% to "poem".
    script = write(walk_example("poem"))
    assert said(script, "softmax", "share") == (
        "'write' gives 40% of its attention to 'a', 36% to itself and 24% to 'poem'."
    )
    assert said(script, "vectors", "own") == "Here, 'write' is 1.16 and 0.23."
    assert said(script, "scale", "divide") == (
        "Each score is divided by the square root of 2, which is 1.41."
    )


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_shown_is_the_walks(causal):
    walk = walk_example("journey", causal=causal)
    known = matrices(walk)
    for scene in write(walk, chapters=6).scenes:
        for name, numbers in scene.numbers.items():
            for number in numbers:
                match = re.fullmatch(r"(\w+)\[(\d+), (\d+)\]", number.of)
                if match:
                    matrix, row, column = match[1], int(match[2]), int(match[3])
                    assert number.value == known[matrix].values[row][column], (scene.name, name)


def test_a_dot_product_that_is_said_comes_out():
    for name in ("poem", "journey"):
        script = write(walk_example(name))
        product = next(s for s in script.scenes if s.name == "score").line("product")
        q0, k0, q1, k1, score = (float(n.text.replace("−", "-")) for n in product.numbers)
        assert q0 * k0 + q1 * k1 == pytest.approx(score, abs=10 ** -product.numbers[-1].decimals)


def test_hidden_scores_are_counted():
    script = write(walk_example("journey", causal=True), query=2)
    assert "15 of the 36 scores become minus infinity" in said(script, "mask", "hide")
    assert said(script, "mask", "own") == "'starts' cannot see 'with'."


def test_of_many_keys_the_strongest_are_shown_and_the_others_counted():
    walk = walk_model(SENTENCE, layer=5, head=0)
    script = write(walk, query=8, finds=(1, 2))
    scene = next(one for one in script.scenes if one.name == "softmax")
    assert len(scene.keys) == MOST_KEYS - 1
    assert {1, 2, 8} <= set(scene.keys)
    assert scene.rest.text == str(len(walk.tokens) - len(scene.keys)) == "6"
    whole = sum(number.value for number in scene.numbers["weights"] + scene.numbers["rest"])
    assert whole == pytest.approx(1.0)
    assert said(script, "title", "word") == "Let us see how 'it' finds 'The animal'."


def test_a_film_is_about_a_whole_word_unless_told():
    walk = walk_model(SENTENCE)
    script = write(walk)
    assert walk.tokens[script.scenes[0].query] in SENTENCE.split()


@pytest.mark.parametrize("name", NAMES)
def test_every_example_has_a_film(name):
    script = write(walk_example(name))
    assert script.title == walk_example(name).title
    assert len(script.lines) >= 4


def test_times_follow_one_another():
    script = write(walk_example("poem"))
    seconds = [1 + 0.1 * number for number in range(len(script.lines))]
    times = timed(script, [Spoken(seconds=one, words=((0, 0.25),)) for one in seconds], pause=0.4)
    lines = times.lines
    assert [line.until - line.at for line in lines] == pytest.approx(seconds)
    assert lines[0].words == ((0, pytest.approx(lines[0].at + 0.25)),)
    for scene in times.scenes:
        for line, after in zip(scene.lines, scene.lines[1:], strict=False):
            assert after.at - line.until == pytest.approx(0.4)
        assert scene.at < scene.lines[0].at
        assert scene.lines[-1].until < scene.until
    assert times.scenes[1].at == times.scenes[0].until


def test_a_part_of_a_line_has_the_time_of_its_word():
    script = write(walk_example("poem"))
    script = timed(script, [Silence().say(line.text).spoken for line in script.lines])
    line = next(scene for scene in script.scenes if scene.name == "softmax").line("share")
    assert line.at < line.moment("36%") < line.moment("24%") < line.until
    assert line.moment() == line.at == line.moment("not said")


def test_less_detail_is_shorter():
    script = write(walk_example("poem"))
    lengths = [len(with_detail(script, detail).lines) for detail in (1, 2, 3)]
    assert lengths == sorted(set(lengths))
    assert not [line for line in with_detail(script, 1).lines if line.detail > 1]


@pytest.mark.parametrize("minutes", [0.5, 1.0, 2.0, 4.0])
def test_a_film_is_as_long_as_it_is_to_be(minutes):
    film = render.compose(walk_example("journey", causal=True), minutes=minutes)
    assert film.script.until == pytest.approx(60 * minutes, rel=0.02)


@pytest.mark.parametrize("minutes", [0.0, -1.0, 61.0, float("nan")])
def test_a_length_that_no_film_has(minutes):
    with pytest.raises(ArgumentError, match=r"minutes must be from 0.1 to 60"):
        render.compose(walk_example("poem"), minutes=minutes)


def test_formulas():
    figures = Figures(walk_example("poem"))
    assert figures.value("X[0, 0] + 2 * X[0, 1]") == pytest.approx(1.16 + 2 * 0.23)
    assert figures.value("sqrt(columns(Q)) / rows(Q)") == pytest.approx(2**0.5 / 3)
    assert figures.value("rest(weights, 0, [0])") == pytest.approx(
        figures.value("1 - weights[0, 0]"), abs=1e-6
    )
    for wrong in ("nothing[0, 0]", "X[9, 9]", "open('a')", "X.real", "1 +", "(lambda: 1)()"):
        with pytest.raises(ArgumentError, match="is not a number of this walk"):
            figures.value(wrong)

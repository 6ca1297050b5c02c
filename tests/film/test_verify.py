"""Films of all shapes are without fault, and the checker finds each fault that is planted."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pellucid.film import sound
from pellucid.film.numbers import Figures, matrices
from pellucid.film.prompt import understood
from pellucid.film.shapes import same
from pellucid.film.verify import arithmetic, verify
from pellucid.film.walk_sources import of_one_head, walk_wished
from pellucid.lessons.examples import NAMES, walk_example
from pellucid.lessons.lesson import random_lesson
from pellucid.lessons.steps import walk_lesson
from tests.film.films import SHAPES, composed, staged

WISHES = (
    "show how 'it' finds 'the animal' in 'The animal did not cross because it was tired'",
    "translate 'The king sent his servant to the city.'",
    "show 'In the beginning God created' going on",
    "שלום to the antidisestablishmentarianism of pseudopseudohypoparathyroidism",
    "a",
)


def kinds(faults):
    return {fault.kind for fault in faults}


@pytest.mark.parametrize("wish", WISHES)
def test_films_of_models_are_without_fault(wish):
    walk, query, finds = walk_wished(understood(wish))
    film = composed(walk, query=query, finds=finds, minutes=1.5)
    track = sound.track(film.script, film.sounds)
    assert verify(walk, film.script, None, track) == []
    for size in SHAPES.values():
        assert verify(walk, film.script, staged(film, size, captions=True)) == []


@pytest.mark.parametrize(
    "shape",
    [
        # Where there is least room across: every example in it, in each run.
        pytest.param(name, marks=() if name == "upright" else pytest.mark.slow)
        for name in SHAPES
    ],
)
@pytest.mark.parametrize(("name", "causal"), [("journey", True), *((one, False) for one in NAMES)])
def test_films_of_examples_are_without_fault(name, causal, shape):
    walk = walk_example(name, causal=causal)
    film = composed(walk, spoken=False, minutes=3)
    assert verify(walk, film.script, staged(film, SHAPES[shape], captions=True)) == []


def test_a_film_of_a_lesson_with_a_source_is_without_fault():
    lesson = random_lesson("the dog", source="el perro muerde al gato", width=3)
    walk = walk_lesson(lesson)
    film = composed(walk, spoken=False, minutes=2)
    for size in SHAPES.values():
        assert verify(walk, film.script, staged(film, size, captions=True)) == []


@pytest.mark.parametrize("heads", [3, 5])
def test_a_film_of_several_heads_joins_them(heads):
    lesson = random_lesson("the dog bites man", heads=heads, width=11, size=7)
    walk = of_one_head(walk_lesson(lesson, head=1), 1)
    film = composed(walk, spoken=False, minutes=1)
    assert Figures(walk).value("columns(Q)") == 7
    side, mixed = (scene for scene in film.script.scenes if scene.name == "table")
    assert f"one of {heads} heads" in side.lines[0].text
    row = film.script.scenes[0].query
    joined = tuple(one.value for one in side.numbers["concat.0"])
    assert joined == matrices(walk)["concat"].values[row][: len(joined)]
    W = np.array(matrices(walk)["W_output"].values)
    output = np.array(matrices(walk)["concat"].values[row]) @ W
    shown = [one.value for one in mixed.numbers["output.0"]]
    np.testing.assert_allclose(shown, output[: len(shown)], rtol=1e-9)
    for size in SHAPES.values():
        assert verify(walk, film.script, staged(film, size, captions=True)) == []
    steps = walk.steps[-1]
    wrong = replace(steps.matrices[1], values=((0.0,) * 11,) * 4)
    changed = replace(steps, matrices=(steps.matrices[0], wrong))
    assert kinds(arithmetic(replace(walk, steps=(*walk.steps[:-1], changed)))) == {"arithmetic"}


@pytest.fixture(scope="module")
def good():
    walk = walk_example("poem")
    film = composed(walk, minutes=1.5)
    return walk, film.script, staged(film), sound.track(film.script, film.sounds)


def test_a_number_that_is_not_the_walks(good):
    walk, script, _, _ = good
    scene = script.scenes[-1]
    number = scene.lines[0].numbers[0]
    wrong = replace(number, text="41%")
    line = replace(scene.lines[0], numbers=(wrong,), text=scene.lines[0].text.replace("40%", "41%"))
    changed = replace(script, scenes=(*script.scenes[:-1], replace(scene, lines=(line,))))
    [fault] = verify(walk, changed)
    assert fault.kind == "number"
    assert "weights[0, 1] is 40%, not 41%" in fault.message


def test_a_number_that_nobody_counted(good):
    walk, script, picture, _ = good
    scene = script.scenes[0]
    line = replace(scene.lines[0], text=f"{scene.lines[0].text} It takes 3 minutes.")
    changed = replace(script, scenes=(replace(scene, lines=(line,)), *script.scenes[1:]))
    assert "It takes 3 minutes" in verify(walk, changed)[0].message
    mark = next(one for one in picture.marks if one.shape == "text")
    drawn = replace(picture, marks=(*picture.marks, replace(mark, text="99 balloons")))
    assert "'99 balloons' is drawn" in " ".join(f.message for f in verify(walk, script, drawn))


def test_arithmetic_that_does_not_come_out():
    walk = walk_example("poem")
    for name in ("Q", "scores", "scaled", "weights", "context"):
        steps = tuple(
            replace(step, matrices=tuple(
                replace(m, values=((m.values[0][0] + 0.01, *m.values[0][1:]), *m.values[1:]))
                if m.name == name else m
                for m in step.matrices
            ))
            for step in walk.steps
        )  # fmt: skip
        assert kinds(arithmetic(replace(walk, steps=steps))) == {"arithmetic"}, name
    assert not list(arithmetic(walk))


def test_labels_that_overlap_or_leave_the_picture(good):
    walk, script, picture, _ = good
    place, mark = next((n, one) for n, one in enumerate(picture.marks) if one.text == "Scores")
    over = next(one for one in picture.marks if one.text.startswith("score = "))
    marks = list(picture.marks)
    moved = tuple(replace(pose, x=over.poses[0].x - 20) for pose in mark.poses)
    marks[place] = replace(mark, poses=moved)
    assert "overlap" in kinds(verify(walk, script, replace(picture, marks=tuple(marks))))
    bars = [one for one in picture.marks if one.shape == "box" and not one.line]
    t = next(scene.until for scene in script.scenes if scene.name == "score") - 1
    onto = next(pose for bar in bars if (pose := bar.at(t)))
    marks[place] = replace(
        mark,
        poses=tuple(replace(pose, x=onto.x - 5, y=onto.y + 6) for pose in mark.poses),
    )
    cut = verify(walk, script, replace(picture, marks=tuple(marks)))
    assert any("is cut by a box" in fault.message for fault in cut)
    marks[place] = replace(mark, poses=tuple(replace(pose, x=-100.0) for pose in mark.poses))
    assert kinds(verify(walk, script, replace(picture, marks=tuple(marks)))) == {"outside"}


def test_marks_are_as_they_were_until_they_move(good):
    _, _, picture, _ = good
    times = np.linspace(-1, picture.seconds + 1, 41).tolist()
    for mark in picture.marks:
        for t, after in pairwise(times):
            until = mark.still_until(t)
            assert until >= t
            now = mark.at(t)
            for later in np.linspace(t, min(until, after), 3, endpoint=False)[1:].tolist():
                then = mark.at(later)
                assert now is then or (now and then and same(now, then))


def test_a_number_that_is_shown_late(good):
    walk, script, picture, _ = good
    late = tuple(
        replace(mark, poses=tuple(replace(pose, t=pose.t + 0.2) for pose in mark.poses))
        if mark.cue
        else mark
        for mark in picture.marks
    )
    found = [f for f in verify(walk, script, replace(picture, marks=late)) if f.kind == "timing"]
    assert len(found) == sum(mark.cue is not None for mark in picture.marks) >= 4


def test_sound_that_is_late_or_uneven(good):
    walk, script, _, track = good
    assert "timing" in kinds(verify(walk, script, None, np.roll(track, round(0.2 * sound.RATE))))
    loud = track.copy()
    line = script.lines[2]
    loud[round(line.at * sound.RATE) : round(line.until * sound.RATE)] *= 0.5
    assert kinds(verify(walk, script, None, loud)) == {"loudness"}


def test_a_first_frame_that_says_nothing(good):
    walk, script, picture, _ = good
    later = tuple(mark for mark in picture.marks if mark.start > 0)
    assert "thumbnail" in kinds(verify(walk, script, replace(picture, marks=later)))


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_films_of_other_families_are_without_fault(checkpoint, family):
    wish = replace(understood("Write a poem about rain"), causal=family == "bert")
    walk, query, finds = walk_wished(wish, model=str(checkpoint(family)))
    film = composed(walk, spoken=False, query=query, finds=finds, minutes=3)
    assert verify(walk, film.script, staged(film, captions=True)) == []


LONG = "The king sent his servant to the city, and the servant told the king of its people. " * 2


@pytest.mark.parametrize("translate", [False, True])
def test_films_of_long_texts_are_without_fault(translate):
    walk, query, finds = walk_wished(replace(understood(LONG.strip()), translate=translate))
    film = composed(walk, spoken=False, query=query, finds=finds, minutes=2)
    for size in SHAPES.values():
        assert verify(walk, film.script, staged(film, size, captions=True)) == []

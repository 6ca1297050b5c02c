"""`pellucid film` as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pellucid.film import fonts, render, style
from tests.film.films import SMALL, read

SHORT = ("--minutes", "0.1", "--size", "720p")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(style.SIZES, "720p", SMALL)


def test_a_film_of_a_sentence(small, run, tmp_path):
    path = tmp_path / "poem.mp4"
    status, out, err = run("film", "Write a poem", "-o", path, "--theme", "dark", *SHORT)
    assert (status, out) == (0, "")
    names = ["poem.mp4", "poem.srt", "poem.txt", "poem.vtt"]
    assert sorted(one.name for one in tmp_path.iterdir()) == names
    assert [line for line in err.splitlines() if line.startswith("wrote ")] == [
        f"wrote {tmp_path / name}" for name in ("poem.mp4", "poem.vtt", "poem.srt", "poem.txt")
    ]
    found = read(path)
    assert found.codecs == {"video": "h264", "audio": "aac"}
    assert found.frames[0].mean() < 80
    assert "Pellucid's decoder" in (tmp_path / "poem.txt").read_text()


def test_a_length_that_cannot_be_is_said(small, run, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "save", lambda *_, **__: [])
    _, _, err = run("film", "--example", "poem", "--gif", tmp_path / "a.gif", "--minutes", "30")
    assert "pellucid: you asked for " in err
    assert "film of this takes" in err


def test_a_prompt_in_words(small, run, tmp_path):
    path = tmp_path / "a.mp4"
    prompt = "show how 'it' finds 'the king' in 'The king said that it was good', quickly"
    status, _, err = run("film", prompt, "-o", path, "--silent", *SHORT)
    assert status == 0, err
    assert "Let us see how 'it' finds 'The king'." in path.with_suffix(".vtt").read_text().replace(
        "\n", " "
    )


def test_what_may_be_meant_as_a_prompt_is_said(small, run, tmp_path):
    _, _, err = run("film", "show how it is", "--gif", tmp_path / "a.gif", *SHORT)
    assert "filmed as the sentence itself; a prompt quotes its parts" in err


def test_a_lesson_that_was_edited_is_filmed(small, run, tmp_path):
    lesson, film = tmp_path / "mine.json", tmp_path / "a.mp4"
    assert run("explain", "--words", "the cat sat", "--save", lesson)[0] == 0
    lesson.write_text(lesson.read_text().replace('"cat"', '"lion"'))
    status, _, err = run(
        "film", "--from", lesson, "--query", "lion", "-o", film, "--silent", *SHORT
    )
    assert status == 0, err
    assert "Fontconfig" not in err
    assert "'lion'" in film.with_suffix(".vtt").read_text()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "give either a sentence"),
        (["a", "--example", "poem"], "give either a sentence"),
        (["Write", "a", "poem"], 'film takes one sentence; put it in quotes: "Write a poem"'),
        ([" "], "sentence is empty"),
        (["show 'a b' loudly"], "prompt is not understood at 'loudly'; say: show [how]"),
        (["show 'a' in 'a b'", "--query", "b"], "the prompt asks about 'a' already"),
        (
            ["Write a poem", "--query", "king"],
            "'king' is not in the sentence; its tokens: <|end|>, ",
        ),
        (["show how 'a' finds 'b' in 'a b'"], "'a' cannot see 'b': the mask hides it"),
        (["a", "--translate", "--generate"], "are two films; ask for one of them"),
        (["a", "--translate", "--causal"], "--causal has no meaning with --translate"),
        (["a", "--layer", "9"], "layer 9 is out of range"),
        (["a", "--translate", "--head", "9"], "head 9 is out of range: there are 0 to 3"),
        (["a", "--minutes", "0"], "--minutes must be from 0.1 to 60, not 0.0"),
        (["a", "--voice", "nobody"], "--voice must be one of espeak-ng's"),
        (["--example", "nothing"], "no example 'nothing'; there are: poem"),
        (["--example", "poem", "--layer", "0"], "--layer goes with a sentence, not with --example"),
        (["--example", "poem", "--from", "a.json"], "give either a sentence"),
        (["--from", "a.json", "--layer", "0"], "--layer goes with a sentence, not with --from"),
        (["--from", "a.json"], "cannot read 'a.json'"),
        (["--example", "poem", "--query", "x"], "query 'x' is not among the tokens"),
    ],
)
def test_what_cannot_be_filmed(given, complaint, refused, tmp_path):
    assert complaint in refused("film", *given, "-o", tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_film_needs_a_place_to_go(refused, tmp_path):
    assert "say where the film goes: -o poem.mp4, or --gif poem.gif" in refused("film", "a")
    told = refused("film", "a", "-o", tmp_path / "a.avi")
    assert told == "--output must end in .mp4, not 'a.avi'"


def test_a_file_beside_the_film_stays_too(refused, tmp_path):
    there = tmp_path / "poem.srt"
    there.write_text("mine")
    told = refused("film", "--example", "poem", "-o", tmp_path / "poem.mp4")
    assert told.startswith(f"'{there}' already exists; --overwrite replaces it")
    assert [one.name for one in tmp_path.iterdir()] == ["poem.srt"]
    assert there.read_text() == "mine"


@pytest.mark.parametrize("module", ["skia", "av", "fontpkg_inter"])
def test_without_the_extra(module, monkeypatch, refused, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    told = refused("film", "--example", "poem", "-o", tmp_path / "a.mp4")
    assert told.startswith(f"a film needs {module}: pip install 'pellucid[film]' (in a checkout: ")


def test_letters_that_no_font_has_are_said(small, run, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "missing", lambda texts: "ก")
    _, _, err = run("film", "a", "--gif", tmp_path / "a.gif", *SHORT)
    assert "no font on this machine has ก: boxes are drawn instead" in err


KILLED = """
import sys
from pathlib import Path
from pellucid.film import render
from pellucid.lessons.examples import walk_example

def told(name, done, of):
    if done == 40:
        print("drawing", flush=True)

film = render.compose(walk_example("poem"))
render.save(film, Path(sys.argv[1]), Path(sys.argv[2]), size="1080p", progress=told)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="files without names are Linux's")
def test_a_film_that_is_killed_leaves_nothing(tmp_path):
    arguments = [sys.executable, "-c", KILLED, tmp_path / "a.mp4", tmp_path / "a.gif"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "drawing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []

"""What may be replaced in the directory of a run, and when: nothing before the new one is ready."""

import json
import os
from functools import partial

import pytest

from pellucid.training import corpus, loop
from pellucid.training.objectives import NextToken
from pellucid.training.run_directory import (
    ASIDE,
    MODEL,
    TRAINING,
    claim,
    give_up,
    place,
    replace,
    run_in,
    sweep,
)
from tests.training.runs import SMALL, TEXTS


@pytest.fixture
def shared(done):
    """A run that is done, with files of somebody else among its own; and its text."""
    out, file = done
    for own in ("notes", "training/notes", "training/data/notes", "training/attention/notes"):
        (out / own).write_text("mine")
    return out, file


def files_in(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("file", "options", "told"),
    [
        ("nosuch.txt", [], "cannot read"),
        ("text.txt", ["--vocabulary", "5"], "--vocabulary must be at least"),
        ("text.txt", ["--set", "dropout=2"], "dropout must be in [0, 1)"),
        ("text.txt", ["--width", "30", "--set", "heads=4"], "does not divide into 4 heads"),
        ("text.txt", ["--from", "BASE"], "is the base model; choose another directory"),
    ],
)
def test_what_cannot_begin_leaves_the_old_run(file, options, told, shared, refused):
    out, text = shared
    before = files_in(out)
    options = [os.path.relpath(out) if one == "BASE" else one for one in options]
    complaint = refused(
        "train", "decoder", text.with_name(file), "-o", out, "--overwrite", *options
    )
    assert told in complaint
    assert files_in(out) == before


def test_a_run_is_replaced_and_what_is_of_others_stays(shared, run):
    out, file = shared
    before = files_in(out)
    options = [*SMALL, "--set", "save_every=2", "--width", "24", "--overwrite"]
    status, _, err = run("train", "decoder", file, "-o", out, *options)
    assert status == 0, err
    after = files_in(out)
    assert before.keys() == after.keys()
    assert json.loads(after[out / "config.json"]) != json.loads(before[out / "config.json"])
    assert {path.name for path in before if after[path] == b"mine"} == {"notes"}
    assert run("train", "decoder", "-o", out, "--resume")[0] == 0


@pytest.mark.parametrize("name", ["config.json", "training/log.jsonl", "training/data/about.json"])
def test_what_no_run_left_is_not_removed(name, tmp_path, refused):
    out, file = tmp_path / "model", tmp_path / "text.txt"
    file.write_text("\n".join(TEXTS))
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    complaint = refused("train", "decoder", file, "-o", out, *SMALL, "--overwrite")
    assert complaint.startswith(
        f"'{out / name}' does not belong to a run, since there is no '{out}/training"
    )
    assert files_in(out) == {out / name: b"mine"}


def made(directory):
    for name in (*MODEL, *(f"training/{one}".replace("*", "7") for one in TRAINING)):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")


class Killed(BaseException):
    """In place of a signal that nothing survives."""


@pytest.fixture
def killed(monkeypatch):
    """Call something that is killed when it is about to change a file for the so-manieth time."""

    def call(does, kill_at):
        left = kill_at

        def counted(real, *said, **options):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(*said, **options)

        with monkeypatch.context() as patched:
            for one in ("replace", "rename", "unlink"):
                patched.setattr(os, one, partial(counted, getattr(os, one)))
            with pytest.raises(Killed):
                does()

    return call


@pytest.mark.parametrize("kill_at", range(1, 17))
def test_a_run_is_replaced_though_the_last_try_was_killed(kill_at, tmp_path, killed):
    made(tmp_path)

    def ready():
        folder = claim(tmp_path, True)
        assert folder == place(tmp_path)
        (folder / "data").mkdir(parents=True)
        for one in ("data/about.json", "run.json"):
            (folder / one).write_text("new")

    ready()
    assert place(tmp_path) == tmp_path / ASIDE
    killed(lambda: replace(tmp_path), kill_at)
    ready()
    replace(tmp_path)
    wanted = {tmp_path / "training" / one: b"new" for one in ("data/about.json", "run.json")}
    assert files_in(tmp_path) == wanted


@pytest.mark.parametrize("kill_at", range(1, 4 + len(MODEL) + len(TRAINING)))
def test_a_run_that_is_replaced_is_there_whenever_that_is_killed(kill_at, tmp_path, killed):
    made(tmp_path)
    (tmp_path / "training" / "notes").write_text("mine")
    folder = claim(tmp_path, True)
    (folder / "run.json").write_text("new")
    killed(lambda: replace(tmp_path), kill_at)
    asked = run_in(tmp_path).read_text()
    assert asked in ("old", "new")
    sweep(tmp_path)
    assert (tmp_path / "training" / "run.json").read_text() == asked
    assert (tmp_path / "training" / "notes").read_text() == "mine"
    assert (tmp_path / "config.json").exists() == (asked == "old")
    assert not list(tmp_path.glob(".pellucid-*"))


def test_what_is_read_is_not_replaced(done, refused):
    out, _ = done
    before = files_in(out)
    file = out / "training" / "log.jsonl"
    complaint = refused("train", "decoder", file, "-o", out, *SMALL, "--overwrite")
    assert complaint.startswith(
        f"'{file}' is an input, and part of the run that --overwrite would remove"
    )
    assert files_in(out) == before


def test_what_is_given_up_leaves_what_was_there(tmp_path):
    out = tmp_path / "old"
    made(out)
    before = files_in(out)
    claim(out, True)
    give_up(out)
    assert files_in(out) == before
    new = tmp_path / "new"
    new.mkdir()
    claim(new, False)
    give_up(new)
    assert not new.exists()


# Ctrl-C


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("over", [False, True])
def test_ctrl_c_before_training_leaves_nothing(over, shared, run, monkeypatch):
    out, file = shared
    out = out if over else out.with_name("new")
    before = files_in(out)
    with monkeypatch.context() as patched:
        patched.setattr(corpus.of_documents, "_write", interrupt)
        told = ["train", "decoder", file, "-o", out, *SMALL, *(["--overwrite"] if over else [])]
        status, _, err = run(*told)
    assert (status, err) == (130, "stopped before training began; nothing was saved\n")
    assert files_in(out) == before
    assert out.exists() == over
    assert run(*told)[0] == 0


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ((NextToken, "examine"), "trained, but not evaluated"),
        ((loop.Trainer, "update"), "stopped"),
    ],
)
def test_ctrl_c_later_says_how_to_go_on(where, said, tmp_path, run, monkeypatch):
    file, out = tmp_path / "text.txt", tmp_path / "model"
    file.write_text("\n".join(TEXTS))
    with monkeypatch.context() as patched:
        patched.setattr(*where, interrupt)
        status, _, err = run("train", "decoder", file, "-o", out, *SMALL)
    assert status == 130
    go_on = f"continue with: pellucid train decoder -o '{out}' --resume"
    assert err.splitlines()[-1] == f"{said}; {go_on}"
    with monkeypatch.context() as patched:
        patched.setattr(corpus.of_documents, "Prepared", interrupt)
        status, _, err = run("train", "decoder", "-o", out, "--resume")
    assert (status, err) == (130, f"stopped; {go_on}\n")
    assert run("train", "decoder", "-o", out, "--resume")[0] == 0
    assert (out / "results.json").exists()

"""What --resume goes on with: the run's own options, and the texts that it began with."""

import json
import os

import numpy as np
import pytest

from pellucid.training.run_directory import alone
from tests.training.runs import SMALL, TEXTS


@pytest.fixture
def stopped(done):
    """A run that was done, and was thrown back to step 2: its directory, its file and its end."""
    out, file = done
    (out / "training" / "checkpoints" / "step-0000003" / "about.json").unlink()
    return out, file, (out / "model.safetensors").read_bytes()


def goes_on(run, out, end):
    (out / "model.safetensors").unlink()
    status, _, err = run("train", "decoder", "-o", out, "--resume", width=200)
    assert status == 0, err
    assert "resuming from step 2 of 3" in err
    assert (out / "model.safetensors").read_bytes() == end


def files_in(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (["--steps", "5"], "leave out --steps"),
        (
            ["--steps", "3", "--set", "seed=1", "--seed=1"],
            "leave out --steps, --seed and --set",
        ),
        (["FILE", "--column", "text"], "leave out FILE and --column"),
        (["--overwrite"], "leave out --overwrite"),
        (["--held-out", "FILE", "--config", "a.toml"], "leave out --held-out and --config"),
        (["--from", "DIR"], "leave out --from"),
    ],
)
def test_other_options_are_refused_by_name(said, named, stopped, refused):
    out, file, _ = stopped
    before = files_in(out)
    said = [file if one == "FILE" else one for one in said]
    complaint = refused("train", "decoder", "-o", out, "--resume", *said)
    assert complaint == f"--resume uses the files and options of the run in DIR; {named}"
    assert files_in(out) == before


def test_another_command_is_refused(stopped, refused):
    out, *_ = stopped
    complaint = refused("train", "translator", "-o", out, "--resume")
    assert complaint.endswith(f"continue with: pellucid train decoder -o '{out}' --resume")


@pytest.mark.parametrize("change", ["none", "gone", "other text", "other time"])
def test_texts_that_were_read_are_all_it_needs(change, stopped, run):
    out, file, end = stopped
    if change == "gone":
        file.unlink()
    if change == "other text":
        file.write_text("\n".join(TEXTS[::-1]))
    if change == "other time":
        os.utime(file, ns=(1, 1))
    goes_on(run, out, end)


@pytest.mark.parametrize("damage", ["length", "content", "all"])
@pytest.mark.parametrize("touched", [False, True])
def test_damaged_texts_are_read_again(damage, touched, stopped, run):
    out, file, end = stopped
    hurt(out, damage)
    if touched:
        os.utime(file, ns=(1, 1))
    goes_on(run, out, end)


def hurt(out, damage):
    ids = out / "training" / "data" / "training" / "ids"
    content = ids.read_bytes()
    if damage == "all":
        for path in files_in(out / "training" / "data"):
            path.unlink()
    elif damage == "length":
        ids.write_bytes(content[:-2])
    else:
        ids.write_bytes(np.frombuffer(content, np.uint16)[::-1].tobytes())


@pytest.mark.parametrize("damage", ["length", "content", "all"])
def test_other_texts_in_place_of_damaged_ones_are_refused(damage, stopped, run, refused):
    out, file, end = stopped
    hurt(out, damage)
    file.rename(file.with_suffix(".kept"))
    complaint = refused("train", "decoder", "-o", out, "--resume")
    assert f"cannot read '{file}': No such file" in complaint
    assert "is incomplete" in complaint
    file.write_text("\n".join(TEXTS[::-1]))
    for _ in range(2):
        complaint = refused("train", "decoder", "-o", out, "--resume")
        assert "does not have the texts that the run started with" in complaint
        assert f"'{file}' changed since" in complaint
    file.with_suffix(".kept").rename(file)
    goes_on(run, out, end)


def test_it_goes_on_in_another_directory(tmp_path, run, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("train", "decoder", "text.txt", "-o", "model", *SMALL)[0] == 0
    end = (tmp_path / "model" / "results.json").read_text()
    hurt(tmp_path / "model", "all")
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, printed, err = run("train", "decoder", "-o", "../model", "--resume", "--json")
    assert status == 0, err
    assert json.loads(printed) == json.loads(end)


def test_two_runs_are_not_at_work_in_one_directory(stopped, refused):
    out, _, _ = stopped
    before = files_in(out)
    with alone(out, True):
        for said in ("--resume", "--overwrite"):
            file = [] if said == "--resume" else [stopped[1]]
            told = refused("train", "decoder", *file, "-o", out, said)
            assert told == f"another run is using '{out}'"
    assert files_in(out) == before

"""A run that is killed at any moment goes on, and ends as one that nobody stopped: to the bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest

from pellucid.training import hardware, loop

NOUNS = ["house", "river", "bird", "stone", "tree", "road", "light"]
WORDS = ["red", "old", "small", "green", "long"]
TEXTS = [f"the {word} {noun} by the {other}" for word in WORDS for noun in NOUNS for other in NOUNS]
STEPS = 11
SMALL = {
    "steps": STEPS,
    "width": 12,
    "layers": 1,
    "heads": 3,
    "dropout": 0.1,
    "batch_tokens": 101,
    "part_tokens": 53,
    "average": 0.9,
    "evaluate_every": 3,
    "save_every": 1,
    "positions": 23,
    "precision": "float32",
}
OF_THE_CLOCK = {"seconds", "tokens_per_second", "share_of_peak"}
CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}
"""What Python says it is about to do to files; so a process can be killed at any of them."""
CHANGED = "changes of files: "


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file for each of what is learnt, and the options that go with it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "text.txt").write_text("\n".join(TEXTS))
    (folder / "pairs.tsv").write_text("\n".join(f"{one}\t{one.upper()}" for one in TEXTS))
    return {
        "decoder": [folder / "text.txt"],
        "translator": [folder / "pairs.tsv", "--source", "1", "--target", "2"],
    }


def begun(what, files, directory, steps=STEPS):
    """What starts a run, or goes on with it; what left no word of what was asked begins anew."""
    if (directory / "training" / "run.json").exists():
        return ["train", what, "-o", directory, "--resume"]
    wanted = SMALL | {"steps": steps}
    options = ["--vocabulary=300", *(f"--set={name}={value}" for name, value in wanted.items())]
    return [
        "train",
        what,
        *files[what],
        "-o",
        directory,
        "--overwrite",
        "--vocabulary=300",
        *options,
    ]


def outcome(directory):
    """All that must not depend on whether a run was stopped."""
    log = map(json.loads, (directory / "training" / "log.jsonl").read_text().splitlines())
    return {
        "model": (directory / "model.safetensors").read_bytes(),
        "results": (directory / "results.json").read_text(),
        "log": [{name: one[name] for name in one if name not in OF_THE_CLOCK} for one in log],
    }


def check(directory, whole, steps=STEPS):
    """Nothing is lost, nothing is there twice, and nothing lies about."""
    found = outcome(directory)
    assert [one["step"] for one in found["log"] if "loss" in one] == list(range(1, steps + 1))
    assert found == outcome(whole)
    assert not [*directory.rglob(".pellucid-*"), *directory.rglob("*.partial")]


def hurt(directory):
    """As if it had been killed in the middle of what it wrote."""
    training = directory / "training"
    for folder in (directory, training, training / "data"):
        (folder / ".pellucid-0").write_text("half")
    (training / "checkpoints" / "step-9999999.partial").mkdir(parents=True, exist_ok=True)
    with (training / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')


# In processes that have everything imported, and kill themselves


def _run(arguments, output, kill_at):
    """The command; killed when it is about to change a file for the so-manieth time."""
    from pellucid import cli

    hardware.matrix_rate = partial(hardware.matrix_rate, seconds=0)  # which has no end to wait for
    loop.torch.set_num_threads(1)
    sys.argv = ["pellucid", *map(str, arguments)]
    place, left = str(arguments[arguments.index("-o") + 1]), kill_at

    def note(event, said):
        nonlocal left
        if event in CHANGES and place in str(said[0]) and not _only_reads(event, said):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    with output.open("a") as sys.stderr, redirect_stdout(sys.stderr):
        try:
            cli.main()
        finally:
            sys.stderr.write(f"\n{CHANGED}{kill_at - left}\n")


def _only_reads(event, said):
    return event == "open" and not said[2] & (os.O_WRONLY | os.O_RDWR)


@pytest.fixture
def ended(processes, tmp_path, monkeypatch):
    """Whether the command came to its end."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds this file
    output = tmp_path / "output"

    def does_end(arguments, kill_at=0):
        process = processes.Process(target=_run, args=(arguments, output, kill_at))
        process.start()
        process.join()
        status = process.exitcode
        process.close()
        assert status in (0, -signal.SIGKILL), output.read_text()
        return status == 0

    does_end.output = output
    return does_end


@pytest.mark.parametrize("what", ["decoder", pytest.param("translator", marks=pytest.mark.slow)])
def test_a_run_survives_three_kills(what, files, ended, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ended(begun(what, files, whole))
    for kill_at in (31, 101, 47):
        assert not ended(begun(what, files, parts), kill_at)
        hurt(parts)
    assert ended(begun(what, files, parts))
    check(parts, whole)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["decoder", "translator"])
def test_a_run_survives_a_kill_at_any_change_of_a_file(what, files, ended, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ended(begun(what, files, whole, 3))
    changes = int(ended.output.read_text().rpartition(CHANGED)[2])
    assert changes > 100
    for kill_at in range(1, changes + 1, 3):
        assert not ended(begun(what, files, parts, 3), kill_at)
        assert ended(begun(what, files, parts, 3))
        check(parts, whole, 3)
        shutil.rmtree(parts)


# In processes as people start them, killed by another


@pytest.mark.slow
@pytest.mark.parametrize("what", ["decoder", "translator"])
def test_a_run_survives_kills_at_random_moments(what, files, tmp_path):
    whole, parts, steps = tmp_path / "whole", tmp_path / "parts", 97
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def started(directory):
        command = [sys.executable, "-m", "pellucid", *begun(what, files, directory, steps)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    assert started(whole).wait() == 0
    draw, log = random.Random(what), parts / "training" / "log.jsonl"
    kills = 0
    for _ in range(13):
        before = log.stat().st_size if log.exists() else 0
        with started(parts) as process:
            while process.poll() is None and (not log.exists() or log.stat().st_size == before):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.3))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills > 2
    with started(parts) as process:
        pass
    assert process.returncode == 0
    check(parts, whole, steps)

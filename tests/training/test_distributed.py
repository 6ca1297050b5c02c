"""Two processes learn what one does, sharded or not, and either goes on where the other stopped."""

import json
import os
import shutil
import socket
from functools import partial
from pathlib import Path

import pytest
import torch

from pellucid.training.loop import Trainer
from pellucid.training.report import Report
from pellucid.training.settings import Settings
from tests.training.tiny import objective

STEPS, SAVED = 4, 2


def trained(directory, kind, shard, resume=False):
    """Runs in each process; the first leaves the weights and the measures behind."""
    sizes = {"steps": STEPS, "batch_tokens": 53, "part_tokens": 31}
    settings = Settings(**sizes, shard=shard, average=0.9, precision="float32")
    folder = directory / "training"
    folder.mkdir(parents=True, exist_ok=True)
    rank = os.environ.get("RANK", "0")
    made = objective(kind, directory / f"data-{rank}", layers=1)
    run = Trainer(made, settings, folder, Report(folder, STEPS, 53))
    if resume:
        run._resume()
        assert run.step == SAVED
    while run.step < STEPS:
        run.update()
        run.step += 1
        if run.step == SAVED:
            run._save()
    measures = run._evaluate()
    if run.processes.is_first:
        (directory / "measures.json").write_text(json.dumps(measures))


def stopped(whole, parts):
    """A run as it was when it saved itself."""
    step = f"training/checkpoints/step-{SAVED:07d}"
    shutil.copytree(whole / step, parts / step)


def _process(rank, port, calls):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    for call in calls:
        call()
    torch.distributed.destroy_process_group()


def in_two(*calls):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_process, (port, calls), 2, start_method="forkserver")


def measures(directory: Path):
    return json.loads((directory / "measures.json").read_text())


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    "kind",
    ["guided", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("decoder", "translator"))],
)
def test_two_processes_learn_what_one_does_and_go_on_for_each_other(kind, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds this file
    trained(tmp_path / "one", kind, shard=False)
    stopped(tmp_path / "one", tmp_path / "from-one")
    in_two(
        partial(trained, tmp_path / "two-False", kind, shard=False),
        partial(trained, tmp_path / "two-True", kind, shard=True),
        partial(trained, tmp_path / "from-one", kind, shard=True, resume=True),
    )
    stopped(tmp_path / "two-True", tmp_path / "from-two")
    trained(tmp_path / "from-two", kind, shard=False, resume=True)
    expected = measures(tmp_path / "one")
    for other in ("two-False", "two-True", "from-one", "from-two"):
        assert measures(tmp_path / other) == pytest.approx(expected, rel=1e-5)
        pictures = tmp_path / other / "training" / "attention"
        assert (pictures / f"step-{STEPS:07d}.svg").exists()

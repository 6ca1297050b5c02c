"""A run that stops goes on as if it had not, and what it keeps is whole."""

import json
import math
import shutil
import signal
from functools import partial

import pytest
import torch

import pellucid
from pellucid.errors import FileError
from pellucid.training import loop, state
from pellucid.training.settings import Settings
from tests.training.tiny import kinds, trainer, weights


# The others stop and go on in `test_precision`.
@pytest.mark.parametrize("kind", kinds("decoder", "classifier", "guided"))
def test_a_run_that_stops_goes_on_bit_for_bit(kind, tmp_path):
    begun = partial(trainer, kind, model={"layers": 2 if kind == "decoder" else 1})
    whole = begun(tmp_path / "whole")
    expected = whole.run()
    stopped = begun(tmp_path / "parts")
    for _ in range(5):  # killed after step 5; what was saved last is step 4
        stopped.update()
        stopped.step += 1
        if stopped.step == 4:
            stopped._save()
    again = begun(tmp_path / "parts")
    assert again.run(resume=True) == expected
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)
    torch.testing.assert_close(again.mean.tensors, whole.mean.tensors, rtol=0, atol=0)


def test_equally_good_weights_are_told_apart_by_their_loss(tmp_path):
    run = trainer("contrastive", tmp_path, steps=6, evaluate_every=2)
    losses, told = iter([3.0, 1.0, 2.0]), []
    run.objective.measure = lambda *_: {"found_first": 0.5, "loss": next(losses)}
    run.report.judged = lambda step, measures, is_best, *rest: told.append((step, is_best))
    run.run()
    assert told == [(2, True), (4, True), (6, False)]
    assert run.best == [-0.5, 1.0]
    again = trainer("contrastive", tmp_path, steps=6)
    again._resume()
    assert again.best == run.best


def test_parts_of_a_batch_teach_what_it_teaches_whole(tmp_path):
    one = trainer("decoder", tmp_path / "a", part_tokens=1000, model={"dropout": 0.0})
    other = trainer("decoder", tmp_path / "b", part_tokens=1, model={"dropout": 0.0})
    losses = [made.update()[0] for made in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_blocks_that_run_again_teach_the_same(tmp_path):
    one = trainer("translator", tmp_path / "a")
    other = trainer("translator", tmp_path / "b", checkpointing=True)
    for made in (one, other):
        made.update()
    torch.testing.assert_close(weights(one), weights(other))


@pytest.fixture(scope="module")
def _kept(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    trainer("decoder", directory).run()
    return directory


@pytest.fixture
def ended(_kept, tmp_path):
    """The directory of a run that has ended, trained once."""
    return shutil.copytree(_kept, tmp_path, dirs_exist_ok=True)


def test_a_damaged_checkpoint_is_passed_over(ended):
    folder = ended / "training" / "checkpoints"
    newest, before = sorted(folder.iterdir())[::-1]
    (data,) = newest.glob("*.distcp")
    content = bytearray(data.read_bytes())
    content[-20] ^= 1
    data.write_bytes(content)
    again = trainer("decoder", ended)
    again._resume()
    assert before.name == f"step-{again.step:07d}"
    (before / "about.json").unlink()
    with pytest.raises(FileError, match="all checkpoints"):
        trainer("decoder", ended)._resume()


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["about"].update(step=1),
        lambda said: said["about"].update(checksums={}),
        lambda said: said.pop("checksum"),
        lambda said: said.update(about=[]),
    ],
)
def test_what_is_said_about_a_checkpoint_is_checked_too(change, ended):
    before, newest = sorted((ended / "training" / "checkpoints").iterdir())
    said = json.loads((newest / "about.json").read_text())
    change(said)
    (newest / "about.json").write_text(json.dumps(said))
    again = trainer("decoder", ended)
    again._resume()
    assert before.name == f"step-{again.step:07d}"
    (newest / "about.json").write_text("[]")
    trainer("decoder", ended)._resume()


def test_a_checkpoint_of_another_model_is_refused_in_one_line(ended):
    with pytest.raises(FileError, match="is of another model") as refused:
        trainer("decoder", ended, model={"hidden": 31})._resume()
    assert len(str(refused.value).replace(str(ended), "").splitlines()) == 1
    assert len(str(refused.value).replace(str(ended), "")) < 300


@pytest.mark.parametrize("failing", ["write_tensors", "write_whole"])
def test_what_cannot_be_written_leaves_what_was_there(failing, tmp_path, monkeypatch):
    run = trainer("decoder", tmp_path)
    run._save()

    def full(*_, **__):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("[enforce fail]\nTraceback: the disk") from error

    monkeypatch.setattr(state, failing, full)
    run.step = 1
    with pytest.raises(FileError, match="': No space left on device; --resume continues"):
        run._save()
    assert [one.name for one in (tmp_path / "training" / "checkpoints").iterdir()] == [
        "step-0000000"
    ]


def test_steps_without_a_loss_are_skipped_and_ten_stop_the_run(tmp_path, monkeypatch):
    run = trainer("decoder", tmp_path, steps=20)
    before = weights(run)
    forward = run.objective.forward

    def broken(part):
        return forward(part) * (math.nan if broken.left else 1)

    broken.left = 3
    monkeypatch.setattr(run.objective, "forward", broken)
    for _ in range(3):
        run.update()
    torch.testing.assert_close(weights(run), before, rtol=0, atol=0)
    assert (run.skipped, run.skipped_in_a_row) == (3, 3)
    broken.left = 0
    run.update()
    assert (run.skipped, run.skipped_in_a_row) == (3, 0)
    broken.left = 1
    with pytest.raises(loop.DivergedError, match="10 times in a row"):
        run.run()
    saved = json.loads((tmp_path / "training" / "bad-batch.json").read_text())
    assert saved["batch"] == run.objective.batch(saved["step"])


def test_ctrl_c_saves_and_says_so(tmp_path, monkeypatch):
    run = trainer("decoder", tmp_path, save_every=100)
    update = run.update

    def pressed():
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        return update()

    monkeypatch.setattr(run, "update", pressed)
    with pytest.raises(loop.Interrupted):
        run.run()
    again = trainer("decoder", tmp_path)
    again._resume()
    assert again.step == 3


def test_what_is_kept_is_the_best_and_loads(tmp_path):
    run = trainer("decoder", tmp_path)
    run.run()
    lines = (tmp_path / "training" / "log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    judged = [line["held_out"] for line in log if "held_out" in line]
    model = pellucid.load(tmp_path)
    with torch.no_grad():
        run.objective.model.load_state_dict(model.state_dict())
        run.objective.eval()
        found = run.objective.measure()["bits_per_byte"]
    assert found == pytest.approx(min(line["bits_per_byte"] for line in judged), rel=1e-6)


def test_matrices_decay_and_vectors_do_not(tmp_path):
    run = trainer("translator", tmp_path, weight_decay=0.3)
    for group in run.optimiser.param_groups:
        assert {one.ndim >= 2 for one in group["params"]} == {group["weight_decay"] == 0.3}
    count = sum(len(group["params"]) for group in run.optimiser.param_groups)
    assert count == len(list(run.objective.parameters()))


def test_the_rate_rises_and_falls():
    settings = Settings(steps=100, learning_rate=2.0, warmup=0.1, floor=0.25)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(0.5 + 1.5 / 2)
    assert rates[-1] == pytest.approx(0.5, rel=1e-2)
    assert rates[10:] == sorted(rates[10:], reverse=True)

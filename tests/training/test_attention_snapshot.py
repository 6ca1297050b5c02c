"""What a head sees is what the model used, of the same text each time, and harms no run."""

import math

import numpy as np
import pytest
import torch

from pellucid.lessons.heads import worth
from pellucid.training import attention_snapshot as glances
from pellucid.training.attention_snapshot import MOST, one_to_one, short_one
from pellucid.training.distributed import Processes
from pellucid.training.objectives import base
from tests.training.tiny import END, KINDS, objective, trainer


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    return objective(request.param, tmp_path).eval()


def test_it_is_the_same_each_time_and_draws_nothing(made):
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = made.glance(), made.glance()
        made.sample()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weights, second.weights)
    assert first.numbers() == second.numbers()
    assert first.weights.shape == (len(first.rows), len(first.columns))
    assert max(first.weights.shape) <= MOST
    torch.testing.assert_close(first.weights.sum(-1), torch.ones(len(first.rows)))


def test_of_self_attention_it_is_the_head_that_is_most_worth_looking_at(tmp_path):
    made = objective("decoder", tmp_path).eval()
    (ids,) = made.example()
    with torch.no_grad():
        seen, found = made.model(ids[None], watch=True)[1], made.glance()
    causal = torch.ones(3, len(ids), len(ids), dtype=torch.bool).tril()
    everything = torch.ones(len(ids), dtype=torch.bool)
    best = [worth(record.weights[0], causal, everything) for record in seen.records]
    totals = {(n, h): one.total for n, heads in enumerate(best) for h, one in enumerate(heads)}
    assert max(totals, key=totals.get) == (found.layer, found.head)
    used = seen[f"decoder.blocks.{found.layer}.attention"][0, found.head]
    torch.testing.assert_close(found.weights, used)
    assert found.entropy == pytest.approx(float(torch.special.entr(used).sum(-1).mean()))
    assert found.rows == found.columns == tuple(str(number) for number in ids.tolist())


def test_of_cross_attention_rows_are_what_is_written_and_columns_the_source(tmp_path):
    made = objective("translator", tmp_path).eval()
    source, target = made.example()
    assert target[0] == END
    with torch.no_grad():
        _, seen = made.model(source[None], target[None, :-1], watch=True)
        found = made.glance()
    (used,) = (
        record.weights[0, found.head]
        for record in seen.records
        if record.is_cross and f".{found.layer}." in record.name
    )
    torch.testing.assert_close(found.weights, used)
    assert found.rows == tuple(str(number) for number in target[1:].tolist())
    assert found.columns == tuple(str(number) for number in source.tolist())
    assert found.is_cross


def test_one_to_one_is_zero_where_the_key_says_nothing_of_the_query():
    assert one_to_one(torch.eye(5)) == pytest.approx(math.log(5))
    assert one_to_one(torch.eye(5)[[2, 2, 2]]) == pytest.approx(0, abs=1e-6)
    assert one_to_one(torch.full((3, 7), 1 / 7)) == pytest.approx(0, abs=1e-6)
    halves = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert one_to_one(halves) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("lengths", "number"), [([3, 7, 40, 8, 8, 5], 3), ([40, 11, 90, 11, 2], 1), ([2], 0)]
)
def test_the_text_is_neither_long_nor_too_short_to_tell(lengths, number):
    assert MOST == 8
    assert short_one(np.array(lengths)) == number


def test_a_text_in_which_nothing_sees_another_shows_no_head(tmp_path):
    made = objective("masked", tmp_path).eval()
    with torch.no_grad():
        assert glances.glance(made.model, torch.tensor([5])) is None


def test_attention_that_cannot_be_seen_ends_no_run(tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("nothing was recorded")

    expected = trainer("translator", tmp_path / "whole").run()
    monkeypatch.setattr(base, "glance", broken)
    with pytest.warns(UserWarning, match="no attention is shown: nothing was recorded"):
        assert trainer("translator", tmp_path / "blind").run() == expected
    assert list((tmp_path / "whole" / "training" / "attention").iterdir())
    assert not (tmp_path / "blind" / "training" / "attention").exists()


def test_all_processes_but_the_first_are_spared(tmp_path, monkeypatch):
    """Where weights are in parts, all must read them; test_distributed does."""
    run = trainer("decoder", tmp_path)
    run.processes = Processes(rank=1)
    monkeypatch.setattr(run.objective, "glance", None)
    monkeypatch.setattr(run.objective, "sample", None)
    run._evaluate()

"""The measurement against theory, and against its own definition."""

import json
import math

import pytest
import torch

from pellucid.errors import ArgumentError
from pellucid.lessons import scaling as scaling_module
from pellucid.lessons.scaling import measure_scaling, to_json


def test_the_variance_is_what_vaswani_et_al_say():
    for row in measure_scaling((1, 16, 256), keys=61, samples=701).rows:
        assert row.unscaled.variance == pytest.approx(row.d_k, rel=0.15)
        assert row.scaled.variance == pytest.approx(row.unscaled.variance / row.d_k)
        assert (row.unscaled_theory.variance, row.scaled_theory.variance) == (row.d_k, 1)


@pytest.mark.parametrize("distribution", ["normal", "uniform", "signs"])
def test_the_variance_grows_as_d_k_whatever_the_distribution(distribution):
    measured = measure_scaling((4, 64), keys=61, samples=701, distribution=distribution)
    for row in measured.rows:
        assert row.unscaled.variance == pytest.approx(row.d_k, rel=0.1)
    assert "standard deviation grows as √d_k" in measured.sentence()


def test_another_distribution_is_refused():
    with pytest.raises(ArgumentError, match="distribution must be one of normal, uniform, signs"):
        measure_scaling((4,), distribution="heavy")


def test_scaled_scores_meet_the_approximation_and_unscaled_ones_freeze():
    first, *_, last = measure_scaling((1, 16, 1024), keys=512, samples=301).rows
    for row in (first, last):
        assert row.scaled.entropy == pytest.approx(math.log(512) - 0.5, abs=0.1)
        assert row.scaled.gradient == pytest.approx(math.sqrt(math.e / 512), rel=0.15)
        assert row.scaled_theory.entropy == math.log(512) - 0.5
        assert row.scaled.lost == 0
    assert last.unscaled.largest > 0.9
    assert last.unscaled.lost > 0.5
    assert last.unscaled_theory.entropy is None
    assert last.unscaled_theory.gradient is None


def test_the_measures_are_their_definitions():
    scores = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3
    found = scaling_module._measure(scores)
    norms, entropies = [], []
    for row in scores:
        jacobian = torch.autograd.functional.jacobian(lambda x: x.softmax(dim=-1), row)
        norms.append(jacobian.norm().item())
        entropies.append(torch.distributions.Categorical(logits=row).entropy().item())
    assert found.gradient == pytest.approx(sum(norms) / 7)
    assert found.entropy == pytest.approx(sum(entropies) / 7)
    assert found.largest == pytest.approx(scores.softmax(dim=-1).amax(dim=-1).mean().item())
    assert found.lost == sum(norm < scaling_module.HARDLY_ANY for norm in norms) / 7


def test_the_seed_decides_and_nothing_else_is_touched(monkeypatch):
    before = torch.get_rng_state()
    one = measure_scaling((3, 5), keys=7, samples=11, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert one == measure_scaling((3, 5), keys=7, samples=11, seed=4)
    assert one != measure_scaling((3, 5), keys=7, samples=11, seed=5)
    # Drawn in small parts there are as many samples.
    monkeypatch.setattr(scaling_module, "_CHUNK", 50)
    assert scaling_module._scores(5, 7, 11, 0, "normal").shape == (11, 7)


def test_json_has_it_all():
    measured = measure_scaling((2, 3), keys=5, samples=7)
    parsed = json.loads(to_json(measured))
    assert [row["d_k"] for row in parsed["rows"]] == [2, 3]
    assert parsed["rows"][1]["scaled"]["entropy"] == measured.rows[1].scaled.entropy
    assert "At d_k = 3, " in measured.sentence()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": ()}, r"dims must be numbers from 1 up, not \[\]"),
        ({"dims": (4, 0)}, r"not \[4, 0\]"),
        ({"keys": 1}, "keys must be at least 2, not 1"),
        ({"samples": 1}, "samples must be at least 2, not 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        measure_scaling(**arguments)

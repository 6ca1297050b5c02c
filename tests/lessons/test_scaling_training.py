"""Two models trained side by side: the difference is real where it is said to be."""

import json

import pytest
import torch

from pellucid.errors import ArgumentError
from pellucid.lessons import scaling_training
from pellucid.lessons.scaling_training import (
    TrainingComparison,
    TrainingStep,
    compare_training,
    learnt_after,
    to_json,
    train_both,
)


def run_of(*accuracies: float) -> tuple[TrainingStep, ...]:
    return tuple(
        TrainingStep(loss=1.0, entropy=2.0, max_logit=3.0, accuracy=one) for one in accuracies
    )


@pytest.fixture(scope="module")
def compared() -> TrainingComparison:
    return compare_training(64, steps=170, learning_rate=2e-3)


def test_the_divided_model_learns_and_the_other_does_not(compared):
    assert learnt_after(compared.scaled) is not None
    assert learnt_after(compared.unscaled) is None
    assert compared.unscaled[0].entropy < 0.5 < 1.5 < compared.scaled[0].entropy
    assert compared.unscaled[0].max_logit > 4 * compared.scaled[0].max_logit
    assert "undivided, not within 170" in compared.sentence()


def test_json_has_every_step(compared):
    parsed = json.loads(to_json(compared))
    assert len(parsed["scaled"]) == len(parsed["unscaled"]) == 170
    assert parsed["sentence"] == compared.sentence()


def test_both_models_start_with_the_same_numbers():
    """At d_k = 1 the division divides by one, so that nothing tells them apart."""
    for scaled, unscaled in train_both(1, steps=7):
        assert scaled == unscaled


def test_where_there_is_no_difference_it_is_said():
    comparison = TrainingComparison(
        d_k=2,
        seed=0,
        learning_rate=0.1,
        scaled=run_of(*[1.0] * 12),
        unscaled=run_of(0, *[1.0] * 11),
    )
    assert comparison.sentence().startswith("No real difference at d_k = 2")


def test_where_nobody_learns_it_is_said():
    comparison = compare_training(3, steps=11)
    assert comparison.sentence().startswith("Neither model learnt the task in 11 steps, so no diff")


def test_learnt_is_a_mean_of_ten_steps():
    assert learnt_after(run_of(*[1.0] * 9)) is None
    assert learnt_after(run_of(*[0.0] * 3, *[1.0] * 10)) == 12
    assert learnt_after(run_of(*[0.5] * 30)) is None


def test_progress_hears_each_step_and_the_generator_is_left():
    before, heard = torch.get_rng_state(), []
    compare_training(5, steps=3, progress=lambda *pair: heard.append(pair))
    assert len(heard) == 3
    assert torch.equal(torch.get_rng_state(), before)
    assert "max logit" in scaling_training.status(heard[0][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_k": 0}, "d_k must be from 1 to 1024"),
        ({"steps": 0}, "steps must be from 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        compare_training(**arguments)

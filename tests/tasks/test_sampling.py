"""What is drawn from is what transformers draws from, and as often as the probabilities say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers.generation import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.tasks.sampling import LIKELY, Sampling, choose, draw, probabilities

BATCH, VOCABULARY, READ = 5, 701, 37
PLAIN, GREEDY = Sampling(), Sampling(temperature=0)


def some_logits(seed=1, vocabulary=VOCABULARY, dtype=torch.float64, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(BATCH, vocabulary, generator=generator, dtype=dtype)


def some_ids(seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (BATCH, READ), generator=generator)


def seen_of(ids, vocabulary=VOCABULARY):
    return torch.zeros(len(ids), vocabulary, dtype=torch.bool).scatter(1, ids, True)


def theirs(logits, sampling, ids):
    """As transformers does it: each of its processors that has something to do, in its order."""
    scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, logits)
    scores = TemperatureLogitsWarper(float(sampling.temperature))(ids, scores)
    if sampling.top_k is not None:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    if sampling.min_p > 0:
        scores = MinPLogitsWarper(sampling.min_p)(ids, scores)
    return scores.softmax(-1)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 999),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.9]),
    top_k=st.sampled_from([None, 1, 2, 50, VOCABULARY, 10_000]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.03, 0.5, 1.0]),
    penalty=st.sampled_from([0.8, 1.0, 1.3]),
    spread=st.sampled_from([0.1, 3.0]),
)
def test_probabilities_are_those_of_transformers(
    seed, temperature, top_k, top_p, min_p, penalty, spread
):
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
    )
    logits, ids = some_logits(seed, spread=spread), some_ids(seed)
    found = probabilities(logits, sampling, seen_of(ids))
    expected = theirs(logits, sampling, ids)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_by_hand():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()

    def found(**options):
        return probabilities(logits, Sampling(**options))[0].tolist()

    assert found() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert found(temperature=0) == [1, 0, 0, 0]
    assert found(top_k=2) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert found(top_p=0.6) == pytest.approx([4 / 7, 3 / 7, 0, 0])  # the second crosses
    assert found(top_p=0.3) == [1, 0, 0, 0]
    assert found(min_p=0.6) == pytest.approx([4 / 7, 3 / 7, 0, 0])  # at least 0.24
    squares = [0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3, 0.01 / 0.3]
    assert found(temperature=0.5) == pytest.approx(squares)
    seen = torch.tensor([[True, False, False, False]])
    doubled = probabilities(logits, Sampling(repetition_penalty=2), seen)
    assert doubled[0].tolist() == pytest.approx([0.16 / 0.76, 0.3 / 0.76, 0.2 / 0.76, 0.1 / 0.76])


def test_as_likely_as_the_last_of_the_top_k_is_kept():
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    assert (probabilities(logits, Sampling(top_k=2)) > 0).tolist() == [[True, True, True, False]]


def test_temperatures_next_to_none_are_greedy():
    logits = some_logits(dtype=torch.float32)
    greedy = probabilities(logits, GREEDY)
    assert torch.equal(probabilities(logits, Sampling(temperature=1e-30)), greedy)
    assert torch.equal(choose(logits, GREEDY, []), logits.argmax(-1))


def test_greedy_is_penalised_too():
    logits, seen = torch.tensor([[2.0, 1.5]]), torch.tensor([[True, False]])
    assert choose(logits, Sampling(temperature=0, repetition_penalty=2), [], seen).tolist() == [1]


@pytest.mark.parametrize(
    "sampling",
    [
        PLAIN,
        Sampling(temperature=0.7, top_k=11),
        Sampling(top_p=0.9),
        Sampling(temperature=1.5, min_p=0.05),
        Sampling(temperature=0.9, top_k=17, top_p=0.8, min_p=0.02, repetition_penalty=1.2),
    ],
    ids=str,
)
def test_frequencies_pass_a_chi_square_test(sampling):
    """A fixed seed draws the same tokens always; so the test never fails by chance."""
    logits = some_logits(vocabulary=23, spread=1.0)[:1].float()
    seen = torch.zeros(1, 23, dtype=torch.bool)
    seen[0, :5] = True
    chances = probabilities(logits, sampling, seen)
    count = 20_000
    generator = torch.Generator().manual_seed(7)
    drawn = draw(chances.expand(count, -1), [generator] * count)
    counts = drawn.bincount(minlength=23)
    can = chances[0] > 0
    assert not counts[~can].any()
    wanted = chances[0, can].double()
    assert (wanted * count > 5).all()  # as the test needs
    assert chisquare(counts[can].numpy(), (wanted / wanted.sum() * count).numpy()).pvalue > 0.01


def test_what_a_row_draws_depends_on_no_other():
    chances = probabilities(some_logits(), PLAIN)

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in range(BATCH)]

    together = draw(chances, generators())
    for row, generator in enumerate(generators()):
        assert draw(chances[row : row + 1], [generator]).tolist() == [int(together[row])]


def test_the_last_and_the_first_can_be_drawn_and_nothing_of_probability_zero():
    chances = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(999, -1)
    drawn = draw(chances, [torch.Generator().manual_seed(3)] * 999)
    assert set(drawn.tolist()) == {1, 3}


def test_a_nucleus_wider_than_the_likely_is_found():
    logits = torch.zeros(1, 5 * LIKELY, dtype=torch.float64)
    logits[0, 0] = 1e-3
    kept = probabilities(logits, Sampling(top_p=0.9)) > 0
    assert int(kept.sum()) == math.ceil(0.9 * 5 * LIKELY)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"temperature": -0.1}, r"temperature must be 0 \(greedy\) or above, and finite, not -0.1"),
        ({"temperature": math.nan}, "temperature must be 0"),
        ({"temperature": math.inf}, "temperature must be 0"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, not 1.1"),
        ({"min_p": -0.1}, "min_p must be from 0 to 1, not -0.1"),
        ({"min_p": 1.5}, "min_p must be from 0 to 1, not 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0 and finite, not 0.0"),
    ],
)
def test_numbers_outside_what_is_allowed(option, message):
    with pytest.raises(ArgumentError, match=message):
        Sampling(**option)


def test_what_is_no_number():
    with pytest.raises(TypeMismatchError, match=r"top_k must be an int, not 2\.5"):
        Sampling(top_k=2.5)
    with pytest.raises(TypeMismatchError, match="temperature must be a number, not 'hot'"):
        Sampling(temperature="hot")
    with pytest.raises(ShapeError, match=r"logits must be \(batch, vocabulary\)"):
        probabilities(torch.zeros(3), PLAIN)
    with pytest.raises(ShapeError, match=r"seen must have the shape of logits, \(1, 3\), not None"):
        probabilities(torch.zeros(1, 3), Sampling(repetition_penalty=2))


def test_logits_that_are_no_numbers():
    logits = torch.tensor([[0.0, torch.nan, 1.0]])
    for sampling in (Sampling(temperature=0), Sampling()):
        with pytest.raises(ArgumentError, match="logits contain NaN"):
            choose(logits, sampling, [torch.Generator()])

"""Random heads: as large as the head at every position, and of any direction."""

import pytest
import torch

import pellucid
from pellucid.ablation.controls import chance, seed_of, turned
from pellucid.ablation.effects import shares_below
from pellucid.ablation.measures import Distributions, fall, log_odds
from tests import writers


@pytest.fixture
def parts():
    torch.manual_seed(5)
    return torch.randn(13, 7, dtype=torch.float64), torch.randn(19, 7, dtype=torch.float64)


def test_lengths_and_angles_stay_and_directions_do_not(parts):
    change, projection = parts
    written = change @ projection.T
    found = turned(change, projection, 3, seed=2) @ projection.T
    assert found.shape == (3, 13, 19)
    for one in found:
        assert torch.allclose(one @ one.T, written @ written.T)
        cosine = torch.nn.functional.cosine_similarity(one, written, dim=-1)
        assert float(cosine.abs().max()) < 0.99
    assert not torch.allclose(found[0], found[1])


def test_directions_are_uniform(parts):
    """The mean of a uniform direction in d dimensions is 0, and each axis has 1/d of its length."""
    change, projection = parts
    written = (turned(change[:1], projection, 2000, seed=3) @ projection.T)[:, 0]
    unit = written / written.norm(dim=-1, keepdim=True)
    axes = torch.linalg.qr(projection)[0]
    along = unit @ axes
    assert float(along.mean(0).abs().max()) < 5 / (7 * 2000) ** 0.5
    assert torch.allclose(along.square().mean(0), torch.full((7,), 1 / 7).double(), atol=0.02)


def test_directions_in_which_nothing_is_written(parts):
    change, projection = parts
    projection = projection.clone()
    projection[:, 3:] = projection[:, :4] @ torch.ones(4, 4, dtype=torch.float64)
    written = change @ projection.T
    [found] = turned(change, projection, 1, seed=2) @ projection.T
    assert torch.allclose(found.norm(dim=-1), written.norm(dim=-1))
    assert not turned(change, 0 * projection, 2, seed=2).any()


def test_seeds_are_of_a_head_and_not_of_an_order():
    assert seed_of(3, "a.b", 5) == seed_of(3, "a.b", 5)
    assert len({seed_of(3, "a.b", 5), seed_of(4, "a.b", 5), seed_of(3, "a.b", 6)}) == 3


def test_the_chance_of_a_random_head():
    assert chance(0.5, [0.1] * 19) == 1 / 20
    assert chance(-0.5, [0.1] * 18 + [-0.6]) == 2 / 20
    assert chance(0.5, [0.5]) == 1
    assert chance(0.5, []) != chance(0.5, [])  # not a number


def test_shares_below_by_hand():
    assert shares_below([0.3, -0.5, 0.1, 0.1]) == [2 / 3, 1, 1 / 6, 1 / 6]
    [alone] = shares_below([0.3])
    assert alone != alone


# Figures


def test_a_divergence_of_far_distributions():
    logits = torch.tensor([[[0.0, 0, 0]], [[0, 200.0, 0]], [[0, 0, 1e-4]]])
    measure = Distributions(name="kl", about="", targets=torch.tensor([1]))
    divergence, rise = measure.changes(logits[0], logits[1:], 0)
    exact = logits.double().log_softmax(-1)
    truth = (exact[0].exp() * (exact[0] - exact[1:])).sum(-1)
    assert torch.allclose(divergence, truth, rtol=1e-4)
    assert torch.allclose(rise, (exact[0] - exact[1:])[..., 1], rtol=1e-4)
    near, _ = measure.changes(logits[0], logits[2:], 0)  # of 1e-9, which a sum of p log p/q has not
    assert torch.allclose(near, truth[1:], rtol=1e-3)


def test_answers_by_hand():
    assert fall(torch.tensor([[3.0]]), torch.tensor([[1.0], [5.0]])).tolist() == [2, -2]
    odds = log_odds(torch.tensor([[1.0, 2, 3]]).log(), 2)
    assert torch.allclose(odds, torch.tensor([[0.0]]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.01, 0.4])
def test_as_many_heads_pass_by_chance_as_is_said(size):
    """Random weights: which directions count, and which the heads write, have no common cause.

    Whether heads write little or most of the stream makes no difference.
    """
    ids = torch.randint(1, 200, (1, 13), generator=torch.Generator().manual_seed(3))
    passed = []
    for seed in range(40):
        model = writers.writer(seed=seed, layers=3)
        for block in model.decoder.blocks:
            torch.nn.init.normal_(block.attention.output.weight, std=size)
        found = pellucid.ablate(model, ids, controls=19, top=9, seed=seed)
        passed += [row.matters for row in found]
    assert len(passed) == 360
    # Binomial with 5%: 18 expected, deviation 4.1.
    assert 5 <= sum(passed) <= 31

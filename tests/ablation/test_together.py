"""Heads knocked out together, and random sets of as many others."""

from copy import deepcopy
from itertools import combinations

import pytest
import torch

from pellucid import errors
from pellucid.ablation import ablate_together
from tests import writers
from tests.ablation import by_hand
from tests.ablation.by_hand import IDS


@pytest.fixture(scope="module")
def writer():
    return writers.writer(layers=3)


def truth(writer, places):
    """The divergence without some heads, in float64."""
    exact = other = deepcopy(writer).double()
    for place in places:
        layer, head = map(int, place.split("."))
        other = by_hand.without(other, f"decoder.blocks.{layer}.attention", head)
    return float(by_hand.divergence(exact, other, IDS).mean())


def test_a_set_and_random_sets_as_by_hand(writer):
    found = ablate_together(writer, IDS, ["2.1", "0.2"], controls=5, seed=3)
    assert found.heads == ("0.2", "2.1")
    assert len(found.controls) == 5
    for places, effect in ((found.heads, found.effect), *found.controls.items()):
        assert len(set(places)) == 2
        assert places == found.heads or not set(places) & set(found.heads)
        assert effect == pytest.approx(truth(writer, places), rel=1e-4)
    effects = torch.tensor(list(found.controls.values()))
    assert found.random == pytest.approx(float(effects.mean()))
    assert found.deviation == pytest.approx(float(effects.std()), rel=1e-4)
    assert found.beaten == int((effects < found.effect).sum())
    assert found.chance == pytest.approx((6 - found.beaten) / 6)
    assert found.matters == (found.chance <= 0.05)
    again = ablate_together(writer, IDS, ["0.2", "2.1"], controls=5, seed=3)
    assert again.controls.keys() == found.controls.keys()
    other = ablate_together(writer, IDS, ["0.2", "2.1"], controls=5, seed=4)
    assert other.controls.keys() != found.controls.keys()


def test_where_there_are_few_sets_all_are_tried(writer):
    found = ablate_together(writer, IDS, ["1.1"], layers=[1, 2], controls=100)
    assert set(found.controls) == {("1.0",), ("1.2",), ("2.0",), ("2.1",), ("2.2",)}
    found = ablate_together(writer, IDS, ["1.1", "1.0"], layers=[1, 2], controls=100)
    assert set(found.controls) == set(combinations(["1.2", "2.0", "2.1", "2.2"], 2))
    found = ablate_together(writer, IDS, ["1.1"], controls=0)
    assert (found.controls, found.matters) == ({}, None)


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        (["3.0"], "there is no head '3.0'; the heads are 0.0 to 2.2"),
        (["induction"], "no head has the role 'induction' on this text; the roles are"),
        ([], "heads must be like"),
        (["0.1", " "], "heads must be like"),
        ([f"{x}.{y}" for x in range(2) for y in range(3)], "cannot be compared with as many"),
    ],
)
def test_what_does_not_fit(writer, heads, told):
    with pytest.raises(errors.PellucidError, match=told):
        ablate_together(writer, IDS, heads)

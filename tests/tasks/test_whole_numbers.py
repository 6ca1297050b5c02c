"""Numbers that make no sense are refused by name, wherever they are given."""

import math

import pytest
import torch
from tests import writers

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.tasks import Sampling, cluster, evaluate, generate, similar

NO_INTS = [1.5, "1", True, math.nan, math.inf]
POINTS = torch.eye(4)


def generated(**options):
    return generate(writers.writer(), ["Once"], max_tokens=2, **options)


CALLS = {
    "max_tokens": lambda value: generate(writers.writer(), ["Once"], max_tokens=value),
    "samples": lambda value: generated(sampling=Sampling(), samples=value),
    "batch": lambda value: generated(batch=value),
    "seed": lambda value: generated(seed=value),
    "top_k": lambda value: Sampling(top_k=value),
    "top": lambda value: similar(POINTS[0], POINTS, value),
    "groups": lambda value: cluster(list("abcd"), POINTS, value),
}
SEEDS = {
    "cluster": lambda value: cluster(list("abcd"), POINTS, 2, seed=value),
    "evaluate": lambda value: evaluate(POINTS, list("aabb"), seed=value),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", NO_INTS)
def test_no_whole_number(name, value):
    with pytest.raises(TypeMismatchError, match=f"{name} must be an int, not"):
        CALLS[name](value)


@pytest.mark.parametrize("name", CALLS)
def test_out_of_bounds(name):
    with pytest.raises(ArgumentError, match=rf"{name} must be .* not -1"):
        CALLS[name](-1)


@pytest.mark.parametrize(
    ("call", "value"),
    [(CALLS["max_tokens"], 2**31), (CALLS["samples"], 10**9), (CALLS["seed"], 2**63)],
)
def test_above_bounds(call, value):
    with pytest.raises(ArgumentError, match=f"must be from . to .*, not {value:,}"):
        call(value)


@pytest.mark.parametrize("call", SEEDS.values(), ids=SEEDS)
def test_seeds_of_scikit_learn(call):
    for value in NO_INTS:
        with pytest.raises(TypeMismatchError, match="seed must be an int"):
            call(value)
    for value in (-1, 2**32):
        with pytest.raises(ArgumentError, match="seed must be from 0 to 4,294,967,295"):
            call(value)


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty"])
def test_sampling(name):
    for value in ("1", True, None):
        with pytest.raises(TypeMismatchError, match=f"{name} must be a number"):
            Sampling(**{name: value})
    for value in (math.nan, math.inf, -1):
        with pytest.raises(ArgumentError, match=f"{name} must be .* not {value}"):
            Sampling(**{name: value})


def test_what_is_no_sampling():
    with pytest.raises(TypeMismatchError, match=r"sampling must be a Sampling, not 0\.7"):
        generated(sampling=0.7)


def test_names_that_are_too_few():
    with pytest.raises(ArgumentError, match="names must have 1 items, as prompts has, not 0"):
        generated(names=[])

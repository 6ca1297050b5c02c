"""Heads whose worth can be worked out by hand."""

import math

import pytest
import torch

from pellucid.lessons.heads import worth

WORDS = torch.tensor([False, True, True, True, True, False])


def seen(weights: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(weights, dtype=torch.bool)


def test_heads_with_little_to_show_are_worth_nothing():
    size = len(WORDS)
    on_the_first = torch.zeros(size, size).index_fill(1, torch.tensor([0]), 1)
    copies_the_next = torch.eye(size).roll(1, dims=1)
    on_itself = torch.eye(size)
    even = torch.full((size, size), 1 / size)
    weights = torch.stack([on_the_first, copies_the_next, on_itself, even])
    found = worth(weights, seen(weights), WORDS)
    assert [head.total for head in found] == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert found[1].to_others == pytest.approx(3 / 4)  # the last word's next is no word


def test_the_best_there_is():
    # Each word gives half to each of two others, of four tokens: the entropy is half of ln 4.
    weights = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0]])[None] / 2
    (head,) = worth(weights, seen(weights), torch.ones(4, dtype=torch.bool))
    assert (head.to_others, head.evenness, head.total) == pytest.approx((1, 0.5, 1))
    assert head.why().startswith("worth 1.00 of 1, since words give 100%")


def test_under_a_causal_mask_only_what_is_visible_counts():
    # The first word sees itself alone, and says nothing about the head.
    weights = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.5, 0.25]])[None]
    (head,) = worth(weights, seen(weights).tril(), torch.ones(3, dtype=torch.bool))
    assert head.to_others == pytest.approx((0.5 + 0.75) / 2)
    assert head.evenness == pytest.approx((1 + 1.5 * math.log(2) / math.log(3)) / 2)


def test_one_word_has_no_other():
    weights = torch.eye(3)[None]
    assert worth(weights, seen(weights), torch.tensor([False, True, False])) == []

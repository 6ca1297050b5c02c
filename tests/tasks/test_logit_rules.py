"""Rules on logits, each beside the processor of the same name in transformers."""

import math

import pytest
import torch
from transformers import generation as theirs

from pellucid.errors import ArgumentError
from pellucid.tasks.logit_rules import RULES, rules_of
from pellucid.tasks.sampling import Sampling, probabilities

VOCABULARY, STOP = 13, [2, 5]
PROMPT = [3, 7, 3, 8]
TEXTS = [PROMPT, [*PROMPT, 3], [*PROMPT, 3, 7, 1, 3, 7], [*PROMPT, 4, 3, 7, 3]]


def logits_of(seed):
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))


CASES = {
    "sequence_bias": (
        [[[3, 7], 2.5], [[4], -1.0], [[8, 3, 7], 1.0]],
        lambda value: theirs.SequenceBiasLogitsProcessor(value),
    ),
    "repetition_penalty": (1.3, lambda value: theirs.RepetitionPenaltyLogitsProcessor(value)),
    "no_repeat_ngram_size": (2, lambda value: theirs.NoRepeatNGramLogitsProcessor(value)),
    "bad_words_ids": (
        [[4], [3, 7], [2], [7, 1, 3]],
        lambda value: theirs.NoBadWordsLogitsProcessor(value, eos_token_id=torch.tensor(STOP)),
    ),
    "min_length": (6, lambda value: theirs.MinLengthLogitsProcessor(value, torch.tensor(STOP))),
    "min_new_tokens": (
        3,
        lambda value: theirs.MinNewTokensLengthLogitsProcessor(
            len(PROMPT), value, torch.tensor(STOP)
        ),
    ),
    "exponential_decay_length_penalty": (
        [2, 1.3],
        lambda value: theirs.ExponentialDecayLengthPenalty(
            tuple(value), torch.tensor(STOP), len(PROMPT)
        ),
    ),
    "suppress_tokens": ([1, 11], lambda value: theirs.SuppressTokensLogitsProcessor(value)),
    "begin_suppress_tokens": (
        [1, 11],
        lambda value: theirs.SuppressTokensAtBeginLogitsProcessor(value, len(PROMPT)),
    ),
}


def test_each_rule_has_a_case():
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_that_of_transformers(name):
    value, make = CASES[name]
    [rule] = rules_of({name: value}, STOP, VOCABULARY)
    changed = 0
    for seed, text in enumerate(TEXTS):
        logits = logits_of(seed)
        expected = make(value)(torch.tensor([text]), logits.clone()[None])[0]
        changed += int((expected != logits).sum())
        rule(logits, text, len(PROMPT))
        torch.testing.assert_close(logits, expected)
    assert changed


def test_a_trigram_is_not_repeated():
    """By hand: after 3 7 1 3 7 comes no 1."""
    [rule] = rules_of({"no_repeat_ngram_size": 3}, STOP, VOCABULARY)
    logits = torch.zeros(VOCABULARY)
    rule(logits, [3, 7, 1, 3, 7], 2)
    assert logits.tolist() == [-math.inf if token == 1 else 0 for token in range(VOCABULARY)]


@pytest.mark.parametrize(
    "settings",
    [
        {"suppress_tokens": [VOCABULARY]},
        {"suppress_tokens": 3},
        {"bad_words_ids": [[]]},
        {"min_length": "many"},
        {"no_repeat_ngram_size": -1},
        {"repetition_penalty": 0},
        {"exponential_decay_length_penalty": [1]},
        {"sequence_bias": [[[1], "much"]]},
    ],
)
def test_a_value_that_does_not_fit_is_named(settings):
    [name] = settings
    with pytest.raises(ArgumentError, match=f"has {name} = .*which does not fit"):
        rules_of(settings, STOP, VOCABULARY)


@pytest.mark.parametrize(
    ("cut", "make"),
    [
        ({"typical_p": 0.4}, lambda: theirs.TypicalLogitsWarper(0.4)),
        ({"typical_p": 0.9}, lambda: theirs.TypicalLogitsWarper(0.9)),
        ({"epsilon_cutoff": 0.08}, lambda: theirs.EpsilonLogitsWarper(0.08)),
        ({"epsilon_cutoff": 0.9}, lambda: theirs.EpsilonLogitsWarper(0.9)),
        ({"eta_cutoff": 0.2}, lambda: theirs.EtaLogitsWarper(0.2)),
        ({"eta_cutoff": 0.002}, lambda: theirs.EtaLogitsWarper(0.002)),
    ],
)
def test_a_cut_is_that_of_transformers(cut, make):
    logits = 2 * torch.stack([logits_of(seed) for seed in range(7)])
    expected = make()(None, logits.clone()).softmax(-1)
    found = probabilities(logits, Sampling(**cut))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cut", [{"typical_p": 0}, {"epsilon_cutoff": 1.0}, {"eta_cutoff": -0.1}])
def test_a_cut_out_of_range_is_refused(cut):
    [name] = cut
    with pytest.raises(ArgumentError, match=name):
        Sampling(**cut)

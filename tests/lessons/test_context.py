"""What an encoder does to words: before and after context, in groups, and in a verdict."""

import pytest
import torch

import pellucid
from pellucid import pretrained
from pellucid.errors import ArgumentError, UnknownNameError
from pellucid.lessons.context import walk_context, walk_verdict
from pellucid.lessons.examples import walk_example
from pellucid.tasks import Head, embed


def shown(walk, name):
    (values,) = [one.values for step in walk.steps for one in step.matrices if one.name == name]
    return torch.tensor(values, dtype=torch.float64)


def test_a_word_knows_its_sentence_after_the_layers_and_not_before():
    walk = walk_context()
    before, after = shown(walk, "before"), shown(walk, "after")
    torch.testing.assert_close(before, torch.ones(4, 4, dtype=torch.float64))
    rivers, money = after[0, 1], after[2, 3]
    assert min(rivers, money) > after[:2, 2:].max()
    assert "form groups: 0, 1; 2, 3" in walk.steps[-1].sentence
    assert walk.heat[1].name == "after"


def test_the_verdict_is_the_classifiers_and_each_word_is_left_out_in_turn():
    text = "I loved every minute of it"
    walk = walk_verdict(text)
    head = Head.load(pretrained.SENTIMENT / "head.safetensors")
    encoder = pellucid.load("sentiment")
    texts = [text, "I every minute of it"]
    probabilities = head.probabilities(embed(encoder, texts)).double()
    torch.testing.assert_close(shown(walk, "probability"), probabilities[:1])
    best = int(probabilities[0].argmax())
    effect = shown(walk, "effect")[0]
    odds = probabilities[:, best].logit()
    torch.testing.assert_close(effect[1], odds[0] - odds[1])
    assert shown(walk, "received").sum().item() == pytest.approx(1)
    assert f"'{head.labels[best]}'" in walk.steps[0].sentence


def test_examples_take_texts():
    walk = walk_example("context", text=["a cat sat", "the cat ran", "my cat"], query="cat")
    assert shown(walk, "after").shape == (3, 3)
    assert walk_example("next", text=["In the beginning"]).title == "In the beginning"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: walk_context(["one"]), ArgumentError, "give 2 to 16 sentences, not 1"),
        (lambda: walk_context(["a cat", "a dog"], word="cat"), UnknownNameError, "'cat' is not"),
        (lambda: walk_context(model="decoder"), ArgumentError, "is not an encoder"),
        (lambda: walk_verdict("good"), ArgumentError, "2 to 64 words, not 1"),
        (lambda: walk_example("verdict", text=["a b", "c d"]), ArgumentError, "one text, not 2"),
        (lambda: walk_example("poem", text=["a b"]), ArgumentError, "text has no meaning"),
        (lambda: walk_example("next", causal=True), ArgumentError, "causal has no meaning"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

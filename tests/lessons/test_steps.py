"""The steps of a lesson against the reference and the library, and what their sentences say."""

import math

import pytest
import torch

import pellucid
from pellucid.attention import energies
from pellucid.attention.reference import Stages, stages
from pellucid.lessons.computation import attend, project
from pellucid.lessons.lesson import Lesson, from_tensors, random_lesson
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.steps import stage_steps, walk_lesson
from pellucid.lessons.walk import Walk

TOKENS, KEYS, WIDTH, HEADS, KEY_DIM, VALUE_DIM = 5, 7, 11, 2, 3, 13
LABELS = tuple("abcde")


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def vectors() -> dict[str, torch.Tensor]:
    return {
        "query": draw(TOKENS, KEY_DIM),
        "key": draw(TOKENS, KEY_DIM, seed=2),
        "value": draw(TOKENS, VALUE_DIM),
    }


def shown(walk: Walk, name: str) -> torch.Tensor:
    (values,) = [one.values for step in walk.steps for one in step.matrices if one.name == name]
    return torch.tensor(values, dtype=torch.float64)


def test_every_option_of_a_model_reaches_the_numbers():
    query, key, value = vectors().values()
    bias = torch.arange(25.0, dtype=torch.float64).view(TOKENS, TOKENS) / 10
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(1)
    sinks = torch.tensor([0.7], dtype=torch.float64)
    found = stages(
        query[None], key[None], value[None], mask, bias=bias, scale=0.3, softcap=2.0, sinks=sinks
    )
    steps = stage_steps(
        LABELS,
        Stages(*(part[0] for part in found)),
        key_dim=KEY_DIM,
        speaker=Speaker(LABELS, 0),
        factor=0.3,
        visible=mask,
        bias=bias,
        softcap=2.0,
        has_sink=True,
    )
    names = {"score": "scores", "scale": "scaled", "cap": "capped", "mask": "masked"}
    for step in steps:
        actual = torch.tensor(step.matrices[-1].values, dtype=torch.float64)
        expected = getattr(found, names.get(step.name) or step.matrices[-1].name)[0]
        torch.testing.assert_close(actual, expected)
    said = {step.name: step.sentence for step in steps}
    assert said["scale"].startswith("Multiplied by 0.3")
    assert said["mask"].startswith("6 of the 25 scores become −∞: the model")
    assert "sink" in steps[-2].formula


def test_only_the_rows_of_one_token_are_shown():
    lesson = Lesson.of(tokens=LABELS, **vectors())
    whole, alone = walk_lesson(lesson), walk_lesson(lesson, query="D")
    for name in ("scores", "scaled", "masked", "weights", "context"):
        torch.testing.assert_close(shown(alone, name), shown(whole, name)[3:4])


@pytest.mark.parametrize(
    ("fields", "energy", "scale"),
    [
        ({}, "scaled_dot_product", KEY_DIM**-0.5),
        ({"energy": "cosine", "scale": 5.0}, "cosine", 5.0),
        (
            {"energy": "bilinear", "W_energy": draw(KEY_DIM, KEY_DIM)},
            energies.Bilinear(draw(KEY_DIM, KEY_DIM)),
            1.0,
        ),
        (
            {"energy": "additive", "W_energy": draw(2 * KEY_DIM, 7), "v_energy": draw(1, 7)},
            energies.Additive(
                draw(2 * KEY_DIM, 7)[:KEY_DIM], draw(2 * KEY_DIM, 7)[KEY_DIM:], draw(1, 7)[0]
            ),
            1.0,
        ),
    ],
)
def test_a_lesson_is_what_the_library_computes(fields, energy, scale):
    walk = walk_lesson(Lesson.of(tokens=LABELS, mask="causal", **vectors(), **fields))
    operands = [one[None, None] for one in vectors().values()]
    mask = pellucid.masks.causal()
    context, weights = pellucid.attention(*operands, mask, score=energy, scale=scale)
    torch.testing.assert_close(shown(walk, "weights"), weights.dense()[0, 0])
    torch.testing.assert_close(shown(walk, "context"), context[0, 0])


def test_temperature_divides_before_the_softmax():
    lesson = Lesson.of(tokens=LABELS, temperature=0.5, **vectors())
    walk = walk_lesson(lesson)
    torch.testing.assert_close(shown(walk, "weights"), (shown(walk, "masked") / 0.5).softmax(-1))
    torch.testing.assert_close(shown(walk, "context"), shown(walk, "weights") @ vectors()["value"])


@pytest.mark.parametrize("before", [False, True])
def test_a_finite_mask_counts_before_the_scale_for_less(before):
    M = torch.zeros(TOKENS, TOKENS).triu(1) * 0
    M[1, 3], M[2, 4] = -2.0, -math.inf
    walk = walk_lesson(Lesson.of(tokens=LABELS, mask=M, mask_before_scale=before, **vectors()))
    scale = KEY_DIM**-0.5
    scores = shown(walk, "scores")
    expected = (scores + M) * scale if before else scores * scale + M
    torch.testing.assert_close(shown(walk, "masked"), expected)
    assert shown(walk, "weights")[2, 4] == 0
    said = next(step.sentence for step in walk.steps if step.name == "mask")
    assert ("before" if before else "after") in said


def test_heads_are_those_of_a_layer():
    """The same weights in our own multi-head layer give the same output."""
    lesson = random_lesson(
        "a b c d e", width=WIDTH, size=KEY_DIM, heads=HEADS, seed=3, positions=True
    )
    layer = pellucid.layers.MultiHeadAttention(WIDTH, HEADS, head_dim=KEY_DIM, bias=False).double()
    with torch.no_grad():
        for name, weight in zip(
            ("W_query", "W_key", "W_value"), layer.projection_weights(), strict=True
        ):
            weight.copy_(lesson.matrix(name).T)
        layer.out_proj.weight.copy_(lesson.matrix("W_output").T)
        x = lesson.matrix("embeddings") + lesson.matrix("positions")
        expected, weights = layer(x[None])
    walk = walk_lesson(lesson, head=1)
    torch.testing.assert_close(shown(walk, "output"), expected[0])
    torch.testing.assert_close(shown(walk, "weights"), weights.dense()[0, 1])
    assert shown(walk, "concat").shape == (TOKENS, HEADS * KEY_DIM)


def test_cross_attention_reads_another_text():
    lesson = random_lesson("uno dos tres", source="one two three four five", size=KEY_DIM)
    walk = walk_lesson(lesson)
    assert shown(walk, "weights").shape == (3, 5)
    said = " ".join(step.sentence for step in walk.steps)
    assert "itself" not in said
    assert "its own value" not in said
    assert any(f"'{word}'" in said for word in lesson.keys)


def test_positions_tell_the_same_words_apart():
    with_positions = random_lesson("dog bites man bites dog", seed=5)
    without = random_lesson("dog bites man bites dog", seed=5, positions=False)
    first, last = shown(walk_lesson(without), "context")[[0, 4]]
    torch.testing.assert_close(first, last)
    first, last = shown(walk_lesson(with_positions), "context")[[0, 4]]
    assert not torch.allclose(first, last)


def test_the_best_key_is_one_that_may_be_seen():
    query, key = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1, 0], [9, 9, 9.0]])
    lesson = from_tensors(
        query, key, torch.eye(3), tokens=("a", "b", "c"), mask="causal", speaker=1
    )
    said = next(step.sentence for step in walk_lesson(lesson).steps if step.name == "score")
    assert said.startswith("Among the keys it may see, the query of 'b' fits its own key best")
    assert said.endswith("1.00.")


def test_projected_heads_are_columns():
    lesson = random_lesson("a b c", width=5, size=2, heads=3, positions=False)
    query, key, value = project(lesson)
    assert query.shape == key.shape == value.shape == (3, 3, 2)
    whole = lesson.matrix("embeddings") @ lesson.matrix("W_query")
    torch.testing.assert_close(query[1], whole[:, 2:4])
    found = attend(lesson, query[1], key[1], value[1])
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(3, dtype=torch.float64))

"""One head, in both forms: the numbers of the worked example, the meaning, and bad input."""

import pytest
import torch

from pellucid.attention import reference
from pellucid.errors import ArgumentError, PellucidError, ShapeError, TypeMismatchError
from pellucid.layers import BareSelfAttention, SelfAttention

# "your journey starts with one step", worked by hand to four decimals.
JOURNEY = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
FORMS = [BareSelfAttention, SelfAttention]


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=5.1e-5, rtol=0)


def test_the_bare_form_gives_the_worked_numbers():
    torch.manual_seed(123)
    layer = BareSelfAttention(3, 2)
    context, weights = layer(JOURNEY)
    close(JOURNEY[1] @ layer.W_query, [0.4306, 1.4551])
    close(weights[0, 1], [0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820])
    close(
        context,
        [
            [0.2996, 0.8053],
            [0.3061, 0.8210],
            [0.3058, 0.8203],
            [0.2948, 0.7939],
            [0.2927, 0.7891],
            [0.2990, 0.8040],
        ],
    )


def test_the_linear_form_gives_the_worked_numbers():
    torch.manual_seed(789)
    context, _ = SelfAttention(3, 2)(JOURNEY)
    close(
        context,
        [
            [-0.0739, 0.0713],
            [-0.0748, 0.0703],
            [-0.0749, 0.0702],
            [-0.0760, 0.0685],
            [-0.0763, 0.0679],
            [-0.0754, 0.0693],
        ],
    )


def test_the_causal_linear_form_gives_the_worked_weights():
    torch.manual_seed(789)
    _, weights = SelfAttention(3, 2, causal=True)(JOURNEY)
    close(weights[0, 5], [0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529])
    close(weights[0, 2], [0.3800, 0.3097, 0.3103, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_matches_the_formula_in_float64(form, causal):
    torch.manual_seed(0)
    layer = form(5, 7, causal=causal, dtype=torch.float64)
    x = torch.randn(2, 3, 11, 5, dtype=torch.float64)
    context, weights = layer(x)
    if form is SelfAttention:
        query, key, value = layer.W_query(x), layer.W_key(x), layer.W_value(x)
    else:
        query, key, value = x @ layer.W_query, x @ layer.W_key, x @ layer.W_value
    truth = reference.stages(
        *(t.unsqueeze(-3) for t in (query, key, value)),
        torch.ones(11, 11, dtype=torch.bool).tril() if causal else None,
    )
    assert tuple(weights.shape) == (2, 3, 1, 11, 11)
    torch.testing.assert_close(weights.dense(), truth.weights)
    torch.testing.assert_close(context, truth.context.squeeze(-3))


def test_a_bias_is_added_to_each_projection():
    layer = SelfAttention(3, 2, bias=True)
    assert {name for name, _ in layer.named_parameters()} == {
        f"W_{name}.{kind}" for name in ("query", "key", "value") for kind in ("weight", "bias")
    }
    with torch.no_grad():
        before, _ = layer(JOURNEY)
        layer.W_value.bias += 13
        after, _ = layer(JOURNEY)
    torch.testing.assert_close(after, before + 13)  # rows of weights sum to one


@pytest.mark.parametrize("causal", [False, True])
def test_both_forms_are_one_layer(causal):
    bare = BareSelfAttention(3, 2, causal=causal, dtype=torch.float64)
    linear = SelfAttention.from_bare(bare)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(linear(x)[0], bare(x)[0])
    linear.W_query.weight.data.zero_()
    assert bare.W_query.abs().sum() > 0  # a copy


def test_a_later_token_never_changes_an_earlier_one():
    layer = SelfAttention(3, 2, causal=True)
    changed = JOURNEY.clone()
    changed[4:] += 1
    with torch.no_grad():
        torch.testing.assert_close(layer(changed)[0][:4], layer(JOURNEY)[0][:4])
        assert not torch.allclose(layer(changed)[0][4:], layer(JOURNEY)[0][4:])


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_trains(form):
    layer = form(3, 2, dtype=torch.float64)
    context, _ = layer(JOURNEY.double())
    context[1].sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda form: form(0, 2), ArgumentError, "d_in must be at least 1, not 0"),
        (lambda form: form(3, -1), ArgumentError, "d_out must be at least 1, not -1"),
        (lambda form: form(3.0, 2), TypeMismatchError, "d_in must be an int, not 3.0"),
        (lambda form: form(3, True), TypeMismatchError, "d_out must be an int, not True"),
        (lambda form: form(3, 2)(JOURNEY[0]), ShapeError, r"at least 2 dimensions.*\(3,\)"),
        (lambda form: form(5, 2)(JOURNEY), ShapeError, r"with d_in 5; its shape is \(6, 3\)"),
        (lambda form: form(3, 2)(JOURNEY.tolist()), TypeMismatchError, "a tensor, not list"),
        (
            lambda form: form(3, 2)(JOURNEY.double()),
            TypeMismatchError,
            r"x is torch.float64 but the layer's parameters are torch.float32",
        ),
        (
            lambda form: form(3, 2)(JOURNEY.to("meta")),
            TypeMismatchError,
            "x is on meta but the layer's parameters are on cpu",
        ),
    ],
)
def test_bad_input_is_named(form, make, error, message):
    with pytest.raises(error, match=message) as caught:
        make(form)
    assert isinstance(caught.value, PellucidError)

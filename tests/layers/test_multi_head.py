"""MultiHeadAttention beside torch.nn.MultiheadAttention, from the same state dict."""

import copy

import pytest
import torch
from torch import nn

from pellucid.attention import masks, reference
from pellucid.errors import ArgumentError, PellucidError, ShapeError, TypeMismatchError
from pellucid.layers import MultiHeadAttention

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 3, 5, 7, 11
WIDTH, KEY_WIDTH, VALUE_WIDTH = HEADS * DIM, 13, 17


def pair(*, kdim=None, vdim=None, bias=True):
    """Torch's layer and ours with the same float64 parameters, biases away from zero."""
    torch.manual_seed(0)
    options = {"kdim": kdim, "vdim": vdim, "bias": bias, "dtype": torch.float64}
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = MultiHeadAttention(WIDTH, HEADS, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(tokens=QUERIES, width=WIDTH, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, tokens, width, dtype=torch.float64, generator=generator)


def assert_same(theirs, ours, their_call, our_call, sources):
    """Same output, same weights, same gradient of every parameter and of every source."""
    for source in sources:
        source.requires_grad_()
    their_output, their_weights = their_call()
    torch.manual_seed(2)
    pull = torch.randn_like(their_output)
    their_grads = torch.autograd.grad((their_output * pull).sum(), [*theirs.parameters(), *sources])
    our_output, our_weights = our_call()
    names = [name for name, _ in ours.named_parameters()]
    assert names == [name for name, _ in theirs.named_parameters()]
    our_grads = torch.autograd.grad((our_output * pull).sum(), [*ours.parameters(), *sources])

    torch.testing.assert_close(our_output, their_output)
    torch.testing.assert_close(our_weights.dense(), their_weights)
    for name, mine, other in zip([*names, *"qkv"], our_grads, their_grads, strict=False):
        torch.testing.assert_close(mine, other, msg=lambda text, name=name: f"{name}: {text}")


FULL = {"need_weights": True, "average_attn_weights": False}


@pytest.mark.parametrize("bias", [True, False])
def test_self_attention_is_torchs(bias):
    theirs, ours = pair(bias=bias)
    x = inputs()
    assert_same(theirs, ours, lambda: theirs(x, x, x, **FULL), lambda: ours(x), [x])


@pytest.mark.parametrize("by", ["layer", "mask", "tensor"])
def test_causal_attention_is_torchs(by):
    theirs, ours = pair()
    visible = torch.ones(QUERIES, QUERIES, dtype=torch.bool).tril()
    ours.causal = by == "layer"
    mask = {"layer": None, "mask": masks.causal(), "tensor": visible}[by]
    x = inputs()
    assert_same(
        theirs,
        ours,
        lambda: theirs(x, x, x, attn_mask=~visible, **FULL),
        lambda: ours(x, mask=mask),
        [x],
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kdim", "vdim"), [(None, None), (KEY_WIDTH, VALUE_WIDTH), (KEY_WIDTH, None)]
)
def test_cross_attention_is_torchs(kdim, vdim, bias):
    theirs, ours = pair(kdim=kdim, vdim=vdim, bias=bias)
    query = inputs(QUERIES)
    key = inputs(KEYS, kdim or WIDTH, seed=3)
    value = inputs(KEYS, vdim or WIDTH, seed=4)
    assert_same(
        theirs,
        ours,
        lambda: theirs(query, key, value, **FULL),
        lambda: ours(query, key, value),
        [query, key, value],
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("by", ["mask", "tensor"])
def test_padding_is_torchs(by, causal):
    theirs, ours = pair()
    ours.causal = causal
    query, key = inputs(QUERIES), inputs(KEYS, seed=3)
    lengths = torch.tensor([KEYS, 4])
    visible = torch.arange(KEYS) < lengths[:, None]  # (batch, keys)
    above = ~torch.ones(QUERIES, KEYS, dtype=torch.bool).tril() if causal else None
    mask = masks.padding(lengths) if by == "mask" else visible[:, None, None, :]
    assert_same(
        theirs,
        ours,
        lambda: theirs(query, key, key, key_padding_mask=~visible, attn_mask=above, **FULL),
        lambda: ours(query, key, mask=mask),
        [query, key],
    )


def test_a_bias_is_torchs_float_mask():
    theirs, ours = pair()
    x = inputs()
    bias = torch.randn(BATCH, HEADS, QUERIES, QUERIES, dtype=torch.float64)
    assert_same(
        theirs,
        ours,
        lambda: theirs(x, x, x, attn_mask=bias.flatten(0, 1), **FULL),
        lambda: ours(x, bias=bias),
        [x],
    )


def test_no_batch_is_torchs():
    theirs, ours = pair()
    x = inputs()[0]
    assert_same(theirs, ours, lambda: theirs(x, x, x, **FULL), lambda: ours(x), [x])


def test_float32_stays_within_the_error_budget():
    theirs, ours = pair()
    x = inputs(97)
    truth, _ = ours(x)
    theirs, ours = theirs.float(), ours.float()
    budget = (theirs(x.float(), x.float(), x.float())[0] - truth).abs().max()
    error = (ours(x.float())[0] - truth).abs().max()
    assert error <= 2 * budget + 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kdim", "vdim"), [(None, None), (KEY_WIDTH, VALUE_WIDTH)])
def test_the_state_dict_passes_both_ways(kdim, vdim, bias):
    theirs, ours = pair(kdim=kdim, vdim=vdim, bias=bias)
    saved = ours.state_dict()
    assert list(saved) == list(theirs.state_dict())
    fresh = nn.MultiheadAttention(WIDTH, HEADS, kdim=kdim, vdim=vdim, bias=bias).double()
    fresh.load_state_dict(saved)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kdim", "vdim"), [(None, None), (KEY_WIDTH, VALUE_WIDTH)])
def test_the_same_seed_draws_the_same_parameters(kdim, vdim, bias):
    torch.manual_seed(5)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=kdim, vdim=vdim, bias=bias)
    torch.manual_seed(5)
    ours = MultiHeadAttention(WIDTH, HEADS, kdim=kdim, vdim=vdim, bias=bias)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_it_loads_inside_a_larger_model():
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, batch_first=True)
    ours = copy.deepcopy(theirs)
    ours.self_attn = MultiHeadAttention(WIDTH, HEADS)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.self_attn.in_proj_weight, theirs.self_attn.in_proj_weight)


@pytest.mark.parametrize("training", [True, False])
def test_from_torch_is_the_same_layer_and_a_copy(training):
    theirs = nn.MultiheadAttention(
        WIDTH, HEADS, kdim=KEY_WIDTH, vdim=VALUE_WIDTH, bias=False, dtype=torch.float64
    ).train(training)
    ours = MultiHeadAttention.from_torch(theirs)
    assert ours.training is training
    query = inputs(QUERIES)
    key, value = inputs(KEYS, KEY_WIDTH, seed=3), inputs(KEYS, VALUE_WIDTH, seed=4)
    expected, _ = theirs(*(x.transpose(0, 1) for x in (query, key, value)))
    torch.testing.assert_close(ours(query, key, value)[0], expected.transpose(0, 1))
    ours.q_proj_weight.data.zero_()
    assert theirs.q_proj_weight.abs().sum() > 0


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("kdim", "vdim"), [(None, None), (KEY_WIDTH, VALUE_WIDTH)])
def test_grouped_heads_of_any_size_follow_the_formula(kv_heads, kdim, vdim):
    torch.manual_seed(0)
    heads, head_dim, value_dim = 6, 5, 7
    layer = MultiHeadAttention(
        WIDTH,
        heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        kdim=kdim,
        vdim=vdim,
        dtype=torch.float64,
    )
    torch.nn.init.normal_(layer.in_proj_bias)
    query = inputs(QUERIES)
    key = inputs(KEYS, kdim or WIDTH, seed=3)
    value = inputs(KEYS, vdim or WIDTH, seed=4)

    def head(source, which, index, dim):  # one head's rows, written out
        weight = layer.projection_weights()[which][index * dim : (index + 1) * dim]
        bias = layer.projection_biases()[which][index * dim : (index + 1) * dim]
        return source @ weight.T + bias

    contexts, weights = [], []
    for index in range(heads):
        shared = index // (heads // kv_heads)
        truth = reference.stages(
            head(query, 0, index, head_dim)[:, None],
            head(key, 1, shared, head_dim)[:, None],
            head(value, 2, shared, value_dim)[:, None],
        )
        contexts.append(truth.context[:, 0])
        weights.append(truth.weights[:, 0])
    expected = layer.out_proj(torch.cat(contexts, dim=-1))

    output, seen = layer(query, key, value)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(seen.dense(), torch.stack(weights, dim=1))


def test_dropout_is_for_training_and_never_for_the_weights():
    torch.manual_seed(0)
    layer = MultiHeadAttention(WIDTH, HEADS, dropout=0.5)
    x = inputs().float()
    with torch.no_grad():
        dropped, seen = layer(x)
        again, _ = layer(x)
        layer.eval()
        kept, all_seen = layer(x)
        same, _ = layer(x)
    assert not torch.allclose(dropped, again)
    torch.testing.assert_close(kept, same)
    torch.testing.assert_close(seen.dense(), all_seen.dense())


def test_an_item_alone_equals_the_item_in_its_batch():
    _, ours = pair()
    x = inputs()
    torch.testing.assert_close(ours(x)[0][1], ours(x[1])[0])


def test_keys_alone_stand_for_values_too():
    _, ours = pair()
    query, key = inputs(QUERIES), inputs(KEYS, seed=3)
    torch.testing.assert_close(ours(query, key)[0], ours(query, key, key)[0])


def test_the_layer_prints_its_sizes():
    printed = repr(MultiHeadAttention(WIDTH, HEADS, kv_heads=1, causal=True))
    assert "embed_dim=33, heads=3, kv_heads=1, head_dim=11, value_dim=11" in printed


X = torch.zeros(BATCH, QUERIES, WIDTH)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MultiHeadAttention(32, 3), ArgumentError, "embed_dim 32 does not divide into 3"),
        (
            lambda: MultiHeadAttention(WIDTH, 3, kv_heads=2),
            ArgumentError,
            "heads 3 is not a multiple of kv_heads 2",
        ),
        (lambda: MultiHeadAttention(WIDTH, 0), ArgumentError, "heads must be at least 1, not 0"),
        (lambda: MultiHeadAttention(-1, 3), ArgumentError, "embed_dim must be at least 1, not -1"),
        (
            lambda: MultiHeadAttention(WIDTH, 3, kv_heads=0),
            ArgumentError,
            "kv_heads must be at least 1",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3, value_dim=0),
            ArgumentError,
            "value_dim must be at least 1",
        ),
        (lambda: MultiHeadAttention(33.0, 3), TypeMismatchError, "embed_dim must be an int"),
        (
            lambda: MultiHeadAttention(WIDTH, 3, dropout=1.0),
            ArgumentError,
            "at least 0 and below 1, not 1.0",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3)(X[0, 0]),
            ShapeError,
            r"query must be .* at least 2 dimensions; its shape is \(33,\)",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3)(X[..., :31]),
            ShapeError,
            r"query must be .* with embed_dim 33; its shape is \(2, 5, 31\)",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3, kdim=13, vdim=17)(X),
            ShapeError,
            r"key must be .* with kdim 13; its shape is \(2, 5, 33\)",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3, vdim=17)(X, X),
            ShapeError,
            r"value must be .* with vdim 17; its shape is \(2, 5, 33\)",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3)(X, value=X),
            ArgumentError,
            "value was given without key",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3)(X.long()),
            TypeMismatchError,
            "query is torch.int64 but the layer's parameters are torch.float32",
        ),
        (
            lambda: MultiHeadAttention(WIDTH, 3)(X, None, None, torch.ones(4, dtype=torch.bool)),
            ShapeError,
            r"mask.*\(4,\)",
        ),
        (lambda: MultiHeadAttention(WIDTH, 3)(X, X[:, :3], X), ShapeError, "3.*5"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, PellucidError)


@pytest.mark.parametrize("option", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_keys_that_stand_for_no_token_are_refused(option):
    theirs = nn.MultiheadAttention(WIDTH, HEADS, **option)
    with pytest.raises(ArgumentError, match="add_bias_kv or add_zero_attn"):
        MultiHeadAttention.from_torch(theirs)


def test_a_state_dict_with_bias_rows_is_refused_and_nothing_is_loaded():
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS)
    theirs.self_attn = nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True)
    ours = nn.ModuleDict({"self_attn": MultiHeadAttention(WIDTH, HEADS)})
    before = ours["self_attn"].in_proj_weight.clone()
    with pytest.raises(ArgumentError, match=r"state_dict has self_attn\.bias_k"):
        ours.load_state_dict(theirs.state_dict(), strict=False)
    assert torch.equal(ours["self_attn"].in_proj_weight, before)

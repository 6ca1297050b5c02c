"""Norms and gradients of what attention hands over, against dense tensors of eager models."""

import pytest
import torch
import transformers
from tests.attention.cases import assert_within_budget

import pellucid
from pellucid.errors import (
    ArgumentError,
    OutOfRangeError,
    ShapeError,
    TooLargeError,
    TypeMismatchError,
    UnknownNameError,
)
from pellucid.lens import attribution, gradient_times_weights, output_projection

VOCABULARY, TOKENS, LAYERS = 61, 11, 2
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 36,
    "max_position_embeddings": 53,
    "initializer_range": 0.5,
}
GROUPED = {"hidden_size": 72, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(hidden_size=33, num_attention_heads=3, **SIZES),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=33,
        n_layer=LAYERS,
        n_head=3,
        n_positions=53,
        vocab_size=VOCABULARY,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "llama": lambda: transformers.LlamaConfig(**GROUPED, **SIZES),
    "gpt-oss": lambda: transformers.GptOssConfig(
        sliding_window=5, num_local_experts=3, num_experts_per_tok=2, **GROUPED, **SIZES
    ),
    "t5": lambda: transformers.T5Config(
        vocab_size=VOCABULARY, d_model=33, d_kv=11, d_ff=37, num_layers=LAYERS, num_heads=3
    ),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=33, n_layers=LAYERS, n_heads=3, hidden_dim=37
    ),
    "bart": lambda: transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=33,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        max_position_embeddings=53,
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(hidden_size=36, num_attention_heads=3, **SIZES),
}
EAGER_ONLY = ("gpt-oss",)
ROUNDING = torch.finfo(torch.float32).eps


def build(name, implementation=None):
    torch.manual_seed(23)
    implementation = implementation or ("eager" if name in EAGER_ONLY else "sdpa")
    model = transformers.AutoModel.from_config(
        CONFIGS[name](), attn_implementation=implementation
    ).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("sinks"):  # these are made unset
            torch.nn.init.normal_(parameter)
    return model


def some_ids(tokens=TOKENS):
    return torch.randint(1, VOCABULARY, (2, tokens), generator=torch.Generator().manual_seed(3))


def run(model, ids, **options):
    if model.config.is_encoder_decoder:
        options["decoder_input_ids"] = ids[:, :7]
    return model(ids, **options)


def watched(model, values=True):
    with torch.no_grad(), pellucid.watch(model, values=values) as seen:
        run(model, some_ids())
    return seen


def dense_norms(record, weight, dtype):
    """||v_j W_O|| by the vectors themselves, (batch, heads, keys)."""
    value, heads = record.value.to(dtype), record.shape[1]
    value = value.repeat_interleave(heads // value.shape[1], 1)
    weight = weight.detach().to(dtype).unflatten(1, (heads, -1))
    return torch.einsum("bhkd,mhd->bhkm", value, weight).norm(dim=-1)


@pytest.mark.parametrize("name", CONFIGS)
def test_norms_are_those_of_the_projected_values(name):
    model = build(name)
    seen = watched(model)
    assert len(seen.records) >= LAYERS
    for record in seen.records:
        weight = output_projection(model, record)
        assert torch.equal(weight, output_projection(model, record.name))
        given = attribution(record, weight)
        exact, plain = (dense_norms(record, weight, x) for x in (torch.float64, torch.float32))
        assert_within_budget(given.norms, plain, exact, 4 * ROUNDING)

        truth = record.weights.dense().double() * exact.unsqueeze(-2)
        torch.testing.assert_close(given.dense().double(), truth, atol=1e-5, rtol=1e-4)
        block = (1, 2, slice(3, 5), slice(None, None, 2))
        torch.testing.assert_close(given[block].double(), truth[block], atol=1e-5, rtol=1e-4)
        for queries in (None, slice(2, 5), [4, 0]):
            chosen = slice(None) if queries is None else queries
            torch.testing.assert_close(
                given.received(queries).double(),
                truth[:, :, chosen].sum(-2),
                atol=1e-5,
                rtol=1e-4,
            )
        torch.testing.assert_close(given.total().double(), truth.sum(-1), atol=1e-5, rtol=1e-4)
        top = given.top(3)
        torch.testing.assert_close(top.values.double(), truth.topk(3).values, atol=1e-5, rtol=1e-4)
        picked = given.dense().gather(-1, top.indices.clamp_min(0))
        picked = picked.masked_fill(top.indices < 0, 0)
        torch.testing.assert_close(top.values, picked, atol=1e-5, rtol=1e-4)


def test_the_vectors_that_norms_measure_add_up_to_the_models_own():
    """Summed over keys and heads, alpha_ij f(x_j) is what the model's projection gives."""
    model = build("gpt2")
    record = watched(model).records[0]
    attention = model.get_submodule(record.name)
    weight = output_projection(model, record).detach().unflatten(1, (3, -1))
    handed = torch.einsum("bhqk,bhkd,mhd->bqm", record.weights.dense(), record.value, weight)
    context = record.context.transpose(1, 2).flatten(-2)
    torch.testing.assert_close(
        handed + attention.c_proj.bias, attention.c_proj(context), atol=1e-4, rtol=1e-4
    )


def test_by_hand():
    """Weights of one half each; a value of nothing gets nothing, and 3, 4 is 5 long."""

    class Attends(torch.nn.Module):
        def forward(self):
            zeros = torch.zeros(1, 1, 2, 2)
            value = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]])
            return torch.nn.functional.scaled_dot_product_attention(zeros, zeros, value)

    model = Attends()
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model()
    record = seen.records[0]
    given = attribution(record)  # of the value alone
    assert torch.equal(given[0, 0], torch.tensor([[2.5, 0.0], [2.5, 0.0]]))
    assert given.top(2).indices[0, 0].tolist() == [[0, -1], [0, -1]]
    double = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])  # 3, 4 becomes 6, 0, 4
    given = attribution(record, double)
    torch.testing.assert_close(given.received(), torch.tensor([[[52**0.5, 0.0]]]))
    narrow = torch.tensor([[1.0, 1.0]])  # fewer outputs than the value has numbers
    torch.testing.assert_close(attribution(record, narrow).norms, torch.tensor([[[7.0, 0.0]]]))


def test_attribution_trains():
    model = build("bert", "sdpa").double()
    with pellucid.watch(model, values=True) as seen:
        run(model, some_ids())
    record = seen.records[0]
    weight = output_projection(model, record).detach()
    layer = model.get_submodule(record.name)
    parameters = [layer.query.weight, layer.key.weight, layer.value.weight]
    lazy = attribution(record, weight).received(slice(1, 5))[..., 3].sum()
    norms = dense_norms(record, weight, torch.float64)
    plain = (record.weights.dense() * norms.unsqueeze(-2))[..., 1:5, 3].sum()
    for actual, expected in zip(
        torch.autograd.grad(lazy, parameters, retain_graph=True),
        torch.autograd.grad(plain, parameters),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "gpt-oss", "bart", "gpt-neox"])
def test_gradients_are_those_of_an_eager_models_weights(name):
    dtype = torch.float32 if name == "gpt-oss" else torch.float64  # its experts have no float64
    ids = some_ids()
    out = run(build(name, "eager").to(dtype), ids, output_attentions=True)
    if name == "bart":
        encoder, decoder, cross = (
            getattr(out, f"{part}_attentions") for part in ("encoder", "decoder", "cross")
        )
        weights = [*encoder, decoder[0], cross[0], decoder[1], cross[1]]
    else:
        weights = list(out.attentions)
    gradients = torch.autograd.grad(out.last_hidden_state[1, 5, 7], weights)
    truth = [w * g for w, g in zip(weights, gradients, strict=True)]

    model = build(name).to(dtype)
    with pellucid.watch(model, values=True) as seen:
        target = run(model, ids).last_hidden_state[1, 5, 7]
    given = gradient_times_weights(seen, target)
    assert [one.name for one in given] == seen.names
    # Models of Hugging Face that rotate or take a softmax do it in float32.
    close = {"atol": 1e-4, "rtol": 1e-3} if name in ("gpt-oss", "llama", "gpt-neox") else {}
    for one, expected in zip(given, truth, strict=True):
        torch.testing.assert_close(one.dense(), expected, **close)
        torch.testing.assert_close(one[1, 1:, 4, :3], expected[1, 1:, 4, :3], **close)
        torch.testing.assert_close(one.total(), expected.sum(-1), **close)
        for queries in (None, slice(2, 5), [4, 0]):
            chosen = slice(None) if queries is None else queries
            summed = expected[:, :, chosen].sum(-2)
            torch.testing.assert_close(one.received(queries), summed, **close)
        assert one.gradient.shape == (*one.shape[:-1], seen.record(one.name).value.shape[-1])
    # Asking again finds the graph still there.
    assert torch.equal(gradient_times_weights(seen, target)[0].gradient, given[0].gradient)


def test_received_takes_the_queries_that_weights_take():
    model = build("bert")
    with pellucid.watch(model, values=True) as seen:
        target = model(some_ids()).last_hidden_state[1, 5, 7]
    given = gradient_times_weights(seen, target)[0]
    torch.testing.assert_close(given.received([-1, 4]), given.dense()[:, :, [-1, 4]].sum(-2))
    torch.testing.assert_close(given.received(3), given.dense()[:, :, 3])
    for queries in ([99], [-TOKENS - 1], TOKENS):
        with pytest.raises(OutOfRangeError, match="queries must be from -11 to 10, got"):
            given.received(queries)
    with pytest.raises(TypeMismatchError, match="queries must be an int, a slice or integers"):
        given.received([1.5])


def test_gradients_of_a_direct_caller_and_of_what_was_moved():
    class Attends(torch.nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.x = torch.nn.Parameter(torch.randn(1, 2, 5, 3, generator=generator))

        def forward(self):
            x = self.x
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    model = Attends()
    with torch.no_grad():
        weights = (model.x @ model.x.mT / 3**0.5).softmax(-1)
    # The target adds the first number of each context up: its gradient is 1 there, 0 elsewhere.
    expected = weights * model.x.detach()[..., 0].unsqueeze(-2)
    for options in ({}, {"dtype": torch.float64}):
        with pellucid.watch(model, values=True, **options) as seen:
            target = model()[..., 0].sum()
        (given,) = gradient_times_weights(seen, target)
        torch.testing.assert_close(given.dense().float(), expected)


def test_only_what_the_target_depends_on_is_given():
    model = build("bert")
    with pellucid.watch(model, values=True) as seen:
        first = run(model, some_ids()).last_hidden_state[0, 0, 0]
        second = run(model, some_ids(7)).last_hidden_state[0, 0, 0]
    assert [one.shape[-1] for one in gradient_times_weights(seen, first)] == [TOKENS] * LAYERS
    assert [one.shape[-1] for one in gradient_times_weights(seen, second)] == [7] * LAYERS
    (last,) = gradient_times_weights(seen, second, layers=-1)
    assert last.name == "encoder.layer.1.attention.self"
    elsewhere = torch.ones((), requires_grad=True) * 1
    with pytest.raises(ArgumentError, match=r"does not depend on .*encoder\.layer\.0"):
        gradient_times_weights(seen, elsewhere)


def test_steps_of_a_generation_have_to_be_one_pass():
    model, ids = build("llama"), some_ids()
    cache = transformers.DynamicCache(config=model.config)
    with pellucid.watch(model, values=True) as seen:
        model(ids[:, :7], past_key_values=cache)
        target = model(ids[:, 7:], past_key_values=cache).last_hidden_state[0, -1, 3]
    with pytest.raises(ArgumentError, match="watch one pass over all of its tokens"):
        gradient_times_weights(seen, target)


def test_a_projection_in_the_same_call_leaves_no_context_but_has_norms():
    layer = torch.nn.MultiheadAttention(6, 2, batch_first=True)
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3))
    with pellucid.watch(layer, values=True) as seen:
        target = layer(x, x, x)[0].sum()
    (record,) = seen.records
    weight = output_projection(layer, record)
    expected = dense_norms(record, weight, torch.float32)
    torch.testing.assert_close(attribution(record, weight).norms, expected)
    with pytest.raises(ArgumentError, match="in the same call"):
        gradient_times_weights(seen, target)


def test_errors_say_what_to_do():
    model = build("bert")
    seen = watched(model, values=False)
    with pytest.raises(ArgumentError, match="values=True"):
        attribution(seen.records[0])
    seen = watched(model)
    record = seen.records[0]
    with pytest.raises(ShapeError, match=r"\(model_dim, 3 \* 11\), got \(33, 30\)"):
        attribution(record, torch.rand(33, 30))
    with pytest.raises(OutOfRangeError):
        attribution(record)[0, 3]
    with pytest.raises(TooLargeError, match=r"dense\(\) of shape"):
        attribution(record).dense(limit=1000)
    with pytest.raises(ArgumentError, match="top must be from 1"):
        attribution(record).top(TOKENS + 1)

    some = torch.ones((), requires_grad=True) * 1
    with pytest.raises(ArgumentError, match=r"under torch\.no_grad"):
        gradient_times_weights(seen, some)
    with pytest.raises(ArgumentError, match="target has no graph"):
        gradient_times_weights(seen, some.detach())
    with pytest.raises(ShapeError, match="a single number"):
        gradient_times_weights(seen, torch.ones(2, requires_grad=True) * 1)
    with pellucid.watch(model) as seen:
        target = run(model, some_ids()).last_hidden_state.sum()
    with pytest.raises(ArgumentError, match="values=True"):
        gradient_times_weights(seen, target)
    with pytest.raises(UnknownNameError, match="'decoder'"):
        gradient_times_weights(seen, target, layers="decoder")

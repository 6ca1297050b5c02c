"""`watch` against what each model itself says its weights are, and what it leaves behind."""

import gc
import weakref

import pytest
import torch
import transformers
from tests.lens.tiny import CONFIGS, LAYERS, TOKENS, VOCABULARY, build, some_ids

import pellucid
from pellucid.attention import attention
from pellucid.errors import TypeMismatchError, UnknownNameError

EAGER_ONLY = ("gemma 2, a softcap", "gpt-oss, sinks")


CASES = [
    (name, implementation)
    for name in CONFIGS
    for implementation in ("eager", "sdpa")
    if implementation == "eager" or name not in EAGER_ONLY
]


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_recorded_weights_are_the_models_own(name, implementation, padding):
    ids = some_ids()
    present = torch.ones_like(ids)
    if padding == "left":
        present[1, :4] = 0
    elif padding == "right":
        present[1, -4:] = 0
    with torch.no_grad():
        truth = build(name, "eager")(ids, attention_mask=present, output_attentions=True)
        model = build(name, implementation)
        with pellucid.watch(model) as seen:
            model(ids, attention_mask=present)

    assert len(seen.records) == LAYERS
    assert not seen.unseen
    for record, expected in zip(seen.records, truth.attentions, strict=True):
        actual = record.weights.dense()
        for item in range(len(ids)):  # what a padding query attends to means nothing
            rows = present[item].bool()
            torch.testing.assert_close(
                actual[item][:, rows], expected[item][:, rows], atol=2e-6, rtol=1e-4
            )


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_t5_position_bias_and_cross_attention(implementation):
    torch.manual_seed(23)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=33, d_kv=11, d_ff=37, num_layers=LAYERS, num_heads=3
    )
    model = transformers.T5Model(config).eval()
    given = {"input_ids": some_ids(), "decoder_input_ids": some_ids(tokens=7)}
    model.set_attn_implementation("eager")
    with torch.no_grad():
        truth = model(**given, output_attentions=True)
        model.set_attn_implementation(implementation)
        with pellucid.watch(model) as seen:
            model(**given)

    assert len(seen.records) == 3 * LAYERS
    for place, expected in {
        "encoder.block.1.layer.0.SelfAttention": truth.encoder_attentions[1],
        "decoder.block.1.layer.0.SelfAttention": truth.decoder_attentions[1],
        "decoder.block.1.layer.1.EncDecAttention": truth.cross_attentions[1],
    }.items():
        torch.testing.assert_close(seen[place].dense(), expected, atol=2e-6, rtol=1e-4)
    first = seen.records[0]
    assert first.bias is not None
    assert first.mask is None
    assert "none + bias" in repr(seen)


def test_a_step_of_generation_sees_all_the_cache():
    model = build("llama, grouped heads", "sdpa")
    ids = some_ids()
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        with pellucid.watch(model) as seen:
            model(ids[:, -1:], past_key_values=cache)
        truth = build("llama, grouped heads", "eager")(ids, output_attentions=True)
    for record, expected in zip(seen.records, truth.attentions, strict=True):
        assert record.weights.shape == (2, 6, 1, TOKENS)
        torch.testing.assert_close(
            record.weights.dense(), expected[:, :, -1:], atol=2e-6, rtol=1e-4
        )


def test_a_static_cache_is_cut_to_what_it_holds():
    model = build("llama, grouped heads", "sdpa")
    ids = some_ids()
    cache = transformers.StaticCache(config=model.config, max_cache_len=17)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(ids, past_key_values=cache)
        truth = build("llama, grouped heads", "eager")(ids, output_attentions=True)
    for record, expected in zip(seen.records, truth.attentions, strict=True):
        actual = record.weights.dense()
        torch.testing.assert_close(actual[..., :TOKENS], expected, atol=2e-6, rtol=1e-4)
        assert not actual[..., TOKENS:].any()


def test_causal_is_recognised_in_every_form():
    for implementation in ("eager", "sdpa"):
        model = build("gpt2", implementation)
        with torch.no_grad(), pellucid.watch(model) as seen:
            model(some_ids())
        assert [str(record.mask) for record in seen.records] == ["causal()"] * LAYERS


def test_the_model_runs_as_without():
    model = build("bert", "sdpa").train()
    ids = some_ids()
    torch.manual_seed(5)
    plain = model(ids).last_hidden_state
    torch.manual_seed(5)
    with pellucid.watch(model):
        watched = model(ids).last_hidden_state
    assert torch.equal(plain, watched)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_left_behind():
    interface = transformers.modeling_utils.AttentionInterface
    before = interface.get_interface
    model = build("bert", "sdpa")
    with pytest.raises(ValueError, match="input_ids"), pellucid.watch(model):
        model()
    assert interface.get_interface is before
    with pellucid.watch(model) as seen:
        assert interface.get_interface is not before
    model(some_ids())
    assert len(seen.records) == 0


def test_watches_nest_and_overlap():
    interface = transformers.modeling_utils.AttentionInterface
    before = interface.get_interface
    model, other = build("bert", "sdpa"), build("gpt2", "sdpa")
    first, second = pellucid.watch(model), pellucid.watch(model)
    first.__enter__()
    second.__enter__()
    with torch.no_grad():
        model(some_ids())
        first.__exit__(None, None, None)  # the one that opened first closes first
        model(some_ids())
        other(some_ids())  # not the watched model
        second.__exit__(None, None, None)
    assert (len(first.records), len(second.records)) == (LAYERS, 2 * LAYERS)
    assert interface.get_interface is before


def test_recording_keeps_references_and_computes_nothing():
    model = build("bert", "sdpa")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
    record = seen.records[0]
    assert not {"mask", "bias", "weights"} & vars(record).keys()
    assert record.weights is record.weights
    kept = weakref.ref(record.query)
    del seen, record
    gc.collect()
    assert kept() is None


def test_weights_train():
    model = build("bert", "sdpa")
    with pellucid.watch(model) as seen:
        model(some_ids())
    record = seen.records[0]
    record.weights[0, 1, 2].square().sum().backward()
    layer = model.get_submodule(record.name)
    assert layer.query.weight.grad.abs().sum() > 0


def test_the_latest_call_answers_by_name():
    model = build("bert", "sdpa")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
        model(some_ids(tokens=5))
    assert len(seen.records) == 2 * LAYERS
    assert seen["encoder.layer.0.attention.self"].shape == (2, 3, 5, 5)
    with pytest.raises(
        UnknownNameError, match=r"module 'nope'.*encoder\.layer\.1\.attention\.self"
    ):
        seen["nope"]


def test_a_softmax_that_is_written_by_hand():
    config = transformers.GPTJConfig(
        n_embd=32, n_layer=LAYERS, n_head=2, rotary_dim=4, n_positions=53, vocab_size=VOCABULARY
    )
    config.initializer_range = 0.5
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad(), pellucid.watch(model) as seen:
        truth = model(some_ids(), output_attentions=True).attentions
    assert (seen.names, seen.unseen) == (["h.0.attn", "h.1.attn"], {})
    for record, expected in zip(seen.records, truth, strict=True):
        assert (record.kept, str(record.mask)) == ("query and key", "causal()")
        torch.testing.assert_close(record.weights.dense(), expected, atol=2e-6, rtol=1e-4)


def test_what_was_not_run_is_named():
    plain = torch.nn.TransformerEncoderLayer(12, 3)
    with pellucid.watch(plain) as seen:
        pass
    assert list(seen.unseen) == ["self_attn"]
    assert "unseen: self_attn" in repr(seen)


def elsewhere(module, query, key, value, attention_mask, scaling, **options):
    """Attention of somebody's own, which looks past the masks."""
    weights = torch.softmax(query @ key.mT * scaling, -1)
    return (weights @ value).transpose(1, 2).contiguous(), None


def test_other_implementations_are_recorded(monkeypatch):
    model = with_implementation(monkeypatch, "elsewhere", elsewhere)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
    assert len(seen.records) == LAYERS


def test_one_that_does_something_else_keeps_its_own_weights(monkeypatch):
    """It is told another scale than it uses."""
    narrowed = lambda *args, **options: elsewhere(*args, **(options | {"scaling": 0.7}))  # noqa: E731
    model = with_implementation(monkeypatch, "narrowed", narrowed)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
        right = build("bert", "eager")
        for layer in right.encoder.layer:
            layer.attention.self.scaling = 0.7
        expected = right(some_ids(), output_attentions=True).attentions
    assert seen.unseen == {}
    for record, own in zip(seen.records, expected, strict=True):
        assert record.kept == "weights"
        torch.testing.assert_close(record.weights.dense(), own, atol=2e-6, rtol=1e-4)


def test_one_that_shows_nothing_else_is_named(monkeypatch):
    """Its softmax is none that PyTorch knows of."""

    def hidden(module, query, key, value, attention_mask, scaling, **options):
        weights = (query @ key.mT * 0.7).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        return (weights @ value).transpose(1, 2).contiguous(), None

    model = with_implementation(monkeypatch, "hidden", hidden)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
    assert len(seen.records) == 0
    assert list(seen.unseen) == [f"encoder.layer.{i}.attention.self" for i in range(LAYERS)]
    assert all("more than attention" in reason for reason in seen.unseen.values())


def with_implementation(monkeypatch, name, function):
    model = build("bert", "sdpa")
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, name, function)
    model.config._attn_implementation = name
    return model


@pytest.mark.parametrize("name", ["bert", "llama, grouped heads", "gpt2"])
def test_the_kernel_tells_the_logsumexp(name, monkeypatch):
    """One number a row, which the kernel has found anyway: no question costs a pass for it."""
    model = build(name, "sdpa")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
    monkeypatch.setattr(pellucid.attention.backends, "choose", None)  # who makes a pass asks here
    for record in seen.records:
        query, key = record.query.double(), record.key.double()
        expected = pellucid.attention.attention_weights(query, key, record.mask).masked[...]
        found = record.weights.logsumexp
        torch.testing.assert_close(found.double(), expected.logsumexp(-1), atol=1e-5, rtol=1e-6)
        torch.testing.assert_close(
            record.weights.dense().double(), expected.softmax(-1), atol=1e-6, rtol=1e-5
        )


def test_a_logsumexp_is_kept_only_where_it_is_that_of_the_record():
    model = build("bert", "sdpa")
    present = torch.ones_like(some_ids())
    present[1, 7:] = 0
    with torch.no_grad(), pellucid.watch(model) as padded:
        model(some_ids(), attention_mask=present)
    with torch.no_grad(), pellucid.watch(model, dtype=torch.float16) as shortened:
        model(some_ids())
    with pellucid.watch(model) as learning:
        model(some_ids())
    assert {
        record.logsumexps for seen in (padded, shortened, learning) for record in seen.records
    } == {None}


def test_a_logsumexp_that_was_kept_is_no_constant_to_autograd():
    layer = Alone(lambda *parts: torch.nn.functional.scaled_dot_product_attention(*parts))
    x = torch.randn(2, 7, 12)
    with torch.no_grad(), pellucid.watch(layer) as seen:
        layer(x)
    record = seen.record("")
    assert record.logsumexps is not None
    query = record.query.requires_grad_()  # the record's own tensor
    (gradient,) = torch.autograd.grad(record.weights[0, 0, 3, 2], query)
    again = query.detach().requires_grad_()
    dense = (again @ record.key.mT * again.shape[-1] ** -0.5).softmax(-1)
    (expected,) = torch.autograd.grad(dense[0, 0, 3, 2], again)
    torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=1e-4)


WAYS = {
    "the package": lambda *parts: pellucid.attention(*parts, pellucid.masks.causal()),
    "its function": lambda *parts: pellucid.attention.attention(*parts, pellucid.masks.causal()),
    "by name": lambda *parts: attention(*parts, pellucid.masks.causal()),
}


@pytest.mark.parametrize("way", WAYS)
def test_our_own_attention_is_seen(way):
    layer, x = Alone(WAYS[way]), torch.randn(2, 7, 12)
    with torch.no_grad(), pellucid.watch(layer) as seen:
        _, weights = layer(x)
    assert seen.unseen == {}
    torch.testing.assert_close(seen[""].dense(), weights.dense(), atol=1e-7, rtol=1e-6)
    assert seen.record("").logsumexps is not None


class Alone(torch.nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend

    def forward(self, x):
        heads = x.unflatten(-1, (3, 4)).transpose(1, 2)
        return self.attend(heads, heads + 1, heads)


def test_the_table():
    model = build("llama, grouped heads", "sdpa")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
    title, heading, row, *_ = repr(seen).splitlines()
    assert title == "LlamaModel: 2 attention calls recorded"
    assert heading.split() == ["name", "heads", "queries", "keys", "mask", "window"]
    assert row.split() == ["layers.0.self_attn", "6/2", "11", "11", "causal()", "-"]
    *_, proven, held = repr(seen).splitlines()
    assert held == "holds 15.0 KiB"
    assert proven.startswith("proven: 6 of 44 rows, to ")


def test_a_watch_that_was_not_opened_says_so():
    seen = pellucid.watch(build("bert", "sdpa"))
    assert len(seen.unseen) == LAYERS
    assert all("with pellucid.watch(model)" in reason for reason in seen.unseen.values())


def test_records_are_asked_for_by_name():
    with pytest.raises(TypeMismatchError, match="must be a str, got 0"):
        pellucid.watch(build("bert", "sdpa"))[0]


def test_only_modules_can_be_watched():
    with pytest.raises(TypeMismatchError, match=r"torch\.nn\.Module, not builtins\.str"):
        pellucid.watch("bert")


@pytest.mark.parametrize("mask", [None, pellucid.masks.causal(), torch.rand(7, 7) < 0.7])
def test_our_own_layers_are_watched_like_any_other(mask):
    layer = pellucid.layers.MultiHeadAttention(22, 2)
    x = torch.randn(3, 7, 22)
    expected, weights = layer(x, mask=mask)
    with pellucid.watch(layer, values=True) as seen:
        output, _ = layer(x, mask=mask)
    assert torch.equal(output, expected)
    (record,) = seen.records
    assert seen.unseen == {}
    torch.testing.assert_close(record.weights.dense(), weights.dense())
    torch.testing.assert_close(record.weights @ record.value, record.context)
    assert pellucid.layers.multi_head.attention is pellucid.attention.attention


def test_two_masks_of_torchs_own_attention():
    layer = torch.nn.MultiheadAttention(22, 2, batch_first=True)
    x = torch.randn(3, 7, 22)
    hidden = torch.arange(7) >= torch.tensor([[5], [7], [6]])
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    given = {"key_padding_mask": hidden, "attn_mask": later}
    _, weights = layer(x, x, x, average_attn_weights=False, **given)
    with pellucid.watch(layer) as seen:
        layer(x, x, x, **given)
    torch.testing.assert_close(seen[""].dense(), weights)

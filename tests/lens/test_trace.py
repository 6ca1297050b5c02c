"""What a token and a head gave to a logit adds up to it, and is what taking it away would cost."""

import functools

import pytest
import torch
import transformers
from tests.compiled_programs import program
from tests.lens.lrp_oracle import attn_lrp
from tests.lens.traced import (
    BLOCKS,
    DECODERS,
    ENCODERS,
    GROUPED,
    OURS,
    SIZES,
    THEIRS,
    TOKENS,
    VOCABULARY,
    some_ids,
    traced,
)

import pellucid
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.lens import residual_stream, trace, why
from pellucid.models import Config, Decoder

ids = some_ids()


@functools.cache
def direct(name):
    return trace(traced(name), ids, position=8)


@pytest.mark.parametrize("name", DECODERS)
def test_the_parts_add_up_to_the_logit(name):
    model, found = traced(name), direct(name)
    with torch.no_grad():
        output = model(ids)
    row = getattr(output, "logits", output)[0, 8].double()
    assert found.token == int(row.argmax())
    assert found.number == pytest.approx(float(row.max()), rel=1e-6)
    assert found.probability == pytest.approx(float(row.softmax(-1).max()), rel=1e-5)
    sizes = float(found.tokens.abs().sum()) + sum(map(abs, found.others.values()))
    assert abs(found.missing) <= 1e-5 * max(1, sizes)
    assert found.is_exact
    heads = sum(float(each.sum()) for each in found.heads.values())
    assert heads == pytest.approx(float(found.tokens.sum()), rel=1e-6, abs=1e-6)
    assert found.tokens.shape == (TOKENS,)
    assert not found.tokens[9:].any()  # they come later


@pytest.mark.parametrize("name", BLOCKS)
def test_however_a_block_is_built(name):
    model = traced(name)
    for method in ("direct", "lrp"):
        assert trace(model, ids, method=method).is_exact
    with residual_stream(model) as stream:
        model(ids)
    for layer in (0, 1):
        assert why(stream, layer, 1, 8, 6, each_head=True).is_exact == (name != "clipped")


def test_what_a_head_gave_is_what_the_logit_loses_with_the_final_norm_frozen():
    """The oracle: the final residual of a Llama in float64, without the head's part of it."""
    model, found = traced("llama"), direct("llama")
    kept = {}
    handles = [
        model.model.norm.register_forward_pre_hook(lambda _, x: kept.__setitem__("end", x[0])),
        *(
            block.self_attn.o_proj.register_forward_pre_hook(
                lambda _, x, layer=layer: kept.__setitem__(layer, x[0])
            )
            for layer, block in enumerate(model.model.layers)
        ),
    ]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        end = kept["end"][0, 8].double()
        norm = model.model.norm
        gain = norm.weight.double() / (end.square().mean() + norm.variance_epsilon).sqrt()
        row = model.lm_head.weight[found.token].double()
        assert float(end * gain @ row) == pytest.approx(found.number, rel=1e-5)
        for layer, block in enumerate(model.model.layers):
            amounts = found.heads[f"model.layers.{layer}.self_attn"]
            for head in range(6):
                part = slice(10 * head, 10 * head + 10)
                written = (
                    block.self_attn.o_proj.weight.double()[:, part]
                    @ kept[layer][0, 8, part].double()
                )
                without = float((end - written) * gain @ row)
                loss = float(end * gain @ row) - without
                assert float(amounts[head]) == pytest.approx(loss, rel=1e-4, abs=1e-5)


def test_what_a_token_gave_is_what_dropping_its_value_would_cost():
    """Of the last layer alone: all later computation is the final norm, which is frozen."""
    model = traced("own decoder")
    with residual_stream(model) as stream:
        logits = model(ids)
    number = logits[0, -1, 7]
    found = trace(model, ids, token=7)
    one = next(x for x in stream.written if x.source.name == "decoder.blocks.1.attention")
    [gradient] = torch.autograd.grad(number, one.leaf)
    record = stream.seen.record("decoder.blocks.1.attention")
    heads, dim = 3, 10
    with torch.no_grad():
        total = 0.0
        weights, value = record.weights[0, :, -1].double(), record.value[0].double()
        for head in range(heads):
            g = gradient[0, -1].double()[dim * head : dim * head + dim]
            total += float((weights[head] * (value[0] @ g)).sum())
    assert float(found.heads["decoder.blocks.1.attention"].sum()) == pytest.approx(total, rel=1e-5)


def test_a_difference_of_two_logits():
    model = traced("gpt2")
    both = trace(model, ids, token=5, against=9)
    one, other = trace(model, ids, token=5), trace(model, ids, token=9)
    assert both.number == pytest.approx(one.number - other.number, abs=1e-5)
    torch.testing.assert_close(both.tokens, one.tokens - other.tokens, rtol=1e-4, atol=1e-5)
    assert both.against == 9
    told = str(both)
    assert told.startswith("direct: the logit of 5 less that of 9 after token 10 is ")
    assert "  head transformer.h." in told
    assert "missing" in told


def test_an_earlier_prediction_is_that_of_the_shorter_text():
    model = traced("mistral")
    whole, cut = trace(model, ids, position=6, token=4), trace(model, ids[:, :7], token=4)
    assert whole.number == pytest.approx(cut.number, abs=1e-4)
    torch.testing.assert_close(whole.tokens[:7], cut.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_all_relevance_is_accounted_for(name):
    """Conservation: what tokens get, and what softmaxes and biases absorb, is the logit."""
    found = trace(traced(name), ids, position=8, method="lrp")
    sizes = float(found.tokens.abs().sum()) + sum(map(abs, found.absorbed.values()))
    assert abs(found.missing) <= 1e-5 * max(1, sizes)
    assert found.absorbed["softmax"] != 0
    is_biased = name in ("qwen2", "gpt2", "own sines")
    assert (found.absorbed["biases"] != 0) == is_biased
    assert not found.tokens[9:].any()


def test_attn_lrp_of_a_llama_rule_by_rule():
    model = traced("llama")
    expected = attn_lrp(model, ids, 8, 5)
    found = trace(model, ids, position=8, token=5, method="lrp")
    torch.testing.assert_close(
        found.tokens, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max())
    )


@pytest.fixture(scope="module")
def eager():
    """A GPT-2 whose attention weights are in the graph, and its weights and their gradients."""
    model = traced("gpt2")
    other = transformers.AutoModelForCausalLM.from_config(
        THEIRS["gpt2"](), attn_implementation="eager"
    )
    other.load_state_dict(model.state_dict())
    output = other.eval()(ids, output_attentions=True)
    number = output.logits[0, 8, 5]
    gradients = torch.autograd.grad(number, output.attentions)
    return [
        (weights[0].detach(), gradient[0])
        for weights, gradient in zip(output.attentions, gradients, strict=True)
    ]


def test_gradients_times_weights_are_those_of_an_eager_model(eager):
    found = trace(traced("gpt2"), ids, position=8, token=5, method="gradient")
    expected = sum((weights * gradient).sum((0, 1)) for weights, gradient in eager)
    torch.testing.assert_close(found.tokens.float(), expected, rtol=1e-4, atol=1e-5)
    for amounts, (weights, gradient) in zip(found.heads.values(), eager, strict=True):
        of_heads = (weights * gradient).sum((1, 2))
        torch.testing.assert_close(amounts.float(), of_heads, rtol=1e-4, atol=1e-5)


def test_chefers_relevance_is_the_product_of_its_matrices(eager):
    found = trace(traced("gpt2"), ids, position=8, token=5, method="chefer")
    relevance = torch.eye(TOKENS)
    for weights, gradient in eager:
        relevance = relevance + (weights * gradient).clamp_min(0).mean(0) @ relevance
    expected = relevance[8] - torch.eye(TOKENS)[8]
    torch.testing.assert_close(found.tokens.float(), expected, rtol=1e-4, atol=1e-6)
    assert found.missing is None
    assert not found.is_exact


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("method", ["direct", "lrp"])
def test_a_classifier_of_transformers(name, method):
    """With its pooler: an activation outside blocks is a factor, which is frozen."""
    torch.manual_seed(3)
    config = ENCODERS[name]()
    config.num_labels = 3
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    found = trace(model, {"input_ids": ids}, method=method, against=None)
    assert found.position is None
    assert found.logits.shape == (3,)
    assert found.is_exact


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("method", ["direct", "lrp"])
def test_a_masked_language_model(name, method):
    torch.manual_seed(3)
    model = transformers.AutoModelForMaskedLM.from_config(ENCODERS[name]()).eval()
    with torch.no_grad():
        for numbers in model.parameters():
            numbers.add_(torch.randn_like(numbers) * 0.1)
    found = trace(model, {"input_ids": ids}, position=4, method=method)
    assert found.is_exact
    assert found.tokens[6:].abs().max() > 0  # it sees what comes later


def test_what_is_not_linear_is_missing():
    class Squared(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, ids):
            return self.inner(ids).logits.square()

    found = trace(Squared(traced("llama")).eval(), ids)
    assert not found.is_exact
    assert abs(found.missing) > 1


@pytest.mark.parametrize("method", ["direct", "gradient", "lrp"])
def test_a_translation_has_a_source(method):
    model = traced("own encoder-decoder")
    inputs = {"source": ids, "target": some_ids(7, seed=5)}
    found = trace(model, inputs, position=3, method=method)
    assert found.tokens.shape == (7,)
    assert found.source_tokens.shape == (TOKENS,)
    assert found.source_tokens.abs().max() > 0
    if found.adds_up:
        sizes = float(found.tokens.abs().sum()) + float(found.source_tokens.abs().sum())
        assert abs(found.missing) <= 1e-5 * max(1, sizes)


def test_chefer_refuses_cross_attention():
    inputs = {"source": ids, "target": some_ids(7, seed=5)}
    with pytest.raises(ArgumentError, match="cross-attention: use direct, gradient or lrp"):
        trace(traced("own encoder-decoder"), inputs, method="chefer")


def test_lrp_refuses_experts():
    config = Config(
        kind="decoder", vocabulary=VOCABULARY, width=36, heads=3, layers=1, hidden=37, experts=3
    )
    with pytest.raises(ArgumentError, match=r"lrp has no rule for .*feed_forward"):
        trace(Decoder(config).eval(), ids, method="lrp")
    assert trace(Decoder(config).eval(), ids).is_exact


@pytest.mark.parametrize("method", ["direct", "gradient", "chefer", "lrp"])
def test_a_compiled_program_that_copies_the_token_before(method):
    """Its weights say that head 1.0 gives the token before, and nothing else does."""
    model = program("previous")
    read = model.facts.texts[:1]
    with torch.no_grad():
        found = trace(model, read, position=5, method=method)
    assert model.facts.values[found.token] == model.facts.results[0][4]
    assert int(found.tokens.argmax()) == 4
    best = {name: float(amounts.max()) for name, amounts in found.heads.items()}
    assert max(best, key=best.get) == "layers.1.attention"
    if method == "direct":
        assert float(found.tokens[4]) == pytest.approx(found.number, rel=1e-5)
        assert abs(sum(found.others.values())) < 1e-6


@pytest.mark.parametrize("method", ["direct", "gradient", "chefer", "lrp"])
def test_frozen_parameters_change_nothing(method):
    model = traced("llama")
    expected = trace(model, ids, method=method)
    try:
        found = trace(model.requires_grad_(False), ids, method=method)
    finally:
        model.requires_grad_(True)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(x._forward_hooks or x._forward_pre_hooks for x in model.modules())


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_a_head_that_is_knocked_out(by):
    """Its mean is no sum of weights times values, and is told apart."""
    model = traced("llama")
    with pellucid.intervene(model) as edit:
        edit.knock_out(1, 0, by=by)
        found = trace(model, ids, token=5)
        relevance = trace(model, ids, token=5, method="lrp")
    assert found.is_exact
    assert relevance.is_exact
    assert found.number != trace(model, ids, token=5).number
    parts = {str(source) for source in found.others}
    assert ("attention of no token 1" in parts) == (by == "mean")


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["direct", "gradient", "chefer", "lrp"])
def test_on_a_gpu(method):
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(THEIRS["llama"]()).eval()
    here = trace(model, ids, method=method)
    there = trace(model.cuda(), ids.cuda(), method=method)
    for one in (there.tokens, there.logits, *there.heads.values(), *there.pairs.values()):
        assert one.device.type == "cpu"
    torch.testing.assert_close(there.tokens, here.tokens, rtol=1e-2, atol=1e-3)
    with residual_stream(model) as stream:
        model(ids.cuda())
    assert why(stream, 1, 4, -1, 3, each_head=True).missing < 1e-3


@pytest.mark.parametrize("method", ["direct", "lrp"])
def test_a_cap_on_logits_is_a_factor(method):
    torch.manual_seed(5)
    config = transformers.Gemma2Config(
        **GROUPED, **SIZES, sliding_window=5, final_logit_softcapping=11.0
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    found = trace(model, {"input_ids": ids}, method=method)
    assert found.is_exact
    # The gradient method takes the gradient as it is, cap included.
    uncapped = trace(model, {"input_ids": ids}, method="gradient", token=3)
    model.config.final_logit_softcapping = None
    capless = trace(model, {"input_ids": ids}, method="gradient", token=3)
    slope = 1 - (uncapped.number / 11) ** 2
    torch.testing.assert_close(uncapped.tokens, capless.tokens * slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["direct", "gradient", "lrp"])
def test_vectors_in_place_of_ids(method):
    model = traced("llama")
    with torch.no_grad():
        vectors = model.model.embed_tokens(ids)
    found = trace(model, {"inputs_embeds": vectors}, method=method)
    torch.testing.assert_close(found.tokens, trace(model, ids, method=method).tokens)
    assert not vectors.requires_grad


def test_a_norm_that_multiplies_by_one_more_than_its_weight():
    config = transformers.NemotronConfig(**{**GROUPED, **SIZES}, partial_rotary_factor=1.0)
    torch.manual_seed(3)
    model = transformers.NemotronForCausalLM(config).eval()
    assert trace(model, torch.arange(TOKENS)[None]).is_exact


def test_half_precision_adds_up_to_rounding():
    model = OURS["own decoder"]().eval().to(torch.bfloat16)
    found = trace(model, ids)
    assert found.is_exact
    assert abs(found.missing) < 0.1


def test_what_is_refused():
    model = traced("own decoder")
    with pytest.raises(ArgumentError, match="method must be one of direct"):
        trace(model, ids, method="guess")
    with pytest.raises(OutOfRangeError, match=f"token must be from 0 to {VOCABULARY - 1}, got 61"):
        trace(model, ids, token=VOCABULARY)
    with pytest.raises(OutOfRangeError, match="position must be from -11 to 10, got 11"):
        trace(model, ids, position=TOKENS)
    with pytest.raises(ArgumentError, match="against is the token itself"):
        trace(model, ids, token=3, against=3)
    with pytest.raises(ShapeError, match="one text at a time"):
        trace(model, ids.repeat(2, 1))
    with pytest.raises(TypeMismatchError, match="token must be an int"):
        trace(model, ids, token="the")

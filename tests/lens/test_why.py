"""A score is the sum of its terms, and each term is what the weights say."""

import functools

import pytest
import torch
import transformers
from tests.compiled_programs import program
from tests.lens.traced import (
    DECODERS,
    ENCODERS,
    LAYERS,
    OURS,
    THEIRS,
    TOKENS,
    run,
    some_ids,
    traced,
)

import pellucid
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError, UnknownNameError
from pellucid.layers.positions import alibi
from pellucid.lens import residual_stream, why
from pellucid.lens.tracing.stream_rows import stream_rows

ALL = [*dict.fromkeys([*DECODERS, *ENCODERS, *OURS])]


@functools.cache
def streamed(name):
    model = traced(name)
    with residual_stream(model) as stream:
        run(model)
    return stream


def named(found):
    return {str(source): amount for source, amount in found.items()}


@pytest.mark.parametrize("name", ALL)
def test_terms_add_up_to_the_score(name):
    stream = streamed(name)
    for record in stream.seen.records:
        head = record.shape[-3] - 1
        found, other = (why(stream, record.name, head, 4, key, each_head=True) for key in (2, 3))
        weights = record.weights[0, head, 4].detach().double().log()
        expected = float(weights[2] - weights[3])
        size = found.allowed / 1e-5
        assert found.score - other.score == pytest.approx(expected, abs=1e-5 * size)
        assert abs(found.missing) <= 1e-5 * size
        assert found.is_exact
        assert found.terms.shape == (len(found.query_sources), len(found.key_sources))


@pytest.mark.parametrize("name", ALL)
def test_the_model_computes_what_it_always_does(name):
    model = traced(name)
    first = run(model)
    with residual_stream(model):
        streamed_output = run(model)
    after = run(model)
    for other in (streamed_output, after):
        for expected, number in zip(tensors(first), tensors(other), strict=True):
            torch.testing.assert_close(number, expected, rtol=0, atol=0)
    assert not any(x._forward_hooks or x._forward_pre_hooks for x in model.modules())


def tensors(output):
    return [output] if isinstance(output, torch.Tensor) else [output[0]]


def test_terms_of_a_llama_by_its_weights():
    """Query and key of the second layer, from the parts in float64: the oracle."""
    model = traced("llama")
    stack, ids = model.model, some_ids()
    outputs = {}

    def keep(name):
        return lambda module, inputs, output: outputs.__setitem__(
            name, output[0] if isinstance(output, tuple) else output
        )

    block, second = stack.layers
    parts = {"token": stack.embed_tokens, "attention": block.self_attn, "feed": block.mlp}
    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    wrote = {name: output[0].detach().double() for name, output in outputs.items()}
    stream = sum(wrote.values())
    norm = second.input_layernorm
    gain = (
        norm.weight.double()
        / (stream.square().mean(-1, keepdim=True) + norm.variance_epsilon) ** 0.5
    )
    cosine, sine = (
        x[0].double() for x in stack.rotary_emb(stream[None], torch.arange(TOKENS)[None])
    )

    def turned(x):
        first, other = x.chunk(2, -1)
        return x * cosine + torch.cat([-other, first], -1) * sine

    head, query, key = 4, 9, 3
    projections = second.self_attn.q_proj.weight.double(), second.self_attn.k_proj.weight.double()
    w_query = projections[0].unflatten(0, (6, 10))[head]
    w_key = projections[1].unflatten(0, (2, 10))[head // 3]
    with torch.no_grad():
        queries = [turned(x * gain @ w_query.T)[query] for x in wrote.values()]
        keys = [turned(x * gain @ w_key.T)[key] for x in wrote.values()]
        expected = torch.stack(queries) @ torch.stack(keys).T / 10**0.5
    found = why(streamed("llama"), 1, head, query, key)
    assert [str(x) for x in found.query_sources] == [
        "token embedding",
        "attention 0",
        "feed-forward 0",
    ]
    torch.testing.assert_close(found.terms, expected, rtol=1e-5, atol=1e-5)


def test_terms_of_a_bert_by_its_weights():
    """A part that is written before a norm goes through it, with the scale that it had."""
    model = traced("bert")
    stream = streamed("bert")
    found = why(stream, 0, 2, 8, 5)
    tables = model.embeddings
    ids = some_ids()[0]
    words = tables.word_embeddings.weight[ids].detach().double()
    places = tables.position_embeddings.weight[:TOKENS].detach().double()
    types = tables.token_type_embeddings.weight[0].detach().double()
    x = words + places + types
    norm = tables.LayerNorm
    gain = norm.weight.double() / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    self_attention = model.encoder.layer[0].attention.self
    w_query, w_key = (
        part.weight.double().unflatten(0, (3, 11))[2].detach()
        for part in (self_attention.query, self_attention.key)
    )

    def through(part):
        return ((part - part.mean(-1, keepdim=True)) * gain).detach()

    q = through(words)[8] @ w_query.T
    k = norm.bias.detach().double() @ w_key.T
    term = float(q @ k) / 11**0.5
    row = [str(x) for x in found.query_sources].index("token embedding")
    column = [str(x) for x in found.key_sources].index("bias of embeddings.LayerNorm")
    assert float(found.terms[row, column]) == pytest.approx(term, rel=1e-5, abs=1e-6)
    k = self_attention.key.bias.detach().double()[22:]
    column = [str(x) for x in found.key_sources].index("bias of encoder.layer.0.attention.self.key")
    term = float(q @ k) / 11**0.5
    assert float(found.terms[row, column]) == pytest.approx(term, rel=1e-5, abs=1e-6)


def test_heads_together_are_their_sum():
    stream = streamed("gpt2")
    together, apart = (why(stream, 1, 1, 6, 4, each_head=each) for each in (False, True))
    of_heads = [v for source, v in apart.of_query().items() if source.head is not None]
    assert len(of_heads) == 3
    assert sum(of_heads) == pytest.approx(named(together.of_query())["attention 0"], abs=1e-5)


@pytest.mark.parametrize("name", [*THEIRS, *ENCODERS, "own decoder", "own sines", "own encoder"])
@pytest.mark.parametrize("each_head", [False, True])
def test_the_short_cut_gives_what_gradients_through_all_layers_give(name, each_head, monkeypatch):
    stream = streamed(name)
    short = why(stream, 1, 1, 7, 4, each_head=each_head)
    tried = []

    def none(*arguments):
        tried.append(stream_rows(*arguments))

    monkeypatch.setattr("pellucid.lens.tracing.why.stream_rows", none)
    whole = why(stream, 1, 1, 7, 4, each_head=each_head)
    assert None not in tried
    assert {*short.query_sources} == {*whole.query_sources}
    rows = [short.query_sources.index(source) for source in whole.query_sources]
    columns = [short.key_sources.index(source) for source in whole.key_sources]
    torch.testing.assert_close(
        short.terms[rows][:, columns], whole.terms, rtol=1e-4, atol=1e-5 * whole.allowed / 1e-5
    )


@pytest.mark.parametrize("name", ["qwen2", "own encoder", "own encoder-decoder"])
def test_one_key_against_another(name):
    stream = streamed(name)
    record = stream.seen.latest()[-1]
    asked = functools.partial(why, stream, record.name, 1, 6)
    both, one, other = asked(4, against=2), asked(4), asked(2)
    assert both.is_exact
    assert both.score == pytest.approx(one.score - other.score, abs=1e-5)
    weights = record.weights[0, 1, 6].detach().double().log()
    assert both.score == pytest.approx(float(weights[4] - weights[2]), abs=1e-5)
    for source, amount in both.of_key().items():
        expected = one.of_key()[source] - other.of_key()[source]
        assert amount == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert "score less that of key 2" in str(both)
    with pytest.raises(ArgumentError, match="against is the key itself, 4"):
        asked(4, against=4)


def test_a_source_that_writes_nothing_gives_nothing():
    torch.manual_seed(7)
    model = OURS["own decoder"]().eval()
    with torch.no_grad():
        model.decoder.blocks[0].feed_forward.down.weight.zero_()
    with residual_stream(model) as stream:
        run(model)
    found = why(stream, 1, 0, 4, 1)
    assert named(found.of_query())["feed-forward 0"] == 0
    assert named(found.of_query())["token embedding"] != 0


def test_positions_that_are_computed_are_named():
    sources = named(why(streamed("own sines"), 0, 0, 5, 3).of_query())
    assert sources["position embedding"] != 0
    sources = named(why(streamed("own encoder"), 0, 0, 5, 3).of_query())
    assert sources["type embedding"] != 0  # its only segment type, which stands in no call


def test_position_biases_are_apart():
    found = why(streamed("own encoder"), 0, 1, 5, 3)
    places = torch.arange(TOKENS)[None]
    assert found.position_bias == pytest.approx(float(alibi(3, places, places)[0, 1, 5, 3]))
    assert found.position_bias < 0
    assert found.score == pytest.approx(found.position_bias + float(found.terms.sum()), abs=1e-5)


def test_cross_attention_reads_two_streams():
    found = why(streamed("own encoder-decoder"), "decoder.blocks.1.cross", 0, 5, 3)
    keys = {source.name.split(".")[0] for source in found.key_sources}
    assert keys == {"encoder", "decoder"}  # the key projection's bias is the decoder's
    assert {source.name for source in found.query_sources} >= {"decoder.blocks.1.attention"}


def test_the_largest_terms_come_first():
    found = why(streamed("llama"), 1, 0, 4, 1)
    sizes = [abs(term.amount) for term in found.top(9)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 9
    text = str(found)
    assert "score" in text
    assert "missing" in text


PROGRAMS = {
    ("previous", "1.0"): ("feed-forward 0", "position embedding"),
    ("sort", "0.0"): ("token embedding", "token embedding"),
    ("sort", "1.0"): ("position embedding", "feed-forward 0"),
    ("reverse", "3.0"): ("feed-forward 2", "position embedding"),
    ("induction", "1.0"): ("feed-forward 0", "position embedding"),
    ("induction", "2.0"): ("token embedding", "attention 1.0"),
}
"""What the selector of each head compares, by the program's source: of the query, and of the key.

To sort, a token looks where the rank, which a feed-forward part has counted, is its own place; an
induction head looks for its token among those that head 1.0 has copied from the place before.
"""


@pytest.mark.parametrize(("name", "head"), PROGRAMS)
def test_a_compiled_program_is_understood(name, head):
    model = program(name)
    facts = model.facts
    with residual_stream(model) as stream:
        model(facts.texts[:3])
    layer, number = map(int, head.split("."))
    selected = facts.selected[head][:3].nonzero().tolist()
    assert selected
    for item, query, key in selected[::7]:  # without the token at the start
        found = why(stream, layer, number, query + 1, key + 1, item=item, each_head=True)
        best, *others = found.top(5)
        assert (str(best.query), str(best.key)) == PROGRAMS[name, head]
        assert best.amount == pytest.approx(found.score, rel=1e-4)
        assert all(abs(one.amount) < 1e-3 * best.amount for one in others)


def test_an_item_of_a_batch_is_as_alone():
    model = traced("bert")
    other = some_ids(seed=8)
    with residual_stream(model) as both:
        model(torch.cat([some_ids(), other]))
    with residual_stream(model) as alone:
        model(other)
    one, same = why(both, 1, 2, 6, 3, item=1), why(alone, 1, 2, 6, 3)
    torch.testing.assert_close(one.terms, same.terms, rtol=1e-3, atol=1e-5)


def test_without_gradients_around_it():
    model = traced("gpt2")
    with torch.no_grad():
        with residual_stream(model) as stream:
            run(model)
        found = why(stream, 1, 0, 5, 2)
    assert found.is_exact
    with torch.inference_mode(), pytest.raises(ArgumentError, match="inference_mode"):
        residual_stream(model)


def test_what_is_refused():
    stream = streamed("llama")
    with pytest.raises(OutOfRangeError, match="head must be from -6 to 5, got 6"):
        why(stream, 0, 6, 1, 1)
    with pytest.raises(OutOfRangeError, match="query"):
        why(stream, 0, 0, TOKENS, 1)
    with pytest.raises(UnknownNameError, match=f"last layer is {LAYERS - 1}"):
        why(stream, 7, 0, 1, 1)
    with pytest.raises(TypeMismatchError, match="residual_stream"):
        why(stream.seen, 0, 0, 1, 1)
    with pytest.raises(ArgumentError, match="several attentions"):
        why(streamed("own encoder-decoder"), "decoder.blocks.0", 0, 1, 1)
    with pytest.raises(ArgumentError, match="no blocks whose parts are known"):
        residual_stream(torch.nn.Linear(3, 5).eval())
    with pytest.raises(ArgumentError, match="training mode"):
        residual_stream(OURS["own decoder"]())
    model = traced("llama")
    with residual_stream(model) as twice:
        run(model)
        run(model)
    with pytest.raises(ArgumentError, match="more than once"):
        why(twice, 0, 0, 1, 1)
    with residual_stream(model) as never:
        pass
    with pytest.raises(UnknownNameError):
        why(never, 0, 0, 1, 1)


def test_a_watch_beside_it_sees_the_same():
    model = traced("own decoder")
    with pellucid.watch(model) as seen, residual_stream(model) as stream:
        run(model)
    name = "decoder.blocks.1.attention"
    assert torch.equal(seen[name][0], stream.seen[name][0])


class Nano(torch.nn.Module):
    """A decoder as people write it by hand, which looks up positions without a batch."""

    def __init__(self, batched):
        super().__init__()
        config = transformers.GPT2Config(vocab_size=61, n_embd=24, n_head=3, n_layer=2)
        whole = transformers.GPT2Model(config)
        self.wte, self.wpe, self.h, self.ln_f = whole.wte, whole.wpe, whole.h, whole.ln_f
        self.batched = batched

    def forward(self, ids):
        positions = torch.arange(ids.shape[1])
        x = self.wte(ids) + self.wpe(positions[None] if self.batched else positions)
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


@pytest.mark.parametrize("batched", [False, True])
def test_positions_that_are_looked_up_once_for_all_items(batched):
    torch.manual_seed(3)
    model = Nano(batched).eval()
    with residual_stream(model) as stream:
        model(torch.randint(61, (2, 13)))
    for item in (0, 1):
        found = why(stream, "h.1.attn", 2, 9, 4, item=item)
        assert found.is_exact
        assert abs(named(found.of_query())["position embedding"]) > 0

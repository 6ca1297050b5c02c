"""The three transformers: any config that builds runs, and every way to compute gives the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid
from pellucid import masks
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.layers import decoding_step, decoding_table, int8
from pellucid.layers.feed_forward import Experts, StackedLinear
from pellucid.models import Config, Decoder, Encoder
from tests.models.stacks import BATCH, TOKENS, VOCABULARY, configs, of, some_ids

# float32 throughout: a few hundred sums of numbers about 1, in two orders.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def in_steps(model, ids, first, chunk, **options):
    cache = model.cache(len(ids), ids.shape[1])
    parts = [model(ids[:, :first], cache=cache, **options)]
    for start in range(first, ids.shape[1], chunk):
        parts.append(model(ids[:, start : start + chunk], cache=cache, **options))
    return torch.cat(parts, 1)


@settings(max_examples=40, deadline=None)
@given(config=configs("decoder"), first=st.integers(1, 9), chunk=st.sampled_from([1, 4]))
def test_cached_decoding_equals_a_full_pass(config, first, chunk):
    model, ids = of("decoder", config), some_ids()
    with torch.no_grad():
        torch.testing.assert_close(in_steps(model, ids, first, chunk), model(ids), **CLOSE)


@settings(max_examples=25, deadline=None)
@given(config=configs("decoder"), first=st.integers(1, 9))
def test_the_last_token_alone_is_the_last_of_all(config, first):
    """What the last block leaves out is read by nobody: nor by the tokens that come after."""
    model, ids = of("decoder", config), some_ids()
    with torch.no_grad():
        cache = model.cache(BATCH, TOKENS)
        found = [model(part, cache=cache, last=True) for part in (ids[:, :first], ids[:, first:])]
        full = model(ids)
        alone = model(ids, last=True)
    torch.testing.assert_close(torch.stack(found, 1), full[:, [first - 1, -1]], **CLOSE)
    torch.testing.assert_close(alone, full[:, -1], **CLOSE)


def test_nothing_is_left_out_where_somebody_looks():
    model = of("decoder", Config(kind="decoder", vocabulary=VOCABULARY, width=24, heads=3))
    shapes = []

    def look(part, given, made):
        shapes.append(made.shape)

    with torch.no_grad():
        handle = model.decoder.blocks[-1].register_forward_hook(look)
        model(some_ids(), cache=model.cache(BATCH, TOKENS), last=True)
        handle.remove()
        with pellucid.watch(model) as seen:
            model(some_ids(), cache=model.cache(BATCH, TOKENS), last=True)
    assert shapes == [(BATCH, TOKENS, 24)]
    assert {record.weights.shape[-2] for record in seen.records} == {TOKENS}


@settings(max_examples=25, deadline=None)
@given(config=configs("decoder"))
def test_the_compiled_step_equals_the_blocks(config):
    """Under autograd the blocks run, without it the compiled loops."""
    pytest.importorskip("numba")
    model, ids = of("decoder", config), some_ids()
    with torch.no_grad():
        compiled = in_steps(model, ids, 7, 1)
    torch.testing.assert_close(compiled, in_steps(model, ids, 7, 1).detach(), **CLOSE)


def test_no_column_of_the_table_is_compiled_by_itself():
    types = pytest.importorskip("numba").types
    columns = [number for name, number in vars(decoding_table).items() if name.isupper()]
    found = [types.maybe_literal(number) for number in columns if isinstance(number, np.integer)]
    assert found == [None] * 25


def test_the_compiled_step_is_what_runs():
    pytest.importorskip("numba")
    model = of(
        "decoder", Config(kind="decoder", vocabulary=VOCABULARY, width=24, heads=3, hidden=17)
    )
    cache, ids = model.cache(BATCH, TOKENS), some_ids()
    with torch.no_grad():
        model(ids[:, :5], cache=cache)
        assert cache.step is None
        model(ids[:, 5:6], cache=cache)
    assert isinstance(cache.step, decoding_step.Step)


@pytest.mark.parametrize("is_int8", [False, True])
def test_many_texts_in_steps(is_int8):
    pytest.importorskip("numba")
    model = a_decoder(activation="gelu", norm_first=True)
    model = model.to_int8() if is_int8 else model
    ids = torch.randint(VOCABULARY, (131, 5), generator=torch.Generator().manual_seed(3))
    cache = model.cache(131, 5)
    with torch.no_grad():
        found = torch.cat([model(ids[:, at : at + 1], cache=cache) for at in range(5)], 1)
        assert isinstance(cache.step, decoding_step.Step)
    close = {"rtol": 1e-3, "atol": 1e-3} if is_int8 else CLOSE
    torch.testing.assert_close(found, model(ids).detach(), **close)


@settings(max_examples=25, deadline=None)
@given(config=configs("decoder"), place=st.integers(1, TOKENS - 1))
def test_a_decoder_never_sees_the_future(config, place):
    model, ids = of("decoder", config), some_ids()
    other = ids.clone()
    other[:, place] = (other[:, place] + 1) % VOCABULARY
    with torch.no_grad():
        before, after = model(ids), model(other)
    torch.testing.assert_close(before[:, :place], after[:, :place], **CLOSE)
    assert not torch.equal(before[:, place:], after[:, place:])


@settings(max_examples=25, deadline=None)
@given(config=configs("decoder"))
def test_texts_of_several_lengths_share_a_cache(config):
    model, ids, lengths = of("decoder", config), some_ids(), torch.tensor([3, 11, 7])
    new = some_ids(tokens=5, seed=2)
    with torch.no_grad():
        cache = model.cache(BATCH, TOKENS)
        found = [model(ids[:, :11], cache=cache, lengths=lengths, last=True)]
        found += [model(new[:, i : i + 1], cache=cache, last=True) for i in range(5)]
        for item, length in enumerate(lengths):
            text = torch.cat([ids[item, :length], new[item]]).unsqueeze(0)
            alone = model(text)[0, length - 1 :]
            torch.testing.assert_close(torch.stack([one[item] for one in found]), alone, **CLOSE)


@settings(max_examples=25, deadline=None)
@given(config=configs("encoder"))
def test_padding_and_neighbours_never_matter_to_an_encoder(config):
    model, ids, lengths = of("encoder", config), some_ids(), torch.tensor([5, 19, 11])
    with torch.no_grad():
        padded = model(ids, masks.padding(lengths))
        in_a_row = torch.cat([ids[item, :length] for item, length in enumerate(lengths)])[None]
        places = torch.cat([torch.arange(length) for length in lengths])[None]
        owner = torch.repeat_interleave(torch.arange(BATCH), lengths)
        packed = model(in_a_row, masks.documents(owner), positions=places)[0]
        start = 0
        for item, length in enumerate(lengths.tolist()):
            alone = model(ids[item : item + 1, :length])[0]
            torch.testing.assert_close(padded[item, :length], alone, **CLOSE)
            torch.testing.assert_close(packed[start : start + length], alone, **CLOSE)
            start += length


@settings(max_examples=25, deadline=None)
@given(config=configs("encoder-decoder"))
def test_an_encoder_decoder_in_steps_equals_a_full_pass(config):
    model, source, target = of("encoder-decoder", config), some_ids(tokens=13), some_ids(seed=2)
    mask = masks.padding(torch.tensor([13, 4, 9]))
    with torch.no_grad():
        full = model(source, target, mask)
        memory = model.encode(source, mask)
        cache = model.cache(BATCH, TOKENS)
        steps = [
            model.decode(target[:, i : i + 1], memory, mask, cache=cache) for i in range(TOKENS)
        ]
        torch.testing.assert_close(torch.cat(steps, 1), full, **CLOSE)
        alone = model(source[1:2, :4], target[1:2])
        torch.testing.assert_close(full[1:2], alone, **CLOSE)


@settings(max_examples=15, deadline=None)
@given(config=configs("decoder"))
def test_a_cache_goes_on_with_chosen_texts(config):
    model, ids, chosen = of("decoder", config), some_ids(), torch.tensor([2, 0, 0])
    with torch.no_grad():
        cache = model.cache(BATCH, TOKENS)
        model(ids[:, :7], cache=cache)
        cache.select(chosen)
        found = model(ids[:, 7:8], cache=cache, last=True)
        whole = torch.cat([ids[chosen, :7], ids[:, 7:8]], 1)
        torch.testing.assert_close(found, model(whole)[:, -1], **CLOSE)


@settings(max_examples=12, deadline=None)
@given(config=configs("encoder-decoder"))
def test_watching_sees_each_attention_and_changes_nothing(config):
    model, source, target = of("encoder-decoder", config), some_ids(tokens=13), some_ids(seed=2)
    with torch.no_grad():
        plain = model(source, target)
        watched, seen = model(source, target, watch=True)
    assert torch.equal(plain, watched)
    layers = config.layers if config.decoder_layers is None else config.decoder_layers
    shapes = {tuple(record.weights.shape[2:]) for record in seen.records}
    assert len(seen.records) == config.layers + 2 * layers
    assert shapes == {(13, 13), (TOKENS, TOKENS), (TOKENS, 13)}
    for record in seen.records:
        total = record.weights.dense().sum(-1)
        if config.sinks:  # which take the rest
            assert (total < 1).all()
            continue
        torch.testing.assert_close(total, torch.ones_like(total), **CLOSE)


def test_generation_under_a_watch_is_one_triangle_a_layer():
    model = of(
        "decoder", Config(kind="decoder", vocabulary=VOCABULARY, width=24, heads=3, hidden=17)
    )
    ids = some_ids()
    with torch.no_grad():
        full, whole = model(ids, watch=True)
        with pellucid.watch(model) as seen:
            steps = in_steps(model, ids, 7, 1)
    torch.testing.assert_close(steps, full, **CLOSE)
    last = [record for record in seen.records if record.name == "decoder.blocks.0.attention"][-1]
    expected = whole["decoder.blocks.0.attention"][:, :, -1:]
    torch.testing.assert_close(last.weights[:, :, -1:], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_gradients_reach_every_parameter(kind):
    config = Config(kind=kind, vocabulary=VOCABULARY, width=24, heads=3, hidden=17, types=2)
    model = of(kind, config).train()
    ids = (some_ids(), some_ids(seed=2)) if kind == "encoder-decoder" else (some_ids(),)
    model(*ids).square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_the_start_is_small_and_its_loss_is_that_of_a_guess():
    model = Decoder(Config(kind="decoder", vocabulary=VOCABULARY, norm_first=True)).eval()
    ids = some_ids(batch=7, tokens=101)
    with torch.no_grad():
        logits = model(ids)[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
    assert abs(float(loss) - torch.tensor(float(VOCABULARY)).log().item()) < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "reader"}, "kind must be one of encoder, decoder, encoder-decoder"),
        ({"width": 30}, "width 30 does not divide into 8 heads"),
        ({"kv_heads": 3}, "heads 8 is not a multiple of kv_heads 3"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"position": "learned", "positions": None}, "need a number of positions"),
        ({"position": "rotary", "head_dim": 7}, "head_dim 7 must be even"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"norm_eps": float("inf")}, "norm_eps must be finite, not inf"),
        ({"rope_theta": -1.0}, "rope_theta must be above 0, not -1.0"),
        ({"start": VOCABULARY}, f"start {VOCABULARY} is not in the vocabulary, 0 to 52"),
        ({"padding": -1}, "padding -1 is not in the vocabulary, 0 to 52"),
        ({"head_dim": 8, "rotary_dim": 10}, "rotary_dim 10 is above head_dim 8"),
        ({"position": "rotary", "rotary_dim": 5}, "rotary_dim 5 must be even"),
        ({"branch_norms": "both"}, "branch_norms 'both' needs norm_first"),
        ({"parallel": True}, "parallel needs norm_first"),
        ({"shared_norm": True}, "shared_norm needs parallel"),
        ({"window_layers": (0, 6)}, "window_layers has layer 6, but there are 0 to 5"),
        ({"score_softcap": 0.0}, "score_softcap must be above 0, not 0.0"),
        ({"experts": 3, "experts_used": 4}, "experts_used 4 is above the number of experts, 3"),
        ({"feed_clamp": 7.0}, "feed_clamp and up_offset need gated"),
        ({"norm": "batch"}, "norm must be one of layer, rms, not 'batch'"),
    ],
)
def test_a_config_that_does_not_fit(change, message):
    with pytest.raises(ArgumentError, match=message):
        Config(**({"kind": "decoder", "vocabulary": VOCABULARY} | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 1.5}, "width must be an int, not 1.5"),
        ({"rotary_layers": [0]}, r"rotary_layers must be a tuple of layers, not \[0\]"),
        ({"stop": 7}, "stop must be a tuple of ids, not 7"),
        ({"stop": (True,)}, r"stop must be a tuple of ids, not \(True,\)"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling must be pairs of name and value, not"),
        ({"rope_scaling": (1, 2)}, "rope_scaling must be pairs of name and value, not"),
    ],
)
def test_a_value_of_another_type(change, message):
    with pytest.raises(TypeMismatchError, match=message):
        Config(**({"kind": "decoder", "vocabulary": VOCABULARY} | change))


PLAIN = {"vocabulary": VOCABULARY, "width": 24, "heads": 3, "layers": 1}


def test_ids_that_are_none():
    model = Decoder(Config(kind="decoder", **PLAIN, positions=11, position="learned"))
    with pytest.raises(OutOfRangeError, match="ids has the id 53, but the vocabulary is 0 to 52"):
        model(torch.tensor([[VOCABULARY]]))
    with pytest.raises(ShapeError, match=r"ids must be \(batch, tokens\), not of shape \(3,\)"):
        model(torch.tensor([1, 2, 3]))
    with pytest.raises(TypeMismatchError, match=r"int64 or int32, not torch\.float32"):
        model(torch.ones(1, 3))
    with pytest.raises(OutOfRangeError, match="12 tokens, but the model has 11 positions"):
        model(torch.zeros(1, 12, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="room for 5 tokens, and 0 \\+ 7 are needed"):
        model(torch.zeros(1, 7, dtype=torch.int64), cache=model.cache(1, 5))


WHOLE = torch.arange(3)[None]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"positions": WHOLE + 9}, OutOfRangeError, "positions has 11, but the model accepts 0 to"),
        ({"positions": WHOLE - 1}, OutOfRangeError, "positions has -1, but the model accepts 0 to"),
        ({"positions": WHOLE[0]}, ShapeError, r"positions must be \(1 or 1, 3\), not of"),
        ({"positions": WHOLE / 2}, TypeMismatchError, "positions must be int64 or int32, not"),
        ({"types": WHOLE}, OutOfRangeError, "types has 2, but the model accepts 0 to 1"),
        ({"types": [[0, 1, 0]]}, TypeMismatchError, "types must be a tensor, not list"),
    ],
)
def test_positions_and_types_that_are_none(given, error, message):
    config = Config(kind="encoder", **PLAIN, position="learned", positions=11, types=2)
    with pytest.raises(error, match=message):
        Encoder(config)(WHOLE, **given)


def test_types_for_a_model_without_any():
    with pytest.raises(OutOfRangeError, match="types were given, but the model has none"):
        Encoder(Config(kind="encoder", **PLAIN))(WHOLE, types=WHOLE * 0)


@pytest.mark.parametrize("position", ["relative", "alibi", "rotary", "learned"])
def test_positions_with_a_cache(position):
    """They are right, or refused where the scores would need those of the tokens before."""
    model, ids = a_decoder(position=position), some_ids()
    places = torch.arange(TOKENS)[None] + 3
    with torch.no_grad():
        cache, expected = model.cache(BATCH, TOKENS), model(ids, positions=places)
        if position in ("relative", "alibi"):
            with pytest.raises(
                ArgumentError, match=f"a cache if they are {position}: the cache does"
            ):
                model(ids, positions=places, cache=cache)
            return
        parts = [model(ids[:, :7], positions=places[:, :7], cache=cache)]
        parts += [
            model(ids[:, at : at + 1], positions=places[:, at : at + 1], cache=cache)
            for at in range(7, TOKENS)
        ]
    torch.testing.assert_close(torch.cat(parts, 1), expected, **CLOSE)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, -1), "capacity must be at least 1, not -1"),
        ((1, 0), "capacity must be at least 1, not 0"),
        ((0, 5), "batch must be at least 1, not 0"),
        ((1, 2.0), "capacity must be an int, not 2.0"),
    ],
)
def test_a_cache_of_no_room(sizes, message):
    with pytest.raises((ArgumentError, TypeMismatchError), match=message):
        a_decoder().cache(*sizes)


@settings(max_examples=25, deadline=None)
@given(config=configs("decoder"))
def test_weights_of_a_byte_are_their_rounding(config):
    """In int8 a model is the one whose weights are those whole numbers times the scales."""
    model, ids = of("decoder", config), some_ids()
    rounded = Decoder(config).eval()
    rounded.load_state_dict(model.state_dict())
    routers = [part.router for part in rounded.modules() if isinstance(part, Experts)]
    for part in rounded.modules():
        if any(part is router for router in routers):
            continue
        is_matrix = isinstance(part, torch.nn.Linear | StackedLinear)
        if is_matrix or part is rounded.decoder.tokens:
            scale = part.weight.data.abs().amax(-1, keepdim=True) / 127
            part.weight.data = (part.weight.data / scale).round() * scale
    eighth = model.to_int8()
    with torch.no_grad():
        expected = rounded(ids)
        torch.testing.assert_close(eighth(ids), expected, **CLOSE)
        torch.testing.assert_close(in_steps(eighth, ids[:1], 7, 1), expected[:1], **CLOSE)
        # For several texts the inputs are rounded too, to 15 bits.
        torch.testing.assert_close(in_steps(eighth, ids, 7, 1), expected, rtol=1e-3, atol=1e-3)


def a_decoder(**choices):
    sizes = {"width": 24, "heads": 3, "hidden": 17, "layers": 2}
    return of("decoder", Config(kind="decoder", vocabulary=VOCABULARY, **(sizes | choices)))


def hooked(model):
    model.decoder.blocks[1].feed_forward.register_forward_hook(lambda part, given, made: made * 3)


def patched(model):
    part = model.decoder.blocks[0].feed_forward
    forward = part.forward
    part.forward = lambda x: forward(x) * 3


def replaced(model):
    down = model.decoder.blocks[0].feed_forward.down
    down.weight = torch.nn.Parameter(down.weight.detach() * 3)


def refilled(model):
    down = model.decoder.blocks[0].feed_forward.down
    down.weight.data = down.weight.detach().T.contiguous().T * 3


def without_a_norm(model):
    model.decoder.blocks[1].attention_norm = torch.nn.Identity()


def partly_int8(model):
    int8.quantise(model.decoder.blocks[1])


def of_another_kind(model):
    class Tripled(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 3

    feed = model.decoder.blocks[0].feed_forward
    other = Tripled(feed.down.in_features, feed.down.out_features).eval()
    other.load_state_dict(feed.down.state_dict())
    feed.down = other


@pytest.mark.parametrize(
    "change",
    [hooked, patched, replaced, refilled, without_a_norm, partly_int8, of_another_kind],
)
def test_a_model_that_is_changed_while_it_writes(change):
    """Compiled loops see what the blocks would, or leave it to them."""
    model, ids = a_decoder(), some_ids()
    with torch.no_grad():
        caches = [model.cache(BATCH, TOKENS) for _ in range(2)]
        for cache in caches:
            for start, stop in ((0, 7), (7, 8)):
                model(ids[:, start:stop], cache=cache)
        change(model)
        found = model(ids[:, 8:9], cache=caches[0])
        with torch.enable_grad():  # under which the blocks run
            expected = model(ids[:, 8:9], cache=caches[1]).detach()
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_head_with_a_hook_is_called():
    model, ids = a_decoder(tied=False), some_ids()
    with torch.no_grad():
        before = model(ids)
        model.head.register_forward_hook(lambda part, given, made: made * 3)
        torch.testing.assert_close(model(ids), before * 3, **CLOSE)


def test_a_cache_that_does_not_fit():
    model, ids = a_decoder(), some_ids()
    with torch.no_grad():
        cache = model.cache(1, TOKENS)
        model(ids[:1], cache=model.cache(1, TOKENS))
        with pytest.raises(TypeMismatchError, match=r"cache must be a Cache, .* not 3"):
            model(ids, cache=3)
        with pytest.raises(ShapeError, match="the cache is for 1 texts, but there are 3"):
            model(ids, cache=cache)
        for other in (a_decoder(heads=2), a_decoder(layers=1)):
            with pytest.raises(ArgumentError, match="the cache was made for another model"):
                model(ids[:1], cache=other.cache(1, TOKENS))
        for lengths, message in (([3, 20, 1], "lengths must be 1 to 19"), ([0, 1, 1], "1 to 19")):
            with pytest.raises(ArgumentError, match=message):
                model(ids, cache=model.cache(3, TOKENS), lengths=torch.tensor(lengths))
        for lengths in ([3, 11, 7], torch.tensor([3.0, 11.0, 7.0])):
            with pytest.raises(TypeMismatchError, match="lengths must be"):
                model(ids, cache=model.cache(3, TOKENS), lengths=lengths)


def test_a_cache_serves_one_model_after_another():
    model, other, ids = a_decoder(), a_decoder(), some_ids()
    for parameter in other.parameters():
        parameter.data *= 1.5
    with torch.no_grad():
        caches = [model.cache(BATCH, TOKENS) for _ in range(2)]
        for cache in caches:
            model(ids[:, :7], cache=cache)
            model(ids[:, 7:8], cache=cache)
        found = other(ids[:, 8:9], cache=caches[0])
        with torch.enable_grad():
            torch.testing.assert_close(found, other(ids[:, 8:9], cache=caches[1]).detach(), **CLOSE)


def test_a_model_in_int8_is_not_saved(tmp_path):
    model = of(
        "decoder", Config(kind="decoder", vocabulary=VOCABULARY, width=24, heads=3, hidden=17)
    )
    with pytest.raises(ArgumentError, match="save it before to_int8"):
        model.to_int8().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_config_of_another_kind():
    with pytest.raises(ArgumentError, match="config is of an encoder, not of an decoder"):
        Decoder(Config(kind="encoder", vocabulary=VOCABULARY))

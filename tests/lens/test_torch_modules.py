"""PyTorch's own attention modules, on their slow and their fast paths."""

import itertools
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import pellucid

BATCH, QUERIES, KEYS, HEADS, HEAD_DIM, LAYERS = 3, 5, 7, 2, 11, 2
WIDTH = HEADS * HEAD_DIM  # heads are even in number, or there is no fast path
NEAR = {"atol": 2e-6, "rtol": 1e-4}

KINDS = {  # how the module is made, and whether queries and keys are the same
    "self": ({}, True),
    "self, batch first": ({"batch_first": True}, True),
    "cross": ({}, False),
    "cross, batch first": ({"batch_first": True}, False),
    "other widths": ({"kdim": 13, "vdim": 17, "batch_first": True}, False),
    "bias for key and value": ({"add_bias_kv": True}, False),
    "a zero key": ({"add_zero_attn": True, "batch_first": True}, False),
    "both": ({"add_bias_kv": True, "add_zero_attn": True}, True),
    "without biases": ({"bias": False, "batch_first": True}, True),
}
MASKS = [
    "none",
    "padding, bool",
    "padding, float",
    "2-D, bool",
    "2-D, float",
    "3-D, bool",
    "3-D, float",
    "padding and 2-D, bool",
    "padding and 3-D, float",
    "causal",
]
MODES = {"train": torch.enable_grad, "eval": torch.enable_grad, "eval, no grad": torch.no_grad}


def tempered(module, seed=23):
    """Parameters that make weights far from even."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(1.3 * noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.2 * noise)
    return module


def some(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def masked(kind, queries, keys, batch=BATCH):
    """The arguments of a forward pass. Every query sees a key."""
    items = (batch,) if batch else ()
    generator = torch.Generator().manual_seed(7)
    padding = torch.zeros(*items, keys, dtype=torch.bool)
    padding[..., -2:] = True
    if batch:
        padding[0] = False
    hidden = torch.rand(queries, keys, generator=generator) > 0.6
    each = torch.rand((batch or 1) * HEADS, queries, keys, generator=generator) > 0.6
    hidden[..., 0] = each[..., 0] = False
    number = torch.randn(queries, keys, generator=generator)
    given = {}
    if kind.startswith("padding"):
        given["key_padding_mask"] = padding
    if "2-D" in kind:
        given["attn_mask"] = hidden
    if "3-D" in kind:
        given["attn_mask"] = each
    if kind.endswith("float"):
        given = {
            name: torch.zeros(mask.shape).masked_fill(mask, -torch.inf)
            for name, mask in given.items()
        }
        if "attn_mask" in given:
            given["attn_mask"] = given["attn_mask"] + number
    if kind == "causal":
        given["attn_mask"] = nn.Transformer.generate_square_subsequent_mask(keys)[:queries]
        given["is_causal"] = True
    return given


@contextmanager
def without_the_fast_path():
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def calls():
    """Each kind with each mask, in two of the six ways in turns; in all of them in `make slow`."""
    ways = [*itertools.product([True, False], MODES)]
    for number, (kind, mask) in enumerate(itertools.product(KINDS, MASKS)):
        for place, way in enumerate(ways):
            is_slow = (place - number - number // len(MASKS)) % 3 > 0
            yield pytest.param(kind, mask, *way, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(("kind", "mask", "need_weights", "mode"), [*calls()])
def test_multi_head_attention(kind, mask, need_weights, mode):
    options, same = KINDS[kind]
    module = tempered(nn.MultiheadAttention(WIDTH, HEADS, **options)).train(mode == "train")
    keys = QUERIES if same else KEYS
    inputs = [some(BATCH, QUERIES, WIDTH)]
    if same:
        inputs *= 3
    else:
        inputs += [some(BATCH, KEYS, module.kdim), some(BATCH, KEYS, module.vdim)]
    if not module.batch_first:
        moved = [x.transpose(0, 1) for x in inputs[: 1 if same else 3]]
        inputs = moved * 3 if same else moved
    given = masked(mask, QUERIES, keys)
    with MODES[mode]():
        plain = module(*inputs, need_weights=need_weights, **given)
        with pellucid.watch(module, values=True) as seen:
            watched = module(*inputs, need_weights=need_weights, **given)
        with without_the_fast_path():
            _, expected = module(*inputs, need_weights=True, average_attn_weights=False, **given)

    assert torch.equal(plain[0], watched[0])
    assert (plain[1] is None) == (watched[1] is None) == (not need_weights)
    assert not need_weights or torch.equal(plain[1], watched[1])
    (record,) = seen.records
    assert (record.name, seen.unseen) == ("", {})
    if (
        mask == "causal"
        and not need_weights
        and (module.bias_k is not None or module.add_zero_attn)
    ):
        # torch hands the causal hint to a kernel that knows nothing of the keys added behind, and
        # so hides them; with need_weights=True it shows them. What was used is what is recorded.
        triangle = torch.full(expected.shape[-2:], -torch.inf).triu(1)
        expected = (expected.log() + triangle).softmax(-1)
    torch.testing.assert_close(record.weights.dense(), expected, **NEAR)
    mixed = (record.weights @ record.value).transpose(1, 2).flatten(2)
    replayed = module.out_proj(mixed)
    theirs = watched[0] if module.batch_first else watched[0].transpose(0, 1)
    torch.testing.assert_close(replayed, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "mask", ["none", "padding, bool", "padding, float", "2-D, bool", "2-D, float", "3-D, bool"]
)
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_text_without_a_batch(batch_first, mask, need_weights, mode):
    module = tempered(nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first))
    module.train(mode == "train")
    inputs = some(QUERIES, WIDTH), some(KEYS, WIDTH), some(KEYS, WIDTH)
    given = masked(mask, QUERIES, KEYS, batch=None)
    with MODES[mode]():
        plain = module(*inputs, need_weights=need_weights, **given)[0]
        with pellucid.watch(module) as seen:
            watched = module(*inputs, need_weights=need_weights, **given)[0]
        expected = module(*inputs, average_attn_weights=False, **given)[1]
    assert torch.equal(plain, watched)
    (record,) = seen.records
    assert seen.unseen == {}
    torch.testing.assert_close(record.weights.dense(), expected.unsqueeze(0), **NEAR)


def test_weights_are_those_before_dropout():
    module = tempered(nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5))
    given = [some(QUERIES, BATCH, WIDTH)] * 3
    for need_weights in (True, False):
        torch.manual_seed(3)
        plain = module(*given, need_weights=need_weights)
        torch.manual_seed(3)
        with pellucid.watch(module) as seen:
            watched = module(*given, need_weights=need_weights)
        assert torch.equal(plain[0], watched[0])
        expected = module.eval()(*given, average_attn_weights=False)[1]
        torch.testing.assert_close(seen[""].dense(), expected, **NEAR)
        module.train()


def test_weights_of_a_module_train_its_projection():
    module = tempered(nn.MultiheadAttention(WIDTH, HEADS))
    given = [some(QUERIES, BATCH, WIDTH)] * 3
    with pellucid.watch(module) as seen:
        module(*given)
    seen[""].dense().square().sum().backward()
    ours = module.in_proj_weight.grad.clone()
    module.zero_grad()
    module(*given, average_attn_weights=False)[1].square().sum().backward()
    torch.testing.assert_close(ours, module.in_proj_weight.grad, atol=1e-5, rtol=1e-3)
    assert ours.abs().max() > 1e-2


# The fast path is one native call.


@pytest.fixture
def native(monkeypatch):
    """Names of the native functions that were called."""
    called = []

    def count(name):
        function = getattr(torch, name)

        def counted(*args, **options):
            called.append(name)
            return function(*args, **options)

        monkeypatch.setattr(torch, name, counted)

    count("_native_multi_head_attention")
    count("_transformer_encoder_layer_fwd")
    return called


@pytest.mark.parametrize("mask", ["none", "padding, bool", "2-D, bool", "3-D, bool"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_the_fast_path_stays_in_use(native, need_weights, mask):
    module = tempered(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)).eval()
    given, x = masked(mask, QUERIES, QUERIES), some(BATCH, QUERIES, WIDTH)
    with torch.no_grad():
        module(x, x, x, need_weights=need_weights, **given)
        alone = list(native)
        with pellucid.watch(module):
            module(x, x, x, need_weights=need_weights, **given)
    assert native == alone * 2
    assert len(alone) == 1


def stack(norm_first, nested=True, heads=HEADS):
    layer = nn.TransformerEncoderLayer(
        heads * HEAD_DIM, heads, 37, dropout=0.0, batch_first=True, norm_first=norm_first
    )
    return tempered(nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=nested))


def own_weights(model, *args, **options):
    """What each attention of a model gives when it is asked for weights, by name."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):

            def ask(module, args, given, name=name):
                forward = type(module).forward
                given = {**given, "need_weights": True, "average_attn_weights": False}
                found[name] = forward(module, *args, **given)[1]

            handles.append(module.register_forward_pre_hook(ask, with_kwargs=True))
    with without_the_fast_path():
        model(*args, **options)
    for handle in handles:
        handle.remove()
    return found


ENCODER_MASKS = ["none", "padding, bool", "padding, float", "2-D, bool", "2-D, float", "causal"]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True", "ignore:The PyTorch API of nes")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", [*ENCODER_MASKS, "padding and 2-D, bool"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_encoder(norm_first, nested, mask, mode, native):
    model = stack(norm_first, nested).train(mode == "train")
    x = some(BATCH, QUERIES, WIDTH)
    names = {"key_padding_mask": "src_key_padding_mask", "attn_mask": "mask"}
    masks = masked(mask, QUERIES, QUERIES)
    if mask == "2-D, float":  # any number but 0 hides on the fast path: see the next test
        masks["attn_mask"] = masks["attn_mask"].masked_fill(masks["attn_mask"] > -torch.inf, 0)
    given = {names.get(name, name): value for name, value in masks.items()}
    with MODES[mode]():
        plain = model(x, **given)
        alone = list(native)
        with pellucid.watch(model) as seen:
            watched = model(x, **given)
        expected = own_weights(model, x, **given)
    assert torch.equal(plain, watched)
    assert native == alone * 2
    if mode == "eval, no grad" and "float" not in mask:
        assert alone == ["_transformer_encoder_layer_fwd"] * LAYERS
    assert (seen.unseen, set(seen.names), len(seen.records)) == ({}, set(expected), LAYERS)

    hidden = masks.get("key_padding_mask", torch.zeros(BATCH, QUERIES, dtype=torch.bool))
    present = ~hidden if hidden.dtype == torch.bool else hidden == 0
    for name, theirs in expected.items():
        ours = seen[name].dense()  # a nested tensor is as long as its longest item, here all
        assert ours.shape == theirs.shape
        rows = present if mode == "eval, no grad" else torch.ones_like(present)
        torch.testing.assert_close(
            ours.transpose(1, 2)[rows], theirs.transpose(1, 2)[rows], atol=5e-6, rtol=5e-4
        )


def test_the_fast_path_hides_whatever_is_not_zero():
    """So does torch, where a float mask should add; recorded is what was used."""
    model, x = stack(False, nested=False).eval(), some(BATCH, QUERIES, WIDTH)
    numbers = torch.ones(QUERIES, QUERIES).triu(1)
    with torch.no_grad():
        assert torch.equal(model(x, mask=numbers), model(x, mask=numbers.bool()))
        with pellucid.watch(model) as seen:
            model(x, mask=numbers)
        expected = own_weights(model, x, mask=numbers.bool())
    for name, theirs in expected.items():
        torch.testing.assert_close(seen[name].dense(), theirs, atol=5e-6, rtol=5e-4)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_as_long_as_their_longest_item(native):
    model, x = stack(False).eval(), some(BATCH, KEYS, WIDTH)
    padding = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    lengths = (5, 2, 3)
    for item, length in enumerate(lengths):
        padding[item, length:] = True
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=padding)
        with pellucid.watch(model) as seen:
            assert torch.equal(model(x, src_key_padding_mask=padding), plain)
        expected = own_weights(model, x, src_key_padding_mask=padding)
    assert len(native) == 2 * LAYERS
    for name, theirs in expected.items():
        for item, length in enumerate(lengths):
            ours = seen[name][item, :, :length]
            assert not ours[..., length:].any()
            part = theirs[item, :, :length, :length]
            torch.testing.assert_close(ours[..., :length], part, atol=5e-6, rtol=5e-4)


def test_an_odd_number_of_heads_takes_the_slow_path(native):
    model, x = stack(False, nested=False, heads=3).eval(), some(BATCH, QUERIES, 33)
    with torch.no_grad():
        plain = model(x)
        with pellucid.watch(model) as seen:
            assert torch.equal(model(x), plain)
        expected = own_weights(model, x)
    assert native == []
    for name, theirs in expected.items():
        torch.testing.assert_close(seen[name].dense(), theirs, **NEAR)


def test_one_layer_alone():
    layer = stack(False).layers[0].eval()
    x = some(BATCH, QUERIES, WIDTH)
    with torch.no_grad(), pellucid.watch(layer) as seen:
        layer(x)
    assert seen.names == ["self_attn"]
    torch.testing.assert_close(
        seen["self_attn"].dense(), own_weights(layer, x)["self_attn"], atol=5e-6, rtol=5e-4
    )


@pytest.mark.parametrize("change", ["step", "move", "free"])
def test_what_the_fast_path_saw_stays_or_says_that_it_is_lost(change):
    """It keeps inputs, not projections: parameters that change later must not show."""
    model, x = stack(False).eval(), some(BATCH, QUERIES, WIDTH)
    with torch.no_grad():
        expected = own_weights(model, x)
        with pellucid.watch(model) as seen:
            model(x)
    name = "layers.1.self_attn"
    if change == "step":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        with pytest.raises(pellucid.PellucidError, match="changed since"):
            seen[name].dense()
        return
    if change == "move":
        model.to(torch.float64)
    else:
        del model
    torch.testing.assert_close(seen[name].dense(), expected[name], atol=5e-6, rtol=5e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_decoder(norm_first, mode):
    layer = nn.TransformerDecoderLayer(
        WIDTH, HEADS, 37, dropout=0.0, batch_first=True, norm_first=norm_first
    )
    model = tempered(nn.TransformerDecoder(layer, LAYERS)).train(mode == "train")
    x, memory = some(BATCH, QUERIES, WIDTH), some(BATCH, KEYS, WIDTH)
    given = {
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(QUERIES),
        "memory_key_padding_mask": masked("padding, float", QUERIES, KEYS)["key_padding_mask"],
    }
    with MODES[mode]():
        plain = model(x, memory, **given)
        with pellucid.watch(model) as seen:
            watched = model(x, memory, **given)
        expected = own_weights(model, x, memory, **given)
    assert torch.equal(plain, watched)
    assert (seen.unseen, set(seen.names), len(seen.records)) == ({}, set(expected), 2 * LAYERS)
    for record in seen.records:
        assert record.is_cross == record.name.endswith("multihead_attn")
        torch.testing.assert_close(record.weights.dense(), expected[record.name], **NEAR)

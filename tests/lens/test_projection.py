"""The matrix behind a projection, found by running it, against the parts that it is made of."""

import warnings
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import transformers
from tests.attention.cases import assert_within_budget, random
from tests.lens.families import FAMILIES, build, inputs
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.nn.utils import parametrizations, prune

import pellucid
from pellucid.errors import ArgumentError, TypeMismatchError, UnknownNameError
from pellucid.lens import attribution, module_matrix, output_projection, projection

HEADS, DIM, WIDTH, OUTPUTS, RANK, TOKENS = 3, 11, 33, 37, 5, 7
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


class Attends(nn.Module):
    """Attention without a mask; what comes after it is for the tests to say."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return scaled_dot_product_attention(x, x, x)


class LowRank(nn.Linear):
    """LoRA, in a layer's own class."""

    def __init__(self, *, bias=False, **options):
        super().__init__(WIDTH, OUTPUTS, bias, **options)
        self.a = nn.Linear(WIDTH, RANK, bias=False, **options)
        self.b = nn.Linear(RANK, OUTPUTS, bias=False, **options)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return super().forward(x) + 2 * self.b(self.a(self.dropout(x)))

    def matrix(self, dtype):
        return self.weight.to(dtype) + 2 * self.b.weight.to(dtype) @ self.a.weight.to(dtype)


class Wrapped(nn.Module):
    """LoRA around a layer, which says nothing of its sizes."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(WIDTH, OUTPUTS)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(WIDTH, RANK, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(RANK, OUTPUTS, bias=False)})

    def forward(self, x, *others, **named):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x)) / 2

    def matrix(self, dtype):
        a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
        return self.base_layer.weight.to(dtype) + b.to(dtype) @ a.to(dtype) / 2


class Directed(LowRank):
    """DoRA: rows of a length that is learned."""

    def __init__(self):
        super().__init__()
        self.length = nn.Parameter(torch.linspace(0.5, 2, OUTPUTS))

    def forward(self, x):
        return super().forward(x) * self._stretch(self.weight.dtype)

    def _stretch(self, dtype):
        return self.length.to(dtype) / super().matrix(dtype).norm(dim=1)

    def matrix(self, dtype):
        return super().matrix(dtype) * self._stretch(dtype).unsqueeze(1)


class Bytes(nn.Module):
    """Weights in eight bits, with a scale a row."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(OUTPUTS, WIDTH)
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x):
        return linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))

    def matrix(self, dtype):
        return self.weight.to(dtype) * self.scale.to(dtype)


class BytesTwice(Bytes):
    """What goes in is rounded to eight bits too, by each token's largest, or by all tokens'."""

    def __init__(self, across=-1):
        super().__init__()
        self.across = across

    def forward(self, x):
        scale = (x.abs().amax(self.across, keepdim=True) / 127).clamp_min(1e-30)
        return super().forward((x / scale).round()) * scale


class Nibbles(nn.Module):
    """Weights in four bits, two a byte."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randint(256, (OUTPUTS, 17), dtype=torch.uint8))
        self.scale = nn.Parameter(torch.rand(OUTPUTS, 1))

    def forward(self, x):
        return linear(x, self.matrix(x.dtype))

    def matrix(self, dtype):
        halves = torch.stack([self.weight & 15, self.weight >> 4], -1).flatten(1)
        return (halves[:, :WIDTH].to(dtype) - 7) * self.scale.to(dtype)


class OfOneShape(nn.Module):
    """A layer that takes contexts of one shape only, and may give more than what it made."""

    def __init__(self, shape, more=False):
        super().__init__()
        self.weight, self.shape, self.more = nn.Parameter(torch.randn(OUTPUTS, WIDTH)), shape, more

    def forward(self, x):
        if self.shape == "heads":
            batch, tokens, _, _ = x.shape
            made = linear(x.reshape(batch, tokens, WIDTH), self.weight)
        elif self.shape == "tokens":
            _, _ = x.shape
            made = linear(x, self.weight)
        else:
            batch, tokens, width = x.shape
            made = linear(x.view(batch, tokens, width), self.weight)
        return (made, None) if self.more else made

    def matrix(self, dtype):
        return self.weight.to(dtype)


def with_matrix(module, matrix):
    module.matrix = matrix
    return module


def of_weight(module):
    return with_matrix(module, lambda dtype: module.weight.detach().to(dtype).flatten(1))


def parametrized():
    return of_weight(parametrizations.weight_norm(nn.Linear(WIDTH, OUTPUTS)))


def parametrized_as_of_old():
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return of_weight(nn.utils.weight_norm(nn.Linear(WIDTH, OUTPUTS)))


def pruned():
    return of_weight(prune.l1_unstructured(nn.Linear(WIDTH, OUTPUTS), "weight", 0.5))


def hooked():
    """A hook before that turns what goes in, and one after that steers."""
    module = nn.Linear(WIDTH, OUTPUTS)
    module.register_forward_pre_hook(lambda _, given: (given[0].flip(-1),))
    module.register_forward_hook(lambda _, given, made: 3 * made + 5)
    return with_matrix(module, lambda dtype: 3 * module.weight.detach().to(dtype).flip(1))


def with_a_forward_of_its_own():
    module = nn.Linear(WIDTH, OUTPUTS)
    module.forward = partial(lambda forward, x: forward(2 * x), module.forward)
    return with_matrix(module, lambda dtype: 2 * module.weight.detach().to(dtype))


KINDS = {
    "a layer": lambda: of_weight(nn.Linear(WIDTH, OUTPUTS)),
    "LoRA": LowRank,
    "LoRA with a bias": partial(LowRank, bias=True),
    "LoRA around": Wrapped,
    "DoRA": Directed,
    "eight bits": Bytes,
    "eight bits twice": BytesTwice,
    "eight bits twice, one scale": partial(BytesTwice, across=(-1, -2)),
    "four bits": Nibbles,
    "parametrized": parametrized,
    "parametrized as of old": parametrized_as_of_old,
    "pruned": pruned,
    "hooked": hooked,
    "a forward of its own": with_a_forward_of_its_own,
    "tokens in a row": partial(OfOneShape, "tokens"),
    "heads apart": partial(OfOneShape, "heads"),
    "batches only": partial(OfOneShape, "batches"),
    "gives a pair": partial(OfOneShape, "batches", more=True),
    "a convolution": lambda: of_weight(nn.Conv1d(WIDTH, OUTPUTS, 1)),
    "a convolution of a picture": lambda: of_weight(nn.Conv2d(WIDTH, OUTPUTS, 1)),
}


def made(name, dtype=torch.float32):
    torch.manual_seed(23)
    return Attends(o_proj=KINDS[name]()).to(dtype)


def record_of(model, dtype=torch.float32):
    x = random(2, HEADS, TOKENS, DIM, seed=3, dtype=dtype)
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(x)
    (record,) = seen.records
    return record


def norms(record, matrix, dtype):
    """(batch, heads, keys), ||W_head v||."""
    weight = matrix.detach().to(dtype).unflatten(1, (HEADS, DIM))
    return torch.einsum("bhkd,mhd->bhkm", record.value.to(dtype), weight).norm(dim=-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_attribution_is_that_of_the_effective_matrix(name, dtype):
    model = made(name, dtype)
    record = record_of(model, dtype)
    matrix = output_projection(model, record)
    exact, plain = (model.o_proj.matrix(one).detach() for one in (torch.float64, dtype))
    rounding = torch.finfo(dtype).eps
    assert_within_budget(matrix, plain, exact, rounding)
    assert_within_budget(
        attribution(record, matrix).norms,
        norms(record, plain, dtype),
        norms(record, exact, torch.float64),
        4 * rounding,
    )


@pytest.mark.parametrize("name", ["LoRA", "LoRA around", "DoRA", "eight bits"])
def test_the_width_is_found_without_a_record(name):
    model = made(name)
    assert torch.equal(output_projection(model, ""), output_projection(model, record_of(model)))


def test_a_plain_layer_gives_its_own_weight():
    model = Attends(o_proj=nn.Linear(WIDTH, OUTPUTS))
    assert output_projection(model, "") is model.o_proj.weight
    assert output_projection(torch.compile(model, backend="eager"), "") is model.o_proj.weight
    turned = Attends(c_proj=transformers.pytorch_utils.Conv1D(OUTPUTS, WIDTH))
    weight = output_projection(turned, "")
    assert weight.requires_grad
    assert torch.equal(weight, turned.c_proj.weight.T)


def test_a_layer_of_whole_numbers_whose_weight_is_a_method():
    model = Attends(o_proj=nn.Linear(WIDTH, OUTPUTS))
    with warnings.catch_warnings(action="ignore"):
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        exact = model.o_proj.weight().dequantize()
        for name in ("", record_of(model)):
            matrix = output_projection(model, name)
            assert_within_budget(matrix, exact, exact.double(), torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_large_bias_does_not_drown_the_weight(dtype):
    torch.manual_seed(23)
    model = Attends(o_proj=LowRank(bias=True))
    model.o_proj.bias.data.fill_(1000)
    model.to(dtype)
    exact, plain = (model.o_proj.matrix(one).detach() for one in (torch.float64, dtype))
    assert_within_budget(output_projection(model, ""), plain, exact, torch.finfo(dtype).eps / 8)


def test_tokens_are_not_taken_for_channels_where_there_are_three():
    torch.manual_seed(23)
    model = Attends(o_proj=nn.Conv1d(3, 3, 1))
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(random(2, 3, TOKENS, 1, seed=3))
    exact = model.o_proj.weight.detach().flatten(1)
    torch.testing.assert_close(output_projection(model, seen.records[0]), exact)


def test_columns_are_found_a_block_at_a_time(monkeypatch):
    model = made("LoRA")
    whole, rows = output_projection(model, ""), []
    monkeypatch.setattr(module_matrix, "BLOCK_NUMBERS", 5 * WIDTH)
    model.o_proj.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[-2]))
    torch.testing.assert_close(output_projection(model, ""), whole)
    assert max(rows) == 5


# Modules that are not one matrix.


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.gate = nn.Linear(WIDTH, OUTPUTS), nn.Linear(WIDTH, OUTPUTS)

    def forward(self, x):
        return self.up(x) * self.gate(x).sigmoid()


class Halves(nn.Module):
    """For unit vectors it gives nothing."""

    def forward(self, x):
        return x[..., : WIDTH // 2] * x[..., WIDTH // 2 : -1]


class InPlace(nn.Linear):
    """It wipes out what it was given."""

    def forward(self, x):
        made = super().forward(x).relu()
        x.zero_()
        return made


class Mixed(nn.Linear):
    """Tokens see each other."""

    def forward(self, x):
        return super().forward(x) + x.mean(-2, keepdim=True).sum()


def elsewhere():
    module = nn.Linear(WIDTH, OUTPUTS)

    def hook(_, given, made):
        return torch.cat([made[:, :1], 0 * made[:, 1:]], 1)

    module.register_forward_hook(hook)
    return module


CROOKED = {
    "a nonlinearity": lambda: nn.Sequential(nn.Linear(WIDTH, OUTPUTS), nn.ReLU()),
    "a nonlinearity before": lambda: nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, OUTPUTS)),
    "a soft one": lambda: nn.Sequential(nn.Linear(WIDTH, OUTPUTS), nn.Tanh()),
    "a norm": lambda: nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, OUTPUTS)),
    "a gate": Gated,
    "a product of halves": Halves,
    "in place": partial(InPlace, WIDTH, OUTPUTS),
    "tokens mixed": partial(Mixed, WIDTH, OUTPUTS),
    "a convolution of several places": lambda: nn.Conv1d(WIDTH, OUTPUTS, 3, padding=1),
    "one token in particular": elsewhere,
    "no numbers": lambda: nn.Sequential(nn.Linear(WIDTH, OUTPUTS), nn.Threshold(9, torch.nan)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CROOKED)
def test_what_is_not_one_matrix_is_refused(name, dtype):
    torch.manual_seed(23)
    model = Attends(o_proj=CROOKED[name]()).to(dtype)
    with pytest.raises(ArgumentError, match="'o_proj' does not multiply each context by one"):
        output_projection(model, record_of(model, dtype))


@pytest.mark.parametrize("width", [2, 3, 5, 997])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_alone_is_no_reason_to_refuse(width, dtype):
    torch.manual_seed(23)
    module = nn.Sequential(nn.Linear(width, 1009), nn.Linear(1009, width))
    model = Attends(o_proj=module).to(dtype)
    last, first = (layer.weight.detach() for layer in reversed(module))
    exact = last.double() @ first.double()
    matrix = output_projection(model, "")
    assert_within_budget(matrix, last @ first, exact, torch.finfo(dtype).eps)


# The model is left as it was.


def counted(monkeypatch):
    """How often a module is told its mode, which may make it merge an adapter."""
    told = []
    monkeypatch.setattr(nn.Module, "train", lambda *_: told.append(1))
    return told


def test_training_flags_are_as_they_were(monkeypatch):
    model = made("LoRA")
    model.o_proj.a.eval()
    flags = {name: part.training for name, part in model.named_modules()}
    assert len(set(flags.values())) == 2
    told, modes = counted(monkeypatch), []
    model.o_proj.dropout.register_forward_hook(lambda part, *_: modes.append(part.training))
    exact = model.o_proj.matrix(torch.float64)
    torch.testing.assert_close(output_projection(model, "").double(), exact.detach())

    model.o_proj.b.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ArgumentError, match=r"'o_proj' could not be run .* division by zero"):
        output_projection(model, "")
    assert modes
    assert not any(modes + told)
    assert {name: part.training for name, part in model.named_modules()} == flags


@contextmanager
def watched(model):
    with pellucid.watch(model) as seen:
        yield
    assert not seen.records


@pytest.mark.parametrize(
    "around",
    [
        lambda _: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda _: torch.inference_mode(),
        lambda _: torch.device("meta"),
        watched,
    ],
    ids=["autocast", "inference", "another default device", "watched"],
)
def test_it_is_the_same_whatever_it_stands_in(around):
    model = made("LoRA")
    expected, state = output_projection(model, ""), torch.get_rng_state()
    with around(model):
        matrix = output_projection(model, "")
    assert torch.equal(matrix, expected)
    assert not matrix.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


# Where it is looked for.


@pytest.mark.parametrize("name", [*projection.OUTPUTS, *projection.OUTPUTS_BESIDE])
def test_every_name_is_looked_for(name):
    torch.manual_seed(23)
    layer = LowRank()
    holder, *inside = name.split(".")
    part = Attends(**{inside[0]: layer}) if inside else layer
    if name in projection.OUTPUTS:
        model = nn.Sequential(Attends(**{holder: part}))
    else:
        model = nn.Sequential()
        model.add_module("0", Attends())
        model.add_module(holder, part)
    torch.testing.assert_close(output_projection(model, "0"), layer.matrix(torch.float32))


@pytest.mark.parametrize("name", FAMILIES)
def test_families_have_one(name):
    model = build(name, None)
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(**inputs(name))
    for record in seen.records:
        weight = output_projection(model, record)
        assert weight.shape[1] == record.shape[-3] * record.value.shape[-1]


@pytest.mark.parametrize("is_int8", [False, True])
def test_models_of_this_package_have_one(is_int8):
    config = pellucid.models.Config(
        kind="decoder", vocabulary=31, width=12, heads=3, position="alibi"
    )
    torch.manual_seed(23)
    model = pellucid.models.Decoder(config).eval()
    plain = model.decoder.blocks[0].attention.output.weight.detach().clone()
    model = model.to_int8() if is_int8 else model
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(torch.arange(7)[None])
    error = (output_projection(model, seen.records[0]) - plain).abs().max()
    assert error <= plain.abs().max() / 127


def test_what_does_not_fit_is_passed_over():
    layers = {
        "o_proj": nn.Linear(WIDTH + 1, OUTPUTS),  # of another width
        "out_proj": nn.ModuleList(),  # not to be called
        "c_proj": nn.Bilinear(WIDTH, WIDTH, OUTPUTS),  # but with two
    }
    model = Attends(**layers, dense=nn.Linear(WIDTH, OUTPUTS))
    assert output_projection(model, record_of(model)) is model.dense.weight
    model = Attends(**layers)
    with pytest.raises(UnknownNameError, match=r"of 33 inputs of '' .*; looked for o_proj, "):
        output_projection(model, record_of(model))


def test_an_output_projection_that_is_not_there():
    model = nn.Sequential(Attends())
    with pytest.raises(UnknownNameError, match="no module 'nope'"):
        output_projection(model, "nope")
    with pytest.raises(UnknownNameError, match=r"of '0' was found; looked for .*0\.o_proj"):
        output_projection(model, "0")


def test_attention_of_torch_takes_the_weight_and_calls_no_module():
    theirs = nn.MultiheadAttention(WIDTH, HEADS)
    assert output_projection(theirs, "") is theirs.out_proj.weight
    theirs.out_proj.register_forward_hook(lambda *_: 1 / 0)
    assert output_projection(theirs, "") is theirs.out_proj.weight


@pytest.mark.parametrize("kind", [partial(nn.Linear, WIDTH, OUTPUTS), LowRank])
def test_weights_that_hold_no_numbers(kind):
    with pytest.raises(TypeMismatchError, match=r"'o_proj' .* on the meta device"):
        output_projection(Attends(o_proj=kind(device="meta")), "")


def test_weights_that_are_brought_for_each_call():
    """As offloading does: the module holds none, and its own forward fetches them."""
    full = made("LoRA").o_proj.eval()
    empty = LowRank(device="meta")
    empty.forward = full.forward
    matrix = output_projection(Attends(o_proj=empty), "")
    torch.testing.assert_close(matrix, full.matrix(torch.float32))

"""Packed weights: each format's products beside those of its numbers, compiled and not."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.layers import packed_linear
from pellucid.layers.packed import FORMATS, Packed, rounded
from pellucid.layers.packed_linear import PackedEmbedding, PackedLinear

ROWS, BLOCKS = 43, 24
"""Rows of weights, so that some are left over; and blocks of 32 in each, or 3 of 256."""


def random_packed(form):
    """A matrix of a format, of random bytes with scales of about 1 / 64."""
    random = np.random.default_rng(form.size)
    blocks = random.integers(0, 256, (ROWS, BLOCKS * 32 // form.block, form.size), dtype=np.uint8)
    at = {"Q6_K": (208,)}.get(form.name, (0, 2) if form.size in (20, 24, 144, 176) else (0,))
    for place in at:
        scale = random.normal(0, 1 / 64, blocks.shape[:2]).astype(np.float16)
        blocks[..., place : place + 2] = scale[..., None].view(np.uint8)
    return form.read(torch.from_numpy(blocks))


def inputs(rows):
    return torch.randn(rows, BLOCKS * 32, generator=torch.Generator().manual_seed(rows))


every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)


@every_format
@pytest.mark.parametrize("rows", [1, 5])
def test_the_compiled_product_is_that_of_rounded_inputs(form, rows):
    pytest.importorskip("numba")
    packed, x = random_packed(form), inputs(rows)
    with torch.no_grad():
        product = PackedLinear(packed)(x)
    whole, scale = rounded(x)
    exact = (whole.double() * scale.half().double().unsqueeze(-1)).flatten(-2)
    expected = exact @ packed.unpacked().double().T
    size = exact.abs() @ packed.unpacked().double().abs().T
    # A sum that llama.cpp rounds to float16 is off by 2 ** -11 of a block's sum of inputs.
    budget = 2**-11 if packed.is_half else 2**-20
    assert ((product - expected).abs() <= budget * size).all()
    torch.testing.assert_close(product, packed.times(x), rtol=1e-5, atol=1e-5 * float(size.max()))


@every_format
def test_inputs_lose_no_more_than_half_a_step(form):
    packed, x = random_packed(form), inputs(3)
    weight = packed.unpacked().double()
    steps = x.unflatten(-1, (-1, 32)).abs().amax(-1) / 127
    half = steps.repeat_interleave(32, -1).double() * 0.51
    scale = x.double().abs() * 2**-10  # of the scales' float16
    most = (half + scale) @ weight.abs().T
    if packed.is_half:
        most += packed.least.double().abs().sum(-1) * 2**-10 * x.abs().max() * 32
    assert ((packed.times(x) - x.double() @ weight.T).abs() <= most).all()


def test_numbers_of_a_block_by_hand():
    """Scale 2, least 3: a byte holds number 0 and number 16."""
    whole = torch.zeros(1, 16, dtype=torch.uint8)
    whole[0, 0] = 5 | 7 << 4
    packed = Packed(whole, torch.tensor([[2.0]]), torch.tensor([[3.0]]))
    weight = packed.unpacked()
    assert weight[0, 0] == 13
    assert weight[0, 16] == 17
    assert weight.sum() == 13 + 17 + 30 * 3
    x = torch.zeros(1, 32)
    x[0, 16] = 127.0
    assert packed.times(x).item() == 17 * 127


@pytest.mark.parametrize(("bits", "is_split"), [(4, False), (8, False), (8, True)])
def test_processors_without_avx2_give_the_same(bits, is_split, monkeypatch):
    numba = pytest.importorskip("numba")
    from pellucid.layers import packed_kernel, packed_products

    form = FORMATS[14 if is_split else 8 if bits == 8 else 12]
    packed, x = random_packed(form), inputs(1)
    monkeypatch.setattr(packed_products, "has", lambda feature: False)
    is_half = packed.scale.dtype == torch.float16
    products = packed_products.row_products(bits, is_half, 1, is_split)

    @numba.njit
    def one(whole, scale, least, inputs, input_scale, sums, blocks):
        return products(whole, scale, least, 1, inputs, input_scale, sums, blocks)[0]

    whole, scale, sums = packed_kernel.rounded(x.numpy())
    least = packed.least.data_ptr() if packed.least.shape[1] else 0
    places = (packed.whole.data_ptr(), packed.scale.data_ptr(), least)
    found = one(*places, whole.ctypes.data, scale.ctypes.data, sums.ctypes.data, BLOCKS)
    expected = packed.times(x)[0, 0].item()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_bias_is_added_and_weights_may_move():
    packed = random_packed(FORMATS[3])
    model = nn.Sequential(nn.Linear(BLOCKS * 32, ROWS))
    packed_linear.install(model, "0.weight", packed)
    x = inputs(2)
    with torch.no_grad():
        first = model(x)
        torch.testing.assert_close(first, packed.times(x) + model[0].bias, rtol=1e-5, atol=1e-4)
        moved = copy.deepcopy(model)
        model[0].whole.zero_()
        assert torch.equal(moved(x), first)
        model[0].whole = moved[0].whole.clone()
        assert torch.equal(model(x), first)


def test_an_embedding_is_a_row_of_numbers():
    packed = random_packed(FORMATS[8])
    ids = torch.tensor([[3, 41], [0, 3]])
    assert torch.equal(PackedEmbedding(packed)(ids), packed.unpacked()[ids])

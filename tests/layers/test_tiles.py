"""Products by tiles: no further from float64 than the rounding of the inputs allows."""

import numpy as np
import pytest
import torch

from pellucid.layers import int8, matrix_vector

pytest.importorskip("numba")

SIZE, COLS = 37, 131  # neither a multiple of a tile's


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    monkeypatch.setattr(matrix_vector, "WORTHWHILE", 0)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(rows, size=SIZE, cols=COLS):
    """Inputs whose rows differ a lot in size; weights, scales and a bias."""
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, cols, generator=generator) * torch.logspace(-3, 3, rows)[:, None]
    weight = torch.randint(-127, 128, (size, cols), dtype=torch.int8, generator=generator)
    scale, bias = torch.rand(2, size, generator=generator)
    return x, weight, scale, bias


def exact(x, weight, scale, bias):
    return x.double() @ (weight * scale.double().unsqueeze(-1)).T + bias


def budget(x, weight, scale, bits=15):
    """Half a step of a row's rounding for each weight, and a few of float32's for the sum."""
    step = x.double().abs().amax(-1, keepdim=True) / (2**bits - 1)
    sizes = weight.double().abs() * scale.unsqueeze(-1)
    return step / 2 * sizes.sum(-1) + 2**-22 * (x.double().abs() @ sizes.T + 1)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 9, 11, 131])
@torch.no_grad()
def test_inputs_are_rounded_to_fifteen_bits(rows):
    x, weight, scale, bias = drawn(rows)
    found = matrix_vector.linear(x, weight, bias, scale)
    truth = exact(x, weight, scale, bias)
    assert ((found - truth).abs() <= budget(x, weight, scale)).all()


@pytest.mark.parametrize(
    ("size", "cols"), [(1, 7), (3, 31), (4, 32), (5, 1), (11, 1031), (7, 4099)]
)
@torch.no_grad()
def test_sizes_around_those_of_a_tile(size, cols):
    x, weight, scale, bias = drawn(5, size, cols)
    found = matrix_vector.linear(x, weight, bias, scale)
    bits = np.log2((2**31 - 1) / (127 * cols))
    allowed = budget(x, weight, scale, min(15, bits))
    assert ((found - exact(x, weight, scale, bias)).abs() <= allowed).all()


@torch.no_grad()
def test_sums_have_room_at_their_largest():
    cols = 2053
    x, weight = torch.ones(3, cols), torch.full((5, cols), 127, dtype=torch.int8)
    x[1] = -1
    found = matrix_vector.linear(x, weight, None, torch.ones(5))
    torch.testing.assert_close(found, x.sum(-1, keepdim=True).expand(3, 5) * 127, rtol=1e-6, atol=0)


@torch.no_grad()
def test_a_row_alone_is_that_row_among_others():
    x, weight, scale, bias = drawn(9)
    together = matrix_vector.linear(x, weight, bias, scale)
    x[3:] = 1e30
    x[5] = torch.nan
    assert torch.equal(matrix_vector.linear(x, weight, bias, scale)[:3], together[:3])
    assert torch.equal(matrix_vector.linear(x[1:3], weight, bias, scale), together[1:3])


@torch.no_grad()
def test_what_is_not_finite_is_seen_and_what_is_tiny_is_nothing():
    x, weight, scale, bias = drawn(6)
    x[0, 5], x[1, 0], x[2] = torch.inf, torch.nan, 0
    x[3] = 1e-42
    found = matrix_vector.linear(x, weight, bias, scale)
    assert found[:2].isnan().all()
    assert torch.equal(found[2:4], bias.expand(2, -1))
    assert found[4:].isfinite().all()


@torch.no_grad()
def test_a_layer_takes_inputs_of_any_shape_and_layout():
    torch.manual_seed(3)
    layer = torch.nn.Linear(COLS, SIZE, bias=False)
    eighth = int8.Int8Linear(layer)
    x = torch.randn(COLS, 2, 7).permute(1, 2, 0)
    expected = x @ (eighth.weight * eighth.scale.unsqueeze(-1)).T
    assert eighth(x).shape == (2, 7, SIZE)
    torch.testing.assert_close(eighth(x), expected, rtol=1e-3, atol=1e-3)
    assert (eighth(x) - layer(x)).abs().max() > (eighth(x) - expected).abs().max() * 30


def test_gradients_take_the_way_of_floats():
    x, weight, scale, bias = drawn(3)
    x.requires_grad_()
    matrix_vector.linear(x, weight, bias, scale).sum().backward()
    torch.testing.assert_close(
        x.grad, (weight * scale[:, None]).sum(0).expand(3, -1), rtol=1e-5, atol=1e-4
    )


def test_other_processors_give_the_same(monkeypatch):
    """Those without AVX2 add the same whole numbers in another order."""
    import numba

    from pellucid.layers import tiles

    monkeypatch.setattr(tiles, "has", lambda feature: False)
    tile = tiles.whole_tile

    @numba.njit
    def one(x, weight, length, x_scale, scale, bias, out):
        tile(
            x.ctypes.data,
            weight.ctypes.data,
            length,
            x_scale.ctypes.data,
            scale.ctypes.data,
            bias.ctypes.data,
            out.ctypes.data,
            16,
        )

    random = np.random.default_rng(5)
    x = random.integers(-9999, 9999, (2, 64)).astype(np.int16)
    weight = random.integers(-127, 128, (4, 64)).astype(np.int16)
    x_scale, scale, bias = (random.random(n).astype(np.float32) for n in (2, 4, 4))
    out = np.zeros((2, 4), np.float32)
    one(x, weight, 64, x_scale, scale, bias, out)
    truth = (x.astype(np.int64) @ weight.T.astype(np.int64)) * x_scale[:, None] * scale + bias
    np.testing.assert_allclose(out, truth, rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("rows", [2, 3, 4, 5, 7, 131])
def test_tiles_of_floats(rows, parts):
    from pellucid.layers import tile_kernel, tiles

    for size, cols in [(4, tiles.LANES), (5, 17), (31, 83), (37, 1031)]:
        generator = torch.Generator().manual_seed(size)
        x = torch.randn(rows, cols, generator=generator)
        weight = torch.randn(size, cols, generator=generator)
        bias, out = torch.randn(size, generator=generator), torch.full((rows, size), 1e9)
        tile_kernel.project_float(weight.numpy(), bias.numpy(), x.numpy(), out.numpy(), parts)
        truth = x.double() @ weight.double().T + bias
        theirs = torch.nn.functional.linear(x, weight, bias)
        allowed = (theirs - truth).abs().max() + 2**-22 * x.norm(dim=-1).max() * 2 * cols**0.5
        assert (out - truth).abs().max() <= allowed


@torch.no_grad()
def test_many_texts_times_a_vocabulary(monkeypatch):
    monkeypatch.setattr(matrix_vector, "WIDE", 31)
    generator = torch.Generator().manual_seed(5)
    x, weight = (
        torch.randn(2, 17, 83, generator=generator),
        torch.randn(37, 83, generator=generator),
    )
    found = matrix_vector.linear(x, weight, None)
    torch.testing.assert_close(found, x @ weight.T, rtol=1e-5, atol=1e-4)


def test_parts_of_a_product_are_whole_tiles():
    """The last tile may lie over the one before it: that one must be of the same part."""
    from pellucid.layers.tile_kernel import bounds

    for size in range(1, 67):
        for parts in (1, 2, 3, 8):
            found = [bounds(size, part, parts) for part in range(parts)]
            columns = [column for low, high in found for column in range(low, high)]
            assert columns == list(range(size))
            for low, high in found:
                assert high - low > 4 or low in (0, size)


def test_elementary_functions():
    from pellucid.attention.numba_cache import kernel
    from pellucid.layers.elementary import erf, exp, tanh

    @kernel
    def all_of(x, exps, erfs, tanhs):
        for i in range(len(x)):
            exps[i], erfs[i], tanhs[i] = exp(x[i]), erf(x[i]), tanh(x[i])

    x = torch.cat([torch.linspace(-86, 87, 9973), torch.linspace(-5, 5, 9973), torch.zeros(1)])
    found = torch.empty(3, len(x))
    all_of(x.numpy(), *found.numpy())
    truth = x.double().exp(), x.double().erf(), x.double().tanh()
    assert ((found[0] - truth[0]) / truth[0]).abs().max() <= 1.5e-7
    assert (found[1] - truth[1]).abs().max() <= 4e-7
    assert (found[2] - truth[2]).abs().max() <= 3e-7
    odd = torch.tensor([torch.nan, -torch.inf, -88.0, torch.inf])
    found = torch.empty(3, 4)
    all_of(odd.numpy(), *found.numpy())
    assert found[:, 0].isnan().all()
    assert found[:, 1].tolist() == found[:, 2].tolist() == [0, -1, -1]
    assert found[:, 3].tolist() == [pytest.approx(np.exp(88.0), rel=1e-6), 1, 1]

"""Products by AMX: float32 as exact as torch's, and whole numbers of 16 bits."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import pellucid
from pellucid.layers import matrix_vector

pytest.importorskip("numba")

from pellucid.layers import amx_tiles

pytestmark = pytest.mark.skipif(
    not amx_tiles.is_available(), reason="this processor has no AMX, or may not use it"
)
SIZES = [(48, 4, 8), (53, 37, 131), (131, 67, 1031), (83, 32, 64), (1031, 11, 17)]


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    monkeypatch.setattr(matrix_vector, "WORTHWHILE", 0)
    monkeypatch.setattr(matrix_vector, "LONG", 0)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def used(monkeypatch):
    """How often the matrix unit multiplied floats."""
    calls = []
    original = matrix_vector._float_product

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(matrix_vector, "_float_product", counted)
    return calls


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("rows", "size", "cols"), SIZES)
@torch.no_grad()
def test_floats_are_no_further_from_float64_than_by_torch(rows, size, cols, used):
    generator = torch.Generator().manual_seed(cols)
    layer = nn.Linear(cols, size)
    x = torch.randn(rows, cols, generator=generator) * torch.logspace(-9, 9, rows)[:, None]
    found = matrix_vector.project(layer, x)
    assert len(used) == 1
    truth = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    sizes = F.linear(x.double().abs(), layer.weight.double().abs(), layer.bias.double().abs())
    theirs = ((F.linear(x, layer.weight, layer.bias) - truth).abs() / sizes).max()
    assert ((found - truth).abs() / sizes).max() <= theirs + 2**-23


@torch.no_grad()
def test_every_digit_counts():
    """24 bits: products of what two numbers of bfloat16 leave over would not be seen otherwise."""
    x = torch.full((61, 7), 1 + 2**-23)
    weight = torch.full((5, 7), 1 - 2**-24)
    found = matrix_vector.linear(x, weight, None)
    truth = x.double() @ weight.double().T
    assert ((found - truth) / truth).abs().max() <= 2**-22


@torch.no_grad()
def test_what_is_not_finite_stays_where_it_is():
    torch.manual_seed(7)
    x, weight, bias = torch.randn(61, 41), torch.randn(37, 41), torch.randn(37)
    x[3, 5], x[7, 0], x[11, 40], x[13] = torch.inf, -torch.inf, torch.nan, 1e36
    weight[31, 2] = torch.inf
    found, truth = matrix_vector.linear(x, weight, bias), F.linear(x, weight, bias)
    is_finite = truth.isfinite()
    torch.testing.assert_close(found[is_finite], truth[is_finite], rtol=1e-3, atol=1e-4)
    is_infinite = F.linear(x.double(), weight.double(), bias.double()).isinf()
    assert torch.equal(found[is_infinite], truth[is_infinite])
    assert found[11].isnan().all()
    assert is_finite[0, :31].all()


@torch.no_grad()
def test_products_as_large_as_float32_holds():
    x = torch.full((61, 3), 2.0**100)
    assert (matrix_vector.linear(x, x[:5] / 2.0**80, None) == 3 * 2.0**120).all()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("rows", "size", "cols"), [(2, 4, 32), (5, 37, 131), (83, 11, 4099)])
@torch.no_grad()
def test_inputs_are_rounded_to_sixteen_bits_whatever_the_length(rows, size, cols):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, cols, generator=generator) * torch.logspace(-3, 3, rows)[:, None]
    weight = torch.randint(-127, 128, (size, cols), dtype=torch.int8, generator=generator)
    scale, bias = torch.rand(2, size, generator=generator)
    found = matrix_vector.linear(x, weight, bias, scale)
    wide = weight * scale.double()[:, None]
    truth = x.double() @ wide.T + bias
    step = x.double().abs().amax(-1, keepdim=True) / (2**15 - 1)
    rounding = 2**-22 * (x.double().abs() @ wide.abs().T + 1)
    assert ((found - truth).abs() <= step / 2 * wide.abs().sum(-1) + rounding).all()


@torch.no_grad()
def test_the_longest_rows_have_room():
    cols = matrix_vector.MOST_COLUMNS
    x, weight = torch.ones(3, cols), torch.full((5, cols), 127, dtype=torch.int8)
    x[1] = -1
    x[2] = 255 / 32767
    x[2, 0] = 1
    found = matrix_vector.linear(x, weight, None, torch.ones(5))
    truth = x.double().sum(-1, keepdim=True).expand(3, 5) * 127
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=0)


def test_parts_meet_at_any_column():
    from pellucid.layers import amx_kernel

    random = np.random.default_rng(3)
    x, weight = (random.standard_normal(size, np.float32) for size in ((61, 33), (79, 33)))
    bias, out = np.empty(0, np.float32), np.empty((61, 79), np.float32)
    for parts in (1, 2, 3, 7):
        out[:] = 1e9
        amx_kernel.project_float(weight, bias, x, out, parts)
        np.testing.assert_allclose(out, x @ weight.T, rtol=1e-5, atol=1e-5)


def test_a_layer_that_somebody_observes_runs_as_it_is(used):
    layer = nn.Linear(23, 29)
    x = torch.randn(2, 31, 23)
    matrix_vector.project(layer, x)  # with gradients
    assert not used
    with torch.no_grad():
        torch.func.vmap(lambda row: matrix_vector.project(layer, row.expand(61, 23)))(x[0])
        with FlopCounterMode(display=False) as counter:
            matrix_vector.project(layer, x)
        assert counter.get_total_flops() == 2 * 62 * 23 * 29
        with pellucid.watch(layer):
            matrix_vector.project(layer, x)
        handle = layer.register_forward_hook(lambda *_: torch.zeros(1))
        assert matrix_vector.project(layer, x).shape == (1,)
        handle.remove()
        assert not used
        found = matrix_vector.project(layer, x)
        assert len(used) == 1
        torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-5)

"""A compiled model runs eagerly while it is watched, and compiled again afterwards."""

import pytest
import torch
from tests.lens.tiny import LAYERS, build, some_ids
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

import pellucid


def compiled_whole(model):
    return torch.compile(model, backend="eager"), model


def compiled_in_place(model):
    model.compile(backend="eager")
    return model, model


def compiled_in_part(model):
    model.encoder.layer[1] = torch.compile(model.encoder.layer[1], backend="eager")
    return model, model


@pytest.mark.filterwarnings("ignore")  # those of torch's compiler
@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("make", [compiled_whole, compiled_in_place, compiled_in_part])
def test_a_compiled_model_is_seen(make, used_before):
    plain = build("bert", "sdpa")
    compiled, _ = make(build("bert", "sdpa"))
    ids = some_ids()
    with torch.no_grad():
        if used_before:
            compiled(ids)
        with pellucid.watch(plain) as expected:
            plain(ids)
        with pellucid.watch(compiled) as seen:
            compiled(ids)
        assert seen.unseen == {}
        assert seen.names == expected.names
        assert len(seen.records) == LAYERS
        for record, other in zip(seen.records, expected, strict=True):
            torch.testing.assert_close(record.weights.dense(), other.weights.dense())
        torch.testing.assert_close(compiled(ids)[0], plain(ids)[0])
    torch._dynamo.reset()


class ByHand(nn.Module):
    def forward(self, x):
        return (x @ x.mT).softmax(-1) @ x


class Fused(nn.Module):
    def forward(self, x):
        return scaled_dot_product_attention(x, x, x)


def traced(model, x):
    return torch.jit.trace(model, (x,)).code


def as_operators(model, x):
    return make_fx(model)(x).code


def counted(model, x):
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
@pytest.mark.parametrize("look", [traced, as_operators, counted])
@pytest.mark.parametrize("kind", [ByHand, Fused])
def test_who_traces_or_counts_sees_the_model_alone(kind, look):
    model, x = kind().eval(), torch.randn(2, 3, 5, 11)
    with torch.no_grad():
        expected = look(model, x)
        with pellucid.watch(model) as seen:
            assert look(model, x) == expected
    scale = 11**-0.5 if kind is Fused else 1
    torch.testing.assert_close(seen[""].dense(), (x @ x.mT * scale).softmax(-1))

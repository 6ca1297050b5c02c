"""A compiled model runs eagerly while it is watched, and compiled again afterwards."""

import pytest
import torch
from tests.lens.tiny import LAYERS, build, some_ids

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

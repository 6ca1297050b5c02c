"""Products in bfloat16: as far from the truth as their rounding, and only where they are asked for.

On any processor: where bfloat16 is emulated, these sizes are small enough.
"""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.stacks import BATCH, TOKENS, VOCABULARY, configs, of, some_ids

from pellucid import watch
from pellucid.errors import ArgumentError
from pellucid.layers import bfloat16
from pellucid.layers.bfloat16 import lowered, precision, product, products, resolved
from pellucid.models import Config

LOW, HIGH = torch.bfloat16, torch.float32


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)


def run(model, kind, parts=(TOKENS,)):
    ids = some_ids()
    with torch.no_grad():
        if kind == "encoder-decoder":
            return model(ids, ids.flip(0))
        if len(parts) > 1:
            cache = model.cache(BATCH, TOKENS)
            return torch.cat([model(part, cache=cache) for part in ids.split(parts, 1)], 1)
        return model(ids)


def distance(found, truth):
    return float((found.double() - truth).norm() / truth.norm())


@st.composite
def kinds_and_configs(draw):
    kind = draw(st.sampled_from(["encoder", "decoder", "encoder-decoder"]))
    return kind, draw(configs(kind))


@settings(max_examples=40)
@given(which=kinds_and_configs(), cached=st.booleans())
def test_as_near_the_truth_as_a_model_of_bfloat16(which, cached):
    """Whose weights are rounded alike, and whose sums between the products are, too."""
    kind, config = which
    model = of(kind, config)
    truth = run(deepcopy(model).double(), kind)
    plain = distance(run(deepcopy(model).bfloat16(), kind), truth)
    with products("bfloat16"):
        found = run(model, kind, (3, 1, TOKENS - 4) if cached and kind == "decoder" else (TOKENS,))
    assert found.dtype == HIGH
    # Roundings may cancel by chance: some of them are allowed anyway.
    allowed = max(plain, 8 * torch.finfo(torch.bfloat16).eps)
    assert distance(run(model, kind), truth) < distance(found, truth) <= allowed


def a_model(kind="decoder"):
    return of(kind, Config(kind=kind, vocabulary=VOCABULARY, width=24, heads=3, hidden=31))


def test_a_prompt_read_so_is_continued_in_float32():
    model, ids = a_model(), some_ids()
    cache = model.cache(BATCH, TOKENS)
    with torch.no_grad():
        with products("bfloat16"):
            model(ids[:, :-1], cache=cache)
        assert {layer.keys.dtype for layer in cache.layers} == {HIGH}
        keys = cache.layers[0].keys[:, :, :-1]
        assert torch.equal(keys, keys.bfloat16().float())
        found = model(ids[:, -1:], cache=cache)
    assert (
        cache.layers[0].keys[:, :, -1].bfloat16().float().ne(cache.layers[0].keys[:, :, -1]).any()
    )
    assert 1e-5 < distance(found[:, 0], run(model, "decoder")[:, -1].double()) < 0.01


def test_a_watch_sees_it():
    model = a_model()
    with products("bfloat16"), watch(model) as seen:
        run(model, "decoder")
    assert [record.query.dtype for record in seen.records] == [LOW] * model.config.layers


@pytest.mark.usefixtures("fast")
def test_nothing_is_left_behind():
    model, plain = a_model(), run(a_model(), "decoder")
    with pytest.raises(RuntimeError), precision("bfloat16"):
        raise RuntimeError
    assert torch.equal(run(model, "decoder"), plain)
    with precision("bfloat16"):
        low = run(model, "decoder")
        with precision("float32"):
            assert torch.equal(run(model, "decoder"), plain)
        assert torch.equal(run(model, "decoder"), low)
    assert not torch.equal(low, plain)
    assert torch.equal(run(model, "decoder"), plain)
    assert {one.dtype for one in model.state_dict().values()} == {HIGH}


@pytest.mark.usefixtures("fast")
def test_other_threads_and_tasks_are_not_concerned():
    model, plain = a_model(), run(a_model(), "decoder")

    async def beside():
        begun, done = asyncio.Event(), asyncio.Event()

        async def low():
            with precision("bfloat16"):
                begun.set()
                await done.wait()
                return run(model, "decoder")

        task = asyncio.create_task(low())
        await begun.wait()
        found = run(model, "decoder")
        done.set()
        return found, await task

    found, low = asyncio.run(beside())
    assert torch.equal(found, plain)
    assert not torch.equal(low, plain)
    with precision("bfloat16"), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(run, model, "decoder").result(), plain)


def test_a_weight_that_changes_is_rounded_anew():
    layer = torch.nn.Linear(7, 5)
    x = torch.randn(3, 7)

    def found():
        with torch.no_grad(), products("bfloat16"):
            return product(layer, lowered(x, layer), is_last=True)

    def expected():
        return torch.nn.functional.linear(
            x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()
        )

    for change in (
        lambda: None,
        lambda: layer.weight.mul_(3),
        lambda: layer.bias.add_(1),
        lambda: layer.load_state_dict(torch.nn.Linear(7, 5).state_dict()),
        lambda: setattr(layer, "weight", torch.nn.Parameter(torch.randn(5, 7))),
        lambda: setattr(layer.weight, "data", torch.randn(5, 7)),
    ):
        with torch.no_grad():
            change()
            assert torch.equal(found(), expected().float())
            assert torch.equal(found(), expected().float())


def test_what_was_rounded_goes_with_its_weight():
    gc.collect()
    before = len(bfloat16._rounded)
    model = a_model()
    with products("bfloat16"):
        run(model, "decoder")
    assert len(bfloat16._rounded) > before
    del model
    gc.collect()
    assert len(bfloat16._rounded) == before


def test_a_layer_with_a_hook_is_called():
    model, plain = a_model(), run(a_model(), "decoder")
    calls = []
    for block in model.decoder.blocks:
        for part in (block.attention.key, block.feed_forward.down):
            part.register_forward_hook(lambda *said: calls.append(said[-1].dtype))
    with products("bfloat16"):
        assert torch.equal(run(model, "decoder"), plain)
    assert calls == [HIGH] * (2 * len(model.decoder.blocks))


def test_where_gradients_are_needed_it_is_float32():
    model = a_model()
    plain = model(some_ids())
    with products("bfloat16"):
        found = model(some_ids())
    assert torch.equal(found, plain)
    found.sum().backward()
    assert model.decoder.blocks[0].feed_forward.up.weight.grad is not None


@pytest.mark.parametrize("has", [False, True])
def test_what_is_asked_of_a_processor(has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has)
    assert resolved("auto") == ("bfloat16" if has else "float32")
    assert resolved("float32") == "float32"
    if has:
        assert resolved("bfloat16") == "bfloat16"
    else:
        with pytest.raises(ArgumentError, match="no AMX, without which bfloat16 is slower"):
            resolved("bfloat16")


def test_a_precision_that_is_none():
    with pytest.raises(ArgumentError, match="precision must be one of auto, float32, bfloat16"):
        resolved("half")

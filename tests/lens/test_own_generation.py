"""Generation by our own models: one growing record a layer, each key once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import writers
from tests.models.stacks import BATCH, TOKENS, configs, of, some_ids

import pellucid
from pellucid import masks
from pellucid.models import Config
from pellucid.tasks.generation import generate
from pellucid.tasks.sampling import Sampling

# float32 throughout: a few hundred sums of numbers about 1, in two orders.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PLAIN = Config(kind="decoder", vocabulary=53, width=24, heads=3, kv_heads=1, hidden=17, layers=2)
PAIR = Config(kind="encoder-decoder", vocabulary=53, width=24, heads=3, hidden=17, layers=2)


def own(model):
    return [f"decoder.blocks.{number}.attention" for number in range(len(model.decoder.blocks))]


def cross(model):
    return [f"decoder.blocks.{number}.cross" for number in range(len(model.decoder.blocks))]


def in_steps(model, ids, cache, *sizes):
    start = cache.start
    for size in sizes:
        model(ids[:, start : start + size], cache=cache, last=True)
        start += size


def assert_same(seen, whole, names):
    assert [record.name for record in seen.records if record.name in names] == names  # one each
    for name in names:
        got, wanted = seen.record(name), whole.record(name)
        assert got.shape == wanted.shape
        torch.testing.assert_close(got.key, wanted.key, **CLOSE)
        torch.testing.assert_close(got.weights.dense(), wanted.weights.dense(), **CLOSE)


@settings(max_examples=30, deadline=None)
@given(config=configs("decoder"), first=st.integers(1, 9), chunk=st.sampled_from([1, 4]))
def test_steps_are_one_triangle(config, first, chunk):
    model, ids = of("decoder", config), some_ids(tokens=17)
    sizes = [first] + [chunk] * ((17 - first) // chunk)
    with torch.no_grad():
        _, whole = model(ids[:, : sum(sizes)], watch=True)
        with pellucid.watch(model) as seen:
            in_steps(model, ids, model.cache(BATCH, TOKENS), *sizes)
    assert not seen.unseen
    assert_same(seen, whole, own(model))
    for record in seen.records:
        assert torch.equal(record.query_ids, ids[:, : sum(sizes)])


@settings(max_examples=15, deadline=None)
@given(config=configs("encoder-decoder"))
def test_an_encoder_decoder_in_steps(config):
    model, source, target = of("encoder-decoder", config), some_ids(tokens=13), some_ids(seed=2)
    mask = masks.padding(torch.tensor([13, 4, 9]))
    with torch.no_grad():
        with pellucid.watch(model) as whole:
            model(source, target, mask)
        with pellucid.watch(model) as seen:
            memory, cache = model.encode(source, mask), model.cache(BATCH, TOKENS)
            for place in range(TOKENS):
                model.decode(target[:, place : place + 1], memory, mask, cache=cache)
    assert not seen.unseen
    assert_same(seen, whole, own(model))
    assert_same(seen, whole, cross(model))


def test_generate_under_a_watch():
    model = writers.writer()
    with pellucid.watch(model) as seen:
        [found] = generate(model, ["Once upon a time"], max_tokens=20)
    tokens = [*found.prompt_ids, *found.ids]
    with torch.no_grad():
        _, whole = model(torch.tensor([tokens[:-1]]), watch=True)  # the last is not read
    assert_same(seen, whole, own(model))
    assert seen.record(own(model)[0]).query_ids[0].tolist() == tokens[:-1]
    # What is watched is not computed in one compiled loop, and writes the same.
    assert generate(model, ["Once upon a time"], max_tokens=20)[0].ids == found.ids


def test_each_key_is_held_once():
    model = of("decoder", PLAIN)
    with torch.no_grad(), pellucid.watch(model) as seen:
        in_steps(model, some_ids(tokens=17), model.cache(BATCH, 500), 7, *[1] * 10)
    queries, keys = BATCH * 17 * 3 * 8, BATCH * 17 * 8  # three heads, one of keys
    ids, logsumexps = 8 * BATCH * 17, 4 * BATCH * 17 * 3
    for record in seen.records:
        held = sum(x.nbytes for x in record.tensors())
        assert held <= 4 * (queries + keys) + 2 * ids + logsumexps


def test_two_generations_with_one_cache_each():
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)
    with torch.no_grad():
        _, whole = model(ids[:, :9], watch=True)
        with pellucid.watch(model) as seen:
            one, other = model.cache(BATCH, TOKENS), model.cache(BATCH, TOKENS)
            for cache in (one, other, one, other):
                in_steps(model, ids, cache, *((7,) if cache.start == 0 else (1, 1)))
    for name in own(model):
        records = [record for record in seen.records if record.name == name]
        assert len(records) == 2
        for record in records:
            expected = whole.record(name).weights.dense()
            torch.testing.assert_close(record.weights.dense(), expected, **CLOSE)


def test_a_watch_that_begins_in_the_middle():
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)
    with torch.no_grad():
        _, whole = model(ids[:, :11], watch=True)
        cache = model.cache(BATCH, TOKENS)
        in_steps(model, ids, cache, 7, 1)
        with pellucid.watch(model) as seen:
            in_steps(model, ids, cache, 1, 1, 1)
        in_steps(model, ids, cache, 1, 1)  # which writes on where the record has looked
    for name in own(model):
        record = seen.record(name)
        assert record.shape[-2:] == (3, 11)
        expected = whole.record(name).weights.dense()[:, :, -3:]
        torch.testing.assert_close(record.weights.dense(), expected, **CLOSE)


def test_steps_that_are_taken_back():
    """As speculative decoding does it: the cache counts fewer than it had."""
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)
    other = torch.cat([ids[:, :9], some_ids(tokens=4, seed=5)], 1)
    with torch.no_grad():
        _, whole = model(other, watch=True)
        with pellucid.watch(model) as seen:
            cache = model.cache(BATCH, TOKENS)
            in_steps(model, ids, cache, 7, 1, 1, 1, 1)
            cache.start = 9
            in_steps(model, other, cache, 1, 1, 1, 1)
    assert_same(seen, whole, own(model))


def test_a_cache_that_is_written_over_begins_another_record():
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)
    with torch.no_grad(), pellucid.watch(model) as seen:
        cache = model.cache(BATCH, TOKENS)
        in_steps(model, ids, cache, 7, 1)
        cache.layers[0].keys[:, :, 3] = 0
        in_steps(model, ids, cache, 1)
    first, other = own(model)
    assert [record.shape[-2:] for record in seen.records if record.name == first] == [
        (8, 8),
        (1, 9),
    ]
    assert [record.shape[-2:] for record in seen.records if record.name == other] == [(9, 9)]
    assert not seen.record(first).key[:, :, 3].any()


def test_a_text_that_leaves_begins_another_record():
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)
    kept = torch.tensor([0, 2])
    with torch.no_grad():
        _, whole = model(ids[kept, :11], watch=True)
        with pellucid.watch(model) as seen:
            cache = model.cache(BATCH, TOKENS)
            in_steps(model, ids, cache, 7, 1, 1)
            cache.select(torch.arange(BATCH))  # all go on
            cache.select(kept)
            in_steps(model, ids[kept], cache, 1, 1)
    for name in own(model):
        before, after = (record for record in seen.records if record.name == name)
        expected = whole.record(name).weights.dense()
        torch.testing.assert_close(before.weights.dense()[kept], expected[:, :, :9, :9], **CLOSE)
        torch.testing.assert_close(after.weights.dense(), expected[:, :, 9:], **CLOSE)


ORDERS = ([1, 0, 2], [0, 0, 1, 1, 2, 2], [2, 0, 0], [1, 0])


@pytest.mark.parametrize("items", ORDERS)
def test_beams_are_followed_through_the_changes_of_their_order(items):
    """Each row is a beam of the last pass, with the past that it came to have."""
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)
    first, then = torch.tensor(items), torch.arange(len(items)).flip(0).clamp(max=1)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            cache = model.cache(BATCH, TOKENS)
            in_steps(model, ids, cache, 7, 1)
            cache.select(first)
            in_steps(model, ids[first].flip(0), cache, 1, 1)
            cache.select(then)
            in_steps(model, ids[then], cache, 1)
        texts = torch.cat([ids[first][:, :8], ids[first].flip(0)[:, 8:10]], 1)[then]
        texts = torch.cat([texts, ids[then][:, 10:11]], 1)
        _, whole = model(texts, watch=True)
    assert seen.unseen == {}
    assert_same(seen, whole, own(model))
    for record in seen.records:
        assert torch.equal(record.query_ids, texts)
        assert record.proof.rows


def test_one_text_that_becomes_several_beams():
    model, ids = of("decoder", PLAIN), some_ids(tokens=17)[:1]
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            cache = model.cache(1, TOKENS)
            in_steps(model, ids, cache, 7)
            cache.select(torch.tensor([0, 0]))
            in_steps(model, ids.expand(2, -1), cache, 1)
        _, whole = model(ids[:, :8].expand(2, -1), watch=True)
    assert_same(seen, whole, own(model))


def test_beams_with_a_memory_each():
    model, source, ids = of("encoder-decoder", PAIR), some_ids(tokens=13), some_ids(tokens=5)
    order = torch.tensor([2, 1, 1])
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            memory, cache = model.encode(source), model.cache(BATCH, TOKENS)
            model.decode(ids[:, :2], memory, cache=cache)
            cache.select(order)
            model.decode(ids[:, 2:3], memory[order], cache=cache)
        texts = torch.cat([ids[order, :2], ids[:, 2:3]], 1)
        _, whole = model(source[order], texts, watch=True)
    assert seen.unseen == {}
    assert_same(seen, whole, own(model))
    assert_same(seen, whole, cross(model))


def test_beams_that_share_a_memory_are_said():
    """They are so many queries to it, which are no texts of their own."""
    model, source = of("encoder-decoder", PAIR), some_ids(tokens=13)
    with torch.no_grad(), pellucid.watch(model) as seen:
        memory, cache = model.encode(source), model.cache(BATCH, TOKENS)
        model.decode(source[:, :1], memory, cache=cache)
        cache.select(torch.arange(BATCH).repeat_interleave(2), 2)
        model.decode(source[:, 1:2].repeat_interleave(2, 0), memory, cache=cache)
    assert set(seen.unseen) == set(cross(model))
    assert set(own(model)) < set(seen.names)
    for name in cross(model):
        assert (
            "'select' changed its cache, as beam search does; generate one text at a time"
            in (seen.unseen[name])
        )


def test_texts_of_several_lengths_are_a_record_a_step():
    model, ids, lengths = of("decoder", PLAIN), some_ids(), torch.tensor([3, 11, 7])
    new = some_ids(tokens=4, seed=2)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            cache = model.cache(BATCH, TOKENS)
            model(ids[:, :11], cache=cache, lengths=lengths, last=True)
            for place in range(4):
                model(new[:, place : place + 1], cache=cache, last=True)
        for name in own(model):
            records = [record for record in seen.records if record.name == name]
            assert [record.shape[-2] for record in records] == [11, 1, 1, 1, 1]
            for item, length in enumerate(lengths.tolist()):
                text = torch.cat([ids[item, :length], new[item]]).unsqueeze(0)
                _, alone = model(text, watch=True)
                expected = alone[name].dense()[0]
                first = records[0].weights.dense()[item, :, :length, :length]
                torch.testing.assert_close(first, expected[:, :length, :length], **CLOSE)
                for place, record in enumerate(records[1:]):
                    row, end = length + place, length + place + 1
                    found = record.weights.dense()[item, :, 0]
                    torch.testing.assert_close(found[:, :end], expected[:, row, :end], **CLOSE)
                    assert not found[:, end:].any()


def test_several_prompts_and_samples_under_a_watch():
    model = writers.writer()
    with pellucid.watch(model) as seen:
        generate(model, ["Once upon", "the ball rolled away"], max_tokens=5)
    assert len(seen.records) == 2 * 5  # a record a step of each layer
    with pellucid.watch(model) as seen:
        generate(model, ["Once"], max_tokens=5, samples=2, sampling=Sampling(), seed=1)
    assert (len(seen.records), seen.unseen) == (2, {})
    assert all(record.shape[0] == 2 for record in seen.records)


def test_nothing_is_left_behind():
    from pellucid.layers import cache

    before = (cache.LayerCache.add, cache.LayerCache.remember, cache.Cache.select)
    model = of("decoder", PLAIN)
    with pellucid.watch(model):
        assert cache.LayerCache.add is not before[0]
    assert (cache.LayerCache.add, cache.LayerCache.remember, cache.Cache.select) == before

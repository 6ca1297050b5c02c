"""Parts of another run, given weights, and paths from head to head."""

import sys

import pytest
import torch
from tests.lens.edited_eager import assert_close
from tests.lens.families import build, some_ids
from torch import nn

import pellucid
from pellucid import errors

BATCH, HEADS, KV_HEADS, TOKENS, DIM, VALUE_DIM = 2, 6, 3, 7, 11, 13
GROUP = HEADS // KV_HEADS
CAUSAL = torch.ones(TOKENS, TOKENS).tril().bool()


class Attend(nn.Module):
    """A layer of grouped heads."""

    def forward(self, query, key, value):
        return nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )


def parts(seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((HEADS, DIM), (KV_HEADS, DIM), (KV_HEADS, VALUE_DIM))
    return [torch.randn(BATCH, n, TOKENS, dim, generator=generator) for n, dim in sizes]


def recorded(layer, given):
    with torch.no_grad(), pellucid.watch(layer, values=True) as seen:
        layer(*given)
    return seen


def repeated(given):
    """Query, key and value of each head, in float64."""
    query, key, value = (x.double() for x in given)
    return [query, key.repeat_interleave(GROUP, 1), value.repeat_interleave(GROUP, 1)]


def pattern(query, key):
    scores = (query @ key.mT * DIM**-0.5).masked_fill(~CAUSAL, -torch.inf)
    return scores.softmax(-1)


def test_each_part_of_another_run():
    layer, here, there = Attend(), parts(3), parts(5)
    seen = recorded(layer, there)
    (q, k, v), (q2, k2, v2) = repeated(here), repeated(there)
    plain = pattern(q, k) @ v
    places, head, items = [2, 5], 1, 1
    for part in ("output", "pattern", "query", "key", "value"):
        q3, k3, v3 = (x.clone() for x in (q, k, v))
        for name, ours, theirs in (("query", q3, q2), ("key", k3, k2), ("value", v3, v2)):
            if part == name:
                ours[items, head, places] = theirs[items, head, places]
        weights = pattern(q3, k3)
        if part == "pattern":
            weights[items, head, places] = pattern(q2, k2)[items, head, places]
        truth = weights @ v3
        if part == "output":
            truth[items, head, places] = (pattern(q2, k2) @ v2)[items, head, places]
        with (
            torch.no_grad(),
            pellucid.intervene(layer) as edit,
            pellucid.watch(layer, values=True) as now,
        ):
            edit.patch(seen, "", head, queries=places, items=items, part=part)
            ours = layer(*here)
        assert_close(ours, truth)
        assert (ours - plain).abs().max() > 1e-2
        assert now.unseen == {}
        assert_close(now[""].dense(), weights)
        assert_close(now.record("").context, truth)


def test_a_watch_that_goes_on_gives_what_it_had():
    """It records the edited runs too; what is patched is that of the run before the edit."""
    layer, here, there = Attend(), parts(3), parts(5)
    with torch.no_grad(), pellucid.watch(layer, values=True) as seen:
        layer(*there)
        with pellucid.intervene(layer) as edit:
            edit.patch(seen, "", 1, part="value")
            first, second = layer(*here), layer(*here)
        assert (first - layer(*here)).abs().max() > 1e-2
    torch.testing.assert_close(first, second)


def test_one_item_serves_all():
    layer, here, there = Attend(), parts(3), parts(5)
    seen = recorded(layer, [x[:1] for x in there])
    (q, k, v), (q2, k2, v2) = repeated(here), repeated(there)
    truth = pattern(q, k) @ v
    truth[:, 4:] = (pattern(q2, k2) @ v2)[:1, 4:]
    with torch.no_grad(), pellucid.intervene(layer) as edit:
        edit.knock_out("", slice(4, None), by=seen)
        ours = layer(*here)
    assert_close(ours, truth)


@pytest.mark.parametrize("shape", [(2, TOKENS), (3, 2, TOKENS), (BATCH, 1, 1, TOKENS)])
def test_given_weights(shape):
    layer, here = Attend(), parts(3)
    given = torch.rand(shape, generator=torch.Generator().manual_seed(7))
    q, k, v = repeated(here)
    weights = pattern(q, k)
    whole = given.double()[(None,) * (4 - given.ndim)].expand(BATCH, 3, 2, TOKENS)
    for at, query in enumerate((1, 6)):
        weights[:, [0, 2, 5], query] = whole[:, :, at]
    with torch.no_grad(), pellucid.watch(layer) as seen, pellucid.intervene(layer) as edit:
        edit.set_weights("", [5, 0, 2], given, queries=[6, 1])
        ours = layer(*here)
    assert_close(ours, weights @ v)
    assert_close(seen[""].dense(), weights)


def test_gradients_of_every_edit_are_those_of_the_formula():
    layer, given = Attend(), [x.double().requires_grad_() for x in parts(3)]
    seen = recorded(layer, parts(5))

    def edited(*given):
        with pellucid.intervene(layer) as edit:
            edit.knock_out("", 0, keys=[0, 3])
            edit.steer("", 1, keys=2, factor=0.3)
            edit.knock_out("", 2, keys=1, renormalize=False)
            edit.scale("", 3, -1.5)
            edit.patch(seen, "", 4, part="query", queries=slice(2, 5))
            edit.knock_out("", 5, by="mean")
            return layer(*given)

    assert torch.autograd.gradcheck(edited, given, fast_mode=True)


def with_eager(model, replaced):
    """The model's outputs on ids, its eager attention called by `replaced`."""
    file = sys.modules[type(model).__module__]
    original = file.eager_attention_forward

    def run(ids):
        names = {id(module): name for name, module in model.named_modules()}

        def attend(module, *args, **options):
            return replaced(names[id(module)], *original(module, *args, **options))

        file.eager_attention_forward = attend
        try:
            with torch.no_grad():
                return model(ids)[0]
        finally:
            file.eager_attention_forward = original

    return run


def test_outputs_patched_into_a_model_of_transformers():
    name, here, there = "llama, grouped heads", some_ids(), some_ids().flip(1)
    eager = build(name, "eager")
    kept = {}

    def keep(place, context, weights):
        kept[place] = context
        return context, weights

    def put(place, context, weights):
        if place == "layers.0.self_attn":
            context = context.clone()
            context[:, 5, 2] = kept[place][:, 5, 2]
        return context, weights

    with_eager(eager, keep)(there)
    truth = with_eager(eager, put)(here)
    model = build(name, "sdpa")
    with torch.no_grad():
        with pellucid.watch(model, values=True) as seen:
            model(there)
        with pellucid.intervene(model) as edit:
            edit.patch(seen, 0, 2, queries=5)
            ours = model(here)[0]
    assert_close(ours, truth)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_path_from_head_to_head(part):
    """The same three runs, in the model's own eager code."""
    name, here, there = "llama, grouped heads", some_ids(), some_ids().flip(1)
    file = sys.modules[type(build(name, "eager")).__module__]
    original, eager = file.eager_attention_forward, build(name, "eager")
    first, second = "layers.0.self_attn", "layers.1.self_attn"
    names = {id(module): place for place, module in eager.named_modules()}
    kept = {}

    def run(ids, change):
        def attend(module, query, key, value, mask, **options):
            place = names[id(module)]
            key, value = (x.repeat_interleave(3, 1) for x in (key, value))
            module.num_key_value_groups = 1
            given = {"query": query, "key": key, "value": value}
            change(place, given)
            context, weights = original(module, *given.values(), mask, **options)
            return change(place, context.transpose(1, 2)).transpose(1, 2), weights

        file.eager_attention_forward = attend
        try:
            with torch.no_grad():
                return eager(ids)[0]
        finally:
            file.eager_attention_forward = original

    def keep(key):
        def change(place, x):
            kept[key, place, type(x)] = dict(x) if isinstance(x, dict) else x.clone()
            return x

        return change

    def freeze(place, x):
        if isinstance(x, dict):
            kept["told", place] = dict(x)
            return x
        context = kept["here", place, torch.Tensor].clone()
        if place == first:
            context[:, 4] = kept["there", place, torch.Tensor][:, 4]
        return context

    def receive(place, x):
        if isinstance(x, dict) and place == second:
            x[part] = x[part].clone()
            x[part][:, 1] = kept["told", place][part][:, 1]
        return x

    run(there, keep("there"))
    plain = run(here, keep("here"))
    run(here, freeze)
    truth = run(here, receive)
    model = build(name, "sdpa")
    with torch.no_grad():
        with pellucid.watch(model, values=True) as seen:
            model(there)
        ours = pellucid.lens.path_patch(
            model, lambda: model(here)[0], seen, (0, 4), (1, 1), part=part
        )
    assert_close(ours, truth)
    assert (truth - plain).abs().max() > 1e-2 * plain.abs().max()


@pytest.mark.parametrize(
    ("sender", "receiver", "options", "words"),
    [
        ((1, 0), (0, 0), {}, "does not run after"),
        ((0, 0), (0, 1), {}, "does not run after"),
        ((0, 6), (1, 0), {}, "there is no head 6"),
        ((0, 0), ("*", 0), {}, "means 2 modules"),
        (0, (1, 0), {}, r"must be \(layer, head\)"),
        ((0, 0), (1, 0), {"part": "output"}, "part must be one of"),
    ],
)
def test_bad_paths(sender, receiver, options, words):
    model = build("llama, grouped heads", "sdpa")
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(some_ids())
        with pytest.raises(errors.PellucidError, match=words):
            pellucid.lens.path_patch(
                model, lambda: model(some_ids()), seen, sender, receiver, **options
            )


@pytest.mark.parametrize(
    ("edits", "error", "words"),
    [
        (lambda e, s: e.patch(s, head=6), errors.OutOfRangeError, "there is no head 6"),
        (lambda e, s: e.patch(s, part="scores"), errors.ArgumentError, "part must be one of"),
        (lambda e, s: e.patch("run"), errors.TypeMismatchError, "must be a Recording"),
        (lambda e, s: e.set_weights(weights=[1.0]), errors.TypeMismatchError, "float tensor"),
        (lambda e, s: e.set_weights(weights=torch.ones(3)), errors.ShapeError, "got shape"),
        (lambda e, s: e.set_weights(weights=torch.ones(2, 7)), errors.ShapeError, "2 queries"),
        (lambda e, s: e.set_weights(weights=torch.ones(7, 5)), errors.ShapeError, "5 keys"),
        (lambda e, s: e.set_weights(weights=torch.ones(2, 7, 7)), errors.ShapeError, "2 heads"),
        (
            lambda e, s: e.set_weights(weights=torch.full((7, 7), torch.inf)),
            errors.ArgumentError,
            "finite",
        ),
        (lambda e, s: e.steer(factor=2), errors.ArgumentError, "needs keys"),
        (lambda e, s: e.steer(keys=1, factor=-2), errors.ArgumentError, "above 0"),
        (lambda e, s: e.knock_out(keys=1, by=s), errors.ArgumentError, "whole heads"),
    ],
)
def test_bad_replacements(edits, error, words):
    layer, given = Attend(), parts(3)
    seen = recorded(layer, given)
    edit = pellucid.intervene(layer)

    def run():
        with edit:
            edits(edit, seen)
            layer(*given)

    with pytest.raises(error, match=words):
        run()


def test_recordings_that_lack_what_is_patched():
    layer, given = Attend(), parts(3)
    with torch.no_grad(), pellucid.watch(layer) as without_values:
        layer(*given)
    short = recorded(layer, [x[:, :, :4] for x in given])
    three = recorded(layer, [torch.cat([x, x[:1]]) for x in given])

    def patched(seen, **options):
        with pellucid.intervene(layer) as edit:
            edit.patch(seen, **options)
            return layer(*given)

    with pytest.raises(errors.ArgumentError, match="values=True"):
        patched(without_values)
    with pytest.raises(errors.OutOfRangeError, match="no position 6"):
        patched(short)
    with pytest.raises(errors.ShapeError, match="are for 4 keys"):
        patched(short, part="pattern", queries=2)
    pieces = pellucid.Recording("m", short.records, in_pieces={"": "each step has its own"})
    with pytest.raises(errors.ArgumentError, match="in pieces, since each step"):
        patched(pieces)
    with pytest.raises(errors.UnknownNameError, match="no attention"):
        patched(pellucid.Recording("none"))
    assert torch.equal(patched(three), layer(*given))

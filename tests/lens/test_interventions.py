"""Interventions give what each model's own eager code gives with its scores masked."""

import math

import numpy as np
import pytest
import torch
from tests.lens.edited_eager import assert_close, eager_edits, hidden, in_float64
from tests.lens.families import DECODERS, FAMILIES, build, inputs, present_rows, some_ids
from torch import nn

import pellucid
from pellucid import errors
from pellucid.attention import reference

SOME = ("bert", "gpt2", "llama, grouped heads", "t5")
CASES = [
    pytest.param(
        name, x, marks=[pytest.mark.slow] if x != kind.default and name not in SOME else []
    )
    for name, kind in FAMILIES.items()
    if kind.eager_is_seen
    for x in kind.implementations
]


STEPS = ("gpt2", "llama, grouped heads", "mistral, a window", "gpt-oss, sinks", "deepseek-v3")
STEPPED = [
    pytest.param(name, marks=[] if name in STEPS else [pytest.mark.slow]) for name in DECODERS
]


def places_of(name):
    """Queries, and keys that they see, in every text or picture of a family."""
    return (slice(6, 9), [5, 7]) if FAMILIES[name].reads_text else (slice(2, 4), [1, 3])


def first(output):
    return output[0]


def test_more_than_thirty_families_are_compared():
    """As docs/intervene.md says."""
    assert len({case.values[0] for case in CASES}) > 30


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_edits_equal_the_models_own_masked_eager_code(name, implementation):
    padding = "left" if FAMILIES[name].reads_text else "none"
    given, (queries, keys) = inputs(name, padding), places_of(name)

    def same(place, query, ones):
        parts = place.split(".")
        layer = next((int(part) for part in parts if part.isdigit()), None)
        factors = torch.ones_like(query[..., 0])
        if layer == 0:
            factors[:, 1] = 0
            raised = hidden(ones, slice(None), [2], slice(None), keys)
            return raised.masked_fill(raised < 0, math.log(3)), factors
        if layer == 1:
            factors[:, 1, 3] = factors[:, 1, -1] = 0.5
            return hidden(ones, [1], [0, 2], queries, keys), factors
        return None, factors

    model, exact = build(name, "eager"), given
    if padding == "none":  # or masks in float64 would overflow where softmaxes are float32
        model, exact = model.double(), in_float64(given)
    with torch.no_grad(), eager_edits(model, same):
        truth = first(model(**exact))

    model = build(name, implementation)
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        plain = first(model(**given))
        with pellucid.intervene(model) as edit:
            edit.knock_out(0, 1)
            edit.steer(0, 2, keys, 3)
            if name != "albert":
                edit.knock_out(1, [0, 2], queries, keys, items=1)
                edit.scale(1, 1, 0.5, queries=[3, -1])
            ours = first(model(**given))

    rows = None
    if FAMILIES[name].reads_text:
        rows = present_rows(name, "", padding, truth.shape[1])
    assert_close(ours, truth, rows)
    with pytest.raises(AssertionError):
        assert_close(plain, truth, rows)
    assert seen.unseen == {}
    assert all(proof.error <= proof.allowed for proof in seen.proof.values())


@pytest.mark.parametrize("name", STEPPED)
def test_positions_are_those_of_the_text_in_every_step(name):
    """A prompt, then one token after another, is one pass over all of it."""
    ids, prompt = some_ids(), 6
    model = build(name, FAMILIES[name].default, generating=True)
    with torch.no_grad(), pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
        edit.knock_out(1, [0, 2], keys=[1, 7])
        edit.knock_out(0, 1, queries=[4, 8])
        edit.scale(0, 0, -2, queries=slice(9, None))
        output = model(ids[:, :prompt], use_cache=True)
        logits = [output.logits]
        for at in range(prompt, ids.shape[1]):
            past = output.past_key_values
            output = model(ids[:, at : at + 1], past_key_values=past, use_cache=True)
            logits.append(output.logits)
    assert seen.unseen == {}

    def same(place, query, ones):
        factors = torch.ones_like(query[..., 0])
        if ".1." in place:
            return hidden(ones, slice(None), [0, 2], slice(None), [1, 7]), None
        factors[:, 1, [4, 8]] = 0
        factors[:, 0, 9:] = -2
        return None, factors

    if FAMILIES[name].eager_is_seen:
        model = build(name, "eager", generating=True)
        with torch.no_grad(), eager_edits(model, same):
            truth = model(ids).logits
        assert_close(torch.cat(logits, 1), truth)


WIDTH, HEADS, BATCH = 22, 2, 3


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def by_hand(module, query, key, value, padding, hides, factors):
    """What `nn.MultiheadAttention` computes, with masked scores and scaled heads, in float64."""
    weight, bias = module.in_proj_weight.double(), module.in_proj_bias.double()
    query, key, value = (
        (x.double() @ w.T + b).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
    )
    scores = query @ key.mT * query.shape[-1] ** -0.5
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None], -torch.inf)
    weights = scores.masked_fill(hides, -torch.inf).softmax(-1)
    context = (weights @ value) * factors[..., None]
    projection = module.out_proj
    joined = context.transpose(1, 2).flatten(2)
    return joined @ projection.weight.double().T + projection.bias.double(), weights


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_torchs_multi_head_attention(first, padded, need_weights):
    torch.manual_seed(5)
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=first).eval()
    query, key = some(BATCH, 5, WIDTH), some(BATCH, 7, WIDTH)
    padding = torch.zeros(BATCH, 7, dtype=torch.bool) if padded else None
    if padded:
        padding[1, -2:] = True
    hides = torch.zeros(BATCH, HEADS, 5, 7, dtype=torch.bool)
    hides[:, 1, :, 2] = True
    factors = torch.ones(BATCH, HEADS, 5)
    factors[2, 0, 1], factors[0, 0] = 3, 0
    truth, weights = by_hand(module, query, key, key, padding, hides, factors)
    weights[0, 0] = 0
    if not first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    with torch.no_grad(), pellucid.watch(module) as seen, pellucid.intervene(module) as edit:
        edit.knock_out(head=1, keys=2)
        edit.scale(head=0, factor=3, queries=1, items=-1)
        edit.knock_out(head=0, items=[0])
        ours, own = module(query, key, key, padding, need_weights)
    ours = ours if first else ours.transpose(0, 1)
    assert_close(ours, truth)
    assert_close(seen[""].dense(), weights)
    if need_weights:
        assert_close(own, weights.mean(1))
    assert seen.proof[""].rows


def test_the_native_fast_path_gives_way():
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 13, batch_first=True).eval()
    x = some(BATCH, 5, WIDTH)
    with torch.no_grad():
        plain = layer(x)
        with pellucid.intervene(layer) as edit:
            edit.knock_out("self_attn", 1)
            ours = layer(x)
        again = layer(x)
        layer.self_attn.out_proj.weight[:, WIDTH // 2 :] = 0
        truth = layer(x)
    assert_close(ours, truth)
    assert torch.equal(plain, again)
    assert not torch.allclose(plain, truth, atol=1e-2)


class Own(nn.Module):
    """A layer that calls `pellucid.attention`."""

    def forward(self, query, key, value, mask):
        return pellucid.attention(query, key, value, mask)


@pytest.mark.parametrize("grad", [False, True])
def test_pellucids_own_attention(grad):
    query, key, value = (some(2, heads, n, 11, seed=heads) for heads, n in ((6, 5), (3, 7), (3, 7)))
    layer = Own()
    with torch.set_grad_enabled(grad), pellucid.intervene(layer) as edit:
        edit.knock_out(head=[0, 5], keys=[1, 4], items=0)
        edit.scale(head=3, factor=-2.5)
        ours, weights = layer(query, key, value, pellucid.masks.causal(2))
    mask = pellucid.masks.causal(2).dense(5, 7).expand(2, 6, 5, 7).clone()
    mask[0, [0, 5], :, 1] = mask[0, [0, 5], :, 4] = False
    found = reference.stages(*(x.double() for x in (query, key, value)), mask)
    truth, expected = found.context.clone(), found.weights
    truth[:, 3] *= -2.5
    assert_close(ours, truth)
    assert_close(weights.dense(), expected)


class Plain(nn.Module):
    """A layer that calls `F.scaled_dot_product_attention`."""

    def forward(self, query, key, value, **options):
        return nn.functional.scaled_dot_product_attention(query, key, value, **options)


@pytest.mark.parametrize("size", [1, 3])
def test_rows_that_lose_nearly_all_their_weight(size):
    """The closed form divides by what is left; such rows are computed anew."""
    query, key, value = (size * some(2, 3, n, 11, seed=n) for n in (23, 29, 31))
    value = some(2, 3, 29, 13)
    layer = Plain()
    best = (query @ key.mT).sum((0, 1, 2)).argmax()
    with torch.no_grad(), pellucid.watch(layer) as seen, pellucid.intervene(layer) as edit:
        edit.knock_out(keys=int(best))
        ours = layer(query, key[:, :, :29], value)
    query, key, value = (x.double() for x in (query, key[:, :, :29], value))
    scores = query @ key.mT * 11**-0.5
    scores[..., best] = -torch.inf
    weights = scores.softmax(-1)
    assert_close(ours, weights @ value)
    assert_close(seen[""].dense(), weights)


def test_a_row_that_loses_all_its_weight_gives_zeros():
    query, key, value = (some(2, 3, 7, 11, seed=n) for n in range(3))
    layer = Plain()
    with torch.no_grad(), pellucid.intervene(layer) as edit:
        edit.knock_out(keys=0)
        ours = layer(query, key, value, is_causal=True)
    assert torch.equal(ours[:, :, 0], torch.zeros(2, 3, 11))
    assert ours[:, :, 1:].abs().amin(-1).min() > 0


def test_links_dropped_without_normalising_the_others():
    query, key, value = (some(2, 3, 7, 11, seed=n) for n in range(3))
    layer = Plain()
    weights = (query.double() @ key.double().mT * 11**-0.5).softmax(-1)
    weights[:, 1, :, [2, 5]] = 0
    for options in ({}, {"attn_mask": torch.zeros(7, 7)}):  # from the logsumexp, and anew
        with torch.no_grad(), pellucid.watch(layer) as seen, pellucid.intervene(layer) as edit:
            edit.knock_out(head=1, keys=[2, 5], renormalize=False)
            ours = layer(query, key, value, **options)
        assert_close(ours, weights @ value.double())
        assert_close(seen[""].dense(), weights)
        assert seen.proof[""].rows


def test_the_mean_is_over_the_queries_of_an_item():
    query, key, value = (some(2, 3, 7, 11, seed=n) for n in range(3))
    layer = Plain()
    truth = (query.double() @ key.double().mT * 11**-0.5).softmax(-1) @ value.double()
    truth[:, 2, 4:] = truth[:, 2].mean(1, keepdim=True)
    with torch.no_grad(), pellucid.intervene(layer) as edit:
        edit.knock_out(head=-1, queries=slice(4, None), by="mean")
        ours = layer(query, key, value)
    assert_close(ours, truth)


def attend(layer, **options):
    with torch.no_grad():
        return layer(*(some(2, 3, 7, 11, seed=n) for n in range(3)), **options)


def edited(layer, edits, run=attend, **options):
    with pellucid.intervene(layer) as edit:
        edits(edit)
        return run(layer, **options)


def two(edit, first, second):
    for name, options in (first, second):
        getattr(edit, name)(**options)


CONTRADICTIONS = [
    (("knock_out", {"head": 1}), ("scale", {"head": [0, 1], "factor": 2})),
    (("knock_out", {"head": 1, "keys": 0}), ("knock_out", {})),
    (("knock_out", {"keys": 0}), ("knock_out", {"keys": slice(0, 2), "renormalize": False})),
    # Known once there is a call:
    (("scale", {"head": 2, "factor": 2}), ("knock_out", {"head": -1})),
    (("steer", {"keys": 6, "factor": 2}), ("knock_out", {"keys": slice(-2, None)})),
]


@pytest.mark.parametrize(("first", "second"), CONTRADICTIONS)
@pytest.mark.parametrize("turned", [False, True])
def test_contradictions(first, second, turned):
    pair = (second, first) if turned else (first, second)
    with pytest.raises(errors.ArgumentError, match="contradicts"):
        edited(Plain(), lambda edit: two(edit, *pair))


def test_a_column_and_a_head_can_be_knocked_out_together():
    def both(edit):
        edit.knock_out(keys=0)
        edit.knock_out(head=np.int64(1))
        edit.scale(head=0, factor=2)
        edit.knock_out(head=-1, by="mean")

    column = edited(Plain(), lambda edit: edit.knock_out(keys=0))
    column[:, 0] *= 2
    column[:, 1] = 0
    column[:, 2] = column[:, 2].mean(1, keepdim=True)
    torch.testing.assert_close(edited(Plain(), both), column)


@pytest.mark.parametrize("factor", [1e300, 1e-300])
@pytest.mark.parametrize("grad", [False, True])
def test_factors_that_no_float32_holds(factor, grad):
    query, key, value = (some(2, 3, 7, 11, seed=n) for n in range(3))
    with torch.set_grad_enabled(grad), pellucid.intervene(layer := Plain()) as edit:
        edit.steer(head=1, keys=2, factor=factor)
        ours = layer(query, key, value)[:, 1]
    others = [0, 1, 3, 4, 5, 6]
    without = (query[:, 1].double() @ key[:, 1, others].double().mT * 11**-0.5).softmax(-1)
    truth = without @ value[:, 1, others].double()
    assert_close(ours, value[:, 1, 2:3].expand_as(ours) if factor > 1 else truth)


@pytest.mark.parametrize(
    ("edits", "error", "words"),
    [
        (lambda e: e.knock_out(head=3), errors.OutOfRangeError, "there is no head 3 in ''"),
        (lambda e: e.knock_out(items=[0, 2]), errors.OutOfRangeError, "no item 2"),
        (lambda e: e.knock_out(queries=7), errors.ArgumentError, "no such position"),
        (lambda e: e.knock_out(keys=[2, 9]), errors.ArgumentError, "at key 9"),
        (lambda e: e.knock_out(4), errors.UnknownNameError, "there is no layer 4"),
        (lambda e: e.knock_out("a"), errors.UnknownNameError, "matches no module"),
        (lambda e: e.knock_out(head=[]), errors.ArgumentError, "an edit of no head"),
        (lambda e: e.knock_out(head="all"), errors.TypeMismatchError, "head must be"),
        (lambda e: e.knock_out(head=1.0), errors.TypeMismatchError, "head must be"),
        (lambda e: e.knock_out(by="noise"), errors.ArgumentError, "by must be"),
        (lambda e: e.knock_out(keys=1, by="mean"), errors.ArgumentError, "for whole heads"),
        (lambda e: e.knock_out(renormalize=False), errors.ArgumentError, "is for links"),
        (lambda e: e.scale(head=1), errors.TypeMismatchError, "factor must be a number"),
        (lambda e: e.scale(factor=float("nan")), errors.ArgumentError, "must be finite"),
    ],
)
def test_bad_edits(edits, error, words):
    with pytest.raises(error, match=words):
        edited(Plain(), edits)


def test_an_edit_that_does_nothing_is_an_error():
    model = nn.ModuleList([Plain(), Plain()])
    with pytest.raises(errors.ArgumentError, match="no attention of the model ran"):
        edited(model, lambda edit: edit.knock_out(head=1), lambda model: None)
    with pytest.raises(errors.ArgumentError, match="took no effect in layer 1"):
        edited(model, lambda edit: edit.knock_out([0, 1], 1), lambda model: attend(model[0]))
    edit = pellucid.intervene(model)
    with edit:
        edit.knock_out(queries=8)
        attend(model[0])
        with pytest.raises(errors.ArgumentError, match="took no effect"):
            edit.clear()
        edit.clear()


def test_an_error_of_the_user_comes_through():
    def fail(model):
        raise RuntimeError("an error of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        edited(Plain(), lambda edit: edit.knock_out(head=1), fail)


def test_dropout_and_edited_links_do_not_go_together():
    with pytest.raises(errors.ArgumentError, match="at random"):
        edited(Plain(), lambda edit: edit.knock_out(keys=1), dropout_p=0.5)
    assert not edited(Plain(), lambda edit: edit.knock_out(head=1), dropout_p=0.5)[:, 1].any()


def test_edits_can_be_cleared_and_others_added():
    layer, plain = Plain(), attend(Plain())
    edit = pellucid.intervene(layer)
    edit.knock_out(head=1)
    with edit:
        assert not attend(layer)[:, 1].any()
        edit.clear()
        assert torch.equal(attend(layer), plain)
        edit.knock_out(head=2)
        assert not attend(layer)[:, 2].any()
    assert torch.equal(attend(layer), plain)
    with pytest.raises(errors.ArgumentError, match="is over"), edit:
        pass
    with pytest.raises(errors.ArgumentError, match="is over"):
        edit.knock_out(head=1)
    with pytest.raises(errors.TypeMismatchError, match=r"must be a torch\.nn\.Module"):
        pellucid.intervene("model")

"""The attention that is still to come, against sums over dense weights in float64."""

import pytest
import torch
from tests.attention.cases import Case, by_rule, random
from tests.lens.recorded import record_of
from tests.lens.tiny import build, some_ids

import pellucid
from pellucid import masks
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError
from pellucid.lens import future_mass, future_masses
from pellucid.lens.past_record import past_record

BATCH, HEADS, KV_HEADS, KEYS, DIM = 2, 6, 2, 37, 11
NEAR = {"atol": 1e-5, "rtol": 1e-4}
NAMES = ("llama, grouped heads", "mistral, a window of 5", "gemma 2, a softcap", "gpt-oss, sinks")


def causal_case(queries=KEYS, left=None, offsets=None, real=None, **options):
    """Queries that are the last of the keys, or begin at one offset per item."""
    offsets = [KEYS - queries] * BATCH if offsets is None else offsets
    query = 2 * random(BATCH, HEADS, queries, DIM, seed=1)
    key, value = (random(BATCH, KV_HEADS, KEYS, DIM, seed=seed) for seed in (2, 3))
    offset = torch.tensor(offsets)
    mask = masks.window(left, 0, offsets[0] if len(set(offsets)) == 1 else offset)
    first = -torch.inf if left is None else -left
    visible = by_rule(
        lambda b, i, j: (j <= i + offset[b]) & (j >= i + offset[b] + first), BATCH, queries, KEYS
    )
    if real is not None:
        mask, visible = mask & masks.padding(real), visible & real[:, None, None]
    return Case(query, key, value, mask, visible, options)


def summed(case, step, offsets, real=None):
    """(batch, heads, keys) float64: rows of real queries at `step` or later, keys before it."""
    weights = case.reference().weights
    own = torch.tensor(offsets)[:, None] + torch.arange(weights.shape[-2])
    counts = own >= step
    if real is not None:
        counts &= real.gather(1, own)
    mass = (weights * counts[:, None, :, None]).sum(-2)
    mass[..., step:] = 0
    return mass


LEFT = torch.arange(KEYS) >= torch.tensor([[0], [13]])
RIGHT = torch.arange(KEYS) < torch.tensor([[KEYS], [23]])
CASES = {
    "causal": {},
    "a window": {"left": 5},
    "the last 11 queries": {"queries": 11},
    "sinks and softcap": {"sinks": random(HEADS, seed=5), "softcap": 3.0},
    "a bias": {"bias": random(HEADS, KEYS, KEYS, seed=6)},
    "padding on the left": {"real": LEFT},
    "padding on the right": {"real": RIGHT},
    "one offset per item": {"queries": 11, "offsets": [26, 19]},
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_sum_of_the_rows_to_come(name):
    options = CASES[name]
    case = causal_case(**options)
    record = record_of(case)
    offsets = options.get("offsets", [KEYS - case.query.shape[-2]] * BATCH)
    real = options.get("real")
    steps = [17, 1, 36 if len(set(offsets)) == 1 else 35, 29, 29]
    found = future_mass(record, steps)
    assert found.shape == (5, BATCH, HEADS, KEYS)
    for mass, step in zip(found, steps, strict=True):
        truth = summed(case, step, offsets, real)
        torch.testing.assert_close(mass.double(), truth, **NEAR)
    torch.testing.assert_close(future_mass(record, 29), found[3])
    if len(set(offsets)) > 1:
        with pytest.raises(ArgumentError, match="begin at different positions"):
            future_masses(record)
        return
    seen = []
    for step, mass in future_masses(record):
        truth = summed(case, step, offsets, real)[..., :step]
        torch.testing.assert_close(mass.double(), truth, **NEAR)
        seen.append(step)
    assert seen == list(range(KEYS - 1, max(0, offsets[0] - 1), -1))


def test_in_cross_attention_every_key_is_there_from_the_start():
    case = causal_case(queries=11)
    case.mask = case.visible = None
    record = record_of(case)
    record.is_cross = True
    weights = case.reference().weights
    found = future_mass(record, [4, 10])
    for mass, step in zip(found, (4, 10), strict=True):
        torch.testing.assert_close(mass.double(), weights[:, :, step:].sum(-2), **NEAR)
    for step, mass in future_masses(record):
        torch.testing.assert_close(mass.double(), weights[:, :, step:].sum(-2), **NEAR)


def test_by_hand():
    """Four queries that look at all they see alike: after two, 1/3 + 1/4 for both keys."""
    zeros = torch.zeros(1, 1, 4, 2)
    record = record_of(Case(zeros, zeros, zeros, masks.causal()))
    mass = future_mass(record, 2)
    torch.testing.assert_close(mass, torch.tensor([[[7 / 12, 7 / 12, 0, 0]]]))
    assert [(step, mass.shape[-1]) for step, mass in future_masses(record)] == [
        (3, 3),
        (2, 2),
        (1, 1),
    ]


def test_long_texts_are_streamed_in_blocks(monkeypatch):
    monkeypatch.setattr("pellucid.lens.future_attention.BLOCK_NUMBERS", 7 * BATCH * HEADS * KEYS)
    case = causal_case()
    for step, mass in future_masses(record_of(case)):
        truth = summed(case, step, [0, 0])[..., :step]
        torch.testing.assert_close(mass.double(), truth, **NEAR)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_past_of_a_record_is_the_record_of_the_past(name, padded):
    model, ids = build(name, "eager"), some_ids()
    flags = torch.ones_like(ids)
    flags[1, :3] = not padded
    with torch.no_grad():
        with pellucid.watch(model, values=True) as whole:
            model(ids, attention_mask=flags)
        with pellucid.watch(model, values=True) as earlier:
            model(ids[:, :7], attention_mask=flags[:, :7])
    for long, short in zip(whole.records, earlier.records, strict=True):
        past = past_record(long, 7)
        real = flags[:, :7].bool()[:, None, :, None]
        for one, other in (
            (past.weights.dense(), short.weights.dense()),
            (past.context, short.context),
        ):
            torch.testing.assert_close(one * real, other * real, **NEAR)
        assert torch.equal(past.query_ids, ids[:, :7])
        assert future_mass(long, 7).shape == long.shape[:2] + long.shape[-1:]


def test_a_recording_gives_a_mass_for_each_module():
    model = build("llama, grouped heads", "sdpa")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(some_ids())
    masses = future_mass(seen, [3, 5])
    assert list(masses) == list(seen)
    for name, mass in masses.items():
        truth = seen[name].dense()[:, :, 3:].sum(-2)
        truth[..., 3:] = 0
        torch.testing.assert_close(mass[0], truth, **NEAR)


def test_errors_say_what_was_wanted():
    record = record_of(causal_case())
    assert future_mass(record, []).shape == (0, BATCH, HEADS, KEYS)
    for step in (0, KEYS):
        with pytest.raises(OutOfRangeError, match=r"steps of 'attention' must be from 1 to 36"):
            future_mass(record, step)
    with pytest.raises(TypeMismatchError, match="steps must be"):
        future_mass(record, 0.5)
    with pytest.raises(TypeMismatchError, match="seen must be a Record or a Recording"):
        future_mass(record.weights, 3)
    with pytest.raises(OutOfRangeError, match="must be from 1 to 37, got 38"):
        past_record(record, 38)
    case = causal_case()
    case.mask = case.visible = None
    with pytest.raises(ArgumentError, match="no causal attention"):
        past_record(record_of(case), 3)

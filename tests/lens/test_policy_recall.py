"""What policies keep of the attention to come, against sorted sums of dense weights in float64."""

import json
import math

import pytest
import torch
from tests.attention.cases import Case, by_rule, random
from tests.lens.recorded import record_of
from tests.lens.tiny import build, some_ids

import pellucid
from pellucid import masks
from pellucid.errors import (
    ArgumentError,
    OutOfRangeError,
    ShapeError,
    TypeMismatchError,
    UnknownNameError,
)
from pellucid.lens import (
    KeepRecent,
    eviction_policies,
    eviction_recall,
    expected_attention_scores,
    h2o_scores,
    snapkv_scores,
    streaming_llm_scores,
)
from pellucid.lens.eviction import rotation, turned

BATCH, HEADS, KV_HEADS, KEYS, DIM = 2, 6, 2, 67, 12
FREQUENCIES = 10_000.0 ** -(torch.arange(0, DIM, 2) / DIM)


def a_case():
    query, key, value = (
        random(BATCH, heads, KEYS, DIM, seed=seed)
        for heads, seed in ((HEADS, 1), (KV_HEADS, 2), (KV_HEADS, 3))
    )
    visible = by_rule(lambda b, i, j: j <= i, BATCH, KEYS, KEYS)
    return Case(2 * query, key, value, masks.causal(), visible)


def kept_by(scores, count):
    """The places of the `count` highest scores, the later of two equal ones."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], -j))
    return order[:count]


def truth(case, step, policy, count):
    """Recall of each key head, of scores (batch, kv_heads, step) or, if None, of the best."""
    weights = case.reference().weights
    mass = weights[:, :, step:, :step].sum(2).unflatten(1, (KV_HEADS, -1)).mean(2)
    scores = mass if policy is None else policy
    found = torch.zeros(BATCH, KV_HEADS)
    for b in range(BATCH):
        for h in range(KV_HEADS):
            places = kept_by(scores[b, h].tolist(), count)
            found[b, h] = mass[b, h, places].sum() / mass[b, h].sum()
    return found.mean(0).tolist()


def test_recall_is_the_mass_of_the_keys_with_the_highest_scores():
    case = a_case()
    record = record_of(case)
    fixed = random(BATCH, KV_HEADS, KEYS, seed=7).round()  # with equal scores
    asked = []

    def mine(past):
        asked.append(past.shape[-1])
        assert past.shape[-2:] == (past.shape[-1],) * 2
        return fixed[..., : past.shape[-1]]

    table = eviction_recall(
        record,
        {"mine": mine, "recent": KeepRecent(mine, 0.5)},
        steps=[41, 23],
        budgets=[5, 0.25],
    )
    assert set(asked) == {23, 41}
    assert len(table) == 2 * 3 * 2 * KV_HEADS
    for step in (41, 23):
        for budget, count in ((5, 5), (0.25, math.ceil(0.25 * step))):
            recent = fixed[..., :step].clone()
            recent[..., step - count // 2 :] = torch.inf
            for name, scores in (
                ("mine", fixed[..., :step]),
                ("recent", recent),
                ("best possible", None),
            ):
                rows = [x for x in table if (x.policy, x.step, x.budget) == (name, step, budget)]
                assert [row.kept for row in rows] == [count] * KV_HEADS
                assert [row.head for row in rows] == list(range(KV_HEADS))
                expected = truth(case, step, scores, count)
                assert [row.recall for row in rows] == pytest.approx(expected, abs=1e-5)
                mean = table.mean(policy=name, step=step, budget=budget)
                assert mean == pytest.approx(sum(expected) / KV_HEADS, abs=1e-5)
    best = table.mean(policy="best possible")
    assert best >= table.mean(policy="mine")
    assert math.isnan(table.mean(policy="nobody"))


def test_weights_that_are_kept_give_the_same():
    record = record_of(a_case())
    weights = record.weights.dense()
    kept = pellucid.Recording.from_attentions([weights]).records[0]
    options = {"steps": [41, 23], "budgets": [5, 1.0]}
    table = eviction_recall(kept, {"H2O": h2o_scores}, **options)
    grouped = weights.unflatten(1, (KV_HEADS, -1))
    assert len(table) == 2 * 2 * 2 * HEADS  # no head shares its key with another
    assert table.mean(budget=1.0) == pytest.approx(1)
    row = next(x for x in table if (x.policy, x.step, x.head) == ("H2O", 23, 4))
    recalls = []
    for item in grouped[:, 1, 1].double():
        past, future = item[:23, :23].sum(0), item[23:, :23].sum(0)
        recalls.append(future[kept_by(past.tolist(), 5)].sum() / future.sum())
    assert row.recall == pytest.approx(float(sum(recalls) / 2), abs=1e-5)
    weights[0, 0, 3, 30] = 0.1
    seen = pellucid.Recording.from_attentions([weights])
    with pytest.raises(ArgumentError, match="no causal attention"):
        eviction_recall(seen, {"H2O": h2o_scores}, **options)


def test_a_policy_sees_the_past_alone():
    """Whatever comes after a step changes no score."""
    case = a_case()
    other = Case(*(x.clone() for x in (case.query, case.key, case.value)), case.mask, case.visible)
    for tensor in (other.query, other.key, other.value):
        tensor[:, :, 41:] = 9 * random(*tensor[:, :, 41:].shape, seed=9)
    for name, policy in eviction_policies(FREQUENCIES).items():
        scores = []

        def noted(past, policy=policy, scores=scores):
            scores.append(policy(past))
            return scores[-1]

        for one in (case, other):
            eviction_recall(record_of(one), {name: noted}, steps=41, budgets=7)
        torch.testing.assert_close(*scores, msg=name)


def test_the_policies_of_the_papers_keep_what_they_say():
    record = record_of(a_case())
    scores = streaming_llm_scores(record, sinks=3)
    assert kept_by(scores[1, 1].tolist(), 7) == [2, 1, 0, 66, 65, 64, 63]
    policies = eviction_policies()
    assert policies["H2O"](record).shape == (BATCH, KV_HEADS, KEYS)
    assert policies["SnapKV"](record).shape == (BATCH, KV_HEADS, KEYS - 32)
    table = eviction_recall(record, {"all": h2o_scores}, steps=41, budgets=41)
    assert [row.recall for row in table] == pytest.approx([1.0] * 4)
    window = eviction_recall(record, {"SnapKV": snapkv_scores}, steps=41, budgets=[32, 11])
    recent = eviction_recall(
        record,
        {"latest": lambda past: past.weights.received()[:, ::3, :0]},
        steps=41,
        budgets=[32, 11],
    )
    assert [x.recall for x in window] == [x.recall for x in recent]


def rotated(x, positions):
    """x (..., n, dim) by complex numbers, in float64."""
    pairs = torch.complex(*x.double().split(DIM // 2, -1))
    angle = positions.double()[:, None] * FREQUENCIES.double()
    pairs = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pairs.real, pairs.imag], -1)


@pytest.mark.parametrize("rotates", [False, True])
def test_expected_attention_is_the_expectation_of_a_normal_distribution(rotates):
    case = a_case()
    sinks, future = 3, 17
    plain = case.query  # before the rotation
    if rotates:
        case.query = rotated(plain, torch.arange(KEYS)).float()
    record = record_of(case)
    found = expected_attention_scores(record, FREQUENCIES if rotates else None, future, sinks)
    assert found[..., :sinks].isinf().all()
    query, key, value = (x.double() for x in (plain[:, :, sinks:], case.key, case.value))
    turn = torch.eye(DIM, dtype=torch.float64)
    if rotates:
        turn = torch.stack(
            [rotated(row.expand(future, -1), KEYS + torch.arange(future)).mean(0) for row in turn]
        )
    for b in range(BATCH):
        for group in range(KV_HEADS):
            shares = []
            for h in range(3 * group, 3 * group + 3):
                mean = query[b, h].mean(0) @ turn
                covariance = turn.T @ torch.cov(query[b, h].T, correction=0) @ turn
                logs = key[b, group] @ mean / DIM**0.5
                logs += torch.einsum("kd,de,ke->k", key[b, group], covariance, key[b, group]) / (
                    2 * DIM
                )
                shares.append(logs.softmax(0))
            expected = sum(shares) / 3 * value[b, group].norm(dim=-1)
            torch.testing.assert_close(
                found[b, group, sinks:].double(), expected[sinks:], atol=1e-6, rtol=1e-4
            )


def test_frequencies_undo_the_rotary_embedding_of_a_model():
    """Turned back, recorded queries are those that the projection gave."""
    model = build("llama, grouped heads", "sdpa")
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        hidden = model(some_ids(), output_hidden_states=True).hidden_states[0]
    record = seen.records[0]
    layer = model.layers[0]
    frequencies = model.rotary_emb.inv_freq
    with torch.no_grad():
        query = layer.self_attn.q_proj(layer.input_layernorm(hidden))
    query = query.unflatten(-1, (6, -1)).transpose(1, 2)
    own = torch.arange(query.shape[-2])
    torch.testing.assert_close(
        turned(record.query, *rotation(frequencies, -own)), query, atol=1e-4, rtol=1e-4
    )
    table = eviction_recall(seen, eviction_policies(frequencies) | {"SnapKV": h2o_scores}, steps=7)
    assert {row.name for row in table} == set(seen)
    assert {row.layer for row in table} == {0, 1}


def test_the_table():
    record = record_of(a_case())
    done = []
    table = eviction_recall([record], steps=41, budgets=0.25, progress=lambda *x: done.append(x))
    assert done == [(1, 1)]
    assert {row.policy for row in table} == {*eviction_policies(), "best possible"}
    best = [row.recall for row in table if row.policy == "best possible"]
    assert all(row.recall <= best[row.head] + 1e-6 for row in table)
    assert json.loads(json.dumps(table.to_dicts()))[0]["kept"] == 11
    assert next(iter(table.to_pandas())) == "policy"
    assert table.to_arrow().num_rows == len(table)
    assert "SnapKV" in repr(table)
    with pytest.raises(UnknownNameError, match="no column is called 'polcy': policy, step"):
        table.mean(polcy="H2O")


def test_errors_say_what_was_wanted():
    record = record_of(a_case())
    for budget in (0, -1, 1.5, math.nan):
        with pytest.raises(ArgumentError, match="a budget must be a number of keys"):
            eviction_recall(record, steps=41, budgets=budget)
    with pytest.raises(TypeMismatchError, match="steps must be an int"):
        eviction_recall(record, steps=2.5)
    with pytest.raises(TypeMismatchError, match="budgets must be numbers"):
        eviction_recall(record, steps=41, budgets=["all"])
    with pytest.raises(TypeMismatchError, match="policy 'mine' must be a function, got 3"):
        eviction_recall(record, {"mine": 3}, steps=41)
    with pytest.raises(TypeMismatchError, match="policy 'mine' must return a tensor, got int"):
        eviction_recall(record, {"mine": lambda past: 3}, steps=41)
    with pytest.raises(ShapeError, match=r"policy 'mine' must return .* \(2, 2, 41\), got \(41,\)"):
        eviction_recall(record, {"mine": lambda past: torch.ones(41)}, steps=41)
    with pytest.raises(ArgumentError, match=r"policy 'SnapKV' after 20 tokens: window must be"):
        eviction_recall(record, steps=20)
    with pytest.raises(ArgumentError, match="cannot be called 'best possible'"):
        eviction_recall(record, {"best possible": h2o_scores}, steps=41)
    with pytest.raises(OutOfRangeError, match="must be from 1 to 66"):
        eviction_recall(record, steps=67)
    with pytest.raises(ShapeError, match=r"frequencies must be at most key_dim / 2 = 6"):
        expected_attention_scores(record, torch.ones(7))
    with pytest.raises(ArgumentError, match="no query after 67 sinks"):
        expected_attention_scores(record, sinks=67)
    with pytest.raises(ArgumentError, match="sinks must be 0 or more, got -1"):
        streaming_llm_scores(record, sinks=-1)
    with pytest.raises(ArgumentError, match="future must be 1 or more"):
        expected_attention_scores(record, future=0)

"""Statistics by tiles of our own are those of the float64 reference."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pellucid import masks
from pellucid.attention import attention_weights, fused_statistics, numba_statistics
from pellucid.attention.weights import AttentionWeights
from tests.attention.cases import Case, assert_within_budget, by_rule, cases, random

pytest.importorskip("numba")

EPS = 2**-23
RULES: list[tuple[Any, Any]] = [
    (None, lambda b, i, j: j >= 0),
    (masks.causal(5), lambda b, i, j: j <= i + 5),
    (masks.causal(-31), lambda b, i, j: j <= i - 31),
    (masks.window(70, 3), lambda b, i, j: (i - 70 <= j) & (j <= i + 3)),
    (masks.causal() & masks.padding(113), lambda b, i, j: (j <= i) & (j < 113)),
]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sweep has the smallest matrices too; a list of what it was asked."""
    asked: list[str] = []
    statistics = fused_statistics.statistics

    def noted(*args: Any) -> Any:
        found = statistics(*args)
        asked.append("nothing" if found is None else " ".join(sorted(found)))
        return found

    monkeypatch.setattr(numba_statistics, "WORTHWHILE", 1)
    monkeypatch.setattr(fused_statistics, "statistics", noted)
    return asked


def assert_exact(weights: AttentionWeights, case: Case, top: int) -> None:
    found, exact, plain = weights.statistics(top), case.reference(), case.reference(torch.float32)
    scores = exact.masked
    k = min(top, scores.shape[-1])
    places = torch.arange(scores.shape[-2])[:, None], torch.arange(scores.shape[-1])
    offset = int(case.mask.offset or 0) if case.mask is not None else 0
    apart = (places[0] + offset - places[1]).abs()
    of = {
        "received": lambda w: w.sum(-2),
        "entropy": lambda w: torch.special.entr(w).sum(-1),
        "peak": lambda w: w.amax(-1),
        "mean_distance": lambda w: (w * apart).sum(-1),
    }
    for name, formula in of.items():
        pair = formula(plain.weights), formula(exact.weights)
        assert_within_budget(getattr(found, name), *pair, EPS, scores)
    values, indices = found.top
    pair = plain.weights.topk(k).values, exact.weights.topk(k).values
    assert_within_budget(values, *pair, EPS, scores)
    chosen = exact.weights.gather(-1, indices.clamp_min(0)).masked_fill(indices < 0, 0)
    assert_within_budget(values, pair[0], chosen, EPS, scores)
    assert ((indices < 0) == (values == 0)).all()
    distinct = indices.sort(-1).values.diff(dim=-1)
    assert ((distinct > 0) | (indices.sort(-1).values[..., 1:] < 0)).all()
    largest, wanted = found.max_logit, scores.amax((-2, -1))
    torch.testing.assert_close(largest.double(), wanted, rtol=16 * EPS, atol=16 * EPS)


@pytest.mark.parametrize("rule", RULES, ids=[str(mask) for mask, _ in RULES])
@pytest.mark.parametrize("top", [1, 8, 29])
def test_a_sweep_is_the_formula(rule: Any, top: int, always: list[str]) -> None:
    mask, definition = rule
    q = random(2, 6, 101, 11, seed=1, layout="heads_last")
    k, v = random(2, 3, 211, 11, seed=2), random(2, 3, 211, 7, seed=3)
    visible = by_rule(definition, 2, 101, 211)
    sinks = random(6, seed=4)
    case = Case(q, k, v, mask, visible, {"sinks": sinks, "scale": 0.7})
    assert_exact(attention_weights(q, k, mask, sinks=sinks, scale=0.7), case, top)
    assert always == ["distance entropy indices peak received values"]


@given(case=cases())
def test_any_case_is_the_formula_or_left_to_others(case: Case) -> None:
    case.options.pop("softcap", None)
    case.options.pop("bias", None)
    weights = attention_weights(case.query, case.key, case.mask, **case.options)
    exact, plain = case.reference(), case.reference(torch.float32)
    pair = plain.weights.sum(-2), exact.weights.sum(-2)
    assert_within_budget(weights.received(), *pair, EPS, exact.masked)


@given(wanted=st.sampled_from(["received", "entropy", "top", "max_logit"]))
def test_each_alone_is_that_of_all(wanted: str) -> None:
    q, k = random(1, 2, 53, 13, seed=1), random(1, 2, 157, 13, seed=2)
    weights = attention_weights(q, k, masks.causal(104))
    together: Any = weights.statistics(5)
    alone: Any = weights.top(5) if wanted == "top" else getattr(weights, wanted)()
    for one, other in zip(
        alone if wanted == "top" else [alone],
        together.top if wanted == "top" else [getattr(together, wanted)],
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=4 * EPS, atol=4 * EPS)


def test_some_queries_are_counted_alone() -> None:
    q, k = random(1, 2, 163, 5, seed=1), random(1, 2, 61, 5, seed=2)
    weights = attention_weights(q, k)
    weights.logsumexp  # noqa: B018  known, so that few rows are not computed apart
    chosen = [3, 4, 5, 100, 162]
    expected = weights.dense()[..., chosen, :].sum(-2)
    torch.testing.assert_close(weights.received(chosen), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_read_as_they_are(dtype: torch.dtype) -> None:
    q, k, v = (random(1, 2, n, 11, seed=n, dtype=dtype) for n in (89, 131, 131))
    assert_exact(attention_weights(q, k), Case(q, k, v), 3)


def test_equal_weights_are_found_once_each() -> None:
    q, k = torch.zeros(1, 1, 7, 3), random(1, 1, 997, 3, seed=1)
    values, indices = attention_weights(q, k).top(13)
    torch.testing.assert_close(values, torch.full((1, 1, 7, 13), 1 / 997))
    assert all(len(set(row)) == 13 and min(row) >= 0 for row in indices[0, 0].tolist())


def test_the_strongest_are_found_in_any_order() -> None:
    """Ascending scores make each key a candidate, which overfills the list of candidates."""
    k = torch.linspace(0, 1, 1009).reshape(1, 1, -1, 1)
    for sign in (1.0, -1.0):
        values, indices = attention_weights(torch.full((1, 1, 5, 1), sign), k, scale=9.0).top(17)
        first = range(1008, 991, -1) if sign > 0 else range(17)
        assert indices[0, 0].tolist() == [list(first)] * 5
        assert (values.diff(dim=-1) < 0).all()


def test_not_a_number_stays() -> None:
    q, k = random(1, 1, 5, 11, seed=0), random(1, 1, 71, 11, seed=1)
    q[0, 0, 3] = torch.nan
    found = attention_weights(q, k).statistics(2)
    for row in (found.entropy, found.mean_distance, found.peak):
        assert row[0, 0].isnan().tolist() == [False, False, False, True, False]
    assert found.received.isnan().all()


def test_what_is_hidden_may_hold_anything() -> None:
    q, k = random(1, 1, 29, 11, seed=0), random(1, 1, 73, 11, seed=1)
    clean = attention_weights(q, k, masks.padding(59)).statistics(4)
    k[:, :, 59:] = torch.nan
    dirty = attention_weights(q, k, masks.padding(59)).statistics(4)
    for one, other in zip(flat(clean), flat(dirty), strict=True):
        assert torch.equal(one, other)


def test_several_threads_say_what_one_says() -> None:
    q, k = random(2, 3, 307, 11, seed=0), random(2, 3, 401, 11, seed=1)
    weights = attention_weights(q, k, masks.causal(100))
    alone = weights.statistics(5)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            together = weights.statistics(5)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(flat(alone), flat(together), strict=True):
        assert torch.equal(one, other)


def flat(found: Any) -> list[Tensor]:
    return [found.received, found.entropy, *found.top, found.mean_distance, found.max_logit]


@pytest.mark.parametrize("option", ["bias", "softcap", "holes"])
def test_what_it_cannot_do_it_leaves(option: str, always: list[str]) -> None:
    q, k = random(1, 2, 31, 5, seed=1), random(1, 2, 67, 5, seed=2)
    holes = torch.arange(67) % 3 > 0
    options: dict[str, Any] = {
        "bias": {"bias": random(31, 67, seed=3)},
        "softcap": {"softcap": 2.0},
        "holes": {"mask": masks.padding(holes)},
    }[option]
    weights = attention_weights(q, k, **options)
    torch.testing.assert_close(weights.received(), weights.dense().sum(-2))
    assert always in ([], ["nothing"])

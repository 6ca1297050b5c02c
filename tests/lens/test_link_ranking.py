"""The links that matter most, against every link of small cases removed in float64."""

from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tests.attention.cases import Case, cases, random
from tests.fuzzing import few_or_many
from tests.lens.recorded import record_of

import pellucid
from pellucid import masks
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.lens import link_effects, output_projection
from pellucid.lens.pieces import Pieces

MODEL_DIM = 17


def changes(case, renormalize=True):
    """(batch, heads, queries, keys, value_dim) float64: what each link's removal does."""
    stages = case.reference()
    weights = stages.weights.reshape(-1, *stages.weights.shape[-3:])
    masked = stages.masked.reshape(weights.shape)
    value = case.value.double().reshape(-1, *case.value.shape[-3:])
    value = value.repeat_interleave(weights.shape[1] // value.shape[1], 1)
    if not renormalize:
        return -weights.unsqueeze(-1) * value.unsqueeze(2)
    found = []
    for j in range(weights.shape[-1]):  # all rows, without their key j
        hidden = masked.clone()
        hidden[..., j] = -torch.inf
        if "sinks" in case.options:
            sinks = case.options["sinks"].double()[:, None, None].expand(*masked.shape[:-1], 1)
            hidden = torch.cat([hidden, sinks], -1)
        new = hidden.softmax(-1).nan_to_num(0)[..., : weights.shape[-1]]
        found.append((new - weights) @ value)
    return torch.stack(found, -2).masked_fill((weights == 0).unsqueeze(-1), 0)


def truth(case, weight, direction, renormalize):
    """(batch, heads, queries, keys) float64"""
    change = changes(case, renormalize)
    if weight is not None:
        parts = weight.double().unflatten(1, (change.shape[1], -1))
        change = torch.einsum("bhqkd,mhd->bhqkm", change, parts)
    return change.norm(dim=-1) if direction is None else -(change @ direction.double())


def assert_ranked(table, exact, k, near):
    """The table has the k largest, each with its number."""
    named = [(x.item, x.head, x.query, x.key) for x in table]
    places = torch.tensor(named, dtype=torch.int64).reshape(-1, 4)
    lost = torch.tensor([row.lost for row in table], dtype=torch.float64)
    torch.testing.assert_close(lost, exact[tuple(places.T)], **near)
    assert len(places.unique(dim=0)) == len(places)
    largest = exact.abs().flatten().topk(min(k, exact.numel())).values
    largest = largest[largest > 0]
    sizes = torch.nn.functional.pad(lost.abs(), (0, max(0, len(largest) - len(lost))))
    torch.testing.assert_close(sizes[: len(largest)], largest, **near)
    assert torch.equal(lost.abs(), lost.abs().sort(descending=True).values)


@pytest.mark.parametrize("kind", ["length", "context", "direction"])
@few_or_many(12)
def test_they_are_the_largest_of_all(kind, examples):
    @examples
    @given(cases(), st.booleans(), st.sampled_from([1, 7, 5000]), st.integers(0, 99))
    def holds(case, renormalize, k, seed):
        record = record_of(case)
        width = record.shape[-3] * case.value.shape[-1]
        weight = None if kind == "context" else random(MODEL_DIM, width, seed=seed)
        direction = random(MODEL_DIM, seed=seed + 1) if kind == "direction" else None
        table = link_effects(record, weight, direction=direction, k=k, renormalize=renormalize)
        exact = truth(case, weight, direction, renormalize)
        scores = case.reference().masked
        largest = scores[scores.isfinite()].abs().max().item() if scores.isfinite().any() else 0
        near = {"atol": 1e-5 * (1 + largest) * max(1, exact.abs().max()), "rtol": 1e-4}
        assert_ranked(table, exact, k, near)

    holds()


def sharp_case(dtype=torch.float32):
    """Rows of which single keys often hold more than half."""
    query, key, value = (
        random(2, heads, 37, dim, seed=seed, dtype=dtype)
        for heads, dim, seed in ((6, 11, 1), (2, 11, 2), (2, 13, 3))
    )
    visible = torch.ones(37, 37, dtype=torch.bool).tril()
    return Case(5 * query, key, value, masks.causal(), visible)


def test_links_that_hold_their_rows_are_measured_exactly():
    case = sharp_case()
    exact = truth(case, None, None, True)
    weights = case.reference().weights
    assert (weights > 0.5).sum() > 100
    table = link_effects(record_of(case), k=301)
    assert_ranked(table, exact, 301, {"atol": 1e-5, "rtol": 1e-5})
    assert max(row.weight for row in table) > 0.99


def test_chosen_queries_alone_are_looked_at():
    case = sharp_case()
    exact = truth(case, None, None, True)
    changed = case.query.clone()
    changed[:, :, :-3] = torch.nan
    for queries in ([-1, 34], slice(-3, None, 2)):
        record = replace(record_of(case), queries=Pieces(changed))
        table = link_effects(record, k=31, queries=queries)
        chosen = torch.zeros_like(exact)
        chosen[:, :, [34, 36]] = exact[:, :, [34, 36]]
        assert_ranked(table, chosen, 31, {"atol": 1e-5, "rtol": 1e-5})
    assert len(link_effects(record_of(case), queries=[])) == 0


def test_kept_weights_of_rows_that_do_not_sum_to_one():
    case = sharp_case()
    record = record_of(case)
    weights = record.weights.dense() * 0.7
    kept = replace(
        record,
        kept="weights",
        queries=Pieces(weights),
        keys=Pieces(torch.arange(37)[None, None, :, None]),
        visibility=replace(record.visibility, fixed=None, band=None),
        contexts=None,
        _weights=None,
    )
    for renormalize in (True, False):
        table = link_effects(kept, k=53, renormalize=renormalize)
        exact = 0.7 * truth(case, None, None, renormalize)
        assert_ranked(table, exact, 53, {"atol": 1e-5, "rtol": 1e-4})


def test_a_model_in_16_bits():
    case = sharp_case(torch.bfloat16)
    table = link_effects(record_of(case), k=31)
    assert_ranked(table, truth(case, None, None, True), 31, {"atol": 1e-4, "rtol": 1e-4})


class Tokenizer:
    def convert_ids_to_tokens(self, ids):
        return [f"t{number}" for number in ids]


def test_what_the_next_residual_of_a_model_loses():
    """A link is removed in the model itself, by its mask, in eager code."""
    torch.manual_seed(23)
    config = transformers.GPT2Config(n_embd=33, n_layer=2, n_head=3, vocab_size=61)
    config.initializer_range = 0.5
    model = transformers.GPT2Model(config).eval()
    ids = torch.randint(0, 61, (1, 11), generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), pellucid.watch(model, values=True, tokenizer=Tokenizer()) as seen:
        model(ids)
    weights = output_projection(model, seen)
    done = []
    table = link_effects(seen, weights, k=7, progress=lambda *x: done.append(x))
    assert done == [(1, 2), (2, 2)]
    both = [row for name in seen for row in link_effects(seen.record(name), weights[name], k=7)]
    both = sorted(both, key=lambda row: -row.lost)[:7]
    assert [(x.head, x.query, x.key, x.lost) for x in both] == [
        (x.head, x.query, x.key, x.lost) for x in table
    ]
    of_one = link_effects(seen, weights[seen.names[1]], k=7, layers=1)
    assert {x.layer for x in of_one} == {1}
    assert set(of_one) >= {x for x in table if x.layer == 1}
    row = table[0]
    assert row.query_token == f"t{ids[0, row.query]}"
    assert row.key_token == f"t{ids[0, row.key]}"
    attention = model.h[row.layer].attn
    assert row.name == f"h.{row.layer}.attn"
    with torch.no_grad():
        record = seen.record(row.name)
        value, weight = record.value.double(), record.weights.dense().double()
        without = weight.clone()
        without[0, row.head, row.query, row.key] = 0
        without[0, row.head, row.query] /= without[0, row.head, row.query].sum()
        outputs = [
            attention.c_proj.double()((w @ value).transpose(1, 2).flatten(2))
            for w in (weight, without)
        ]
    lost = (outputs[1] - outputs[0])[0, row.query].norm().item()
    assert row.lost == pytest.approx(lost, rel=1e-4)
    assert table.to_pandas()["lost"].iloc[0] == row.lost
    assert table.to_dicts()[0]["key"] == row.key
    assert f"t{ids[0, row.key]}" in repr(table)


def test_errors_say_what_was_wanted():
    case = sharp_case()
    record = record_of(case)
    weight = random(MODEL_DIM, 6 * 13, seed=1)
    with pytest.raises(ArgumentError, match="k must be 1 or more, got 0"):
        link_effects(record, k=0)
    with pytest.raises(TypeMismatchError, match="k must be an int"):
        link_effects(record, k=1.5)
    with pytest.raises(ShapeError, match=r"output_weight must be .* got \(17, 77\)"):
        link_effects(record, weight[:, 1:])
    with pytest.raises(ShapeError, match=r"direction must be \(model_dim,\) = \(17,\), got \(3,\)"):
        link_effects(record, weight, direction=torch.ones(3))
    with pytest.raises(ArgumentError, match="a direction needs output_weight"):
        link_effects(record, direction=torch.ones(3))
    with pytest.raises(OutOfRangeError, match="queries must be from -37 to 36"):
        link_effects(record, queries=[37])
    with pytest.raises(ArgumentError, match="recorded without values"):
        link_effects(replace(record, values=None))
    with pytest.raises(ArgumentError, match="output_weight is that of one module"):
        link_effects([record, replace(record, name="other")], weight)
    with pytest.raises(TypeMismatchError, match="seen must be a Recording"):
        link_effects(3)

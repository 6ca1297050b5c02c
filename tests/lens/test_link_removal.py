"""Contexts without links, against rows that are mixed again in float64 with these links hidden."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.attention.cases import Case, by_rule, cases, random
from tests.fuzzing import few_or_many
from tests.lens.recorded import record_of
from tests.lens.tiny import CONFIGS, build, some_ids

import pellucid
from pellucid import masks
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.lens import gradient_times_weights, without
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Proof

BATCH, HEADS, KV_HEADS, TOKENS, DIM, VALUE_DIM = 2, 6, 2, 37, 11, 13


def causal_case(dtype=torch.float32, sharpness=1.0, **options):
    query = sharpness * random(BATCH, HEADS, TOKENS, DIM, seed=1).to(dtype)
    key = random(BATCH, KV_HEADS, TOKENS, DIM, seed=2, dtype=dtype)
    value = random(BATCH, KV_HEADS, TOKENS, VALUE_DIM, seed=3, dtype=dtype)
    visible = by_rule(lambda b, i, j: j <= i, BATCH, TOKENS, TOKENS)
    return Case(query.to(dtype), key, value, masks.causal(), visible, options)


def mixed_again(case, masked, place, keys, renormalize=True):
    """The context of one row without some keys, in float64; place is item, head, query."""
    logits = masked.reshape(-1, *masked.shape[-3:])[tuple(place)]
    value = case.value.double().reshape(-1, *case.value.shape[-3:])
    value = value[place[0], place[1] // (masked.shape[-3] // value.shape[1])]
    sink = torch.full((1,), -torch.inf, dtype=torch.float64)
    if "sinks" in case.options:
        sink = case.options["sinks"].double()[place[1]][None]
    hidden = logits.clone()
    hidden[keys] = -torch.inf
    whole = torch.cat([hidden if renormalize else logits, sink])
    if bool((whole == -torch.inf).all()):
        return torch.zeros_like(value[0])
    return torch.exp(hidden - whole.logsumexp(0)) @ value


def expected(case, found, links, of_entry, renormalize=True):
    masked, rows = case.reference().masked, []
    for entry, place in enumerate(found.places.tolist()):
        keys = links[of_entry(entry)][:, 3]
        rows.append(mixed_again(case, masked, place, keys, renormalize))
    return torch.stack(rows)


def budget(case):
    """Ten roundings of the largest score, of the largest value."""
    scores = case.reference().masked
    largest = scores[scores.isfinite()].abs().max().item() if scores.isfinite().any() else 0.0
    return 10 * torch.finfo(torch.float32).eps * (1 + largest) * case.value.abs().max().item()


def draw_links(shape, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(n, (count,), generator=generator) for n in shape], -1)


def flat(record):
    return torch.Size((record.shape[:-3].numel(), *record.shape[-3:]))


@few_or_many(30)
def test_each_link_alone_is_a_rerun_with_it_masked(examples):
    @examples
    @given(cases(), st.booleans(), st.integers(0, 99))
    def holds(case, renormalize, seed):
        record = record_of(case)
        links = draw_links(flat(record), 11, seed)
        found = without(record, links, renormalize=renormalize)
        truth = expected(case, found, links, lambda e: slice(e, e + 1), renormalize)
        assert (found.context.double() - truth).abs().max() <= budget(case)
        index = tuple(links.T)
        context = record.context.reshape(-1, *record.context.shape[-3:])[index[:3]]
        torch.testing.assert_close(found.context - found.change, context, atol=1e-5, rtol=1e-4)
        assert torch.equal(found.places, links[:, :3])

    holds()


@few_or_many(20)
def test_groups_are_removed_together(examples):
    @examples
    @given(cases(), st.booleans(), st.integers(0, 99))
    def holds(case, renormalize, seed):
        record = record_of(case)
        links = draw_links(flat(record), 53, seed)
        links[40:] = links[13:26]  # some are named twice
        groups = torch.randint(-2, 3, (53,), generator=torch.Generator().manual_seed(seed))
        found = without(record, links, groups, renormalize=renormalize)
        named = torch.cat([groups[:, None], links[:, :3]], -1).unique(dim=0)
        assert torch.equal(torch.cat([found.group[:, None], found.places], -1), named)

        def of(entry):
            in_row = (links[:, :3] == found.places[entry]).all(-1)
            return in_row & (groups == found.group[entry])

        truth = expected(case, found, links, of, renormalize)
        assert (found.context.double() - truth).abs().max() <= budget(case)

    holds()


def test_it_is_exact_however_much_of_the_row_is_lost():
    """Sharp rows, each without its strongest key: the closed form alone would cancel."""
    case = causal_case(sharpness=5.0)
    record = record_of(case)
    strongest = record.weights.top(1).indices[..., 0]
    links = torch.cartesian_prod(*(torch.arange(n) for n in (BATCH, HEADS, TOKENS)))
    links = torch.cat([links, strongest.reshape(-1, 1)], -1)
    found = without(record, links)
    assert 100 < found.recomputed.sum() < len(links)
    truth = expected(case, found, links, lambda e: slice(e, e + 1))
    assert (found.context.double() - truth).abs().max() <= min(1e-5, budget(case))
    naive = (
        record.context[tuple(links[:, :3].T)]
        - found.removed[:, None] * record.value[links[:, 0], links[:, 1] // 3, links[:, 3]]
    )
    naive = naive / (1 - found.removed[:, None])
    assert not (naive.double() - truth).abs().max() <= 1e-4


def test_a_row_that_loses_all_it_sees_is_zero_and_a_hidden_link_changes_nothing():
    case = causal_case()
    record = record_of(case)
    found = without(record, [[1, 4, 0, 0], [1, 4, 0, 5], [0, 2, 7, 8]])
    assert torch.equal(found.context[0], torch.zeros(VALUE_DIM))
    torch.testing.assert_close(found.removed[0], torch.tensor(1.0))
    assert not found.change[1:].any()
    assert not found.removed[1:].any()
    row = torch.tensor([[0, 2, 7, j] for j in range(8)])
    assert not without(record, row, torch.zeros(8, dtype=torch.int64)).context.any()
    with_sink = record_of(causal_case(sinks=random(HEADS, seed=5)))
    gone = without(with_sink, row, torch.zeros(8, dtype=torch.int64))
    assert not gone.context.any()
    assert gone.removed < 1


def test_by_hand():
    """Three equal keys with values 0, 3 and 9: the mean is 4, and without the last 1.5."""
    zeros, value = torch.zeros(1, 1, 3, 2), torch.tensor([0.0, 3, 9]).reshape(1, 1, 3, 1)
    record = record_of(Case(zeros, zeros, value))
    found = without(record, [[0, 1, 2], [0, 1, 0]])
    torch.testing.assert_close(found.context, torch.tensor([[1.5], [6.0]]))
    torch.testing.assert_close(found.change, torch.tensor([[-2.5], [2.0]]))
    dropped = without(record, [[0, -2, -1]], renormalize=False)
    torch.testing.assert_close(dropped.context, torch.tensor([[1.0]]))
    together = without(record, [[0, 1, 2], [0, 1, 1], [0, 0, 1]], [7, 7, 7])
    assert together.places.tolist() == [[0, 0, 0], [0, 0, 1]]
    torch.testing.assert_close(together.context, torch.tensor([[4.5], [0.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_16_bits_is_as_exact(dtype):
    case = causal_case(dtype)
    record = record_of(case)
    assert record.context.dtype == dtype
    links = draw_links(flat(record), 101, seed=3)
    links[:, 3] %= links[:, 2] + 1
    found = without(record, links)
    truth = expected(case, found, links, lambda e: slice(e, e + 1))
    assert (found.context.double() - truth).abs().max() <= 1e-5


def test_kept_weights_and_the_column_beside_them():
    """Rows that sum to less than one keep their sum, with the column that is missing."""
    case = causal_case()
    record = record_of(case)
    dense, share = record.weights.dense(), 0.25 + random(BATCH, HEADS, TOKENS, seed=7).sigmoid() / 2
    kept = replace(
        record,
        kept="weights",
        queries=Pieces(dense * share.unsqueeze(-1)),
        keys=Pieces(torch.arange(TOKENS)[None, None, :, None]),
        visibility=replace(record.visibility, fixed=None, band=None),
        logsumexps=None,
        sink_weights=Pieces(1 - share, -1),
        contexts=Pieces(record.context * share.unsqueeze(-1)),
        _weights=None,
    )
    links = draw_links(flat(record), 53, seed=3)
    links[:, 3] %= links[:, 2] + 1
    index = tuple(links[:, :3].T)
    rows = (dense * share.unsqueeze(-1)).double()[index]
    rows.scatter_(1, links[:, 3:], 0)
    value = record.value.double()[links[:, 0], links[:, 1] // 3]
    lost = rows.sum(-1) + (1 - share.double()[index])
    truth = ((rows / lost[:, None])[:, None] @ value).squeeze(1)
    for one in (kept, replace(kept, contexts=None)):
        torch.testing.assert_close(
            without(one, links).context.double(), truth, atol=1e-5, rtol=1e-4
        )
    for one in (kept, replace(kept, contexts=None)):
        found = without(one, links).context.double()
        torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-4)
    half = replace(kept, sink_weights=None, contexts=None)  # whose rows sum to `share`
    truth = share.double()[index][:, None] * (rows / rows.sum(-1, keepdim=True))[:, None].bmm(
        value
    ).squeeze(1).nan_to_num(0)
    torch.testing.assert_close(without(half, links).context.double(), truth, atol=1e-5, rtol=1e-4)


def test_a_model_that_returns_no_context_of_its_own():
    """nn.MultiheadAttention projects within its call: the contexts are computed."""
    torch.manual_seed(3)
    module = torch.nn.MultiheadAttention(12, 3, batch_first=True).eval()
    x = random(2, 7, 12, seed=3)
    with torch.no_grad(), pellucid.watch(module, values=True) as seen:
        module(x, x, x, need_weights=False)
    (record,) = seen.records
    links = draw_links(flat(record), 31, seed=3)
    found = without(record, links)
    case = Case(record.query, record.key, record.value)
    truth = expected(case, found, links, lambda e: slice(e, e + 1))
    torch.testing.assert_close(found.context.double(), truth, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_a_model_computes_whose_links_are_knocked_out(name, renormalize):
    model, ids = build(name, "eager"), some_ids()
    heads, queries, keys = [0, 2], [1, 5, 10], [0, 1, 4]
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(ids)
    with torch.no_grad(), pellucid.intervene(model) as edit:
        edit.knock_out(0, heads, queries, keys, renormalize=renormalize)
        with pellucid.watch(model, values=True) as knocked_out:
            model(ids)
    links = torch.cartesian_prod(*map(torch.tensor, ([0, 1], heads, queries, keys)))
    found = without(seen.records[0], links, torch.zeros(len(links)).int(), renormalize=renormalize)
    assert len(found) == 2 * len(heads) * len(queries)
    expected = knocked_out.records[0].context[tuple(found.places.T)]
    # Ten roundings of the largest score, of the largest value.
    weights, value = seen.records[0].weights, seen.records[0].value
    atol = (
        10
        * torch.finfo(torch.float32).eps
        * (1 + weights.max_logit().abs().max())
        * value.abs().max()
    )
    torch.testing.assert_close(found.context, expected, atol=atol.item(), rtol=0)
    assert found.change.abs().max() > 1e-3


def test_heads_whose_outputs_were_scaled(tmp_path):
    """What is removed is removed before the scale: the record's contexts are not those."""
    model, ids = build("llama, grouped heads", "sdpa"), some_ids()
    with pellucid.watch(model, values=True) as plain:
        model(ids)
    with pellucid.watch(model, values=True) as seen, pellucid.intervene(model) as edit:
        edit.scale(0, 1, 3)
        output = model(ids)[0]
    links = draw_links(flat(plain.records[0]), 31, seed=3)
    expected = without(plain.records[0], links)
    seen.save(tmp_path / "scaled.safetensors")
    for recording in (seen, pellucid.Recording.load(tmp_path / "scaled.safetensors")):
        found = without(recording.records[0], links)
        torch.testing.assert_close(found.context, expected.context)
    with pytest.raises(ArgumentError, match="were changed by an intervention"):
        gradient_times_weights(seen, output.sum())


def test_a_context_that_is_not_of_the_weights_is_not_used():
    """As with dropout, where no row is proven."""
    case = causal_case()
    proof = Proof(0, BATCH * TOKENS, reason="dropout is random")
    record = replace(record_of(case), contexts=Pieces(torch.ones(1, 1)), proof=proof)
    links = draw_links(flat(record), 31, seed=3)
    found = without(record, links)
    truth = expected(case, found, links, lambda e: slice(e, e + 1))
    assert (found.context.double() - truth).abs().max() <= budget(case)


def test_errors_say_what_was_wanted():
    record = record_of(causal_case())
    with pytest.raises(ArgumentError, match="links must say the item, since the batch has 2"):
        without(record, [[1, 2, 3]])
    with pytest.raises(OutOfRangeError, match=r"link 1 has head 6, .* for size 6"):
        without(record, [[0, 5, 3, 3], [0, 6, 3, 3]])
    with pytest.raises(ShapeError, match=r"links must be .* got shape \(4,\)"):
        without(record, [0, 5, 3, 3])
    with pytest.raises(TypeMismatchError, match="links must be"):
        without(record, [[0.5, 5, 3, 3]])
    with pytest.raises(ShapeError, match="groups must be one number per link"):
        without(record, [[0, 5, 3, 3]], [1, 2])
    with pytest.raises(TypeMismatchError, match="record must be a Record, got int"):
        without(3, [[0, 5, 3, 3]])
    with pytest.raises(ArgumentError, match="recorded without values"):
        without(replace(record, values=None), [[0, 5, 3, 3]])
    assert len(without(record, torch.empty(0, 4, dtype=torch.int64))) == 0
    assert repr(without(record, [[0, 5, 0, 0]])) == "Without(1 rows, 1 of them mixed again)"
    assert len(without(record, torch.empty(0, 4, dtype=torch.int64), [])) == 0
